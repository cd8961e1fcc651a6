"""Closed-loop evaluation on the real scene; the planner with a real, untrained model."""

import numpy as np
import pytest

from lewm_core.data.contract import load_contract
from lewm_core.errors import UserError
from lewm_core.evaluation.closed_loop import (
    DoNothing,
    PlannerPolicy,
    RandomActions,
    ReplayActions,
    goals_from_expert,
    run_goal,
    summarise,
)
from lewm_core.planning import load_planner_config
from lewm_core.scenes import make_scene
from test.evaluation.models import tiny_model

NUMBER = 20


@pytest.fixture(scope="module")
def goals(scene):
    return goals_from_expert(scene, NUMBER, seed=3)


def test_goals_are_reachable_and_not_given(scene, goals):
    """The ceiling is near 1, the floor near 0: what lies between is the planner's merit."""
    replay = summarise([run_goal(scene, goal, ReplayActions()) for goal in goals])
    nothing = summarise([run_goal(scene, goal, DoNothing()) for goal in goals])
    drawn = summarise([run_goal(scene, goal, RandomActions(0)) for goal in goals])
    assert replay["success_any"] >= 0.95
    assert nothing["success_any"] <= 0.1
    assert drawn["success_any"] <= 0.15
    assert replay["median_angle_error_after"] < 0.1 < replay["median_angle_error_before"]


def test_replay_passes_through_the_very_state_of_the_goal(scene, goals):
    scene.set_state(goals[0].start)
    np.testing.assert_array_equal(scene.ground_truth(), goals[0].start_truth)
    for action in goals[0].actions:
        scene.step_control(action)
    np.testing.assert_array_equal(scene.ground_truth(), goals[0].goal_truth)
    np.testing.assert_array_equal(scene.render(224, 224), goals[0].goal_picture)


def test_goals_depend_on_the_seed_and_their_number_only(goals):
    other_scene = make_scene("push_t", seed=99)
    again = goals_from_expert(other_scene, 3, seed=3)
    other = goals_from_expert(other_scene, 1, seed=4)
    other_scene.close()
    for first, second in zip(goals, again, strict=False):
        np.testing.assert_array_equal(first.start, second.start)
        np.testing.assert_array_equal(first.actions, second.actions)
        np.testing.assert_array_equal(first.goal_picture, second.goal_picture)
    assert not np.array_equal(other[0].goal_truth, goals[0].goal_truth)


def test_splits_are_streams_of_their_own(scene, goals):
    reporting, tuning = (
        goals_from_expert(scene, 2, seed=3, split=split) for split in ("reporting", "tuning")
    )
    np.testing.assert_array_equal(reporting[1].start, goals[1].start)
    assert not np.array_equal(tuning[0].start, reporting[0].start)
    assert tuning[1].episode.startswith("tuning seed 3, episode 1")
    with pytest.raises(UserError, match="known splits: reporting, tuning"):
        goals_from_expert(scene, 1, seed=3, split="report")


def test_goals_can_be_further_away(scene):
    goal = goals_from_expert(scene, 1, seed=3, distance_steps=60, picture_size=(96, 64))[0]
    assert goal.actions.shape == (60, 2)
    assert goal.goal_picture.shape == (64, 96, 3)


@pytest.mark.parametrize(("number", "distance"), [(0, 25), (1, 0)])
def test_senseless_goals_are_refused(scene, number, distance):
    with pytest.raises(UserError, match="1 or more"):
        goals_from_expert(scene, number, seed=0, distance_steps=distance)


def test_random_actions_repeat_for_the_same_seed_and_goal(scene, goals):
    results = [run_goal(scene, goals[1], RandomActions(5), budget_steps=10) for _ in range(2)]
    assert results[0] == results[1]
    other = run_goal(scene, goals[1], RandomActions(6), budget_steps=10)
    assert other.position_error_after != results[0].position_error_after


class Overshoot(ReplayActions):
    """Reaches the goal as recorded, then drives away from it."""

    name = "overshoot"

    def act(self, now_ns, scene):
        action = super().act(now_ns, scene)
        return action if now_ns < 25 * 100_000_000 else np.array([0.15, 0.15])


def test_success_at_any_time_and_at_the_end_are_told_apart(scene, goals):
    stays = run_goal(scene, goals[0], ReplayActions())
    leaves = run_goal(scene, goals[0], Overshoot())
    assert stays.success_any and stays.success_end
    assert leaves.success_any and not leaves.success_end
    assert leaves.first_success_step == stays.first_success_step <= 26


def test_the_budget_must_be_positive(scene, goals):
    with pytest.raises(UserError, match="budget_steps"):
        run_goal(scene, goals[0], DoNothing(), budget_steps=0)


@pytest.fixture(scope="module")
def planner() -> PlannerPolicy:
    return PlannerPolicy.from_model(
        tiny_model(), load_contract("push_t"), load_planner_config("search")
    )


def test_the_planner_drives_through_the_nodes_controller(scene, goals, planner):
    steps = []
    result = run_goal(scene, goals[0], planner, on_step=steps.append)
    assert result.plans_failed == 0
    period = 5 * planner.controller.config.execute_blocks  # control steps between two plans
    assert len(result.plan_times_s) == 50 // period
    assert steps == list(range(50))
    again = run_goal(scene, goals[0], planner)
    assert again.position_error_after == result.position_error_after
    summary = summarise([result, again])
    assert summary["plans"] == 2 * 50 // period and summary["plan_ms_p50"] > 0
