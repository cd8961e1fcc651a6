"""The benchmark that kills recorders runs as its users run it, and what it promises holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

ROOT = Path(__file__).parents[2]


def test_the_episodes_of_recorders_that_are_killed_are_read_and_compared(tmp_path):
    file, bags = tmp_path / "kills.json", tmp_path / "bags"
    # On a busy machine messages wait for the recorder; how many, the benchmark's users look at.
    command = [sys.executable, str(ROOT / "benchmarks" / "recorder_kill.py"), "--hours", "0.005",
               "--kills", "1", "--seed", "3", "--speed", "10", "--chunks", "3",
               "--json", str(file), "--keep", str(bags)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert result["passed"] and result["kills"] == 1
    assert result["published"] == 3 * 180
    # A chunk is a MiB and the message that made it full.
    assert 1024.0 <= result["largest_chunk_kib"] <= 1024.0 + 148.0
    assert [row["ended_by"] for row in result["episodes"]] == ["SIGKILL", "SIGINT"]
    assert result["found"] == sum(row["found"] for row in result["episodes"])
    assert result["found"] + result["lost"] >= result["acknowledged"]
    names = [row["episode"] for row in result["episodes"]]
    assert names == sorted(path.name for path in bags.iterdir() if path.is_dir())
    whole = [(bags / name / "metadata.yaml").exists() for name in names]
    assert whole == [False, True]
