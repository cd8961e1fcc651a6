"""Compensating the delay between a picture and the plan that is made from it."""

import numpy as np
import pytest
import torch

from lewm_core.planning import ActionLimits
from test.planning.point import picture_of
from test.planning.test_controller import GOAL, STEP, make

FRAME = 2 * STEP  # a block of the point model


def driving(**settings):
    """A controller whose plan from time 0 has been followed for one block."""
    controller = make(execute_blocks=1, **settings)
    controller.observe(0, picture_of((0.0, 0.0)))
    controller.set_goal(picture_of(GOAL))
    controller.replan(0)
    executed = [controller.command(step * STEP).values for step in range(3)]
    controller.observe(FRAME, picture_of((0.5, 0.0)))
    return controller, executed


def test_a_plan_begins_with_what_was_commanded_since_its_picture():
    controller, executed = driving(compensate_latency=True)
    result = controller.replan(3 * STEP)  # the picture is one control period old
    np.testing.assert_allclose(result.plan.actions[0, 0].numpy(), executed[2], atol=1e-6)


def test_without_compensation_it_does_not():
    controller, executed = driving()
    controller.record(2 * STEP, np.array([-0.9, 0.9]))
    result = controller.replan(3 * STEP)
    assert not np.allclose(result.plan.actions[0, 0].numpy(), [-0.9, 0.9], atol=0.1)


def test_it_reckons_with_the_commands_that_follow_while_the_plan_is_made():
    controller, executed = driving(compensate_latency=True)
    first = controller._active.plan.actions[0].numpy()
    for _ in range(10):
        controller.note_delay(2 * STEP)
    assert controller.expected_delay_s == 2 * STEP * 1e-9
    result = controller.replan(3 * STEP)  # ready at 5 steps: actions 2, 3 and 4 are decided
    np.testing.assert_allclose(result.plan.actions[0, :3].numpy(), first[2:5], atol=1e-6)


@pytest.mark.parametrize(("share", "steps"), [(0.4, 1), (0.6, 2)])
def test_a_delay_is_rounded_to_control_periods(share, steps):
    controller, _ = driving(compensate_latency=True)
    controller.note_delay(round(share * STEP))
    # The picture is of control step 2, the plan is asked for at 3.
    assert controller.prepare(3 * STEP).committed.shape[1] == steps


def test_half_of_the_plans_may_come_later_than_reckoned():
    controller, _ = driving(compensate_latency=True)
    for periods in (1, 1, 1, 9, 9):
        controller.note_delay(periods * STEP)
    assert controller.expected_delay_s == pytest.approx(STEP * 1e-9)


@pytest.mark.parametrize("phase_ms", [0, 3, 20, 45, -10])
def test_commands_that_come_off_the_grid_of_the_pictures_change_nothing(phase_ms):
    """Timers come late, and cameras run freely: what is decided is the same."""
    phase = phase_ms * 1_000_000
    controller = make(execute_blocks=1, compensate_latency=True)
    controller.note_delay(2 * STEP)
    start = 10 * STEP
    for step in (-2, -1):
        controller.record(start + step * STEP + phase, np.zeros(2))
    controller.observe(start, picture_of((0.0, 0.0)))
    controller.set_goal(picture_of(GOAL))
    request = controller.prepare(start)
    assert request.committed is None, "the robot stands still: a whole plan"
    controller.accept(request, controller.solver.plan(request.history, request.goal))
    first = controller._active.plan.actions[0].numpy()
    executed = [controller.command(start + step * STEP + phase).values for step in range(2)]
    np.testing.assert_allclose(executed, first[:2], atol=1e-6)
    controller.observe(start + FRAME, picture_of((0.5, 0.0)))
    # FRAME is two control steps: that step's command comes before or after the plan is asked for.
    committed = controller.prepare(start + FRAME).committed[0].numpy()
    np.testing.assert_allclose(committed, first[2:4], atol=1e-6)


def test_past_the_end_of_the_plan_it_reckons_with_hold():
    controller, _ = driving(compensate_latency=True)
    controller.note_delay(5 * STEP)
    result = controller.replan(3 * STEP)  # the plan has six actions: those for 6 and 7 are hold
    decided = result.plan.actions[0].numpy()
    np.testing.assert_allclose(decided[4:5], 0.0, atol=1e-6)


def test_a_delay_beyond_the_horizon_leaves_one_step_open():
    controller, _ = driving(compensate_latency=True)
    controller.note_delay(1000 * STEP)
    assert controller.replan(3 * STEP).plan.horizon == 3


def test_a_robot_at_rest_gets_a_whole_plan():
    controller = make(compensate_latency=True)
    controller.note_delay(4 * STEP)
    controller.observe(0, picture_of((0.0, 0.0)))
    controller.set_goal(picture_of(GOAL))
    controller.command(0)
    controller.command(STEP)
    request = controller.prepare(STEP)
    assert request.committed is None


def test_commands_go_on_without_a_jump_when_the_plan_comes():
    """Where the model is right, the compensated plan goes on as the robot really moved."""
    limits = ActionLimits([-1.0] * 2, [1.0] * 2, [100.0] * 2, (0.0, 0.0))
    controller, executed = driving(compensate_latency=True, limits=limits)
    controller.note_delay(STEP)
    request = controller.prepare(2 * STEP)
    assert request.committed.shape == (1, 1, 2)
    torch.testing.assert_close(
        request.committed[0, 0], torch.tensor(executed[2], dtype=torch.float32)
    )


@pytest.mark.parametrize("late", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("delay", [0.3, 0.9, 1.4])
def test_a_robot_that_was_stopped_for_a_while_moves_again(late, delay):
    """What is decided while it stands is to stand: no plan may begin with that for ever."""
    controller, _ = driving(compensate_latency=True)
    for step in range(3, 20):
        controller.record(step * STEP, np.zeros(2))
    moves = []
    for step in range(20, 30):
        now = step * STEP
        controller.observe(now, picture_of((0.5, 0.0)))
        controller.note_delay(round(delay * STEP))
        request = controller.prepare(now)
        # By the plan before: more than a period after its picture.
        moves.append(bool(np.any(controller.command(now + round(late * STEP)).values)))
        plan = controller.solver.plan(
            request.history, request.goal, request.past_actions, committed=request.committed
        )
        controller.accept(request, plan)
    assert all(moves[2:]), moves
