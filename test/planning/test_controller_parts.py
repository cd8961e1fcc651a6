"""`replan` in three parts, for callers that search for many controllers at once."""

from dataclasses import replace

import numpy as np
import torch

from lewm_core.errors import PlanningError
from lewm_core.planning import CEM, CEMConfig, PlanRequest, PlanResult
from lewm_core.planning.perception import embed_frames
from test.planning.point import PointModel, picture_of
from test.planning.test_controller import GOAL, STEP, held, make


def seen(controller, position=(0.0, 0.0), now_ns=0):
    controller.observe(now_ns, picture_of(position))
    controller.set_goal(picture_of(GOAL))
    return controller


def solve(controller, request):
    return controller.solver.plan(
        request.history, request.goal, request.past_actions,
        horizon=request.horizon, initial_mean=request.initial_mean,
    )


def test_the_parts_together_are_replan():
    whole, parts = (seen(make(warm_start=True, shrink_horizon=True, execute_blocks=1))
                    for _ in range(2))
    for k in range(6):
        position = (0.1 * k, 0.0)
        for controller in (whole, parts):
            controller.observe(k * STEP, picture_of(position))
        if whole.wants_plan(k * STEP):
            assert parts.wants_plan(k * STEP)
            expected = whole.replan(k * STEP)
            request = parts.prepare(k * STEP)
            assert isinstance(request, PlanRequest)
            result = parts.accept(request, solve(parts, request))
            assert torch.equal(result.plan.actions, expected.plan.actions)
            assert result.start_ns == expected.start_ns
            assert result.goal_distance == expected.goal_distance
            assert result.predicted_distances == expected.predicted_distances
        first, second = whole.command(k * STEP), parts.command(k * STEP)
        np.testing.assert_array_equal(first.values, second.values)


def test_requests_of_two_controllers_are_searched_for_in_one_call():
    starts = ((0.0, 0.0), (4.0, -2.0))
    controllers = [seen(make(), start) for start in starts]
    requests = [controller.prepare(0) for controller in controllers]
    plans = controllers[0].solver.plan(
        torch.cat([request.history for request in requests]),
        torch.cat([request.goal for request in requests]),
        horizon=requests[0].horizon,
    )
    for row, controller in enumerate(controllers):
        result = controller.accept(requests[row], plans.row(row))
        assert not result.failed
        assert torch.equal(result.plan.actions[0], plans.actions[row])
        assert not controller.command(0).hold
    # The second has less far to go, and its plan is not the first one's.
    assert controllers[1].goal_distance < controllers[0].goal_distance


def test_pictures_may_be_encoded_beforehand_and_are_not_encoded_again():
    model = PointModel()
    controller = seen(make(model=model))
    embed_frames(model, controller.fresh_frames(0))
    encoded = model.encoded
    assert controller.fresh_frames(0) == []
    assert isinstance(controller.prepare(0), PlanRequest)
    assert model.encoded == encoded


def test_nothing_to_search_for_is_a_result():
    controller = make()
    assert controller.prepare(0).reason == "no goal"
    controller = seen(make(goal_tolerance=1e6))
    result = controller.prepare(0)
    assert isinstance(result, PlanResult) and result.reason == "goal reached"


def test_a_rejected_request_holds_and_says_why():
    controller = seen(make())
    request = controller.prepare(0)
    controller.accept(request, solve(controller, request))
    assert not controller.command(0).hold
    result = controller.reject(request, PlanningError("no candidate is finite"))
    assert result.failed and result.reason == "planning failed: no candidate is finite"
    assert held(controller, 0) == result.reason


def test_several_rows_are_not_accepted_as_one_plan():
    controller = seen(make())
    request = controller.prepare(0)
    plans = controller.solver.plan(
        request.history.expand(2, -1, -1), request.goal.expand(2, -1), horizon=request.horizon
    )
    result = controller.accept(request, plans)
    assert result.failed and "actions have shape" in result.reason


def test_a_plan_for_a_goal_that_was_changed_meanwhile_is_discarded():
    controller = seen(make())
    request = controller.prepare(0)
    plan = solve(controller, request)
    controller.set_goal(picture_of((-5.0, 0.0)))
    result = controller.accept(request, plan)
    assert result.plan is None and not result.failed
    assert held(controller, 0) == "no plan yet"


def test_a_row_is_as_long_as_until_it_arrives():
    controller = seen(make())
    request = controller.prepare(0)
    plans = controller.solver.plan(
        request.history.expand(2, -1, -1), request.goal.expand(2, -1), horizon=request.horizon
    )
    plans = replace(plans, arrival=torch.tensor([1, 3]))
    assert [plans.row(row).horizon for row in range(2)] == [1, 3]
    result = controller.accept(request, plans.row(0))
    assert result.plan.actions.shape == (1, 2, 2) and len(result.predicted_distances) == 1
    assert not controller.wants_plan(STEP) and controller.wants_plan(2 * STEP)


def test_a_time_limit_reaches_the_solver_as_a_deadline():
    controller = seen(make(time_limit=0.2))
    controller.solver = CEM(PointModel(), CEMConfig(rounds=100_000, candidates=64, elites=8))
    result = controller.replan(0)
    assert 1 <= result.plan.rounds < 100_000
    assert result.plan_s < 2.0


def test_an_automatic_time_limit_is_for_those_who_replan_at_a_fixed_rate():
    controller = seen(make(time_limit="auto"))
    controller.solver = CEM(PointModel(), CEMConfig(rounds=40, candidates=64, elites=8))
    assert controller.time_limit_s is None
    assert controller.replan(0).plan.rounds == 40
    controller.time_limit_s = 1e-6
    assert controller.replan(0).plan.rounds == 1
