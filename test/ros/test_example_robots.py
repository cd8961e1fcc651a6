"""The example contracts, driven: robot and planner as processes, real messages between them.

The checkpoints are untrained: what is tested is that the robot can execute what the planner
publishes, inside the limits, and that it stands still on hold, and when the planner is gone.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from lewm_core.data import Contract, load_contract  # noqa: E402
from lewm_core.data.fields import FieldSelector  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_image, stamp_to_ns  # noqa: E402
from lewm_ros.command_messages import CommandWriter, message_class  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.srv import SetGoal  # noqa: E402
from test.ros.conftest import Graph, _free_domain  # noqa: E402
from test.ros.planner_driver import QUICK_PLANNER, make_checkpoint  # noqa: E402

NAMES = ("base_velocity", "arm_trajectory", "cartesian_servo")
#: What the robots' own timeouts and brakes take, and a busy machine.
STOPS_WITHIN_S = 3.0


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """All three robots with their planners, started at once: importing PyTorch takes longest."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    folder = tmp_path_factory.mktemp("robots")
    domain, lock = _free_domain()
    graph, robots = Graph(domain, folder), []
    try:
        (folder / "quick.yaml").write_text(QUICK_PLANNER)
        for name in NAMES:
            robots.append(_start_robot(graph, name))
        yield {
            name: _start_planner(graph, name, robot)
            for name, robot in zip(NAMES, robots, strict=True)
        }
    finally:
        try:
            graph.close()
        finally:
            for robot in robots:
                robot.terminate()
            for robot in robots:
                _end(robot)
            lock.close()
            patch.undo()


def _end(robot):
    """Wait for a robot's end; Fast DDS may spin for ever while it deletes its participant."""
    try:
        robot.wait(5.0)
    except subprocess.TimeoutExpired:
        robot.kill()
        robot.wait(5.0)


def _start_robot(graph, name):
    return subprocess.Popen(
        [sys.executable, "-m", "test.ros.example_robot", name], env=graph.environment
    )


def _start_planner(graph, name, robot):
    contract = load_contract(name)
    checkpoint = make_checkpoint(graph.folder / name, contract=contract)
    node = f"{name}_planner"
    parameters = {
        "checkpoint": checkpoint, "planner": graph.folder / "quick.yaml", "threads": 1,
        "autostart": True,
    }  # fmt: skip
    process = graph.start("planner", parameters, ready="", remappings={"__node": node})
    reports = graph.collect(String, f"/{name}/report", 10)
    return SimpleNamespace(
        contract=contract, node=node, process=process, robot=robot, graph=graph,
        reports=reports,
        report=lambda: json.loads(reports[-1].data) if reports else {"accepted": 0},
        commands=graph.collect(
            message_class(contract.action.message), contract.action.topic, qos.COMMAND
        ),
        statuses=graph.collect(PlanStatus, f"/{node}/status", qos.STATUS),
    )  # fmt: skip


@pytest.fixture(params=NAMES)
def bench(benches, request):
    return benches[request.param]


def set_goal(bench):
    """Ask for a picture that the robot cannot reach, so that it goes on moving."""
    width, height = bench.contract.camera.size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2] = 255
    request = SetGoal.Request(image=encode_image(picture), tolerance=1e-9)
    answer = bench.graph.call(SetGoal, f"/{bench.node}/set_goal", request, timeout_s=40.0)
    assert answer.success, answer.message


def wait_moved(bench, distance=0.01):
    """Wait until the robot is somewhere else."""
    bench.graph.wait(lambda: bench.report()["accepted"] > 0, "the robot gets no command", 60.0)
    start = np.array(bench.report()["position"])
    bench.graph.wait(
        lambda: np.abs(np.array(bench.report()["position"]) - start).max() > distance,
        f"{bench.contract.name} does not move: {bench.statuses[-1:]}", 40.0,
    )  # fmt: skip


def wait_unheard(bench, reports=10):
    """Wait until no command has reached the robot for some reports."""

    def unheard():
        newest = [json.loads(message.data)["accepted"] for message in bench.reports[-reports:]]
        return len(bench.reports) - start >= reports and len(set(newest)) == 1

    start = len(bench.reports)
    bench.graph.wait(unheard, "commands go on")


