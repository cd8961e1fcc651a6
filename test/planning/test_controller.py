"""The controller on a point in the plane, driven with given times: 10 Hz, blocks of two steps."""

import math
import threading

import numpy as np
import pytest
import torch

from lewm_core.errors import PlanningError
from lewm_core.planning import (
    CEM,
    ActionLimits,
    CEMConfig,
    ControllerConfig,
    GoalDistance,
    RecedingHorizonController,
)
from test.planning.point import PointModel, picture_of

MS = 1_000_000
STEP = 100 * MS
GOAL = (5.0, -3.0)


def make(
    model: PointModel | None = None,
    limits: ActionLimits | None = None,
    solver: dict | None = None,
    goal_tolerance: float | None = None,
    **config,
) -> RecedingHorizonController:
    model = model or PointModel()
    limits = limits or ActionLimits([-1.0] * 2, [1.0] * 2, [100.0] * 2, (0.0, 0.0))
    objective = GoalDistance((solver or {}).pop("running_weight", 0.0))
    settings = {"candidates": 64, "rounds": 15, "elites": 8, "horizon": 3, **(solver or {})}
    return RecedingHorizonController(
        model,
        CEM(model, CEMConfig(**settings), objective, (limits.lower, limits.upper)),
        limits,
        0.1,
        ControllerConfig(**{"execute_blocks": 3, **config}),
        image_timeout_s=0.5,
        goal_tolerance=goal_tolerance,
    )


def ready(**arguments) -> RecedingHorizonController:
    """A controller with a picture of the origin at time 0, a goal, and a plan."""
    controller = make(**arguments)
    controller.observe(0, picture_of((0.0, 0.0)))
    controller.set_goal(picture_of(GOAL))
    assert controller.replan(0).plan is not None
    return controller


def drive(controller, steps: int, start=(0.0, 0.0), begin: int = 0) -> tuple[np.ndarray, list]:
    """Close the loop: a picture every step, a plan when wanted, the command moves the point."""
    position, results = np.array(start), []
    for k in range(begin, begin + steps):
        controller.observe(k * STEP, picture_of(position))
        if controller.wants_plan(k * STEP):
            results.append(controller.replan(k * STEP))
        position = position + controller.command(k * STEP).values
    return position, results


def test_more_history_than_the_model_looks_at_is_refused():
    with pytest.raises(PlanningError, match="history_frames is 4, .* looks at 1 to 3 frames"):
        make(history_frames=4)


def test_the_loop_closes_on_the_goal():
    controller = make(solver={"horizon": 5, "rounds": 30, "running_weight": 1.0},
                      execute_blocks=2)
    controller.set_goal(picture_of(GOAL))
    position, results = drive(controller, 30)
    np.testing.assert_allclose(position, GOAL, atol=0.3)
    assert not any(result.failed for result in results)
    assert controller.goal_distance < 0.3


def test_two_controllers_with_the_same_seed_agree_to_the_bit():
    positions = []
    for _ in range(2):
        controller = make()
        controller.set_goal(picture_of(GOAL))
        positions.append(drive(controller, 12)[0])
    assert np.array_equal(*positions)


# --- reasons to hold ----------------------------------------------------------------------------


def held(controller, now_ns: int) -> str:
    command = controller.command(now_ns)
    assert command.hold
    assert command.values.tolist() == [0.0, 0.0]
    assert command.step is None and command.image_stamp_ns is None
    return command.reason


def test_without_goal_picture_or_plan_it_holds_and_says_so():
    controller = make()
    assert held(controller, 0) == "no goal"
    assert controller.replan(0).reason == "no goal"
    controller.set_goal(picture_of(GOAL))
    assert held(controller, 0) == "no picture yet"
    assert controller.replan(0).reason == "no picture yet"
    assert not controller.wants_plan(0)
    controller.observe(0, picture_of((0, 0)))
    assert held(controller, 0) == "no plan yet"
    assert controller.wants_plan(0)


