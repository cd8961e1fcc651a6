"""Solvers that begin with the learned proposal."""

from __future__ import annotations

import pytest
import torch

from lewm_core.errors import PlanningError
from lewm_core.model import MlpPredictorConfig, Proposal, ProposalConfig, WorldModel
from lewm_core.model.imagination import imagine
from lewm_core.planning import (
    CEM,
    ICEM,
    MPPI,
    Adam,
    AdamConfig,
    Candidates,
    CEMConfig,
    ICEMConfig,
    MPPIConfig,
    ProposalSolver,
    ProposalSolverConfig,
    ProposalStartConfig,
    Solver,
    make_solver,
)
from lewm_core.planning.solver import stay_after
from test.model.models import keypoint_config, trained_looking

LIMITS = ([-1.5, -1.5], [1.5, 1.5])


def start(**settings) -> ProposalStartConfig:
    return ProposalStartConfig(**settings)


def proposed(**settings) -> ProposalSolverConfig:
    return ProposalSolverConfig(horizon=settings.pop("horizon", 8), proposal=start(**settings))


def searched(proposal: ProposalStartConfig | None = None, **settings) -> CEMConfig:
    """The shipped search around the proposal."""
    return CEMConfig(
        **{"horizon": 8, "candidates": 96, "rounds": 3, "elites": 10, "min_std": 0.05,
           "noise_correlation": 0.6, "proposal": proposal or start(), **settings}
    )


@pytest.fixture
def model() -> WorldModel:
    model = trained_looking(keypoint_config(predictor=MlpPredictorConfig(width=16, depth=2)))
    torch.manual_seed(1)
    model.proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=1, longest=8)).eval()
    torch.nn.init.normal_(model.proposal.output.weight, std=0.3)
    return model


def scene(model: WorldModel, rows: int = 3) -> dict[str, torch.Tensor]:
    """A history, and goals the model can get to: 3 blocks of some actions away."""
    generator = torch.Generator().manual_seed(5)
    history = torch.randn(rows, 3, 8, generator=generator)
    past = torch.randn(rows, 2, 10, generator=generator)
    actions = torch.randn(rows, 1, 3, 10, generator=generator).clamp(-1.4, 1.4)
    with torch.no_grad():
        goal = model.rollout(history, past, actions)[:, 0, -1]
    return {"history": history, "goal": goal, "past_actions": past}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (CEMConfig(), CEM), (ICEMConfig(), ICEM), (MPPIConfig(), MPPI), (AdamConfig(), Adam),
        (ProposalSolverConfig(), ProposalSolver), (searched(), CEM),
    ],
)
def test_kinds_of_settings_become_their_solvers(model, config, kind):
    solver = make_solver(model, config, LIMITS)
    assert type(solver) is kind
    assert isinstance(solver, Solver)
    assert solver.horizon == config.horizon


def test_a_model_without_a_proposal_is_refused_by_name(model):
    model.proposal = None
    with pytest.raises(PlanningError, match="learned proposal, and the checkpoint has none"):
        make_solver(model, ProposalSolverConfig())


def test_a_horizon_that_the_proposal_does_not_know_is_refused(model):
    with pytest.raises(PlanningError, match="horizon is 9 blocks, .* after 1 to 8"):
        make_solver(model, searched(horizon=9))


def test_the_best_of_all_arrivals_is_planned(model):
    task = scene(model, rows=1)
    config = proposed(horizon=5, block_price=0.0)
    plan = make_solver(model, config, LIMITS).plan(**task)
    limits = (torch.full((10,), -1.5), torch.full((10,), 1.5))
    ends = []
    for arrival in range(1, 6):
        with torch.no_grad():
            imagined = imagine(
                model, model.proposal, task["history"], task["past_actions"], task["goal"],
                torch.tensor([arrival]), arrival, limits,
            )
        ends.append(float((imagined.states[:, -1] - task["goal"]).square().sum()))
    assert float(plan.cost[0]) == pytest.approx(min(ends), rel=1e-4)
    assert plan.horizon == ends.index(min(ends)) + 1
    assert plan.blocks.abs().max() <= 1.5


