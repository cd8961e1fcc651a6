"""What every solver keeps, whatever its method: with and without the learned proposal."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from lewm_core.errors import PlanningError
from lewm_core.model import FastRollout, MlpPredictorConfig, Proposal, ProposalConfig, WorldModel
from lewm_core.planning import (
    AdamConfig,
    CEMConfig,
    ICEMConfig,
    MPPIConfig,
    ProposalSolverConfig,
    ProposalStartConfig,
    Solver,
    make_solver,
)
from lewm_core.planning import noise as colours
from lewm_core.planning.graphs import GraphedRun, shapes_of, whole_start
from lewm_core.planning.problem import Problem
from lewm_core.planning.solver import BaseSolver
from test.model.models import keypoint_config, trained_looking
from test.planning.point import PointModel

ONE_FRAME = torch.zeros(1, 1, 2)
GOAL = torch.tensor([[2.0, -1.5]])
SEARCHES = {
    "cem": CEMConfig(candidates=64, rounds=12, elites=8, horizon=3),
    "icem": ICEMConfig(candidates=64, rounds=12, elites=8, horizon=3),
    "mppi": MPPIConfig(candidates=64, rounds=12, horizon=3),
    "adam": AdamConfig(candidates=4, rounds=60, horizon=3),
}
every_search = pytest.mark.parametrize("config", SEARCHES.values(), ids=SEARCHES)


@every_search
def test_every_search_gets_to_the_goal(config):
    goals = torch.tensor([[2.0, -1.5], [0.0, 0.0], [-1.0, 3.0]])
    plan = make_solver(PointModel(), config).plan(torch.zeros(3, 1, 2), goals)
    torch.testing.assert_close(plan.predicted[:, -1], goals, atol=0.2, rtol=0)
    assert plan.rounds == config.rounds
    assert plan.dropped == 0


@every_search
def test_the_seed_decides_and_reset_repeats(config):
    def two_plans(solver: Solver) -> list[torch.Tensor]:
        return [solver.plan(ONE_FRAME, GOAL).blocks for _ in range(2)]

    solver = make_solver(PointModel(), config)
    first = two_plans(solver)
    solver.reset()
    again = two_plans(solver)
    other = two_plans(make_solver(PointModel(), config.model_copy(update={"seed": 1})))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@every_search
def test_limits_of_range_and_rate_hold_in_every_candidate(config):
    model = PointModel(action_std=(2.0, 1.0))
    limits = ([-0.6, -0.6], [0.6, 0.6])
    solver = make_solver(model, config, limits, rate_limits=[0.25, 0.5])
    past = model.normalise_actions(torch.tensor([[[[9.0, 9.0], [0.5, -0.5]]]]))
    plan = solver.plan(torch.zeros(1, 2, 2), torch.tensor([[4.0, -3.0]]), past)
    for tried in [*model.seen_candidates, plan.blocks[:, None]]:
        steps = model.denormalise_actions(tried.detach()).flatten(2, 3)
        before = torch.tensor([0.5, -0.5]).expand(*steps.shape[:2], 1, 2)
        assert steps.abs().max() <= 0.6 + 1e-5
        change = torch.cat([before, steps], dim=2).diff(dim=2).abs()
        assert (change <= torch.tensor([0.25, 0.5]) + 1e-5).all()


@every_search
def test_what_is_committed_stands_in_every_candidate(config):
    model = PointModel()
    committed = torch.tensor([[[0.5, -0.25], [0.3, 0.1], [0.7, 0.0]]])
    solver = make_solver(model, config)
    plan = solver.plan(ONE_FRAME, GOAL, committed=committed)
    for tried in model.seen_candidates:
        steps = tried.detach().reshape(*tried.shape[:2], -1, 2)
        assert torch.equal(steps[:, :, :3], committed[:, None].expand(-1, tried.shape[1], -1, -1))
    torch.testing.assert_close(plan.actions[:, :3], committed)
    torch.testing.assert_close(plan.predicted[:, -1], GOAL, atol=0.3, rtol=0)


@every_search
def test_a_warm_start_is_where_the_first_candidate_is(config):
    model = PointModel()
    initial = torch.full((1, 2, 4), 0.5)
    make_solver(model, config).plan(ONE_FRAME, GOAL, initial_mean=initial)
    begun = model.seen_candidates[0][0, 0].detach()
    assert torch.equal(begun[:2], initial[0]) and torch.equal(begun[2], torch.zeros(4))


class BrokenBeyond(PointModel):
    """Predicts NaN for candidates whose first action exceeds a threshold."""

    threshold = 0.4

    def rollout(self, z, past_actions, future_actions):
        predicted = super().rollout(z, past_actions, future_actions)
        broken = future_actions[..., 0, 0] > self.threshold
        return predicted.masked_fill(broken[..., None, None], torch.nan)


@every_search
def test_what_is_not_finite_is_dropped_and_counted(config):
    plan = make_solver(BrokenBeyond(), config).plan(ONE_FRAME, GOAL)
    assert plan.dropped > 0
    assert bool(torch.isfinite(plan.actions).all())
    assert float(plan.actions[0, 0, 0]) <= 0.4


@every_search
def test_where_nothing_is_finite_the_plan_fails_by_name(config):
    with pytest.raises(PlanningError, match=r"only 0 of 64 candidates|cost .* is not finite"):
        make_solver(PointModel(), config).plan(ONE_FRAME, torch.tensor([[torch.nan, 0.0]]))


class SlowModel(PointModel):
    """Every rollout takes at least 20 ms."""

    def rollout(self, z, past_actions, future_actions):
        time.sleep(0.02)
        return super().rollout(z, past_actions, future_actions)


@every_search
def test_a_deadline_ends_the_rounds(config):
    many = config.model_copy(update={"rounds": 1000})
    began = time.perf_counter()
    plan = make_solver(SlowModel(), many).plan(ONE_FRAME, GOAL, deadline=began + 0.3)
    assert time.perf_counter() - began < 0.6
    assert 2 <= plan.rounds <= 15
    same = make_solver(PointModel(), many.model_copy(update={"rounds": plan.rounds}))
    torch.testing.assert_close(plan.actions, same.plan(ONE_FRAME, GOAL).actions)
    assert make_solver(PointModel(), many).plan(ONE_FRAME, GOAL, deadline=0.0).rounds == 1


# Each method by itself.


def test_kept_elites_are_not_rolled_out_again_and_rounds_shrink():
    model = PointModel()
    config = ICEMConfig(candidates=64, rounds=4, elites=8, horizon=3, candidate_decay=1.5)
    make_solver(model, config).plan(ONE_FRAME, GOAL)
    numbers = [tried.shape[1] for tried in model.seen_candidates]
    assert numbers == [64, 43, 28, 19, 1]
    config = config.model_copy(update={"rounds": 8})
    model = PointModel()
    make_solver(model, config).plan(ONE_FRAME, GOAL)
    assert [tried.shape[1] for tried in model.seen_candidates][-3:] == [16, 16, 1]


def test_icem_plans_the_best_candidate_of_all():
    model = PointModel()
    plan = make_solver(model, SEARCHES["icem"]).plan(ONE_FRAME, GOAL)
    tried = torch.cat([seen[0] for seen in model.seen_candidates[:-1]])
    ends = model.denormalise_actions(tried).sum(dim=(1, 2))
    cost = (ends - GOAL).square().sum(dim=1)
    torch.testing.assert_close(plan.blocks[0], tried[cost.argmin()])
    mean = SEARCHES["icem"].model_copy(update={"best": False})
    assert not torch.equal(make_solver(PointModel(), mean).plan(ONE_FRAME, GOAL).blocks[0],
                           tried[cost.argmin()])


def test_path_integrals_weigh_all_candidates_by_their_cost():
    config = MPPIConfig(candidates=32, rounds=1, horizon=2, temperature=0.5, noise_correlation=0.0)
    plan = make_solver(PointModel(), config).plan(ONE_FRAME, GOAL)
    tried = torch.randn(32, 2, 4, generator=torch.Generator().manual_seed(0))
    tried[0] = 0.0
    cost = (tried.unflatten(-1, (2, 2)).sum(dim=(1, 2)) - GOAL).square().sum(dim=1)
    weights = torch.softmax(-cost / (0.5 * cost.std(correction=0)), dim=0)
    torch.testing.assert_close(plan.blocks[0], torch.einsum("s,sha->ha", weights, tried))


def test_a_low_temperature_is_the_best_candidate():
    model = PointModel()
    config = MPPIConfig(candidates=32, rounds=1, horizon=2, temperature=1e-6)
    plan = make_solver(model, config).plan(ONE_FRAME, GOAL)
    tried = model.seen_candidates[0][0]
    cost = (model.denormalise_actions(tried).sum(dim=(1, 2)) - GOAL).square().sum(dim=1)
    torch.testing.assert_close(plan.blocks[0], tried[cost.argmin()])


def test_descent_is_that_of_torch():
    """The same steps as `torch.optim.Adam` takes, from the same beginning."""
    config = AdamConfig(candidates=1, rounds=7, horizon=2, learning_rate=0.05)
    plan = make_solver(PointModel(), config).plan(ONE_FRAME, GOAL)
    actions = torch.zeros(1, 2, 4, requires_grad=True)
    optimizer = torch.optim.Adam([actions], lr=0.05)
    for _ in range(7):
        optimizer.zero_grad()
        (actions.unflatten(-1, (2, 2)).sum(dim=(1, 2)) - GOAL).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(plan.blocks, actions.detach(), atol=1e-5, rtol=1e-5)


def test_the_descent_goes_through_a_world_model_and_leaves_its_weights_alone(planned_model):
    task = task_for(planned_model)
    config = AdamConfig(candidates=4, rounds=30, horizon=3)
    still = make_solver(planned_model, config.model_copy(update={"rounds": 1, "candidates": 1,
                                                                 "learning_rate": 1e-6}))
    plan = make_solver(planned_model, config).plan(**task)
    assert (plan.cost < 0.5 * still.plan(**task).cost).all()
    assert all(parameter.grad is None for parameter in planned_model.parameters())


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_noise_by_a_power_law_has_variance_one_and_the_spectrum_asked_for(exponent):
    factor = colours.power_law(exponent, 40)
    covariance = factor @ factor.T
    torch.testing.assert_close(covariance.diagonal(), torch.ones(40, dtype=torch.float64))
    # Twice the frequency has 2^-exponent of the power: seen in what waves of both weigh.
    steps = torch.arange(40, dtype=torch.float64)
    lags = covariance[0]
    power = [
        float(lags[0] + 2 * (lags[1:] * torch.cos(torch.pi * steps[1:] * k / 40)).sum())
        for k in (2, 4)
    ]
    assert power[1] / power[0] == pytest.approx(2**-exponent, rel=0.25)
    assert colours.power_law(0.0, 40) is None and colours.exponential(0.0, 40) is None


# With the learned proposal, and through the code of the graphs.


@pytest.fixture
def planned_model() -> WorldModel:
    model = trained_looking(keypoint_config(predictor=MlpPredictorConfig(width=16, depth=2)))
    torch.manual_seed(1)
    model.proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=1, longest=5)).eval()
    torch.nn.init.normal_(model.proposal.output.weight, std=0.3)
    return model


def task_for(model: WorldModel, seed: int = 5, rows: int = 3) -> dict[str, torch.Tensor]:
    """A history, and goals the model can get to: 3 blocks of some actions away."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randn(rows, 3, 8, generator=generator)
    past = torch.randn(rows, 2, 10, generator=generator)
    actions = torch.randn(rows, 1, 3, 10, generator=generator).clamp(-1.4, 1.4)
    with torch.no_grad():
        goal = model.rollout(history, past, actions)[:, 0, -1]
    return {"history": history, "goal": goal, "past_actions": past}