def test_an_old_picture_holds_and_no_plan_is_made_from_it():
    controller = ready()
    assert not controller.command(500 * MS).hold
    assert held(controller, 800 * MS) == "picture 0.8 s old (limit 0.5 s)"
    result = controller.replan(800 * MS)
    assert result.plan is None and not result.failed
    assert result.reason == "picture 0.8 s old (limit 0.5 s)"
    controller.observe(800 * MS, picture_of((0, 0)))
    assert held(controller, 800 * MS) == "plan exhausted"


def test_a_picture_from_the_future_holds():
    controller = make()
    controller.set_goal(picture_of(GOAL))
    controller.observe(10_000 * MS, picture_of((0, 0)))
    assert held(controller, 0) == "picture stamped 10.0 s in the future; compare the clocks"
    assert held(controller, 9_700 * MS).startswith("no picture yet")


def test_a_plan_is_never_used_past_its_end():
    controller = ready()
    for k in range(6):
        controller.observe(k * STEP, picture_of((0, 0)))
        assert not controller.command(k * STEP).hold
    assert held(controller, 6 * STEP) == "plan exhausted"


def test_a_clock_that_goes_back_holds():
    controller = make()
    controller.set_goal(picture_of(GOAL))
    controller.observe(10 * STEP, picture_of((0, 0)))
    controller.replan(10 * STEP)
    assert not controller.command(10 * STEP).hold
    controller.observe(0, picture_of((0, 0)))
    assert held(controller, 0) == "plan begins in the future; the clock went back"


def test_a_new_goal_drops_the_old_plan_at_once():
    controller = ready()
    controller.set_goal(picture_of((-5.0, 0.0)))
    assert held(controller, 0) == "no plan yet"
    controller.replan(0)
    assert controller.command(STEP).values[0] < 0


def test_clear_goal_holds():
    controller = ready()
    controller.clear_goal()
    assert held(controller, 0) == "no goal"
    assert math.isnan(controller.goal_distance)


def test_reset_forgets_what_was_seen_but_not_the_goal():
    controller = ready()
    controller.command(0)
    controller.reset()
    assert held(controller, STEP) == "no picture yet"
    controller.observe(STEP, picture_of((1.0, 1.0)))
    assert controller.replan(STEP).plan is not None
    assert not controller.command(STEP).hold


# --- failures -----------------------------------------------------------------------------------


class Failing(PointModel):
    """Breaks on demand, in the ways a model can."""

    mode = ""

    def encode(self, frames):
        z = super().encode(frames)
        return z * torch.nan if self.mode == "encode" else z

    def rollout(self, z, past_actions, future_actions):
        if self.mode == "raise":
            raise RuntimeError("out of memory")
        predicted = super().rollout(z, past_actions, future_actions)
        return predicted * torch.nan if self.mode == "predict" else predicted

    def denormalise_actions(self, blocks):
        actions = super().denormalise_actions(blocks)
        return actions * torch.nan if self.mode == "actions" else actions


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("encode", "embedding of a picture is not finite"),
        ("predict", "only 0 of 64 candidates"),
        ("raise", "RuntimeError: out of memory"),
    ],
)
def test_a_failing_model_drops_the_plan_and_holds(mode, words):
    model = Failing()
    controller = ready(model=model)
    assert not controller.command(0).hold
    model.mode = mode
    controller.observe(STEP, picture_of((0, 0)))
    result = controller.replan(STEP)
    assert result.failed and result.plan is None
    assert words in result.reason
    assert held(controller, STEP) == result.reason
    assert controller.wants_plan(STEP)
    model.mode = ""
    controller.observe(2 * STEP, picture_of((0, 0)))
    assert controller.replan(2 * STEP).plan is not None
    assert not controller.command(2 * STEP).hold


class Rogue:
    """A solver that hands out what it must not."""

    def __init__(self, solver: CEM, spoil) -> None:
        self.solver, self.spoil, self.horizon = solver, spoil, solver.horizon

    def plan(self, *arguments, **keywords):
        from dataclasses import replace

        plan = self.solver.plan(*arguments, **keywords)
        return replace(plan, actions=self.spoil(plan.actions))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda actions: actions * torch.nan, "plan not finite"),
        (lambda actions: actions[:, 1:], "actions have shape"),
    ],
)
def test_a_solver_is_not_trusted(spoil, words):
    controller = make()
    controller.solver = Rogue(controller.solver, spoil)
    controller.observe(0, picture_of((0, 0)))
    controller.set_goal(picture_of(GOAL))
    assert words in controller.replan(0).reason
    assert words in held(controller, 0)


