"""Which goal is pursued, when it counts as reached, and how a request ends."""

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lewm_ros.action import ReachGoal  # noqa: E402
from lewm_ros.planner.mission import Ending, Goal, GoalRequest, Mission, Patience  # noqa: E402

SECOND_NS = 1_000_000_000
THREE = Patience(3)
PICTURE = np.zeros((3, 8, 8), np.uint8)


def request_of(number: int, outcomes: list, timeout_s: float = 0.0) -> GoalRequest:
    return GoalRequest([Goal(PICTURE, 1.0, timeout_s)] * number, "action", outcomes.append)


def test_endings_are_those_of_the_action():
    for ending in Ending:
        assert getattr(ReachGoal.Result, ending.name) == ending


def test_a_goal_is_reached_after_enough_pictures_in_a_row():
    mission = Mission()
    mission.begin(request_of(1, []), 0)
    assert not mission.saw(1, 0.1, True, THREE)
    assert not mission.saw(2, 0.1, True, THREE)
    assert not mission.saw(3, 9.0, False, THREE)
    assert not mission.saw(4, 0.1, True, THREE)
    assert not mission.saw(5, 0.1, True, THREE)
    assert not mission.saw(5, 0.1, True, THREE), "the same picture counts once"
    assert mission.saw(6, 0.1, True, THREE)


def test_goals_of_a_list_follow_each_other_with_a_serial_of_their_own():
    outcomes = []
    mission = Mission()
    mission.begin(request_of(2, outcomes), 0)
    first = mission.serial
    assert mission.request.label == "action 1/2"
    assert mission.arrive(5) and mission.serial > first
    assert mission.request.label == "action 2/2" and mission.request.started_ns == 5
    mission.saw(6, 0.25, True, Patience(1))
    assert not mission.arrive(6) and mission.reached and mission.request is None
    assert [(o.ending, o.goals_reached, o.final_distance) for o in outcomes] == [
        (Ending.REACHED, 2, 0.25)
    ]


def test_a_newer_request_pre_empts_and_nothing_is_answered_twice():
    outcomes = []
    mission = Mission()
    mission.begin(request_of(1, outcomes), 0)
    mission.begin(request_of(1, outcomes), 0)
    mission.end(Ending.STOPPED, "stop")
    mission.end(Ending.CANCELLED, "too late")
    assert [outcome.ending for outcome in outcomes] == [Ending.PREEMPTED, Ending.STOPPED]
    assert not mission.reached and mission.ended_because == "stop"
    assert math.isnan(outcomes[0].final_distance)


def test_time_counts_for_each_goal_of_a_list():
    request = request_of(2, [], timeout_s=2.0)
    mission = Mission()
    mission.begin(request, 10 * SECOND_NS)
    assert not request.timed_out(11 * SECOND_NS) and request.timed_out(12 * SECOND_NS)
    mission.arrive(12 * SECOND_NS)
    assert not request.timed_out(13 * SECOND_NS) and request.timed_out(14 * SECOND_NS)
    assert request.elapsed_s(0) == 0.0, "a clock that went back gives no negative time"


def test_a_goal_taken_up_before_the_first_clock_has_its_whole_time():
    request = request_of(1, [], timeout_s=2.0)
    mission = Mission()
    mission.begin(request, 0)  # ROS time is 0 until /clock is heard
    request.hear_clock(100 * SECOND_NS)
    request.hear_clock(101 * SECOND_NS)
    assert not request.timed_out(101 * SECOND_NS) and request.timed_out(102 * SECOND_NS)


def test_pictures_within_the_tolerance_must_cover_some_time():
    mission = Mission()
    mission.begin(request_of(1, []), 0)
    patience = Patience(pictures=2, within_s=0.2)
    seen = [mission.saw(round(s * SECOND_NS), 0.1, True, patience) for s in (1.0, 1.1, 1.19)]
    assert seen == [False, False, False]
    assert mission.saw(round(1.2 * SECOND_NS), 0.1, True, patience)


def test_without_progress_a_goal_is_given_up_but_not_while_something_else_is_in_the_way():
    mission = Mission()
    mission.begin(request_of(1, []), 10 * SECOND_NS)
    patience = Patience(progress_s=5.0)
    mission.saw(11 * SECOND_NS, 4.0, False, patience)
    mission.saw(12 * SECOND_NS, 3.0, False, patience)
    mission.saw(15 * SECOND_NS, 2.99, False, patience)
    assert mission.hopeless(16 * SECOND_NS, patience) is None
    mission.kept_waiting(16 * SECOND_NS)
    assert mission.hopeless(20 * SECOND_NS, patience) is None
    ending, text = mission.hopeless(21 * SECOND_NS, patience)
    assert ending == Ending.NO_PROGRESS and "no progress in 5 s" in text and "2.99" not in text
    assert mission.hopeless(21 * SECOND_NS, Patience()) is None


def test_a_goal_for_which_no_plan_can_be_made_is_given_up():
    mission = Mission()
    mission.begin(request_of(1, []), 10 * SECOND_NS)
    patience = Patience(failure_s=3.0)
    mission.plan_failure = "not finite"
    assert mission.hopeless(20 * SECOND_NS, patience) is None
    mission.plan_failure = ""
    assert mission.hopeless(22 * SECOND_NS, patience) is None
    mission.plan_failure = "not finite"
    assert mission.hopeless(23 * SECOND_NS, patience) is None
    assert mission.hopeless(26 * SECOND_NS, patience) == (
        Ending.CANNOT_PLAN, "no plan for 3 s: not finite"
    )
