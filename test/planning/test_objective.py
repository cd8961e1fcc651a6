import pytest
import torch

from lewm_core.errors import PlanningError
from lewm_core.planning import GoalDistance, Objective

# One row, two candidates, three blocks; the goal is the origin.
PREDICTED = torch.tensor(
    [[[[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 3.0], [1.0, 1.0]]]]
)
GOAL = torch.zeros(1, 2)


def test_the_papers_cost_is_the_squared_distance_of_the_last_embedding():
    assert GoalDistance()(PREDICTED, GOAL).tolist() == [[4.0, 2.0]]


def test_running_weight_adds_the_mean_of_the_earlier_embeddings():
    cost = GoalDistance(running_weight=0.5)(PREDICTED, GOAL)
    expected = [[4 + 0.5 * (25 + 1) / 2, 2 + 0.5 * (0 + 9) / 2]]
    torch.testing.assert_close(cost, torch.tensor(expected))


def test_a_single_block_has_no_running_cost():
    assert GoalDistance(running_weight=7.0)(PREDICTED[:, :, :1], GOAL).tolist() == [[25.0, 0.0]]


def test_every_row_is_compared_with_its_own_goal():
    predicted = PREDICTED.expand(2, -1, -1, -1)
    cost = GoalDistance()(predicted, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert cost.tolist() == [[4.0, 2.0], [2.0, 0.0]]


def test_it_is_an_objective():
    assert isinstance(GoalDistance(), Objective)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_senseless_weight_is_refused(weight):
    with pytest.raises(PlanningError, match="running_weight"):
        GoalDistance(weight)