START = ProposalStartConfig(std=0.3)
WITH_PROPOSAL = {
    name: config.model_copy(update={"proposal": START, "horizon": 5})
    for name, config in SEARCHES.items()
}


@pytest.mark.parametrize("config", WITH_PROPOSAL.values(), ids=WITH_PROPOSAL)
def test_every_search_betters_the_proposal_it_begins_with(planned_model, config):
    task = task_for(planned_model)
    limits = ([-1.5, -1.5], [1.5, 1.5])
    alone = make_solver(planned_model, ProposalSolverConfig(horizon=5, proposal=START), limits)
    proposed = alone.plan(**task)
    found = make_solver(planned_model, config, limits).plan(**task)
    assert torch.equal(found.arrival, proposed.arrival)
    assert (found.cost <= proposed.cost).all()
    assert found.cost.sum() < 0.8 * proposed.cost.sum()


GRAPHED = {
    **SEARCHES, **{f"proposal+{name}": config for name, config in WITH_PROPOSAL.items()},
    "proposal": ProposalSolverConfig(horizon=5),
}
GRAPHED = {
    name: config.model_copy(update={"rounds": 3}) if name != "proposal" else config
    for name, config in GRAPHED.items()
}
GRAPHED["bounded"] = GRAPHED["proposal+cem"].model_copy(update={"blocks_per_round": 100})