def wait_standing(bench):
    """Wait until the robot stands; returns what it reports then."""
    bench.graph.wait(
        lambda: not np.any(np.array(bench.report()["velocity"])), "it does not stop",
        STOPS_WITHIN_S,
    )  # fmt: skip
    return bench.report()


def values_of(bench, messages):
    """Return the action vectors ``(N, A)`` in messages."""
    selectors = [FieldSelector.parse(field.selector) for field in bench.contract.action.fields]
    return np.array([[selector.get(message) for selector in selectors] for message in messages])


def test_the_robot_executes_what_the_planner_publishes(bench):
    set_goal(bench)
    wait_moved(bench)
    del bench.commands[:]
    bench.graph.wait(lambda: len(bench.commands) >= 40, "commands do not arrive")
    report, commands = bench.report(), bench.commands[:40]
    assert report["refused"] == []
    # A process that was kept waiting publishes late, and that is the controller's to refuse.
    assert report["late"] <= 0.1 * report["accepted"], report
    lower, upper, rate, _ = bench.contract.action_limits()
    values = values_of(bench, commands)
    assert np.all(values >= lower) and np.all(values <= upper)
    assert np.any(values != 0.0)
    stamps_s = np.array([stamp_to_ns(message.header.stamp) for message in commands]) * 1e-9
    assert np.median(np.diff(stamps_s)) == pytest.approx(bench.contract.control_period, rel=0.1)
    moving = np.all(values[1:] != 0.0, axis=1)
    steps = np.abs(np.diff(values, axis=0))[moving]
    assert np.all(steps <= rate * bench.contract.control_period + 1e-9)
    assert {message.header.frame_id for message in commands} == {"base_link"}
    if bench.contract.name == "arm_trajectory":
        assert commands[0].joint_names == bench.contract.action_names
        lasts = {stamp_to_ns(message.points[0].time_from_start) for message in commands}
        assert lasts <= {50_000_000, 75_000_000} and 75_000_000 in lasts


def test_on_hold_it_stands_still(bench):
    set_goal(bench)
    wait_moved(bench, 0.002)
    assert bench.graph.call(Trigger, f"/{bench.node}/stop", Trigger.Request()).success
    # An arm whose next command is late stands for a moment, too: not before it has taken a hold.
    number = bench.report()["accepted"]
    bench.graph.wait(lambda: bench.report()["accepted"] >= number + 3, "no hold command comes")
    before = wait_standing(bench)
    bench.graph.wait(
        lambda: bench.report()["accepted"] >= before["accepted"] + 10, "no hold command comes"
    )
    after = bench.report()
    assert after["position"] == before["position"] and after["refused"] == []
    assert not np.any(values_of(bench, bench.commands[-5:]))
    assert bench.graph.call(Trigger, f"/{bench.node}/resume", Trigger.Request()).success


def test_it_stops_by_its_own_timeout_when_the_planner_is_killed(bench):
    set_goal(bench)
    wait_moved(bench)
    bench.graph.kill(bench.process)
    wait_unheard(bench)
    before = wait_standing(bench)
    number = len(bench.reports)
    bench.graph.wait(lambda: len(bench.reports) >= number + 10, "the robot is silent")
    assert bench.report()["position"] == before["position"], "it goes on without a planner"
    assert bench.report()["accepted"] == before["accepted"]


def test_a_base_that_takes_a_twist_without_a_stamp(tmp_path):
    values = load_contract("base_velocity").to_dict()
    values["action"] |= {"message": "geometry_msgs/msg/Twist", "clock": "receive"}
    for field, selector in zip(
        values["action"]["fields"], ("linear.x", "angular.z"), strict=True
    ):
        field["selector"] = selector
    message = CommandWriter(Contract.from_dict(values)).write(np.array([0.1, -0.3]), 1)
    assert type(message).__name__ == "Twist"
    assert (message.linear.x, message.angular.z) == (0.1, -0.3)