def test_a_block_more_has_to_be_worth_its_price(model):
    task = scene(model, rows=8)
    free = make_solver(model, proposed(block_price=0.0, doubt=1e9), LIMITS)
    dear = make_solver(model, proposed(block_price=0.95, doubt=1e9), LIMITS)
    rows = [
        {key: value[row : row + 1] for key, value in task.items()} for row in range(8)
    ]
    cheap_lengths = [free.plan(**row).horizon for row in rows]
    dear_lengths = [dear.plan(**row).horizon for row in rows]
    assert sum(dear_lengths) < sum(cheap_lengths)


def test_time_has_no_price_where_no_plan_arrives_and_the_goal_is_not_near(model):
    task = scene(model, rows=8)
    rows = [{key: value[row : row + 1] for key, value in task.items()} for row in range(8)]

    def lengths(**settings: float) -> list[int]:
        solver = make_solver(model, proposed(**settings), LIMITS)
        return [solver.plan(**row).horizon for row in rows]

    nearest_end = lengths(block_price=0.0)
    assert lengths(block_price=0.95, doubt=1e-9, near=0.0) == nearest_end
    # Near its goal, or sure to get there, the price holds.
    shortest = lengths(block_price=0.95, doubt=1e9)
    assert lengths(block_price=0.95, doubt=1e-9, near=1e9) == shortest
    assert sum(shortest) < sum(nearest_end)


def test_rows_side_by_side_are_planned_as_alone(model):
    task = scene(model, rows=5)
    solver = make_solver(model, ProposalSolverConfig(), LIMITS)
    together = solver.plan(**task)
    for row in range(5):
        alone = solver.plan(**{key: value[row : row + 1] for key, value in task.items()})
        torch.testing.assert_close(together.blocks[row, : alone.horizon], alone.blocks[0])
        torch.testing.assert_close(together.cost[row], alone.cost[0])


def test_the_search_betters_the_proposal(model):
    task = scene(model, rows=4)
    alone = make_solver(model, ProposalSolverConfig(), LIMITS).plan(**task)
    config = searched(candidates=64, rounds=6, elites=8)
    bettered = make_solver(model, config, LIMITS).plan(**task)
    assert (bettered.cost < alone.cost).all()
    assert bettered.blocks.abs().max() <= 1.5
    assert bettered.actions.shape == (4, bettered.horizon * 5, 2)


def test_the_same_seed_repeats_and_another_does_not(model):
    task = scene(model)
    solver = make_solver(model, searched(), LIMITS)
    first = solver.plan(**task)
    solver.reset()
    assert torch.equal(first.blocks, solver.plan(**task).blocks)
    other = make_solver(model, searched(seed=1), LIMITS).plan(**task)
    assert not torch.equal(first.blocks, other.blocks)


def test_the_search_widens_where_the_proposal_is_out_of_its_depth(model):
    """A proposal that knows nothing stays where it is; the wide search gets to the goal."""
    torch.nn.init.zeros_(model.proposal.output.weight)
    task = scene(model, rows=6)
    settings = {"candidates": 128, "rounds": 6, "elites": 12}
    plans = []
    for doubt in (1e-4, 1e9):
        config = searched(start(doubt=doubt, std=0.02), **settings)
        plans.append(make_solver(model, config, LIMITS).plan(**task))
    widened, trusted = plans
    assert (widened.cost <= trusted.cost).all()
    assert widened.cost.sum() < 0.5 * trusted.cost.sum()