def problem_for(solver: BaseSolver, task: dict[str, torch.Tensor], committed=None) -> Problem:
    """As on a GPU: nothing may look at values."""
    problem = Problem.checked(
        solver.model, **task, horizon=solver.horizon, initial_mean=None, committed=committed
    )
    return replace(problem, shorten=False)


class Replayed:
    """Stands for a GPU's capture on a CPU: a replay runs the stage again and writes what it
    returns into the tensors that it returned first, which is what a graph's kernels do."""

    made = 0

    def __init__(self, solver: BaseSolver, device: torch.device) -> None:
        pass

    def __call__(self, stage):
        type(self).made += 1
        result = stage()

        def replay() -> None:
            again = stage()
            if again is None:
                return
            values = again._asdict() if isinstance(again, tuple) else vars(again)
            for name, value in values.items():
                kept = getattr(result, name)
                if isinstance(value, torch.Tensor):
                    assert kept.shape == value.shape
                    kept.copy_(value)
                elif name in ("imagine", "problem"):
                    setattr(result, name, value)

        return replay, result


def eager_plan(solver: BaseSolver, problem: Problem):
    """The stages one after the other, as `BaseSolver.plan` runs them."""
    state = solver.begin(problem)
    for number in range(solver.rounds):
        solver.improve(state, number)
    return solver.finish(state)


