import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lewm_core.errors import PlanningError
from lewm_core.planning import CEM, CEMConfig, Dynamics, GoalDistance, Solver
from test.planning.point import PointModel

ONE_FRAME = torch.zeros(1, 1, 2)


def small(**changes) -> CEMConfig:
    return CEMConfig(**{"candidates": 64, "rounds": 12, "elites": 8, "horizon": 3, **changes})


def test_the_defaults_are_the_papers():
    config = CEMConfig()
    assert (config.candidates, config.rounds, config.elites) == (300, 30, 30)
    assert (config.initial_std, config.min_std, config.horizon) == (1.0, 0.0, 5)
    assert (config.smoothing, config.noise_correlation, config.proposal) == (0.0, 0.0, None)


def test_fakes_and_solver_follow_the_protocols():
    model = PointModel()
    assert isinstance(model, Dynamics)
    assert isinstance(CEM(model), Solver)


def test_the_papers_search_reaches_every_goal():
    goals = torch.tensor([[4.0, -3.0], [0.0, 0.0], [-6.0, 1.5]])
    plan = CEM(PointModel()).plan(torch.zeros(3, 1, 2), goals)
    torch.testing.assert_close(plan.predicted[:, -1], goals, atol=0.03, rtol=0)
    assert plan.cost.max() < 1e-3
    assert plan.dropped == 0


def test_cost_predicted_and_actions_of_a_plan_belong_together():
    model = PointModel(action_mean=(0.5, -1.0), action_std=(2.0, 3.0))
    history, goal = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[9.0, 9.0]])
    plan = CEM(model, small(), GoalDistance(running_weight=0.3)).plan(history, goal)
    assert plan.actions.shape == (1, 3 * 2, 2)
    assert plan.blocks.shape == (1, 3, 2 * 2)
    assert plan.predicted.shape == (1, 3, 2)
    moved = 1.0 + plan.actions[0].unflatten(0, (3, 2)).sum(dim=1).cumsum(dim=0)
    torch.testing.assert_close(plan.predicted[0], moved)
    distance = (moved - 9.0).square().sum(dim=-1)
    torch.testing.assert_close(plan.cost[0], distance[2] + 0.3 * distance[:2].mean())
    torch.testing.assert_close(plan.goal_distances(goal)[0], distance)
    torch.testing.assert_close(plan.actions, model.denormalise_actions(plan.blocks).flatten(1, 2))
    assert plan.duration_s > 0


def test_running_weight_arrives_early():
    """With the running cost alone at stake after arrival, all motion belongs into block 0."""
    goal = torch.tensor([[1.0, 0.0]])
    lingering = CEM(PointModel(), small(rounds=30)).plan(ONE_FRAME, goal)
    early = CEM(PointModel(), small(rounds=30), GoalDistance(running_weight=1.0)).plan(
        ONE_FRAME, goal
    )
    assert lingering.goal_distances(goal)[0, 0] > 10 * early.goal_distances(goal)[0, 0]
    assert early.goal_distances(goal)[0].max() < 0.02


def test_one_round_is_the_mean_and_standard_deviation_of_the_elites():
    model, goal = PointModel(), torch.tensor([[2.0, 2.0]])
    plan = CEM(model, small(rounds=2, initial_std=0.7, seed=5)).plan(ONE_FRAME, goal)

    generator = torch.Generator().manual_seed(5)
    mean, std = torch.zeros(3, 4), torch.full((3, 4), 0.7)
    for _ in range(2):
        candidates = mean + std * torch.randn(1, 64, 3, 4, generator=generator)[0]
        candidates[0] = mean
        cost = (candidates.unflatten(-1, (2, 2)).sum(dim=(1, 2)) - 2.0).square().sum(dim=-1)
        elites = candidates[cost.argsort()[:8]]
        mean, std = elites.mean(dim=0), elites.std(dim=0)
    torch.testing.assert_close(plan.blocks[0], mean)


def test_the_mean_is_candidate_0_of_every_round():
    model = PointModel()
    plan = CEM(model, small(rounds=3)).plan(ONE_FRAME, torch.tensor([[1.0, 0.0]]))
    first, second, third, final = model.seen_candidates
    assert torch.equal(first[0, 0], torch.zeros(3, 4))
    assert torch.equal(final[0, 0], plan.blocks[0])
    assert not torch.equal(second[0, 0], third[0, 0])


def test_smoothing_keeps_a_share_of_the_old_mean():
    goal = torch.tensor([[5.0, 5.0]])
    plain = CEM(PointModel(), small(rounds=1)).plan(ONE_FRAME, goal)
    smooth = CEM(PointModel(), small(rounds=1, smoothing=0.75)).plan(ONE_FRAME, goal)
    torch.testing.assert_close(smooth.blocks, plain.blocks * 0.25)


