"""A robot and a planner's box: two network namespaces of this machine, a cable between them.

    unshare --user --map-root-user --net --mount python -m test.ros.two_machines FOLDER

This process is on the robot, with scene (camera and robot) and an operator; the planner is on the
box. They share no memory, only the cable. Prints one line of JSON: what came, and what happened
while the cable was out.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from test.helpers import wait_until

ROBOT, BOX = "10.77.0.1", "10.77.0.2"
_OUT_S = 2.0


def main() -> int:
    folder = Path(sys.argv[1])
    run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    with a_box() as box:
        os.environ.update(
            ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET", ROS_DOMAIN_ID="42", PYTHONUNBUFFERED="1",
            OMP_NUM_THREADS="1",
        )  # fmt: skip
        print(json.dumps(drive(folder, box)))
    return 0


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextlib.contextmanager
def a_box() -> Iterator[list[str]]:
    """Make the other machine and plug it in; yields what runs a command there."""
    asleep = "mount -t tmpfs tmpfs /dev/shm && echo ready && exec sleep infinity"
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", asleep], stdout=subprocess.PIPE, text=True
    ) as machine:
        try:
            assert machine.stdout.readline() == "ready\n"
            pid = str(machine.pid)
            inside = ["nsenter", "--target", pid, "--net", "--mount"]
            run("ip", "link", "add", "robot", "type", "veth", "peer", "name", "box", "netns", pid)
            ends = (([], ROBOT, "robot"), (inside, BOX, "box"))
            for there, address, cable in ends:
                run(*there, "ip", "address", "add", f"{address}/24", "dev", cable)
                run(*there, "ip", "link", "set", cable, "up", "multicast", "on")
                run(*there, "ip", "link", "set", "lo", "up")
            # What joins the graph before the kernel has seen the carrier does not take the cable.
            for there, _, cable in ends:
                show = [*there, "ip", "link", "show", cable]
                wait_until(
                    lambda show=show: "state UP" in subprocess.check_output(show, text=True),
                    10.0, "the cable has no carrier",
                )  # fmt: skip
            yield inside
        finally:
            machine.kill()


def drive(folder: Path, box: list[str]) -> dict[str, object]:
    """Drive over the cable, pull it, plug it in again."""
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState

    from lewm_ros import qos
    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.processes import NodeProcess
    from test.ros.planner_driver import QUICK_PLANNER, Driver, make_checkpoint, picture_of

    (folder / "quick.yaml").write_text(QUICK_PLANNER)
    planner_parameters = {
        "checkpoint": make_checkpoint(folder / "checkpoint"), "planner": folder / "quick.yaml",
        "autostart": True, "threads": 1,
    }  # fmt: skip
    scene = NodeProcess(
        "scene", {"publish_clock": False, "seed": 3}, os.environ, folder / "scene.log"
    )
    planner = NodeProcess(
        "planner", planner_parameters, os.environ, folder / "planner.log", prefix=box
    )
    driver = Driver(42, discovery="SUBNET")
    positions: list[tuple[float, tuple[float, float]]] = []
    driver.node.create_subscription(
        JointState, "/scene/state",
        lambda state: positions.append((time.monotonic(), tuple(state.position[:2]))), qos.STATE,
    )  # fmt: skip
    ways: list[float] = []
    driver.node.create_subscription(
        TwistStamped, "/command",
        lambda command: ways.append((time.time_ns() - stamp_to_ns(command.header.stamp)) * 1e-6),
        qos.COMMAND,
    )  # fmt: skip
    try:
        with scene, planner:
            driver.wait_status(1, timeout_s=90.0)
            answer = driver.set_goal(picture_of(0.2, 0.8), tolerance=1e-9)
            assert answer.success, answer.message
            driver.wait_motion()
            pictures, began_s = driver.status.images, time.monotonic()
            time.sleep(2.0)
            rate = (driver.status.images - pictures) / (time.monotonic() - began_s)
            run("ip", "link", "set", "robot", "down")
            out_s = time.monotonic()
            time.sleep(_OUT_S)
            moved = [
                after_s - out_s
                for (_, before), (after_s, after) in itertools.pairwise(positions)
                if after_s > out_s and math.dist(before, after) > 2e-4
            ]
            run("ip", "link", "set", "robot", "up")
            plugged_s = time.monotonic()
            driver.wait_motion(60.0)
            return {
                "pictures_per_second": round(rate, 2),
                "command_way_ms_median": round(sorted(ways)[len(ways) // 2], 2),
                "robot_stood_after_s": round(max(moved, default=0.0), 2),
                "recovered_after_s": round(time.monotonic() - plugged_s, 2),
                "processes_alive": scene.running() and planner.running(),
            }
    finally:
        driver.close()


if __name__ == "__main__":
    sys.exit(main())