def test_what_comes_after_the_arrival_does_not_count():
    predicted = torch.arange(2 * 1 * 4 * 1.0).reshape(2, 1, 4, 1)
    actions = torch.arange(2 * 1 * 4 * 2.0).reshape(2, 1, 4, 2)  # blocks of two steps
    stayed = stay_after(Candidates(predicted, actions), torch.tensor([2, 4]), 1)
    assert stayed.predicted[:, 0, :, 0].tolist() == [[0, 1, 1, 1], [4, 5, 6, 7]]
    assert stayed.actions[0, 0].tolist() == [[0, 1], [2, 3], [3, 3], [3, 3]]
    assert torch.equal(stayed.actions[1], actions[1])


def test_what_is_not_finite_is_an_error_not_a_plan(model):
    task = scene(model)
    task["goal"][1] = torch.nan
    for config in (ProposalSolverConfig(), searched()):
        with pytest.raises(PlanningError, match="finite"):
            make_solver(model, config, LIMITS).plan(**task)


def test_a_goal_that_is_reached_asks_for_little(model):
    """At the goal, one block is enough: longer ways cost."""
    task = scene(model, rows=1)
    task["goal"] = task["history"][:, -1]
    plan = make_solver(model, searched(), LIMITS).plan(**task)
    assert float(plan.cost[0]) < float(task["goal"].square().sum())


class CountingDistance:
    """Distance of the last state to the goal; remembers how many candidates it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, candidates: Candidates, goal: torch.Tensor) -> torch.Tensor:
        self.asked.append(candidates.predicted.shape[1])
        return (candidates.predicted[:, :, -1] - goal[:, None]).square().sum(dim=-1)


def test_a_long_plan_has_fewer_candidates_where_a_round_is_bounded(model):
    task = scene(model, rows=1)
    for bound, expected in ((None, 40), (60, None), (1, 4)):
        settings = searched(horizon=5, candidates=40, elites=4, rounds=2, blocks_per_round=bound)
        cost = CountingDistance()
        plan = CEM(model, settings, cost, LIMITS).plan(**task)
        number = expected or 60 // int(plan.arrival)
        assert 4 <= number <= 40
        # The last call is about the plan itself.
        assert cost.asked == [number, number, 1]


def test_rows_side_by_side_keep_to_their_own_number_of_candidates(model):
    """Two rows with plans of different lengths: the longer one has fewer candidates that count."""
    settings = CEMConfig(
        horizon=3, candidates=40, elites=4, rounds=1, blocks_per_round=30,
    )

    def later_is_better(candidates: Candidates, goal: torch.Tensor) -> torch.Tensor:
        number = candidates.predicted.shape[1]
        return -torch.arange(number, dtype=torch.float32).expand(len(goal), -1)

    solver = CEM(model, settings, later_is_better, LIMITS)
    plan = solver.plan(**scene(model, rows=2))
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.randn(2, 40, 3, 10, generator=generator).clamp(-1.5, 1.5)
    # 30 blocks a round are 10 candidates of three blocks.
    assert torch.allclose(plan.blocks, drawn[:, 6:10].mean(dim=1), atol=1e-6)
    assert plan.dropped == 0


def test_a_bounded_search_that_fails_tells_how_many_it_had(model):
    def never_finite(candidates: Candidates, goal: torch.Tensor) -> torch.Tensor:
        return torch.full(candidates.predicted.shape[:2], torch.nan)

    settings = searched(horizon=5, candidates=40, elites=4, blocks_per_round=1)
    with pytest.raises(PlanningError, match="only 0 of 4 candidates"):
        CEM(model, settings, never_finite, LIMITS).plan(**scene(model))


@pytest.mark.parametrize("settings", [ProposalSolverConfig(), searched(candidates=20)])
def test_a_plan_begins_with_what_is_committed_and_is_longer_than_that(model, settings):
    committed = torch.full((2, 7, 2), 0.3)  # more than a block of five control steps
    plan = make_solver(model, settings, LIMITS).plan(
        **scene(model, rows=2), committed=committed
    )
    steps = plan.blocks.reshape(2, -1, 2)
    torch.testing.assert_close(steps[:, :7], committed)
    assert plan.arrival.min() >= 2
    assert not torch.allclose(steps[:, 7:10], torch.tensor(0.3))
