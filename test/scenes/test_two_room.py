"""Two-Room: walls hold, the door lets through, the expert uses it."""

from __future__ import annotations

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.two_room import TwoRoomScene
from lewm_core.scenes.two_room.scene import (
    FLOOR_SIZE,
    POSITION_TOLERANCE,
    REACH,
    SPEED_LIMIT,
    wall_clearance,
)


@pytest.fixture(scope="module")
def scene() -> TwoRoomScene:
    return TwoRoomScene(seed=0)


def drive(scene: TwoRoomScene, state: list[float], velocity: list[float], steps: int) -> np.ndarray:
    scene.reset(state=state)
    for _ in range(steps):
        truth = scene.step_control(velocity)
    return truth


def test_a_free_robot_makes_the_commanded_way(scene: TwoRoomScene) -> None:
    end = drive(scene, [-0.8, 0.0, 0.3], [0.3, -0.2], 10)
    # The time constant of 33 ms costs 10 mm of 300 once.
    np.testing.assert_allclose(end, [-0.51, -0.1933, 0.3], atol=2e-3)


def test_walls_hold_and_let_slide(scene: TwoRoomScene) -> None:
    end = drive(scene, [-0.5, 0.5, -0.5], [SPEED_LIMIT, 0.2], 15)
    assert end[0] == pytest.approx(-0.12, abs=0.004)
    assert end[1] == pytest.approx(0.79, abs=0.01)
    end = drive(scene, [-0.5, -0.8, 0.0], [-SPEED_LIMIT, -SPEED_LIMIT], 15)
    np.testing.assert_allclose(end[:2], [-REACH, -REACH], atol=0.004)


@pytest.mark.parametrize("door", [-0.7, 0.0, 0.45])
def test_the_door_lets_through_where_it_is(scene: TwoRoomScene, door: float) -> None:
    assert drive(scene, [-0.5, door, door], [SPEED_LIMIT, 0.0], 20)[0] > 0.4
    beside = door + 0.2 if door < 0 else door - 0.2
    assert drive(scene, [-0.5, beside, door], [SPEED_LIMIT, 0.0], 20)[0] < -0.1


def test_the_picture_shows_robot_and_door(scene: TwoRoomScene) -> None:
    size = 112
    picture = scene.render_state([0.6, -0.4, 0.5], size, size).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 100)
    rows, columns = np.nonzero(red)
    metres = FLOOR_SIZE / size
    assert (columns.mean() + 0.5) * metres - FLOOR_SIZE / 2 == pytest.approx(0.6, abs=metres)
    assert FLOOR_SIZE / 2 - (rows.mean() + 0.5) * metres == pytest.approx(-0.4, abs=metres)
    middle = picture[:, size // 2].sum(axis=-1) > 600
    open_rows = np.nonzero(middle)[0]
    assert FLOOR_SIZE / 2 - (open_rows.mean() + 0.5) * metres == pytest.approx(0.5, abs=metres)
    assert len(open_rows) * metres == pytest.approx(0.28, abs=2 * metres)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([0.0, 0.5, 0.0], "reaches into a wall"),
        ([0.95, 0.0, 0.0], "reaches into a wall"),
        ([0.5, 0.0, 0.8], "door_y lies within"),
    ],
)
def test_inadmissible_states_are_refused(
    scene: TwoRoomScene, state: list[float], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        scene.reset(state=state)
    # In the door is no wall.
    scene.reset(state=[0.0, 0.05, 0.0])


def test_the_criterion_is_the_robots_place(scene: TwoRoomScene) -> None:
    state = np.array([0.5, 0.5, 0.1])
    for away, success in ((0.159, True), (0.161, False)):
        assert scene.outcome(state, state + [away, 0.0, 0.3]).success is success
    assert scene.outcome(state, state + [0.08, 0.0, 0.0]).margin == pytest.approx(0.5)
    assert scene.criterion.position_tolerance == POSITION_TOLERANCE


def test_the_expert_crosses_both_ways_and_meets_walls(scene: TwoRoomScene) -> None:
    expert = make_expert("two_room", seed=0)
    places, legs, arrived = [], 0, 0
    for episode in range(12):
        state = scene.reset(seed=episode)
        expert.reset(seed=episode)
        goal = None
        for _ in range(250):
            action = expert.act(state)
            after = expert.goal_state(state)
            if goal is not None and not np.array_equal(after, goal):
                legs += 1
                arrived += np.abs(goal - state).max() < 0.03
            goal = after
            state = scene.step_control(action)
            places.append(state)
    states = np.reshape(places, (12, 250, 3))
    sides = np.sign(states[..., 0])
    crossings = np.abs(np.diff(sides, axis=1)).sum(axis=1) / 2
    assert crossings.mean() > 3
    # The others went straight for a place behind the wall.
    assert legs > 40 and arrived / legs > 0.75
    clearance = np.array([wall_clearance(state) for state in places])
    assert clearance.min() > -0.005
    assert 0.02 < (clearance < 0.005).mean() < 0.3
    windows = np.linalg.norm(states[:, 25:, :2] - states[:, :-25, :2], axis=-1)
    assert (windows < POSITION_TOLERANCE).mean() < 0.15


def test_the_goal_of_an_environment_has_the_same_door() -> None:
    scene = make_scene("two_room")
    scene.close()
    import gymnasium

    env = gymnasium.make("lewm/TwoRoom-v0", observation="state")
    for seed in range(3):
        _, info = env.reset(seed=seed)
        assert info["goal_state"][2] == pytest.approx(info["state"][2])
        assert not np.array_equal(info["goal_state"][:2], info["state"][:2])
    env.close()