def test_a_goal_that_is_not_finite_or_no_picture_is_refused():
    model = Failing()
    controller = make(model=model)
    model.mode = "encode"
    with pytest.raises(PlanningError, match="not finite"):
        controller.set_goal(picture_of(GOAL))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.float32)):
        with pytest.raises(PlanningError, match=r"\(3, S, S\) uint8"):
            controller.set_goal(wrong)
        with pytest.raises(PlanningError, match=r"\(3, S, S\) uint8"):
            controller.observe(0, wrong)
    assert held(controller, 0) == "no goal"


# --- how a plan lies in time --------------------------------------------------------------------


def test_actions_are_looked_up_by_time_and_past_ones_are_skipped():
    controller = make()
    controller.observe(0, picture_of((0, 0)))
    controller.set_goal(picture_of(GOAL))
    result = controller.replan(250 * MS)  # the picture is 0.25 s old when the search begins
    assert result.start_ns == result.image_stamp_ns == 0
    command = controller.command(240 * MS)
    assert command.step == 2 and command.image_stamp_ns == 0
    np.testing.assert_allclose(command.values, result.plan.actions[0, 2].numpy())
    # The action most of whose time lies in the period that begins.
    assert controller.command(340 * MS).step == 3
    assert controller.command(360 * MS).step == 4


def test_a_command_is_wanted_for_as_many_blocks_as_configured():
    controller = ready(execute_blocks=2)
    controller.observe(300 * MS, picture_of((0, 0)))
    assert not controller.wants_plan(300 * MS)
    controller.observe(400 * MS, picture_of((0, 0)))
    assert controller.wants_plan(400 * MS)
    assert not controller.command(400 * MS).hold  # a late plan is bridged by the old one's rest


def test_a_plan_for_a_goal_that_was_changed_meanwhile_is_discarded():
    controller = make()
    controller.observe(0, picture_of((0, 0)))
    controller.set_goal(picture_of(GOAL))
    solver = controller.solver

    class Interrupted:
        horizon = solver.horizon

        def plan(self, *arguments, **keywords):
            plan = solver.plan(*arguments, **keywords)
            controller.set_goal(picture_of((-5.0, 0.0)))
            return plan

    controller.solver = Interrupted()
    result = controller.replan(0)
    assert result.plan is None and not result.failed
    assert result.reason == "the goal was changed while planning"
    assert held(controller, 0) == "no plan yet"


def test_observe_and_command_never_wait_for_a_search():
    controller = ready()
    solver = controller.solver
    searching, answered = threading.Event(), threading.Event()

    class Waiting:
        horizon = solver.horizon

        def plan(self, *arguments, **keywords):
            searching.set()
            assert answered.wait(30), "command() did not return during the search"
            return solver.plan(*arguments, **keywords)

    controller.solver = Waiting()
    results = []
    controller.observe(STEP, picture_of((1.0, 0.0)))
    worker = threading.Thread(target=lambda: results.append(controller.replan(STEP)))
    worker.start()
    assert searching.wait(30)
    controller.observe(2 * STEP, picture_of((2.0, 0.0)))
    assert controller.command(2 * STEP).image_stamp_ns == 0  # the old plan goes on meanwhile
    answered.set()
    worker.join(30)
    assert results[0].plan is not None
    assert controller.command(2 * STEP).image_stamp_ns == STEP


# --- history ------------------------------------------------------------------------------------


def test_past_blocks_hold_what_was_commanded_normalised_and_zero_where_nothing_was():
    model = PointModel(action_mean=(0.5, 0.0), action_std=(2.0, 1.0))
    controller = make(model=model, solver={"rounds": 1})
    controller.set_goal(picture_of(GOAL))
    for k in range(5):
        controller.observe(k * STEP, picture_of((0, 0)))
    controller.record(2 * STEP, np.array([1.0, 0.2]))
    controller.record(3 * STEP, np.array([-1.0, 0.4]))
    controller.replan(4 * STEP)
    past = model.seen_past[-1]
    assert past.shape == (1, 2, 4)
    torch.testing.assert_close(past[0, 0], torch.zeros(4))
    torch.testing.assert_close(past[0, 1], torch.tensor([0.25, 0.2, -0.75, 0.4]))