@pytest.mark.parametrize("config", GRAPHED.values(), ids=GRAPHED)
def test_replayed_stages_plan_what_eager_ones_plan(planned_model, config):
    eager, graphed = (make_solver(planned_model, config) for _ in range(2))
    Replayed.made = 0
    first, other = task_for(planned_model), task_for(planned_model, seed=6)
    committed = torch.full((3, 2, 2), 0.2)
    with torch.inference_mode(config.kind != "adam"), torch.no_grad():
        run = GraphedRun(graphed, problem_for(graphed, first, committed), Replayed)
        kinds = {graphed.round_kind(number) for number in range(graphed.rounds)}
        assert Replayed.made == 2 + len(kinds)
        for task in (first, other, first):
            run.start(problem_for(graphed, task, committed))
            where = run.state.mean.data_ptr()
            for number in range(graphed.rounds):
                run.improve(number)
            outcome = run.finish()
            assert run.state.mean.data_ptr() == where
            expected = eager_plan(eager, problem_for(eager, task, committed))
            torch.testing.assert_close(outcome.blocks, expected.blocks)
            torch.testing.assert_close(outcome.cost, expected.cost)
            assert int(run.state.dropped) == 0


def test_a_plan_of_full_length_is_the_same_up_to_its_arrival(planned_model):
    """What a GPU computes to save a wait changes nothing."""
    task = task_for(planned_model, rows=1)
    for config in (
        *(WITH_PROPOSAL[name] for name in ("cem", "icem", "mppi")),
        WITH_PROPOSAL["cem"].model_copy(update={"blocks_per_round": 100}),
    ):
        one = make_solver(planned_model, config).plan(**task)
        solver = make_solver(planned_model, config)
        other = eager_plan(solver, problem_for(solver, task))
        assert other.blocks.shape[1] == 5 > one.horizon == int(one.arrival)
        torch.testing.assert_close(one.blocks, other.blocks[:, : one.horizon])
        torch.testing.assert_close(one.cost, other.cost)


@pytest.mark.parametrize("config", GRAPHED.values(), ids=GRAPHED)
def test_a_whole_plan_is_one_graph_that_never_asks_the_host(planned_model, config, monkeypatch):
    """Traced into one graph of tensor operations: nothing in it waits or depends on a value."""
    solver = make_solver(planned_model, config)
    # Weights that oneDNN packed cannot be traced; on a GPU there are none.
    monkeypatch.setattr("lewm_core.model.fused_linear.packs", lambda dtype: False)
    solver.model = FastRollout(planned_model)
    problem = problem_for(solver, task_for(planned_model))

    def whole(history, goal, past_actions):
        given = {"history": history, "goal": goal, "past_actions": past_actions}
        return eager_plan(solver, replace(problem, **given)).blocks

    inputs = (problem.history, problem.goal, problem.past_actions)
    other = problem_for(solver, task_for(planned_model, seed=6))
    others = (other.history, other.goal, other.past_actions)
    with torch.no_grad():
        expected = whole(*others)
        solver.reset()
        # Raises where a value is asked for.
        graph = make_fx(whole)(*inputs)
        solver.reset()
        torch.testing.assert_close(graph(*others), expected)


def test_problems_of_equal_shapes_share_a_graph(planned_model):
    solver = make_solver(planned_model, SEARCHES["cem"])
    one, other = (problem_for(solver, task_for(planned_model, seed=seed)) for seed in (5, 6))
    assert shapes_of(one) == shapes_of(other)
    begun = replace(other, initial_mean=torch.full((3, 2, 10), 0.5))
    assert shapes_of(whole_start(one)) == shapes_of(whole_start(begun))
    assert torch.equal(
        eager_plan(solver, whole_start(begun)).blocks,
        eager_plan(make_solver(planned_model, SEARCHES["cem"]), begun).blocks,
    )
    for different in (
        problem_for(solver, task_for(planned_model, rows=2)),
        problem_for(solver, task_for(planned_model), committed=torch.zeros(3, 1, 2)),
    ):
        assert shapes_of(one) != shapes_of(different)
