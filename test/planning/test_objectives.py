import pytest
import torch

from lewm_core.errors import PlanningError
from lewm_core.planning import (
    CEM,
    ActionExcess,
    ActionSmoothness,
    Candidates,
    CEMConfig,
    GoalDistance,
    Objective,
    ObjectiveConfig,
    SubgoalDistance,
    WeightedSum,
    make_objective,
    make_solver,
)
from lewm_core.planning import objectives as module
from test.planning.point import PointModel

# One row, two candidates, three blocks; the goal is the origin.
PREDICTED = torch.tensor(
    [[[[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 3.0], [1.0, 1.0]]]]
)
GOAL = torch.zeros(1, 2)


def futures(predicted: torch.Tensor = PREDICTED) -> Candidates:
    return Candidates(predicted, torch.zeros(*predicted.shape[:3], 4))


def test_the_papers_cost_is_the_squared_distance_of_the_last_embedding():
    assert GoalDistance()(futures(), GOAL).tolist() == [[4.0, 2.0]]


def test_running_weight_adds_the_mean_of_the_earlier_embeddings():
    cost = GoalDistance(running_weight=0.5)(futures(), GOAL)
    expected = [[4 + 0.5 * (25 + 1) / 2, 2 + 0.5 * (0 + 9) / 2]]
    torch.testing.assert_close(cost, torch.tensor(expected))


def test_a_discount_makes_earlier_embeddings_count_less():
    cost = GoalDistance(running_weight=1.0, discount=0.5)(futures(), GOAL)
    expected = [[4 + (0.5 * 25 + 1) / 1.5, 2 + (0 + 9) / 1.5]]
    torch.testing.assert_close(cost, torch.tensor(expected))


def test_a_single_block_has_no_running_cost():
    cost = GoalDistance(running_weight=7.0)(futures(PREDICTED[:, :, :1]), GOAL)
    assert cost.tolist() == [[25.0, 0.0]]


