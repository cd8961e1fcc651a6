"""Many goals at once are what one goal after the other is, where the solver's rows allow it."""

import numpy as np
import pytest
import torch

from lewm_core.data.contract import load_contract
from lewm_core.errors import UserError
from lewm_core.evaluation.closed_loop import goals_from_expert, run_goal
from lewm_core.evaluation.lock_step import drive_goals
from lewm_core.evaluation.planner_setup import PlannerSetup
from lewm_core.evaluation.timing import time_plans
from lewm_core.model import Proposal, ProposalConfig
from lewm_core.planning import (
    CEM,
    CEMConfig,
    ControllerConfig,
    PlannerConfig,
    ProposalSolverConfig,
    ProposalStartConfig,
)
from lewm_core.planning.perception import embed_goal
from test.evaluation.models import fixed_setup, tiny_model

BUDGET = 33  # no whole number of blocks


@pytest.fixture(scope="module")
def goals(scene):
    return goals_from_expert(scene, 5, seed=11)


def compare(scene, goals, setup, batch=3, rounding=0.0):
    """Assert that both ways agree in every result; return the results.

    ``rounding`` in m and rad is for solvers that answer a little otherwise to a little otherwise
    rounded embedding; one that chooses among candidates answers the same.
    """
    together = drive_goals(scene, goals, setup, BUDGET, batch=batch)
    policy = setup.policy()
    for goal, drive in zip(goals, together, strict=True):
        truths = []
        alone = run_goal(
            scene, goal, policy, BUDGET,
            on_step=lambda step, truths=truths: truths.append(scene.ground_truth()),
        )
        np.testing.assert_allclose(drive.truths[:-1], truths, rtol=0.0, atol=rounding)
        for name in ("success_any", "success_end", "first_success_step", "met", "must_move",
                     "plans", "plans_failed"):
            assert getattr(drive.result, name) == getattr(alone, name), name
        for name in ("position_error_after", "angle_error_after"):
            assert abs(getattr(drive.result, name) - getattr(alone, name)) <= rounding, name
        # Times of plans that were made together say nothing about one.
        assert drive.result.plan_times_s == () and len(alone.plan_times_s) == alone.plans
    return [drive.result for drive in together]


@pytest.mark.parametrize(
    "controller",
    [
        {"warm_start": True, "shrink_horizon": True},
        {"execute_blocks": 3},
        {"execute_blocks": 2, "history_frames": 1},
    ],
)
def test_all_at_once_equals_one_by_one(scene, goals, controller):
    results = compare(scene, goals, fixed_setup(**controller))
    blocks = controller.get("execute_blocks", 1)
    assert {result.plans for result in results} == {-(-BUDGET // (5 * blocks))}


def test_also_where_goals_count_as_reached_and_plans_begin_between_blocks(scene, goals):
    setup = fixed_setup()
    distances = [
        float((_embedding(setup, scene, goal.goal) - _embedding(setup, scene, goal.start))
              .square().sum())
        for goal in goals
    ]
    results = compare(scene, goals, fixed_setup(goal_tolerance=float(np.median(distances)) * 0.8))
    # Some reach it and hold, and plan less often than the others.
    assert len({result.plans for result in results}) > 1


def _embedding(setup, scene, full):
    scene.set_state(full)
    return embed_goal(setup.model, setup.layout.look(scene).picture)


def test_one_row_that_cannot_be_planned_fails_alone(scene, goals):
    setup = fixed_setup()
    embedding = _embedding(setup, scene, goals[1].goal)
    object.__setattr__(setup, "fails_for", embedding)
    results = compare(scene, goals[:3], setup)
    assert [result.plans_failed for result in results] == [0, BUDGET, 0]
    assert results[1].plans == 0


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_learned_proposal_plans_as_it_does_alone(scene, goals, blocks):
    """Rows arrive after different numbers of blocks, and must not drive on behind their goal."""
    model = tiny_model()
    torch.manual_seed(3)
    model.proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=1, longest=5)).eval()
    config = PlannerConfig(
        solver=ProposalSolverConfig(
            horizon=3, proposal=ProposalStartConfig(block_price=0.02)
        ),
        controller=ControllerConfig(execute_blocks=blocks),
    )
    setup = PlannerSetup(model, load_contract("push_t"), config, "proposal")
    results = compare(scene, goals, setup, batch=5, rounding=1e-6)
    if blocks == 3:
        assert len({result.plans for result in results}) > 1