def test_min_std_keeps_the_search_wide():
    def last_spread(min_std: float) -> float:
        model = PointModel()
        config = small(rounds=30, min_std=min_std)
        CEM(model, config).plan(ONE_FRAME, torch.tensor([[1.0, 0.0]]))
        return float(model.seen_candidates[-2].std(dim=1).mean())

    assert last_spread(0.0) < 0.05
    assert last_spread(0.5) > 0.45


def noise_of_first_round(correlation: float) -> torch.Tensor:
    """``(steps, A, S)`` drawn around 0 with standard deviation 1."""
    model = PointModel()
    config = CEMConfig(candidates=4000, rounds=1, horizon=4, noise_correlation=correlation)
    CEM(model, config).plan(ONE_FRAME, torch.zeros(1, 2))
    drawn = model.seen_candidates[0][0, 1:]
    return drawn.unflatten(-1, (2, 2)).flatten(1, 2).permute(1, 2, 0)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_noise_is_correlated_from_step_to_step_as_configured(correlation):
    noise = noise_of_first_round(correlation)
    assert noise.shape == (8, 2, 3999)
    covariance = torch.einsum("ias,jas->ij", noise, noise) / (2 * 3999)
    steps = torch.arange(8.0)
    expected = correlation ** (steps[:, None] - steps).abs()
    torch.testing.assert_close(covariance, expected, atol=0.05, rtol=0)
    across = torch.einsum("is,is->i", noise[:, 0], noise[:, 1]) / 3999
    assert across.abs().max() < 0.07  # the fields of one action stay independent


def test_correlated_noise_reaches_what_white_noise_does_not():
    """A far goal needs many steps in one direction; a small search finds that with colour."""
    goal = torch.tensor([[40.0, -40.0]])
    config = {"candidates": 100, "rounds": 3, "elites": 10, "horizon": 5}
    white, coloured = (
        CEM(PointModel(frame_skip=5), CEMConfig(**config, noise_correlation=correlation)).plan(
            ONE_FRAME, goal
        )
        for correlation in (0.0, 0.6)
    )
    assert coloured.cost[0] < 0.5 * white.cost[0]


def test_candidates_stay_inside_the_physical_limits():
    model = PointModel(action_mean=(0.1, 0.2), action_std=(0.5, 2.0))
    limits = ((-0.3, -1.0), (0.4, 0.5))
    goal = torch.tensor([[50.0, -50.0]])
    plan = CEM(model, small(rounds=20), action_limits=limits).plan(ONE_FRAME, goal)
    for candidates in model.seen_candidates:
        actions = model.denormalise_actions(candidates)
        assert bool((actions >= torch.tensor(limits[0]) - 1e-6).all())
        assert bool((actions <= torch.tensor(limits[1]) + 1e-6).all())
    # The goal is out of reach: the best is to drive at the limits all the time.
    torch.testing.assert_close(
        plan.actions[0], torch.tensor([[0.4, -1.0]]).expand(6, 2), atol=0.02, rtol=0
    )


def test_without_limits_an_infinite_one_is_the_same():
    goal = torch.tensor([[1.0, 2.0]])
    infinite = ((-torch.inf, -torch.inf), (torch.inf, torch.inf))
    free = CEM(PointModel(), small()).plan(ONE_FRAME, goal)
    limited = CEM(PointModel(), small(), action_limits=infinite).plan(ONE_FRAME, goal)
    assert torch.equal(free.blocks, limited.blocks)


def test_the_seed_decides_everything():
    goal = torch.tensor([[1.0, 2.0]])

    def two_plans(seed: int) -> list[torch.Tensor]:
        solver = CEM(PointModel(), small(seed=seed))
        return [solver.plan(ONE_FRAME, goal).blocks for _ in range(2)]

    first, again, other = two_plans(1), two_plans(1), two_plans(2)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_reset_repeats_the_first_plans():
    solver, goal = CEM(PointModel(), small()), torch.tensor([[1.0, 2.0]])
    first = solver.plan(ONE_FRAME, goal).blocks
    solver.reset()
    assert torch.equal(solver.plan(ONE_FRAME, goal).blocks, first)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    CEM(PointModel(), small()).plan(ONE_FRAME, torch.tensor([[1.0, 2.0]]))
    assert torch.equal(torch.rand(4), expected)


def test_a_warm_start_is_where_the_search_begins():
    model = PointModel()
    initial = torch.full((1, 2, 4), 0.5)
    CEM(model, small()).plan(ONE_FRAME, torch.tensor([[1.0, 2.0]]), initial_mean=initial)
    begun = model.seen_candidates[0][0, 0]
    assert torch.equal(begun[:2], initial[0]) and torch.equal(begun[2], torch.zeros(4))


