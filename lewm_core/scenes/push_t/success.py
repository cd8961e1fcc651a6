"""When a Push-T goal is reached: the criterion of the published evaluations.

stable-worldmodel's ``PushT.eval_state`` compares the *joint* position of pusher and block, the
Euclidean norm of the four coordinate differences, with 20 px of 512, and the block's angle
with pi/9. On the board of 0.512 m, 20 px are 20 mm. It is met when both are strictly below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.outcome import Criterion, Outcome

#: m; 20 px of 512.
POSITION_TOLERANCE = 0.020
#: rad.
ANGLE_TOLERANCE = math.pi / 9
CRITERION = Criterion(
    "pusher and block within 20 mm of the goal (norm of both), the block's angle within 20 degrees",
    POSITION_TOLERANCE,
    ANGLE_TOLERANCE,
)


@dataclass(frozen=True)
class PushTOutcome(Outcome):
    """How far a state is from a goal state.

    ``success`` is the published criterion: ``position_distance``, the norm of the four differences
    of pusher and block coordinates, below 0.02 m and ``angle_distance`` below pi/9;
    ``object_success`` the same with ``block_distance``.

    Attributes:
        agent_distance: Between the pusher's positions, m.
        block_distance: Between the positions of the block's origin, m.
    """

    agent_distance: float = math.nan
    block_distance: float = math.nan


def push_t_outcome(state: ArrayLike, goal_state: ArrayLike) -> PushTOutcome:
    """Compare a ground truth (5,) with a goal state (5,), both m, m, m, m, rad."""
    distances = push_t_distances(state, goal_state)
    joint, agent, block, angle = (float(value) for value in distances)
    turned = angle < ANGLE_TOLERANCE
    return PushTOutcome(
        success=joint < POSITION_TOLERANCE and turned,
        object_success=block < POSITION_TOLERANCE and turned,
        margin=max(joint / POSITION_TOLERANCE, angle / ANGLE_TOLERANCE),
        position_distance=joint,
        angle_distance=angle,
        agent_distance=agent,
        block_distance=block,
    )


def push_t_distances(states: ArrayLike, goal_states: ArrayLike) -> NDArray[np.float64]:
    """Distances between states (..., 5) and goal states (..., 5), which broadcast.

    Returns:
        (..., 4): joint, agent and block distance in m, angle distance in rad.
    """
    difference = np.asarray(states, dtype=np.float64) - np.asarray(goal_states, dtype=np.float64)
    angle = np.abs((difference[..., 4] + math.pi) % (2.0 * math.pi) - math.pi)
    return np.stack(
        (
            np.linalg.norm(difference[..., :4], axis=-1),
            np.linalg.norm(difference[..., :2], axis=-1),
            np.linalg.norm(difference[..., 2:4], axis=-1),
            angle,
        ),
        axis=-1,
    )


def push_t_success(
    states: ArrayLike, goal_states: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Published criterion and its block-alone form for states and goals (..., 5).

    Returns:
        Two arrays (...) of bool: joint success, block success.
    """
    distances = push_t_distances(states, goal_states)
    turned = distances[..., 3] < ANGLE_TOLERANCE
    return (
        (distances[..., 0] < POSITION_TOLERANCE) & turned,
        (distances[..., 2] < POSITION_TOLERANCE) & turned,
    )