def test_every_picture_is_encoded_once():
    model = PointModel()
    controller = make(model=model, execute_blocks=1)
    controller.set_goal(picture_of(GOAL))
    drive(controller, 10)  # plans at 0, 2, 4, 6, 8: five frames, the goal
    assert model.encoded == 5 + 1
    controller.assess(9 * STEP)
    assert controller.encode_s > 0.0
    controller.assess(9 * STEP)
    assert controller.encode_s == 0.0
    assert model.encoded == 7
    controller.observe(10 * STEP, picture_of((0, 0)))
    controller.assess(10 * STEP)
    assert controller.replan(10 * STEP).encode_s == 0.0, "what was encoded before costs nothing"
    assert model.encoded == 8


def test_the_history_can_be_shortened():
    model = PointModel()
    controller = make(model=model, history_frames=1, execute_blocks=1)
    controller.set_goal(picture_of(GOAL))
    drive(controller, 6)
    assert {past.shape[1] for past in model.seen_past} == {0}


# --- warm start and horizon ---------------------------------------------------------------------


def begun_at(model: PointModel) -> list[torch.Tensor]:
    """Where each search began: candidate 0 of its first round (a round has 64 candidates)."""
    begun = []
    in_search = False
    for candidates in model.seen_candidates:
        is_round = candidates.shape[1] == 64  # the finished plan is rolled out on its own
        if is_round and not in_search:
            begun.append(candidates[0, 0])
        in_search = is_round
    return begun


def test_a_warm_start_is_the_previous_plan_less_the_blocks_that_passed():
    model = PointModel()
    controller = ready(model=model, warm_start=True)
    first = controller.replan(0).plan.blocks[0]
    controller.observe(2 * STEP, picture_of((1.0, 0.0)))
    controller.replan(2 * STEP)
    began = begun_at(model)[-1]
    assert torch.equal(began[:2], first[1:]) and torch.equal(began[2], torch.zeros(4))


def test_no_warm_start_from_another_goal_or_when_switched_off():
    model = PointModel()
    controller = ready(model=model, warm_start=True)
    controller.set_goal(picture_of((1.0, 1.0)))
    controller.replan(0)
    assert torch.equal(begun_at(model)[-1], torch.zeros(3, 4))
    model = PointModel()
    controller = ready(model=model, warm_start=False)
    controller.replan(0)
    assert torch.equal(begun_at(model)[-1], torch.zeros(3, 4))


def horizons(controller, steps: int) -> list[int]:
    return [result.plan.horizon for result in drive(controller, steps)[1]]


def test_a_fixed_horizon_never_shrinks():
    controller = make(execute_blocks=1)
    controller.set_goal(picture_of(GOAL))
    assert horizons(controller, 10) == [3, 3, 3, 3, 3]


def test_a_shrinking_horizon_counts_down_to_the_arrival_and_begins_anew():
    controller = make(execute_blocks=1, shrink_horizon=True)
    controller.set_goal(picture_of(GOAL))
    assert horizons(controller, 14) == [3, 2, 1, 3, 2, 1, 3]


def test_a_deadline_sets_the_first_arrival():
    controller = make(execute_blocks=1, shrink_horizon=True)
    controller.set_goal(picture_of(GOAL), deadline_ns=10 * STEP)
    assert horizons(controller, 14) == [3, 3, 3, 2, 1, 3, 2]


def test_the_horizon_does_not_shrink_below_its_minimum():
    controller = make(execute_blocks=1, shrink_horizon=True, minimum_horizon=2)
    controller.set_goal(picture_of(GOAL))
    assert horizons(controller, 8) == [3, 2, 2, 3]


# --- limits -------------------------------------------------------------------------------------


