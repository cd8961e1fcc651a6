"""The published criterion, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lewm_core.scenes.push_t.success import push_t_distances, push_t_outcome, push_t_success

GOAL = [0.05, -0.02, 0.1, 0.0, 3.0]


def shifted(*difference: float) -> np.ndarray:
    return np.asarray(GOAL) + difference


@pytest.mark.parametrize(
    ("difference", "success", "object_success"),
    [
        ((0.0, 0.0, 0.0, 0.0, 0.0), True, True),
        # The joint norm of four coordinates counts: 12, 12 and 10, 10 mm make 22.1 mm.
        ((0.012, 0.012, 0.010, 0.010, 0.0), False, True),
        ((0.0, 0.0, 0.0, 0.0199, 0.0), True, True),
        ((0.0, 0.0, 0.0, 0.0201, 0.0), False, False),
        ((0.0201, 0.0, 0.0, 0.0, 0.0), False, True),
        ((0.0, 0.0, 0.0, 0.0, math.pi / 9 - 1e-6), True, True),
        ((0.0, 0.0, 0.0, 0.0, -math.pi / 9 - 1e-6), False, False),
        # Whole turns do not count.
        ((0.0, 0.0, 0.0, 0.0, -2 * math.pi + 0.1), True, True),
    ],
)
def test_criterion(difference: tuple[float, ...], success: bool, object_success: bool) -> None:
    outcome = push_t_outcome(shifted(*difference), GOAL)
    assert outcome.success is success
    assert outcome.object_success is object_success


def test_distances() -> None:
    outcome = push_t_outcome(shifted(0.003, 0.004, 0.0, 0.012, 0.5), GOAL)
    assert outcome.agent_distance == pytest.approx(0.005)
    assert outcome.block_distance == pytest.approx(0.012)
    assert outcome.position_distance == pytest.approx(0.013)
    assert outcome.angle_distance == pytest.approx(0.5)


def test_many_states_at_once_agree_with_one() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(0.0, 0.01, size=(4, 6, 5)) * (1, 1, 1, 1, 30)
    joint, block = push_t_success(states, np.zeros(5))
    assert joint.shape == block.shape == (4, 6)
    for index in np.ndindex(4, 6):
        outcome = push_t_outcome(states[index], np.zeros(5))
        assert (joint[index], block[index]) == (outcome.success, outcome.object_success)
    assert 0 < block.sum() < block.size
    assert push_t_distances(states, np.zeros(5)).shape == (4, 6, 4)
