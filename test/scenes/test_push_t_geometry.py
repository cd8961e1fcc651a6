"""The T's outline, distances and drawn states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lewm_core.scenes.push_t.geometry import (
    OUTLINE,
    WALL,
    block_distance,
    draw_state,
    pusher_clearance,
    to_block,
    to_board,
    wall_clearance,
    wrap_angle,
)


def test_outline_has_the_area_of_the_reference() -> None:
    x, y = OUTLINE.T
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    # 120 x 30 and 30 x 90 pixels; positive: the corners run counter-clockwise.
    assert area == pytest.approx((3600 + 2700) * 1e-6)


@pytest.mark.parametrize(
    ("point", "distance"),
    [
        ((0.0, 0.010), 0.010),  # above the bar
        ((0.063, 0.004), 0.005),  # 3-4-5 from its corner
        ((0.0, -0.123), 0.003),  # below the stem
        ((0.030, -0.045), 0.015),  # in the corner between both: equally far from each
        ((0.0, -0.015), -0.015),  # the bar's middle
    ],
)
def test_distance_to_the_block(point: tuple[float, float], distance: float) -> None:
    assert float(block_distance(point)) == pytest.approx(distance, abs=1e-12)


def test_outline_is_where_the_distance_is_zero() -> None:
    middles = (OUTLINE + np.roll(OUTLINE, -1, axis=0)) / 2
    np.testing.assert_allclose(block_distance(np.vstack((OUTLINE, middles))), 0.0, atol=1e-12)


def test_frames_are_inverse_and_angles_counter_clockwise() -> None:
    pose = (0.1, -0.05, 0.7)
    points = np.random.default_rng(0).uniform(-0.2, 0.2, size=(7, 2))
    np.testing.assert_allclose(to_block(to_board(points, pose), pose), points, atol=1e-12)
    # Turned by a quarter counter-clockwise, the stem (down) points to the right.
    np.testing.assert_allclose(
        to_board((0.0, -0.1), (0.0, 0.0, math.pi / 2)), (0.1, 0.0), atol=1e-12
    )


def test_wrap_angle() -> None:
    assert wrap_angle(math.pi) == pytest.approx(-math.pi)
    assert wrap_angle(7.0) == pytest.approx(7.0 - 2 * math.pi)


def test_clearances() -> None:
    assert pusher_clearance([0.0, 0.025, 0.0, 0.0, 0.0]) == pytest.approx(0.010)
    assert wall_clearance([0.0, WALL - 0.02, 0.0]) == pytest.approx(0.02)
    assert wall_clearance([WALL, 0.0, 0.0]) == pytest.approx(-0.06)


def test_drawn_states_are_free_of_overlaps_and_cover_the_board() -> None:
    rng = np.random.default_rng(1)
    states = np.array([draw_state(rng) for _ in range(300)])
    assert min(pusher_clearance(state) for state in states) >= 0.005
    assert min(wall_clearance(state[2:]) for state in states) >= 0.01
    quadrants = set(map(tuple, np.sign(states[:, 2:4]).tolist()))
    assert len(quadrants) == 4
    assert len(np.unique((states[:, 4] // (math.pi / 4)).astype(int))) == 8
