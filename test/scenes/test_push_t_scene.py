"""Push-T as physics: motion, contact, walls, exact state, pictures."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes.push_t.geometry import (
    BOARD_SIZE,
    PUSHER_REACH,
    pusher_clearance,
    to_board,
    wall_clearance,
)
from lewm_core.scenes.push_t.scene import TARGET_LEASH, PushTScene


@pytest.fixture(scope="module")
def physics() -> PushTScene:
    return PushTScene(seed=0)


def test_free_pusher_follows_the_commanded_velocity(physics: PushTScene) -> None:
    physics.reset(state=[-0.2, -0.2, 0.0, 0.2, 0.0])
    for _ in range(10):
        before = physics.ground_truth()
        after = physics.step_control((0.15, 0.05))
    np.testing.assert_allclose((after - before)[:2], (0.015, 0.005), rtol=0.01)
    np.testing.assert_array_equal(after[2:], before[2:])
    assert physics.time_s == pytest.approx(1.0)
    assert physics.time_ns == 1_000_000_000


def test_push_through_the_centre_shifts_and_a_push_at_the_end_turns(physics: PushTScene) -> None:
    turns = {}
    for x in (0.0, 0.055, -0.055):
        physics.reset(state=[x, 0.07, 0.0, 0.05, 0.0])
        for _ in range(8):
            state = physics.step_control((0.0, -0.12))
        turns[x] = float(state[4])
        assert state[3] < 0.04
    assert turns[0.0] == pytest.approx(0.0, abs=1e-3)
    # Pressing down on the bar's right end turns clockwise, on its left end the other way.
    assert turns[0.055] < -0.4
    assert turns[-0.055] == pytest.approx(-turns[0.055], abs=0.02)


def test_block_stops_soon_when_nothing_pushes(physics: PushTScene) -> None:
    physics.reset(state=[0.0, 0.07, 0.0, 0.05, 0.0])
    for _ in range(6):
        physics.step_control((0.0, -0.15))
    # The pusher leaves, the block slides on for the time constant of its damping only.
    for _ in range(3):
        physics.step_control((0.0, 0.15))
    resting = physics.ground_truth()
    for _ in range(5):
        state = physics.step_control((0.0, 0.15))
    assert np.abs(state[2:] - resting[2:]).max() < 1e-4


def test_walls_hold_pusher_and_block_without_violence(physics: PushTScene) -> None:
    for direction in ((0.15, 0.0), (-0.15, 0.0), (0.0, 0.15), (0.0, -0.15), (0.15, 0.15)):
        heading = math.atan2(direction[1], direction[0])
        start = np.array((-0.07 * math.cos(heading), -0.07 * math.sin(heading)))
        # The stem points along the push, the pusher presses the bar's middle.
        block = (start * 0.6).tolist()
        physics.reset(state=[*start, *block, heading + math.pi / 2])
        before = physics.ground_truth()
        for _ in range(60):
            state = physics.step_control(direction)
            assert wall_clearance(state[2:]) > -0.003
            assert pusher_clearance(state) > -0.003
            assert np.abs(state[:2]).max() <= PUSHER_REACH + 0.001
            assert np.hypot(*(state[2:4] - before[2:4])) < 0.025
            before = state
        # Driven against a wall for seconds, the pusher still turns back within half a second.
        for _ in range(5):
            back = physics.step_control((-direction[0], -direction[1]))
        assert np.hypot(*(back[:2] - state[:2])) > 0.01


def test_pusher_that_begins_at_rest_ends_where_a_moving_one_does(physics: PushTScene) -> None:
    """States that look alike must behave alike, or no picture could tell what comes."""
    physics.reset(state=[-0.2, 0.0, 0.1, 0.2, 0.0])
    for _ in range(10):
        moving = physics.step_control((0.15, 0.0))
    for _ in range(6):
        expected = physics.step_control((0.15, 0.1))
    physics.reset(state=moving)
    for _ in range(6):
        state = physics.step_control((0.15, 0.1))
    np.testing.assert_allclose(state[:2], expected[:2], atol=1e-3)


def test_target_stays_on_its_leash(physics: PushTScene) -> None:
    physics.reset(state=[0.2, 0.0, -0.1, 0.0, 0.0])
    for _ in range(50):
        physics.step_control((0.15, 0.0))
    reached = physics.ground_truth()[0]
    assert reached == pytest.approx(PUSHER_REACH, abs=1e-3)
    assert physics.step_control((-0.15, 0.0))[0] > reached - TARGET_LEASH


def test_random_commands_stay_finite_and_on_the_board(physics: PushTScene) -> None:
    rng = np.random.default_rng(3)
    physics.reset(seed=3)
    worst_overlap = worst_wall = 0.0
    velocity = np.zeros(2)
    for step in range(3000):
        if step % 5 == 0:
            velocity = rng.uniform(-0.15, 0.15, size=2)
        state = physics.step_control(velocity)
        worst_overlap = min(worst_overlap, pusher_clearance(state))
        worst_wall = min(worst_wall, wall_clearance(state[2:]))
        assert np.isfinite(state).all()
    assert worst_overlap > -0.003
    assert worst_wall > -0.003


def test_full_state_is_bit_exact_in_contact_and_across_instances(physics: PushTScene) -> None:
    rng = np.random.default_rng(5)
    physics.reset(state=[0.05, 0.07, 0.0, 0.05, 0.0])
    for _ in range(4):
        physics.step_control((0.0, -0.15))
    full = physics.get_state()
    # Half a control period in, so that the command in force matters too.
    physics.step_physics(0.05)
    half = physics.get_state()
    commands = rng.uniform(-0.15, 0.15, size=(40, 2))
    first = [physics.step_control(command) for command in commands]

    other = PushTScene(seed=9)
    other.set_state(half)
    physics.set_state(full)
    physics.step_physics(0.05)
    for command, expected in zip(commands, first, strict=True):
        physics.render_state([0.1, 0.1, -0.1, 0.0, 1.0], 16, 16)
        np.testing.assert_array_equal(physics.step_control(command), expected)
        np.testing.assert_array_equal(other.step_control(command), expected)
    np.testing.assert_array_equal(physics.get_state(), other.get_state())
    assert physics.time_ns == other.time_ns


def test_control_step_is_ten_physics_steps(physics: PushTScene) -> None:
    physics.reset(seed=4)
    full = physics.get_state()
    expected = physics.step_control((0.1, -0.1))
    physics.set_state(full)
    physics.set_command((0.1, -0.1))
    for _ in range(10):
        physics.step_physics()
    np.testing.assert_array_equal(physics.ground_truth(), expected)


def test_resets_are_seeded(physics: PushTScene) -> None:
    first, second = physics.reset(seed=11), physics.reset()
    assert not np.array_equal(first, second)
    other = PushTScene(seed=3)
    np.testing.assert_array_equal(other.reset(seed=11), first)
    np.testing.assert_array_equal(other.reset(), second)
    assert other.time_ns == 0


def test_given_state_comes_back() -> None:
    state = [0.1, -0.15, -0.05, 0.12, -2.5]
    np.testing.assert_allclose(PushTScene(seed=0).reset(state=state), state, atol=1e-12)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([0.0, 0.0, 0.1], "5 finite numbers"),
        ([0.0, 0.0, 0.1, math.nan, 0.0], "5 finite numbers"),
        ([0.3, 0.0, 0.0, 0.0, 0.0], "pusher is off the board"),
        ([0.2, 0.2, -0.24, 0.0, 0.0], "block reaches into a wall"),
        ([0.0, -0.015, 0.0, 0.0, 0.0], "pusher and block overlap"),
    ],
)
def test_inadmissible_states_are_refused(
    physics: PushTScene, state: list[float], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        physics.reset(state=state)


def test_bad_commands_durations_and_states_are_refused(physics: PushTScene) -> None:
    with pytest.raises(ValueError, match="2 finite numbers"):
        physics.set_command((math.nan, 0.0))
    with pytest.raises(ValueError, match=r"multiples of 0\.01"):
        physics.step_physics(0.025 / 2)
    with pytest.raises(ValueError, match="full state"):
        physics.set_state(np.zeros(3))


def test_commands_beyond_the_limits_are_clamped(physics: PushTScene) -> None:
    start = [-0.2, -0.2, 0.0, 0.2, 0.0]
    physics.reset(state=start)
    expected = physics.step_control((0.15, -0.15))
    physics.reset(state=start)
    np.testing.assert_array_equal(physics.step_control((9.0, -9.0)), expected)


def _centre(mask: np.ndarray) -> np.ndarray:
    """Mean position of a mask's pixels on the board, (2,) m."""
    rows, columns = np.nonzero(mask)
    size = mask.shape[0]
    pixel = BOARD_SIZE / size
    return np.array(
        ((columns.mean() + 0.5) * pixel, (size - rows.mean() - 0.5) * pixel)
    ) - BOARD_SIZE / 2


