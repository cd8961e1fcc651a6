"""Camera and robot on one machine, the planner on another; what a cut network brings late."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

REPOSITORY = Path(__file__).parents[2]
NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def in_namespaces(module, *arguments):
    """Run a module of the tests in two network namespaces; returns what it prints."""
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        pytest.skip("needs unshare (util-linux), ip and tc (iproute2)")
    probe = "ip link add cable0 type veth peer name cable1 && mount -t tmpfs tmpfs /dev/shm"
    if subprocess.run([*NAMESPACES, "sh", "-c", probe], capture_output=True).returncode:
        pytest.skip("this machine gives its users no network namespaces with veth devices")
    return subprocess.run(
        [*NAMESPACES, sys.executable, "-m", f"test.ros.{module}", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_it_drives_over_a_cable_and_stops_when_the_cable_is_pulled(tmp_path):
    run = in_namespaces("two_machines", str(tmp_path))
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert run.returncode == 0, run.stdout + run.stderr + logs
    print(run.stdout)
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["processes_alive"]
    assert seen["pictures_per_second"] > 5.0, seen
    # Its own timeout (0.3 s), two control periods, and what it coasts.
    assert seen["robot_stood_after_s"] < 1.2, seen


def test_commands_that_are_too_old_are_not_delivered_after_a_cut():
    run = in_namespaces("late_commands", "--cuts", "1", "--kinds", "silent")
    assert run.returncode == 0, run.stdout + run.stderr
    print(run.stdout)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    late = {line["lifespan"]: line["late_per_cut"] for line in lines if "cut" in line}
    assert late["without"] >= 10, "the cut cuts nothing"
    assert late["with"] == 0, late
    assert [line["lost"] for line in lines if "busy_s" in line] == [0, 0]
