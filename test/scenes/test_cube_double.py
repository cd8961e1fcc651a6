"""Two cubes: both count, both are seen, the expert moves either."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.cube.scene import APART, POSITION_TOLERANCE, CubeDoubleScene
from test.scenes.test_cube import needs_ogbench

#: The gripper out of the way; a cube on the left and one on the right.
STATE = np.array([0.26, 0.0, 0.35, 0.0, 0.0, 0.45, -0.2, 0.02, 0.2, 0.5, 0.25, 0.02, -0.3])

pytestmark = needs_ogbench


@pytest.fixture(scope="module")
def scene() -> Iterator[CubeDoubleScene]:
    made = make_scene("cube_double", seed=0)
    assert isinstance(made, CubeDoubleScene)
    yield made
    made.close()


def test_a_goal_is_reached_when_both_cubes_are_there(scene: CubeDoubleScene) -> None:
    for first, second, met in ((0.03, 0.03, True), (0.05, 0.0, False), (0.0, 0.05, False)):
        other = STATE.copy()
        other[5] += first
        other[10] -= second
        outcome = scene.outcome(STATE, other)
        assert outcome.success is met
        assert outcome.position_distance == pytest.approx(max(first, second))
        assert outcome.margin == pytest.approx(max(first, second) / POSITION_TOLERANCE)


def test_drawn_cubes_lie_apart(scene: CubeDoubleScene) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = scene.draw_state(rng)
        assert np.linalg.norm(state[5:7] - state[9:11]) >= APART
        scene.check_state(state)


def test_each_cube_is_seen_in_its_colour_where_it_is(scene: CubeDoubleScene) -> None:
    picture = scene.render_state(STATE, 224, 224).astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)
    columns = {}
    for name, here in (
        ("red", (red > 120) & (green < 90) & (blue < 90)),
        ("green", (green > 90) & (red < 80) & (blue < 80)),
    ):
        assert here.sum() > 120, name
        columns[name] = np.nonzero(here)[1].mean()
    # y points to the right in the picture, 3.6 mm a pixel.
    assert columns["green"] - columns["red"] == pytest.approx(0.45 / 0.8 * 224, rel=0.1)


@pytest.mark.parametrize(
    ("columns", "values", "said"),
    [
        (slice(9, 12), [0.45, -0.21, 0.02], "the cubes are in the same place"),
        (slice(9, 12), [1.5, 0.0, 0.02], "cube2_x and cube2_y lie within"),
        (slice(5, 8), [0.45, -0.2, 0.9], "cube_z within 0.01 and 0.6 m"),
    ],
)
def test_states_that_cannot_be_name_the_cube(
    scene: CubeDoubleScene, columns: slice, values: list[float], said: str
) -> None:
    state = STATE.copy()
    state[columns] = values
    with pytest.raises(UserError, match=said):
        scene.check_state(state)


def test_stacked_cubes_are_admissible_and_stay(scene: CubeDoubleScene) -> None:
    state = STATE.copy()
    state[9:12] = [*state[5:7], 0.06]
    truth = scene.reset(state=state)
    for _ in range(10):
        truth = scene.step_control(np.zeros(5))
    assert truth[11] == pytest.approx(0.06, abs=0.004)


def test_the_expert_places_either_cube_and_leaves_the_other(scene: CubeDoubleScene) -> None:
    expert = make_expert("cube_double", seed=0)
    placed, moved = [], set()
    for episode in range(6):
        truth = scene.reset(seed=episode)
        expert.reset(seed=episode)
        pursued = None
        for _ in range(250):
            goal = expert.goal_state(truth)
            if pursued is not None and goal is not pursued:
                placed.append(scene.outcome(truth, pursued).success)
            if goal is not None and goal is not pursued:
                change = np.abs(goal[5:] - truth[5:]).reshape(2, 4).max(axis=1)
                moved.add(int(change.argmax()))
                assert np.linalg.norm(goal[5:7] - goal[9:11]) > APART - 0.01
            pursued = goal
            truth = scene.step_control(expert.act(truth))
    assert moved == {0, 1}
    assert len(placed) >= 8 and np.mean(placed) > 0.7


def test_masses_of_both_vary_and_violations_are_of_the_first() -> None:
    varied, plain = make_scene("cube_double", vary=["mass"]), make_scene("cube_double")
    try:
        varied.reset(seed=1)
        for name in ("object_0", "object_1"):
            assert varied._model.body(name).mass[0] != plain._model.body(name).mass[0]
        before = plain.reset(state=STATE)
        plain.violate("teleport", seed=3)
        after = plain.ground_truth()
        assert np.linalg.norm(after[5:7] - before[5:7]) > 0.01
        np.testing.assert_allclose(after[9:], before[9:], atol=1e-9)
    finally:
        varied.close()
        plain.close()