def test_requests_of_all_episodes_are_one_search(scene, goals):
    setup = fixed_setup()
    solver = setup.controller().solver

    class Shared(type(setup)):
        def controller(self, given=None):
            return super().controller(given or solver)

    shared = Shared(setup.model, setup.contract, setup.config, "fixed")
    drive_goals(scene, goals, shared, 20, batch=5)
    assert solver.rows == [5] * 4


def test_pictures_are_drawn_once_a_block(scene, goals, monkeypatch):
    drawn = []
    render = scene.render

    def count(*size, camera=None):
        drawn.append(size)
        return render(*size, camera=camera)

    monkeypatch.setattr(scene, "render", count)
    drive_goals(scene, goals[:2], fixed_setup(), 20)
    assert drawn == [(224, 224)] * 2 * (4 + 1), "and once for each goal"


def test_cem_gives_the_same_result_again(scene, goals):
    config = PlannerConfig(
        solver=CEMConfig(candidates=16, rounds=2, elites=4, horizon=3),
        controller=ControllerConfig(execute_blocks=1, warm_start=True, shrink_horizon=True),
    )
    setup = PlannerSetup(tiny_model(), load_contract("push_t"), config, "cem")
    first, second = (drive_goals(scene, goals, setup, 20, batch=3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.result == other.result
        np.testing.assert_array_equal(one.truths, other.truths)


def test_plans_are_timed_one_at_a_time(scene, goals):
    times = time_plans(scene, goals, fixed_setup(), 20, plans=6)
    assert len(times.times_s) == 6 and min(times.times_s) > 0
    assert times.threads == torch.get_num_threads() and times.device == "cpu"


@pytest.mark.parametrize(("budget", "batch"), [(0, 1), (1, 0)])
def test_senseless_numbers_are_refused(scene, goals, budget, batch):
    with pytest.raises(UserError, match="1 or more"):
        drive_goals(scene, goals, fixed_setup(), budget, batch=batch)


@pytest.mark.parametrize("compensated", [False, True])
def test_pictures_may_come_late_and_plans_may_know_it(scene, goals, compensated, monkeypatch):
    """Two control periods are over when a picture comes: a compensated plan begins with them."""
    committed = []
    plan = CEM.plan

    def spy(self, *arguments, **keywords):
        given = keywords.get("committed")
        committed.append(None if given is None else tuple(given.shape))
        return plan(self, *arguments, **keywords)

    monkeypatch.setattr(CEM, "plan", spy)
    config = PlannerConfig(
        solver=CEMConfig(candidates=8, rounds=1, elites=2),
        controller=ControllerConfig(execute_blocks=1, compensate_latency=compensated),
    )
    setup = PlannerSetup(tiny_model(), load_contract("push_t"), config, "late")
    late = drive_goals(scene, goals[:2], setup, 20, delay_s=0.2)
    # The robot holds until the first picture is there; its first plan is whole, and begins then, at
    # step 2. All others begin two steps before they are made: at 7, 10, 13, 16 and 19.
    assert committed[0] is None
    assert set(committed[1:]) == ({(2, 2, 2)} if compensated else {None})
    assert {drive.result.plans for drive in late} == {6}
    at_once = drive_goals(scene, goals[:2], setup, 20)
    assert not np.allclose(at_once[0].truths[1:3], late[0].truths[1:3])
    assert committed[-1] is None
