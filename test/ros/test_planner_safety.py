"""What stops or slows the robot besides a missing picture, and what the camera cannot hide."""

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from std_msgs.msg import Bool, Float64  # noqa: E402

from lewm_ros import qos  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import (  # noqa: E402
    CONTROL_PERIOD_S,
    LIMIT,
    picture_of,
    running_planner,
)

GOAL = picture_of(0.2, 0.8)
STUCK_PLANNER = Path(__file__).parents[2] / "benchmarks" / "support" / "stuck_planner.py"
#: For a busy machine, on top of what the planner is allowed.
SLACK_S = 0.15


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    with running_planner(
        tmp_path_factory.mktemp("planner"), program=[str(STUCK_PLANNER)], deadman_topic="/deadman"
    ) as driver:
        driver.deadman = driver.node.create_publisher(Bool, "/deadman", qos.DEADMAN)
        driver.block = driver.node.create_publisher(Float64, "/planner/block", 1)
        driver.pressed = True
        driver.node.create_timer(0.05, lambda: say(driver))
        yield driver


def say(driver) -> None:
    if driver.pressed is not None:
        driver.deadman.publish(Bool(data=driver.pressed))


@pytest.fixture
def moving(planner):
    """The driver while the robot moves."""
    planner.pressed, planner.picture, planner.noise = True, None, True
    planner.streaming = True
    assert planner.set_parameter("speed_scale", 1.0) == ""
    answer = planner.set_goal(GOAL, tolerance=1e-9)
    assert answer.success, answer.message
    planner.wait_motion()
    planner.wait_status(PlanStatus.PLANNING)
    return planner


def assert_holds(driver, number: int = 3) -> None:
    assert all(seen.holds for seen in driver.wait_commands(number))


def test_a_dead_man_switch_that_is_released_holds_at_once(moving):
    released_s = time.monotonic()
    moving.pressed = False
    moving.wait_status(PlanStatus.WAITING, "dead-man switch: /deadman is released")
    last_s = max(seen.at_s for seen in moving.commands if not seen.holds)
    print(f"from release to hold: {last_s - released_s:.3f} s")
    assert last_s - released_s < CONTROL_PERIOD_S + SLACK_S
    assert_holds(moving)
    moving.pressed = True
    moving.wait_motion()


def test_a_dead_man_switch_that_falls_silent_holds(moving):
    moving.pressed = None
    moving.wait_status(PlanStatus.WAITING, "/deadman is silent for")
    assert_holds(moving)
    moving.pressed = True
    moving.wait_motion()


def test_the_speed_scale_slows_every_command_and_may_change_while_it_moves(moving):
    assert moving.set_parameter("speed_scale", 0.2) == ""
    moving.wait_commands(2)
    slow = np.abs([seen.values for seen in moving.wait_commands(15)])
    assert 0.0 < slow.max() <= 0.2 * LIMIT + 1e-9
    wait_until(lambda: moving.status.speed_scale == np.float32(0.2), 5.0, "the status is silent")
    assert moving.set_parameter("speed_scale", 0.0) == ""
    moving.wait_commands(2)
    assert_holds(moving)
    assert "speed_scale" in moving.set_parameter("speed_scale", 1.5)


def test_pictures_that_stay_the_same_while_it_moves_hold_until_one_is_new(moving):
    moving.noise, moving.picture = False, picture_of(0.5, 0.5)
    status = moving.wait_status(PlanStatus.WAITING, "has not changed for")
    assert status.holding and "frozen" in status.reason
    assert_holds(moving)
    moving.noise = True
    moving.wait_motion()
    moving.noise = False
    moving.wait_status(PlanStatus.WAITING, "has not changed for")
    assert moving.set_goal(GOAL, tolerance=1e-9).success
    moving.wait_motion()


@pytest.mark.parametrize(("value", "words"), [(0, "black"), (200, "one colour")])
def test_pictures_that_show_nothing_hold(moving, value, words):
    moving.picture = np.full((224, 224, 3), value, np.uint8)
    moving.wait_status(PlanStatus.WAITING, words)
    assert_holds(moving)
    moving.picture = None
    moving.wait_motion()
    answer = moving.set_goal(np.full((224, 224, 3), value, np.uint8))
    assert not answer.success and words in answer.message


