"""Violations: each does what it says, ends with the episode, and is part of the full state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.push_t import PushTScene
from lewm_core.scenes.variations import known_violations
from test.scenes.every_scene import SCENES


@pytest.fixture(scope="module", params=SCENES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def scene(name: str) -> Iterator[MujocoScene]:
    made = make_scene(name, seed=0)
    yield made
    made.close()


def drive(scene: MujocoScene, name: str, violation: str | None, steps: int = 60) -> np.ndarray:
    """States (steps + 1, N) of an episode in which something happens after 10 steps."""
    expert = make_expert(name, seed=1)
    states = [scene.reset(seed=1)]
    for step in range(steps):
        if step == 10 and violation is not None:
            scene.violate(violation, seed=2)
        states.append(scene.step_control(expert.act(states[-1])))
    return np.array(states)


def test_a_teleported_object_is_elsewhere_and_the_rest_is_not(
    scene: MujocoScene, name: str
) -> None:
    columns = scene.varied_parts.object_state
    before = drive(scene, name, None, steps=10)[-1]
    picture = scene.render(64, 64)
    scene.violate("teleport", seed=3)
    after = scene.ground_truth() if name != "cube" else scene.step_control(np.zeros(5))
    assert np.abs(after - before)[columns].max() > 0.05
    rest = np.ones(len(before), bool)
    rest[columns] = False
    np.testing.assert_allclose(after[rest], before[rest], atol=0.02)
    assert not np.array_equal(scene.render(64, 64), picture)


def test_a_frozen_object_stands_still(scene: MujocoScene, name: str) -> None:
    columns = scene.varied_parts.object_state
    moved = drive(scene, name, None, steps=120)[:, columns]
    stood = drive(scene, name, "freeze", steps=120)[:, columns]
    np.testing.assert_array_equal(moved[:11], stood[:11])
    assert np.ptp(moved[10:], axis=0).max() > 0.01
    # Where it was, and there it stays.
    np.testing.assert_allclose(stood[11:], np.broadcast_to(stood[10], stood[11:].shape), atol=1e-3)


def test_a_recoloured_object_moves_as_before_and_looks_different(
    scene: MujocoScene, name: str
) -> None:
    plain = drive(scene, name, None)
    picture = scene.render(96, 96)
    np.testing.assert_array_equal(drive(scene, name, "recolour"), plain)
    assert not np.array_equal(scene.render(96, 96), picture)
    # With the episode it is over.
    drive(scene, name, None)
    np.testing.assert_array_equal(scene.render(96, 96), picture)


@pytest.mark.parametrize("violation", known_violations())
def test_the_full_state_brings_it_back_and_a_reset_ends_it(
    scene: MujocoScene, name: str, violation: str
) -> None:
    plain = drive(scene, name, None)
    drive(scene, name, violation, steps=20)
    full, picture = scene.get_state(), scene.render(64, 64)
    hold = np.zeros(len(scene.action_lower))
    expected = [scene.step_control(hold) for _ in range(5)]
    np.testing.assert_array_equal(drive(scene, name, None), plain)
    other = make_scene(name, seed=5)
    for instance in (scene, other):
        instance.set_state(full)
        np.testing.assert_array_equal(instance.render(64, 64), picture)
        np.testing.assert_array_equal([instance.step_control(hold) for _ in range(5)], expected)
    other.close()


def test_a_ghost_passes_through_what_would_hold_it() -> None:
    scene = PushTScene(seed=0)
    start = [0.0, -0.2, 0.0, 0.1, 0.0]
    ends = []
    for violation in (None, "ghost"):
        scene.reset(state=start)
        if violation:
            scene.violate(violation)
        for _ in range(25):
            state = scene.step_control([0.0, 0.15])
        ends.append(state)
    assert ends[0][3] > start[3] + 0.05  # the pusher took the block along
    np.testing.assert_allclose(ends[1][2:], start[2:], atol=1e-9)
    assert ends[1][1] > 0.1  # and went on through it


def test_an_unknown_violation_lists_the_known_ones(scene: MujocoScene) -> None:
    with pytest.raises(UserError, match="known violations: teleport, freeze, ghost, recolour"):
        scene.violate("telport")