def test_every_row_is_compared_with_its_own_goal():
    predicted = PREDICTED.expand(2, -1, -1, -1)
    cost = GoalDistance()(futures(predicted), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert cost.tolist() == [[4.0, 2.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    "objective",
    [
        GoalDistance(), SubgoalDistance(torch.zeros(1, 2)), ActionSmoothness(2), ActionExcess(),
        WeightedSum([(1.0, GoalDistance())]),
    ],
)
def test_they_are_objectives(objective):
    assert isinstance(objective, Objective)
    assert objective(futures(), GOAL).shape == (1, 2)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_senseless_weight_is_refused(weight):
    with pytest.raises(PlanningError, match="running_weight"):
        GoalDistance(weight)
    with pytest.raises(PlanningError, match="weight"):
        SubgoalDistance(torch.zeros(1, 2), weight)


@pytest.mark.parametrize("discount", [0.0, 1.5, float("nan")])
def test_a_senseless_discount_is_refused(discount):
    with pytest.raises(PlanningError, match="discount"):
        GoalDistance(1.0, discount)


def test_subgoals_are_passed_in_their_order():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    # The first candidate goes through a and b, in that order, and ends 2 from the goal.
    forth = SubgoalDistance(torch.stack([a, b]))(futures(), GOAL)
    assert float(forth[0, 0]) == pytest.approx(4.0)
    # The other way round the cheapest is to pass by b at block 1 and by a right there or later.
    back = SubgoalDistance(torch.stack([b, a]))(futures(), GOAL)
    passing = min(
        float((PREDICTED[0, 0, i] - b).square().sum() + (PREDICTED[0, 0, j] - a).square().sum())
        for i in range(3)
        for j in range(i, 3)
    )
    assert float(back[0, 0]) == pytest.approx(4.0 + passing / 2)
    assert passing > 0


def test_a_search_goes_round_by_its_subgoal():
    model, goal = PointModel(), torch.tensor([[4.0, 0.0]])
    config = CEMConfig(candidates=128, rounds=30, elites=12, horizon=4)
    over = torch.tensor([[2.0, 3.0]])
    plan = CEM(model, config, SubgoalDistance(over)).plan(torch.zeros(1, 1, 2), goal)
    torch.testing.assert_close(plan.predicted[:, -1], goal, atol=0.05, rtol=0)
    assert (plan.predicted[0] - over).square().sum(dim=-1).min() < 0.01


@pytest.mark.parametrize(
    "subgoals", [torch.zeros(2), torch.zeros(0, 2), torch.tensor([[torch.nan, 0.0]])]
)
def test_subgoals_that_are_none_are_refused(subgoals):
    with pytest.raises(PlanningError, match="subgoals"):
        SubgoalDistance(subgoals)


def test_smoothness_is_the_mean_squared_change_from_step_to_step():
    actions = torch.tensor([[[[0.0, 0.0, 1.0, 2.0], [1.0, 2.0, 1.0, 0.0]]]])  # 2 blocks of 2 steps
    predicted = torch.zeros(1, 1, 2, 2)
    smooth = ActionSmoothness(2)
    changes = [1.0, 4.0, 0.0, 0.0, 0.0, 4.0]
    cost = smooth(Candidates(predicted, actions), GOAL)
    assert float(cost) == pytest.approx(sum(changes) / 6)
    before = torch.tensor([[9.0, 9.0, 3.0, 0.0]])
    cost = smooth(Candidates(predicted, actions, before), GOAL)
    assert float(cost) == pytest.approx((sum(changes) + 9.0) / 8)
    assert float(smooth(Candidates(predicted[:, :, :1], actions[:, :, :1, :2]), GOAL)) == 0.0


def test_a_search_for_smoothness_moves_more_evenly():
    goal = torch.tensor([[3.0, -3.0]])
    config = CEMConfig(candidates=128, rounds=20, elites=12, horizon=4)

    def roughness(weight: float) -> float:
        objective = make_objective(ObjectiveConfig(smoothness=weight), PointModel())
        plan = CEM(PointModel(), config, objective).plan(torch.zeros(1, 1, 2), goal)
        torch.testing.assert_close(plan.predicted[:, -1], goal, atol=0.3, rtol=0)
        return float(plan.actions.diff(dim=1).square().mean())

    assert roughness(10.0) < 0.2 * roughness(0.0)


def test_excess_counts_what_lies_beyond_the_bound():
    actions = torch.tensor([[[[3.0, -2.5, 0.0, 1.0]]]])
    cost = ActionExcess(2.0)(Candidates(torch.zeros(1, 1, 1, 2), actions), GOAL)
    assert float(cost) == pytest.approx((1.0 + 0.25) / 4)


def test_a_sum_is_weighted():
    both = WeightedSum([(2.0, GoalDistance()), (0.5, lambda candidates, goal: torch.ones(1, 2))])
    assert both(futures(), GOAL).tolist() == [[8.5, 4.5]]


def test_settings_become_their_objective():
    model = PointModel()
    assert isinstance(make_objective(ObjectiveConfig(), model), GoalDistance)
    made = make_objective(
        ObjectiveConfig(running_weight=0.5, discount=0.9, smoothness=0.1, excess=0.2), model
    )
    assert isinstance(made, WeightedSum)
    assert [type(part) for _, part in made.parts] == [GoalDistance, ActionSmoothness, ActionExcess]
    assert [weight for weight, _ in made.parts] == [1.0, 0.1, 0.2]


class Entry:
    """What `importlib.metadata` says of an installed package's objective."""

    name = "stay_left"

    def load(self):
        return lambda model: lambda candidates, goal: candidates.predicted[:, :, -1, 0].relu()


def test_an_installed_packages_objective_is_found_by_name(monkeypatch):
    monkeypatch.setattr(module, "entry_points", lambda group: [Entry()])
    made = make_objective(ObjectiveConfig(custom={"stay_left": 3.0}), PointModel())
    assert made(futures(), GOAL).tolist() == [[4.0, 5.0]]
    with pytest.raises(PlanningError, match="'stay_right'.*there are: stay_left"):
        make_objective(ObjectiveConfig(custom={"stay_right": 1.0}), PointModel())


def test_a_function_of_ones_own_is_an_objective():
    def rightmost(candidates, goal):
        return -candidates.predicted[:, :, -1, 0]

    solver = make_solver(
        PointModel(), CEMConfig(candidates=64, rounds=10, elites=8, horizon=2),
        ([-1.0, -1.0], [1.0, 1.0]), objective=rightmost,
    )
    plan = solver.plan(torch.zeros(1, 1, 2), GOAL)
    assert plan.actions[..., 0].min() > 0.9
