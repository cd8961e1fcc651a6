"""Goals by action and by service: reached, timed out, cancelled, pre-empted, stopped, refused."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_srvs.srv import Trigger  # noqa: E402

from lewm_ros.action import ReachGoal  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.srv import SetGoal  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import picture_of, running_planner  # noqa: E402

HERE, THERE = picture_of(0.5, 0.5), picture_of(0.2, 0.8)
#: No untrained model gets this near to THERE while the camera shows something else.
NEVER = 1e-9
Result = ReachGoal.Result


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    with running_planner(tmp_path_factory.mktemp("planner")) as driver:
        driver.streaming = True
        yield driver


@pytest.fixture
def driver(planner):
    planner.picture = None
    planner.call(planner.resume_client, Trigger.Request())
    yield planner
    planner.call(planner.stop_client, Trigger.Request())
    planner.call(planner.resume_client, Trigger.Request())


def test_a_goal_that_the_camera_shows_is_reached_and_then_it_holds(driver):
    driver.picture = HERE
    result = driver.result_of(driver.send_goal([HERE]))
    assert result.reason == Result.REACHED and result.goals_reached == 1
    assert result.final_distance == pytest.approx(0.0, abs=1e-3)
    status = driver.wait_status(PlanStatus.REACHED, "goal reached")
    assert status.holding
    assert all(seen.holds for seen in driver.wait_commands(5))


def test_a_list_of_goals_is_pursued_in_order_with_feedback(driver):
    heard = []
    driver.picture = HERE
    handle = driver.send_goal([HERE, THERE], tolerance=0.01, feedback=heard.append)
    driver.wait_status(PlanStatus.PLANNING)
    wait_until(
        lambda: any(message.feedback.goal_index == 1 for message in heard), 10.0,
        "the second goal is not taken up",
    )
    start = len(heard)
    wait_until(lambda: len(heard) >= start + 6, 3.0, "feedback comes at less than 2 Hz")
    assert heard[-1].feedback.distance > 0.01
    driver.picture = THERE
    result = driver.result_of(handle)
    assert result.reason == Result.REACHED and result.goals_reached == 2


def test_a_goal_times_out_in_ros_time(driver):
    result = driver.result_of(driver.send_goal([THERE], timeout_s=1, tolerance=NEVER))
    assert result.reason == Result.TIMEOUT and "1 s" in result.message
    assert result.goals_reached == 0 and np.isfinite(result.final_distance)
    driver.wait_status(PlanStatus.WAITING, "no goal")
    assert all(seen.holds for seen in driver.wait_commands(3))


def test_a_goal_can_be_cancelled_and_the_robot_holds(driver):
    handle = driver.send_goal([THERE], tolerance=NEVER)
    driver.wait_motion()
    future = handle.cancel_goal_async()
    wait_until(future.done, 10.0, "the cancellation was not answered")
    assert len(future.result().goals_canceling) == 1
    assert driver.result_of(handle).reason == Result.CANCELLED
    driver.wait_status(PlanStatus.WAITING, "cancelled")
    assert all(seen.holds for seen in driver.wait_commands(3))


def test_a_newer_goal_takes_the_place_of_the_older(driver):
    first = driver.send_goal([THERE], tolerance=NEVER)
    driver.wait_motion()
    second = driver.send_goal([HERE], tolerance=NEVER)
    assert driver.result_of(first).reason == Result.PREEMPTED
    driver.wait_motion()
    assert driver.set_goal(THERE, tolerance=NEVER).success
    assert driver.result_of(second).reason == Result.PREEMPTED
    driver.wait_motion()
    wait_until(lambda: driver.status.goal == "service", 5.0, "the status has another goal")


def test_stop_holds_at_once_and_latches_until_resume_and_a_new_goal(driver):
    handle = driver.send_goal([THERE], tolerance=NEVER)
    driver.wait_motion()
    assert driver.call(driver.stop_client, Trigger.Request()).success
    start = len(driver.commands)
    assert driver.result_of(handle).reason == Result.STOPPED
    status = driver.wait_status(PlanStatus.STOPPED, "~/stop")
    assert status.holding
    refused = driver.set_goal(THERE)
    assert not refused.success and "resume" in refused.message
    late = driver.result_of(driver.send_goal([THERE]))
    assert late.reason == Result.STOPPED and "resume" in late.message
    driver.wait_commands(5)
    assert all(seen.holds for seen in driver.commands[start + 1 :])
    assert driver.call(driver.resume_client, Trigger.Request()).success
    driver.wait_status(PlanStatus.WAITING, "no goal")
    assert all(seen.holds for seen in driver.wait_commands(5)), "resume alone moved the robot"
    assert driver.set_goal(THERE, tolerance=NEVER).success
    driver.wait_motion()


def test_a_goal_of_another_size_is_refused_with_both_sizes_and_the_old_one_goes_on(driver):
    running = driver.send_goal([THERE], tolerance=NEVER)
    driver.wait_motion()
    small = np.zeros((60, 80, 3), np.uint8)
    result = driver.result_of(driver.send_goal([THERE, small]))
    assert result.reason == Result.INVALID_GOAL
    assert "80x60" in result.message and "224x224" in result.message
    answer = driver.set_goal(small)
    assert not answer.success and "80x60" in answer.message and "224x224" in answer.message
    driver.wait_motion()
    assert driver.status.state == PlanStatus.PLANNING
    running.cancel_goal_async()
    assert driver.result_of(running).reason == Result.CANCELLED


def test_a_goal_from_a_file_and_what_is_wrong_with_others(driver, tmp_path):
    cv2.imwrite(str(tmp_path / "goal.png"), THERE)
    (tmp_path / "text.png").write_text("no picture")
    assert driver.set_goal(path=str(tmp_path / "goal.png"), tolerance=NEVER).success
    driver.wait_motion()
    none = "not a file"
    refusals = (("text.png", "neither JPEG nor PNG"), ("none.png", none), ("", none))
    for path, words in refusals:
        answer = driver.set_goal(path=str(tmp_path / path))
        assert not answer.success and words in answer.message and path in answer.message
    empty = driver.call(driver.set_goal_client, SetGoal.Request())
    assert not empty.success and "neither image nor path" in empty.message
    both = driver.set_goal(THERE, path="x.png")
    assert not both.success and "give one" in both.message
    wrong = driver.set_goal(THERE, tolerance=-1.0)
    assert not wrong.success and "tolerance" in wrong.message
    no_goals = driver.result_of(driver.send_goal([]))
    assert no_goals.reason == Result.INVALID_GOAL and "empty" in no_goals.message