def test_the_horizon_can_be_given_per_call():
    solver = CEM(PointModel(), small())
    assert solver.plan(ONE_FRAME, torch.zeros(1, 2), horizon=1).actions.shape == (1, 2, 2)
    assert solver.plan(ONE_FRAME, torch.zeros(1, 2)).horizon == solver.horizon == 3


def test_past_actions_reach_the_model_and_default_to_zero():
    model = PointModel()
    solver = CEM(model, small(rounds=1))
    past = torch.arange(8.0).reshape(1, 2, 4)
    solver.plan(torch.zeros(1, 3, 2), torch.zeros(1, 2), past)
    assert torch.equal(model.seen_past[0], past)
    solver.plan(torch.zeros(1, 3, 2), torch.zeros(1, 2))
    assert torch.equal(model.seen_past[-1], torch.zeros(1, 2, 4))


class BrokenBeyond(PointModel):
    """Predicts NaN for candidates whose first action exceeds a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def rollout(self, z, past_actions, future_actions):
        predicted = super().rollout(z, past_actions, future_actions)
        broken = future_actions[..., 0, 0] > self.threshold
        return predicted.masked_fill(broken[..., None, None], torch.nan)


def test_candidates_without_a_finite_cost_are_dropped_and_counted():
    model, goal = BrokenBeyond(0.8), torch.tensor([[1.0, 0.0]])
    plan = CEM(model, small(rounds=4)).plan(ONE_FRAME, goal)
    expected = sum(int((c[..., 0, 0] > 0.8).sum()) for c in model.seen_candidates[:-1])
    assert plan.dropped == expected > 0
    assert bool(torch.isfinite(plan.actions).all())
    assert bool((plan.actions[0, 0, 0] <= 0.8).all())


def test_too_few_finite_costs_fail_by_name():
    with pytest.raises(PlanningError, match=r"only \d of 64 candidates.*8 are needed"):
        CEM(BrokenBeyond(-1.5), small()).plan(ONE_FRAME, torch.zeros(1, 2))
    with pytest.raises(PlanningError, match="only 0 of 64"):
        CEM(PointModel(), small()).plan(ONE_FRAME, torch.tensor([[torch.nan, 0.0]]))


def test_one_broken_row_fails_the_batch_by_name():
    history = torch.zeros(2, 1, 2)
    history[1] = torch.inf
    with pytest.raises(PlanningError, match="only 0 of 64"):
        CEM(PointModel(), small()).plan(history, torch.zeros(2, 2))


def test_a_model_in_training_mode_is_refused():
    model = PointModel()
    model.training = True
    with pytest.raises(PlanningError, match=r"model\.eval\(\)"):
        CEM(model, small()).plan(ONE_FRAME, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history": torch.zeros(1, 4, 2)}, "1 <= T <= 3"),
        ({"history": torch.zeros(1, 2)}, "history has shape"),
        ({"goal": torch.zeros(2, 2)}, "goal has shape"),
        ({"past_actions": torch.zeros(1, 1, 4)}, "past_actions have shape"),
        ({"initial_mean": torch.zeros(1, 4, 4)}, "initial_mean has shape"),
        ({"horizon": 0}, "horizon is 0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(changes, message):
    arguments = {"history": ONE_FRAME, "goal": torch.zeros(1, 2), **changes}
    with pytest.raises(PlanningError, match=message):
        CEM(PointModel(), small()).plan(**arguments)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (((0.0,), (1.0,)), "2 action dimensions"),
        (((0.0, 2.0), (1.0, 1.0)), "exceed"),
        (((float("nan"), 0.0), (1.0, 1.0)), "do not fit"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, message):
    with pytest.raises(PlanningError, match=message):
        CEM(PointModel(), small(), action_limits=limits)


def test_more_elites_than_candidates_are_refused():
    with pytest.raises(ValueError, match="elites"):
        CEMConfig(candidates=10, elites=11)


class NoHostCopies(TorchDispatchMode):
    """Counts what makes a host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.is_nonzero.default,
        ):
            self.waits += 1
        return function(*arguments, **(keywords or {}))


def test_no_round_waits_for_the_device():
    """The number of host synchronisations does not depend on the number of rounds."""

    def waits(rounds: int) -> int:
        solver = CEM(PointModel(), small(rounds=rounds), action_limits=((-1, -1), (1, 1)))
        with NoHostCopies() as counter:
            solver.plan(ONE_FRAME, torch.zeros(1, 2))
        return counter.waits

    assert waits(2) == waits(9)


class SlowModel(PointModel):
    """Every rollout takes at least 20 ms."""

    def rollout(self, z, past_actions, future_actions):
        time.sleep(0.02)
        return super().rollout(z, past_actions, future_actions)