def test_callbacks_that_hang_cannot_keep_the_robot_moving(moving):
    holds = moving.status.watchdog_holds
    start, began_s = len(moving.commands), time.monotonic()
    moving.block.publish(Float64(data=1.5))
    status = moving.wait_status(PlanStatus.FAILED, "the watchdog holds")
    assert status.holding and status.watchdog_holds > holds
    wait_until(lambda: any(seen.holds for seen in moving.commands[start:]), 5.0, "no hold")
    hold = next(seen for seen in moving.commands[start:] if seen.holds)
    print(f"from the hang to hold: {hold.at_s - began_s:.3f} s")
    assert hold.at_s - began_s < 0.5 + 2 * CONTROL_PERIOD_S + SLACK_S
    held = [seen for seen in moving.commands[start:] if seen.at_s < began_s + 1.3]
    moved = [seen.at_s - began_s for seen in held if not seen.holds]
    assert not moved or max(moved) < CONTROL_PERIOD_S + SLACK_S
    moving.wait_motion()
    moving.wait_status(PlanStatus.PLANNING)


def test_a_robot_whose_qos_does_not_fit_is_named_with_both_sides(moving):
    commands = moving.node.get_publishers_info_by_topic("/command")[0]
    assert commands.topic_type == "geometry_msgs/msg/TwistStamped"
    assert commands.qos_profile.lifespan.nanoseconds == 300_000_000, "the contract's timeout"
    moving.listen_to_commands(False)
    wanted = QoSProfile(
        depth=1, durability=qos.STATUS.durability, reliability=qos.STATUS.reliability
    )
    other = moving.node.create_subscription(TwistStamped, "/command", print, wanted)
    status = moving.wait_status(PlanStatus.WAITING, "the QoS does not fit")
    assert "/driver asks for reliable, transient local" in status.reason
    assert "this node offers reliable, volatile" in status.reason
    wait_until(
        lambda: "holding: the QoS does not fit" in moving.process.output(), 5.0, "not in the log"
    )
    moving.node.destroy_subscription(other)
    moving.listen_to_commands(True)
    moving.wait_motion()


def test_a_second_driver_is_named_and_does_not_stop_the_robot(moving):
    diagnostics = []
    listener = moving.node.create_subscription(
        DiagnosticArray, "/diagnostics", diagnostics.append, qos.DIAGNOSTICS
    )
    assert moving.status.other_drivers == ""
    other = moving.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
    try:
        # Its name is heard of a little after itself.
        wait_until(lambda: moving.status.other_drivers == "/driver", 10.0, "it is not named")
        told = "/driver also publishes /command: two drivers of one robot"
        wait_until(lambda: told in moving.process.output(), 5.0, "not in the log")
        moving.wait_status(PlanStatus.PLANNING)
        moving.wait_motion()
        start = len(diagnostics)
        wait_until(lambda: len(diagnostics) >= start + 2, 10.0, "no diagnostics")
        newest = diagnostics[-1].status[0]
        assert newest.level == DiagnosticStatus.WARN
        assert newest.message.endswith("/driver also publishes the command topic")
    finally:
        moving.node.destroy_publisher(other)
        moving.node.destroy_subscription(listener)
    wait_until(lambda: moving.status.other_drivers == "", 10.0, "it is still named")


def test_a_dry_run_reports_everything_and_commands_nothing(tmp_path):
    with running_planner(tmp_path, dry_run=True) as driver:
        driver.listen_to_commands(False)
        driver.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
        driver.streaming = True
        assert driver.set_goal(GOAL, tolerance=1e-9).success
        status = driver.wait_status(PlanStatus.PLANNING)
        assert status.dry_run and not status.holding
        wait_until(lambda: driver.status.plans >= 3, 20.0, "no plans")
        assert driver.status.commands == 0 and not driver.commands
        assert driver.status.other_drivers == "", "others may drive in a dry run"
        assert "while the planner is active" in driver.set_parameter("dry_run", False)
