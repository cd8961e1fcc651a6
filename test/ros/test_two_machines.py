"""Camera and robot on one machine, the planner on another."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

REPOSITORY = Path(__file__).parents[2]
NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def test_it_drives_over_a_cable_and_stops_when_the_cable_is_pulled(tmp_path):
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    probe = "ip link add cable0 type veth peer name cable1 && mount -t tmpfs tmpfs /dev/shm"
    if subprocess.run([*NAMESPACES, "sh", "-c", probe], capture_output=True).returncode:
        pytest.skip("this machine gives its users no network namespaces with veth devices")
    run = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "test.ros.two_machines", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert run.returncode == 0, run.stdout + run.stderr + logs
    print(run.stdout)
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["processes_alive"]
    assert seen["pictures_per_second"] > 5.0, seen
    # Its own timeout (0.3 s), two control periods, and what it coasts.
    assert seen["robot_stood_after_s"] < 1.2, seen