def test_a_search_ends_with_the_last_round_that_fits_before_the_deadline():
    goal = torch.tensor([[1.0, 0.0]])
    solver = CEM(SlowModel(), small(rounds=1000))
    began = time.perf_counter()
    plan = solver.plan(ONE_FRAME, goal, deadline=began + 0.3)
    took_s = time.perf_counter() - began
    assert 2 <= plan.rounds <= 15
    # One more rollout, of the plan itself, follows the rounds.
    assert took_s < 0.3 + 0.2
    same = CEM(PointModel(), small(rounds=plan.rounds)).plan(ONE_FRAME, goal)
    torch.testing.assert_close(plan.actions, same.actions)


def test_a_deadline_that_has_passed_still_gets_one_round():
    plan = CEM(PointModel(), small()).plan(ONE_FRAME, torch.ones(1, 2), deadline=0.0)
    assert plan.rounds == 1


def test_without_a_deadline_all_rounds_are_made():
    assert CEM(PointModel(), small()).plan(ONE_FRAME, torch.ones(1, 2)).rounds == 12


def test_what_is_committed_stands_in_every_candidate_and_in_the_plan():
    model = PointModel()
    committed = torch.tensor([[[0.5, -0.25], [0.3, 0.1], [0.7, 0.0]]])
    solver = CEM(model, small(min_std=0.1, noise_correlation=0.5))
    plan = solver.plan(ONE_FRAME, torch.tensor([[4.0, -3.0]]), committed=committed)
    for tried in model.seen_candidates:
        steps = tried.reshape(*tried.shape[:2], -1, 2)
        assert torch.equal(steps[:, :, :3], committed[:, None].expand(-1, tried.shape[1], -1, -1))
    torch.testing.assert_close(plan.actions[:, :3], committed)
    # What is open makes up for it.
    torch.testing.assert_close(plan.predicted[:, -1], torch.tensor([[4.0, -3.0]]), atol=0.2, rtol=0)


@pytest.mark.parametrize("shape", [(1, 6, 2), (2, 1, 2), (1, 1, 3), (1, 2)])
def test_committed_actions_of_another_shape_are_refused(shape):
    with pytest.raises(PlanningError, match="committed has shape"):
        CEM(PointModel(), small()).plan(ONE_FRAME, torch.ones(1, 2), committed=torch.zeros(shape))


def test_rate_limits_hold_in_every_candidate_and_in_the_plan():
    model = PointModel(action_std=(2.0, 1.0))
    limits = ([-1.0, -1.0], [1.0, 1.0])
    solver = CEM(model, small(), action_limits=limits, rate_limits=[0.25, 0.5])
    past = model.normalise_actions(torch.tensor([[[[9.0, 9.0], [0.5, -0.5]]]]))
    history = torch.zeros(1, 2, 2)
    plan = solver.plan(history, torch.tensor([[4.0, -3.0]]), past)
    for tried in [*model.seen_candidates, plan.blocks[:, None]]:
        steps = model.denormalise_actions(tried).flatten(2, 3)
        steps = torch.cat([torch.tensor([0.5, -0.5]).expand(*steps.shape[:2], 1, 2), steps], dim=2)
        change = steps.diff(dim=2).abs()
        assert (change <= torch.tensor([0.25, 0.5]) + 1e-5).all()
        assert steps.abs().max() <= 1.0 + 1e-5
    # The limit binds: the goal is too far away for slow beginnings.
    assert (plan.actions[0].diff(dim=0).abs().amax(dim=0) > torch.tensor([0.2, 0.4])).any()


def test_rate_limits_that_cannot_bind_cost_nothing():
    limits = ([-1.0, -1.0], [1.0, 1.0])
    assert CEM(PointModel(), small(), action_limits=limits, rate_limits=[2.0, 5.0]).limits.rates \
        is None
    assert CEM(PointModel(), small(), rate_limits=[torch.inf] * 2).limits.rates is None


def test_committed_actions_are_not_slowed_by_rate_limits():
    """The robot held, which is as sudden as it gets; what follows starts from there."""
    committed = torch.tensor([[[0.0, 0.0], [0.9, 0.0]]])
    solver = CEM(PointModel(), small(), rate_limits=[0.1, 0.1])
    plan = solver.plan(ONE_FRAME, torch.tensor([[4.0, -3.0]]), committed=committed)
    torch.testing.assert_close(plan.actions[:, :2], committed)
    assert plan.actions[0, 1:].diff(dim=0).abs().max() <= 0.1 + 1e-5


@pytest.mark.parametrize("rates", [[1.0], [0.0, 1.0], [float("nan"), 1.0]])
def test_rate_limits_that_make_no_sense_are_refused(rates):
    with pytest.raises(PlanningError, match="rate limits"):
        CEM(PointModel(), small(), rate_limits=rates)
