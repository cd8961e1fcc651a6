"""The T block and the board in numbers: outline, distances, drawing of admissible poses.

Lengths in metres, angles in radians counter-clockwise seen from above, x right and y up in the
picture. One pixel of the reference environment (gym-pusht, 512 x 512 pixels) is one millimetre.

The block frame is the reference's: its origin is the *middle of the bar's outer edge*, at angle 0
the stem points down (negative y)::

      (-0.06, 0) ┌───────o───────┐ (0.06, 0)        o  origin: the (x, y) of a state
                 │       ·       │                  +  centre of gravity, (0, -0.045)
    (-0.06,-0.03)└─────┐ + ┌─────┘ (0.06, -0.03)
                       │   │
                       │   │
        (-0.015,-0.12) └───┘ (0.015, -0.12)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Edge of the square board that the picture shows, m.
BOARD_SIZE = 0.512
#: The walls' inner faces are at plus and minus this, m (the reference's segments: 7 px inside).
WALL = 0.249
#: Radius of the pusher, m.
PUSHER_RADIUS = 0.015
#: The pusher's centre can reach plus and minus this, m.
PUSHER_REACH = WALL - PUSHER_RADIUS
#: The two rectangles of the T as (x_min, y_min, x_max, y_max) in the block frame, m.
RECTANGLES = ((-0.060, -0.030, 0.060, 0.000), (-0.015, -0.120, 0.015, -0.030))
#: Centre of gravity in the block frame, m: mean of the rectangles' centres, as in the reference.
CENTRE_OF_GRAVITY = (0.0, -0.045)
#: Corners of the T in the block frame, counter-clockwise, m. (8, 2)
OUTLINE = np.array(
    [
        (-0.060, 0.000),
        (-0.060, -0.030),
        (-0.015, -0.030),
        (-0.015, -0.120),
        (0.015, -0.120),
        (0.015, -0.030),
        (0.060, -0.030),
        (0.060, 0.000),
    ]
)
#: Corners of its convex hull, counter-clockwise, m. (6, 2)
HULL = OUTLINE[[0, 1, 3, 4, 6, 7]]
#: What a ground-truth state (5,) holds.
STATE_NAMES = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
STATE_UNITS = ("m", "m", "m", "m", "rad")


def wrap_angle(angle: float) -> float:
    """Return ``angle`` (rad) in [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def block_distance(points: ArrayLike) -> NDArray[np.float64]:
    """Signed distance to the T of points in the block frame, m; negative inside.

    Exact outside; inside it is the distance to the nearer rectangle's edge.

    Args:
        points: (..., 2) in m.

    Returns:
        (...) in m.
    """
    points = np.asarray(points, dtype=np.float64)
    distances = []
    for x_min, y_min, x_max, y_max in RECTANGLES:
        beyond_x = np.maximum(x_min - points[..., 0], points[..., 0] - x_max)
        beyond_y = np.maximum(y_min - points[..., 1], points[..., 1] - y_max)
        outside = np.hypot(np.maximum(beyond_x, 0.0), np.maximum(beyond_y, 0.0))
        distances.append(outside + np.minimum(np.maximum(beyond_x, beyond_y), 0.0))
    return np.minimum(distances[0], distances[1])


def to_block(points: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """Board coordinates (..., 2) into the frame of a block at ``pose`` (x, y, angle)."""
    x, y, angle = (float(value) for value in pose)
    offset = np.asarray(points, dtype=np.float64) - (x, y)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.stack(
        (
            cosine * offset[..., 0] + sine * offset[..., 1],
            -sine * offset[..., 0] + cosine * offset[..., 1],
        ),
        axis=-1,
    )


def to_board(points: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """Block coordinates (..., 2) of a block at ``pose`` (x, y, angle) into board coordinates."""
    x, y, angle = (float(value) for value in pose)
    points = np.asarray(points, dtype=np.float64)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.stack(
        (
            x + cosine * points[..., 0] - sine * points[..., 1],
            y + sine * points[..., 0] + cosine * points[..., 1],
        ),
        axis=-1,
    )


def pusher_clearance(state: ArrayLike) -> float:
    """Distance between the pusher's and the block's surfaces in ``state`` (5,), m."""
    state = np.asarray(state, dtype=np.float64)
    return float(block_distance(to_block(state[:2], state[2:]))) - PUSHER_RADIUS


def wall_clearance(block_pose: ArrayLike) -> float:
    """Distance of the block at ``block_pose`` (x, y, angle) to the nearest wall, m."""
    return WALL - float(np.abs(to_board(OUTLINE, block_pose)).max())


def draw_block_pose(rng: np.random.Generator, margin: float) -> NDArray[np.float64]:
    """Draw a block pose whose corners keep ``margin`` (m) to the walls; returns (3,) m, m, rad.

    The centre of gravity is uniform in the reference's range of 300 px around the middle, the
    angle uniform; poses too near to a wall are drawn again.
    """
    while True:
        centre = rng.uniform(-0.15, 0.15, size=2)
        angle = rng.uniform(-math.pi, math.pi)
        origin = to_board(-np.asarray(CENTRE_OF_GRAVITY), (*centre, angle))
        pose = np.array([origin[0], origin[1], angle])
        if wall_clearance(pose) >= margin:
            return pose


def draw_state(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a ground-truth state (5,) without contact: m, m, m, m, rad.

    The pusher is uniform within the reference's range of 400 px around the middle, the block as in
    `draw_block_pose`; the two keep 5 mm between them (the reference lets them overlap).
    """
    while True:
        block = draw_block_pose(rng, margin=0.01)
        state = np.concatenate((rng.uniform(-0.2, 0.2, size=2), block))
        if pusher_clearance(state) >= 0.005:
            return state