@pytest.mark.parametrize("size", [64, 224, 512])
def test_picture_shows_pusher_and_block_where_they_are(physics: PushTScene, size: int) -> None:
    state = np.array([-0.15, 0.1, 0.05, -0.06, 2.0])
    physics.reset(state=state)
    picture = physics.render(size, size).astype(int)
    assert picture.shape == (size, size, 3)
    red, _, blue = np.moveaxis(picture, -1, 0)
    pusher, block = red - blue > 100, blue - red > 60
    pixel = BOARD_SIZE / size
    np.testing.assert_allclose(_centre(pusher), state[:2], atol=pixel)
    # Centroid of the two rectangles, weighed by area.
    centroid = to_board((0.0, -(3600 * 15 + 2700 * 75) / 6300 * 1e-3), state[2:])
    np.testing.assert_allclose(_centre(block), centroid, atol=pixel)
    assert pusher.sum() * pixel**2 == pytest.approx(math.pi * 0.015**2, rel=0.3)
    assert block.sum() * pixel**2 == pytest.approx(6.3e-3, rel=0.05)
    # The grey rim is the picture's edge; the board inside is bright.
    edges = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
    assert (edges == edges[0]).all()
    assert edges[0].max() < 130


def test_picture_of_another_state_disturbs_nothing(physics: PushTScene) -> None:
    physics.reset(seed=2)
    now, full = physics.render(64, 64), physics.get_state()
    other = physics.render_state([0.2, 0.2, -0.1, -0.05, 1.0], 64, 64)
    assert not np.array_equal(now, other)
    np.testing.assert_array_equal(physics.get_state(), full)
    np.testing.assert_array_equal(physics.render(64, 64), now)
    np.testing.assert_array_equal(physics.render_state(physics.ground_truth(), 64, 64), now)


def test_two_scenes_sizes_and_threads_render_alike(physics: PushTScene) -> None:
    state = [0.1, -0.15, -0.05, 0.12, -2.5]
    expected = {size: physics.render_state(state, size, size) for size in (64, 224, 300)}
    other = PushTScene(seed=1)
    for size in (224, 64, 300):
        np.testing.assert_array_equal(other.render_state(state, size, size), expected[size])
    other.close()
    np.testing.assert_array_equal(physics.render_state(state, 64, 64), expected[64])
    # Usable after close, too.
    np.testing.assert_array_equal(other.render_state(state, 64, 64), expected[64])

    seen: list[np.ndarray] = []
    thread = threading.Thread(
        target=lambda: (seen.append(physics.render_state(state, 64, 64)), physics.close())
    )
    thread.start()
    thread.join(timeout=30)
    np.testing.assert_array_equal(seen[0], expected[64])
    np.testing.assert_array_equal(physics.render_state(state, 224, 224), expected[224])


def test_pictures_too_large_are_refused(physics: PushTScene) -> None:
    with pytest.raises(UserError, match="1024x1024"):
        physics.render(2000, 64)
