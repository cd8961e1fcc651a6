"""The latency benchmark runs as its users run it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("lewm_ros.msg", reason="the interfaces are not built")

from test.helpers import wait_until  # noqa: E402

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "latency.py"
TIMEOUT_S = 120.0


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def nodes_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the processes that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in children.read_text().split()]


def test_a_short_run_measures_everything(tmp_path):
    file = tmp_path / "latency.json"
    program = start(
        "--seconds", 4, "--warm-up", 1, "--goal-seconds", 2, "--rates", 10,
        # Slow machines run this, too: plans that fit into a period are not what is tested.
        "--planner", "fast", "--replan-rate", 5, "--threads", 1, "--json", file,
    )  # fmt: skip
    output, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, output
    assert "verdict after 4 s" in output
    result = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert result["rates"] == [10.0] and result["planner_preset"] == "fast"
    measured = {
        key.removeprefix("camera_10hz_"): value
        for key, value in result.items() if key.startswith("camera_10hz_")
    }  # fmt: skip
    assert measured["plans"] >= 4
    assert 0.0 < measured["image_to_plan_ms_p50"] < measured["image_to_command_ms_p50"]
    for name in ("image_to_command", "image_to_plan", "command_transport", "plan_time"):
        p50, p95, p99, most = (measured[f"{name}_ms_{key}"] for key in ("p50", "p95", "p99", "max"))
        assert 0.0 < p50 <= p95 <= p99 <= most, name
    assert measured["replan_rate_achieved"] == pytest.approx(5.0, rel=0.5)
    assert measured["images_per_second"] == pytest.approx(10.0, rel=0.3)
    assert measured["commands_per_second"] == pytest.approx(10.0, rel=0.3)
    assert sum(measured["held_because"].values()) == measured["commands_held"]
    assert measured["memory_ratio"] == pytest.approx(1.0, abs=0.2)
    assert 0.0 < measured["planner_processor_cores"] < 16.0


def test_it_takes_its_nodes_with_it_when_it_is_interrupted():
    program = start("--seconds", 60, "--rates", 10)
    try:
        wait_until(lambda: len(nodes_of(program)) == 2, 60.0, "it does not start its nodes")
        nodes = nodes_of(program)
        time.sleep(1.0)
        program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=30.0)
    finally:
        program.kill()
    assert program.returncode == 130 and "Traceback" not in output, output
    assert not [node for node in nodes if Path(f"/proc/{node}").exists()]


def test_a_wrong_option_is_one_line():
    program = start("--rates", "10,fast")
    output, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 1
    assert len(output.strip().splitlines()) == 1 and "--rates 10,fast" in output