def test_commands_keep_range_and_rate():
    limits = ActionLimits([-1.0] * 2, [1.0] * 2, [2.0, 100.0], (0.0, 0.0))
    controller = make(limits=limits)
    controller.set_goal(picture_of((12.0, -12.0)))
    last = np.zeros(2)
    for k in range(6):
        controller.observe(k * STEP, picture_of((0, 0)))
        if k == 0:
            controller.replan(0)
        values = controller.command(k * STEP).values
        assert np.all(np.abs(values) <= 1.0)
        assert abs(values[0] - last[0]) <= 0.2 + 1e-9
        last = values
    assert last[0] > 0.7  # it got there, step by step


def test_the_rate_limit_is_relative_to_what_was_really_published():
    limits = ActionLimits([-1.0] * 2, [1.0] * 2, [2.0, 2.0], (0.0, 0.0))
    controller = ready(limits=limits)
    controller.command(0)
    controller.record(0, np.array([-0.8, -0.8]))
    assert np.all(controller.command(STEP).values <= -0.6 + 1e-9)


def test_hold_at_last_repeats_it_and_publishes_nothing_before_the_first():
    limits = ActionLimits([-1.0] * 2, [1.0] * 2, [100.0] * 2, ("last", 0.0))
    controller = make(limits=limits)
    command = controller.command(0)
    assert command.hold and command.values is None and command.reason == "no goal"
    controller.observe(0, picture_of((0, 0)))
    controller.set_goal(picture_of(GOAL))
    controller.replan(0)
    moved = controller.command(0).values
    controller.clear_goal()
    assert controller.command(STEP).values.tolist() == [moved[0], 0.0]


def test_limits_of_another_length_are_refused():
    model = PointModel()
    with pytest.raises(PlanningError, match="3 fields"):
        RecedingHorizonController(model, CEM(model), ActionLimits.unlimited(3), 0.1)


# --- reaching the goal --------------------------------------------------------------------------


def test_a_reached_goal_holds_and_is_pursued_again_when_lost():
    controller = ready(goal_tolerance=1.0)
    assert not controller.goal_reached
    controller.observe(STEP, picture_of(GOAL))
    result = controller.replan(STEP)
    assert result.reason == "goal reached" and result.goal_distance == pytest.approx(0.0, abs=1e-9)
    assert controller.goal_reached
    assert held(controller, STEP) == "goal reached"
    controller.observe(2 * STEP, picture_of((GOAL[0] + 1.2, GOAL[1])))  # 1.44: noise, within 2.0
    assert controller.replan(2 * STEP).reason == "goal reached"
    controller.observe(3 * STEP, picture_of((GOAL[0] + 2.0, GOAL[1])))
    assert controller.wants_plan(3 * STEP)
    assert controller.replan(3 * STEP).plan is not None
    assert not controller.command(3 * STEP).hold


def test_assess_alone_notices_that_the_goal_is_reached():
    controller = ready()
    controller.set_goal(torch.tensor(GOAL), tolerance=0.5)
    controller.replan(0)
    assert controller.assess(0) == pytest.approx(GOAL[0] ** 2 + GOAL[1] ** 2)
    controller.observe(STEP, picture_of(GOAL))
    assert controller.assess(STEP) == pytest.approx(0.0, abs=1e-9)
    assert held(controller, STEP) == "goal reached"


def test_without_a_tolerance_a_goal_is_never_reached():
    controller = ready()
    controller.observe(STEP, picture_of(GOAL))
    controller.replan(STEP)
    assert not controller.goal_reached
    assert not controller.command(STEP).hold


def test_what_a_plan_expects_is_reported():
    result = ready().replan(0)
    assert result.goal_distance == pytest.approx(34.0)
    assert len(result.predicted_distances) == 3
    assert result.predicted_distances[-1] == pytest.approx(float(result.plan.cost[0]), abs=1e-5)
    assert result.plan_s > 0 and result.encode_s >= 0


def test_image_age_is_told():
    controller = make()
    assert math.isnan(controller.image_age_s(0))
    controller.observe(0, picture_of((0, 0)))
    assert controller.image_age_s(250 * MS) == pytest.approx(0.25)
