"""Whatever is wrong with camera, robot or model, the planner holds and says why."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402

from lewm_ros.msg import PlanStatus  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import (  # noqa: E402
    CAMERA_TIMEOUT_S,
    CONTROL_PERIOD_S,
    LIMIT,
    make_checkpoint,
    picture_of,
    running_planner,
)

GOAL = picture_of(0.2, 0.8)
#: For a busy machine, on top of what the planner is allowed.
SLACK_S = 0.1


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with running_planner(tmp_path_factory.mktemp("planner")) as driver:
        yield driver


@pytest.fixture
def moving(driver):
    """The driver while the robot moves; everything as it should be."""
    driver.encoding, driver.stamp_offset_s, driver.picture = "", 0.0, None
    driver.listen_to_commands(True)
    driver.streaming = True
    answer = driver.set_goal(GOAL, tolerance=1e-9)
    assert answer.success, answer.message
    driver.wait_motion()
    driver.wait_status(PlanStatus.PLANNING)
    yield driver
    driver.encoding, driver.stamp_offset_s, driver.picture = "", 0.0, None
    driver.listen_to_commands(True)


def assert_holds(driver, number: int = 3) -> None:
    assert all(seen.holds for seen in driver.wait_commands(number))


def test_without_a_camera_it_holds_and_names_the_topic(driver):
    driver.streaming = False
    assert driver.set_goal(GOAL).success
    status = driver.wait_status(PlanStatus.WAITING, "no picture on /camera/image_raw")
    assert status.holding
    assert_holds(driver)


def test_commands_stay_inside_the_limits_and_come_at_the_control_rate(moving):
    seen = moving.wait_commands(20)
    assert all(abs(value) <= LIMIT for command in seen for value in command.values)
    assert any(not command.holds for command in seen)
    gaps = np.diff([command.stamp_ns for command in seen]) * 1e-9
    assert abs(np.median(gaps) - CONTROL_PERIOD_S) < 0.01
    status = moving.wait_status(PlanStatus.PLANNING)
    assert not status.holding and status.reason == "" and status.plans > 0
    assert 0.0 <= status.image_to_command < 2.0


def test_a_camera_that_stops_ends_in_hold_within_its_timeout_and_one_period(moving):
    delays_s = []
    for _ in range(3):
        moving.wait_motion()
        moving.wait_status(PlanStatus.PLANNING)
        moving.streaming = False
        moving.wait_status(PlanStatus.WAITING, "s old")
        moving.wait_commands(1)
        last_moving = max(seen.stamp_ns for seen in moving.commands if not seen.holds)
        hold = next(seen for seen in moving.commands if seen.stamp_ns > last_moving)
        delays_s.append((hold.stamp_ns - moving.last_picture_ns) * 1e-9)
        moving.streaming = True
    print("from the last picture to hold:", [f"{delay:.3f} s" for delay in delays_s])
    assert max(delays_s) <= CAMERA_TIMEOUT_S + CONTROL_PERIOD_S + SLACK_S


@pytest.mark.parametrize(
    ("offset_s", "words"), [(-2.0, "s old on arrival"), (2.0, "s in the future")]
)
def test_stamps_that_are_not_of_this_moment_hold(moving, offset_s, words):
    moving.stamp_offset_s = offset_s
    status = moving.wait_status(PlanStatus.WAITING, words)
    assert status.holding
    assert_holds(moving)
    moving.stamp_offset_s = 0.0
    moving.wait_motion()


def test_an_unknown_encoding_holds_and_is_named(moving):
    moving.encoding = "yuv9"
    status = moving.wait_status(PlanStatus.WAITING, "yuv9")
    assert status.holding
    assert_holds(moving)
    moving.encoding = ""
    moving.wait_motion()


def test_a_picture_of_another_size_holds_and_both_sizes_are_named(moving):
    moving.picture = picture_of(0.5, 0.5)[:120, :160]
    status = moving.wait_status(PlanStatus.WAITING, "160x120")
    assert "224x224" in status.reason
    assert_holds(moving)
    moving.picture = None
    moving.wait_motion()


def test_a_frozen_camera_holds(moving):
    frozen_ns = time.time_ns()
    moving.now_ns = lambda: frozen_ns
    moving.wait_status(PlanStatus.WAITING, "s old")
    assert_holds(moving)
    moving.now_ns = time.time_ns
    moving.wait_motion()


def test_a_command_topic_without_a_listener_is_named(moving):
    moving.listen_to_commands(False)
    status = moving.wait_status(PlanStatus.WAITING, "nobody listens on /command")
    assert status.holding
    moving.listen_to_commands(True)
    moving.wait_motion()


def test_a_model_that_predicts_nan_holds_and_keeps_trying(moving, tmp_path):
    broken = make_checkpoint(tmp_path / "broken", broken=True)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert moving.change_state(transition)
    assert moving.set_parameter("checkpoint", str(broken)) == ""
    assert moving.set_parameter("replan_rate", 5.0) == ""
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert moving.change_state(transition)
    assert moving.set_goal(GOAL).success
    status = moving.wait_status(PlanStatus.FAILED, "finite")
    assert status.holding and status.plans == 0
    assert_holds(moving, 10)
    wait_until(
        lambda: moving.process.output().count("planning failed") >= 1, 5.0, "the log is silent"
    )
    assert moving.set_parameter("failure_timeout", 1.0) == ""
    moving.wait_status(PlanStatus.WAITING, "no goal: no plan for 1 s: ")
    assert moving.process.running()
