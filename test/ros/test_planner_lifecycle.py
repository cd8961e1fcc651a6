"""The planner as a lifecycle node: silent unless active, loud when it cannot be configured."""

import math
import signal

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402

from lewm_ros.msg import PlanStatus  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import picture_of, running_planner  # noqa: E402

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
CLEANUP = Transition.TRANSITION_CLEANUP
GOAL = picture_of(0.2, 0.8)


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planner")
    with running_planner(folder, autostart=False) as driver:
        driver.checkpoint = str(folder / "checkpoint")
        driver.streaming = True
        yield driver


@pytest.fixture
def driver(planner):
    """The driver of a planner that is not configured."""
    for state, transition in (("active", DEACTIVATE), ("inactive", CLEANUP)):
        if planner.state() == state:
            assert planner.change_state(transition)
    assert planner.set_parameter("checkpoint", planner.checkpoint) == ""
    assert planner.set_parameter("goal_file", "") == ""
    return planner


def assert_silent(driver) -> None:
    """Two reports without a command between them."""
    commands, reports = len(driver.commands), len(driver.statuses)
    wait_until(lambda: len(driver.statuses) >= reports + 3, 5.0, "reports do not come")
    assert len(driver.commands) == commands


def test_unconfigured_it_is_silent_and_refuses_goals_with_the_reason(driver):
    assert driver.state() == "unconfigured"
    driver.wait_status(PlanStatus.INACTIVE, "not configured")
    assert_silent(driver)
    answer = driver.set_goal(GOAL)
    assert not answer.success and "not active" in answer.message
    assert not driver.send_goal([GOAL]).accepted


def test_configure_fails_loudly_and_can_be_tried_again(driver):
    assert driver.set_parameter("checkpoint", "/no/such/folder") == ""
    assert not driver.change_state(CONFIGURE)
    assert driver.state() == "unconfigured"
    driver.wait_status(PlanStatus.INACTIVE, "/no/such/folder")
    assert "configure failed: /no/such/folder" in driver.process.output()
    assert driver.set_parameter("checkpoint", driver.checkpoint) == ""
    assert driver.change_state(CONFIGURE)
    assert driver.state() == "inactive"
    assert "warm after" in driver.process.output()


def test_a_goal_file_of_another_size_is_refused_with_both_sizes(driver, tmp_path):
    cv2.imwrite(str(tmp_path / "goal.png"), np.zeros((60, 80, 3), np.uint8))
    assert driver.set_parameter("goal_file", str(tmp_path / "goal.png")) == ""
    assert not driver.change_state(CONFIGURE)
    status = driver.wait_status(PlanStatus.INACTIVE, "80x60")
    assert "224x224" in status.reason and "goal.png" in status.reason


def test_it_is_silent_until_active_and_holds_once_more_when_deactivated(driver):
    for _ in range(2):
        assert driver.change_state(CONFIGURE)
        driver.wait_status(PlanStatus.INACTIVE, "configured, not active")
        assert_silent(driver)
        assert driver.change_state(ACTIVATE)
        driver.wait_status(PlanStatus.WAITING, "no goal")
        assert all(seen.holds for seen in driver.wait_commands(3))
        assert driver.set_goal(GOAL, tolerance=1e-9).success
        driver.wait_motion()
        assert driver.change_state(DEACTIVATE)
        driver.wait_status(PlanStatus.INACTIVE, "configured, not active")
        assert driver.commands[-1].holds
        assert_silent(driver)
        assert driver.change_state(CLEANUP)


def test_parameters_change_where_that_is_safe_and_are_refused_by_name_where_not(driver):
    assert driver.change_state(CONFIGURE)
    assert driver.set_parameter("replan_rate", 4.0) == ""
    assert driver.set_parameter("goal_tolerance", 0.5) == ""
    assert "'device'" in driver.set_parameter("device", "cuda")
    assert "'checkpoint'" in driver.set_parameter("checkpoint", "other")
    assert "range" in driver.set_parameter("replan_rate", -1.0)
    assert "'replan_rate' takes double" in driver.set_parameter("replan_rate", "fast")
    assert "did you mean replan_rate?" in driver.set_parameter("replan_rat", 4.0)
    assert "nan" in driver.set_parameter("replan_rate", math.nan)
    # What comes of `ros2 param set /planner replan_rate 5`.
    assert driver.set_parameter("replan_rate", 5) == ""
    assert "autostart" in driver.set_parameter("autostart", True)
    assert "'use_sim_time'" in driver.set_parameter("use_sim_time", True)
    assert driver.set_parameter("goal_tolerance", 0.0) == ""


def test_sigterm_ends_it_cleanly_with_a_last_hold_command(driver):
    assert driver.change_state(CONFIGURE) and driver.change_state(ACTIVATE)
    assert driver.set_goal(GOAL, tolerance=1e-9).success
    driver.wait_motion()
    assert driver.process.stop(timeout_s=20.0, signal_number=signal.SIGTERM) == 0
    wait_until(lambda: driver.commands[-1].holds, 3.0, "the last command is not hold")
    assert "Traceback" not in driver.process.output()
