"""Variations: named, seeded, off by default, part of the full state."""

from __future__ import annotations

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.variations import known_variations
from test.scenes.every_scene import SCENES

#: What shows in a picture; the others show in what happens only.
LOOKS = ("colour", "light", "camera", "size")


@pytest.mark.parametrize("scene_name", SCENES)
@pytest.mark.parametrize("name", known_variations())
def test_a_variation_changes_what_it_says_and_comes_again(scene_name: str, name: str) -> None:
    plain, varied = make_scene(scene_name, seed=0), make_scene(scene_name, seed=0, vary=[name])
    expert = make_expert(scene_name, seed=0)
    state = start = plain.reset(seed=1)
    commands, expected = [], []
    for _ in range(100):
        commands.append(expert.act(state))
        state = plain.step_control(commands[-1])
        expected.append(state)
    plain.reset(state=start)
    looks, ends = [], []
    for _ in range(3):
        varied.reset(state=start)
        looks.append(varied.render(224, 224))
        ends.append([varied.step_control(command) for command in commands])
    shown = [not np.array_equal(picture, plain.render(224, 224)) for picture in looks]
    assert all(shown) if name in LOOKS else not any(shown)
    if name == "mass":
        assert not any(np.array_equal(end, expected) for end in ends)
    again = make_scene(scene_name, seed=0, vary=[name])
    for picture, end in zip(looks, ends, strict=True):
        again.reset(state=start)
        np.testing.assert_array_equal(again.render(224, 224), picture)
        np.testing.assert_array_equal([again.step_control(command) for command in commands], end)
    for scene in (plain, varied, again):
        scene.close()


@pytest.mark.parametrize("scene_name", SCENES)
def test_the_full_state_brings_looks_and_physics_back(scene_name: str) -> None:
    scene, other = (
        make_scene(scene_name, seed=seed, vary=known_variations()) for seed in (0, 1)
    )
    scene.reset(seed=2)
    scene.step_control(scene.action_upper)
    full, picture = scene.get_state(), scene.render(64, 64)
    end = [scene.step_control(scene.action_lower) for _ in range(10)]
    for instance in (scene, other):
        instance.reset(seed=5)
        assert not np.array_equal(instance.render(64, 64), picture)
        instance.set_state(full)
        np.testing.assert_array_equal(instance.render(64, 64), picture)
        found = [instance.step_control(instance.action_lower) for _ in range(10)]
        np.testing.assert_array_equal(found, end)
        instance.close()


def test_varied_resets_draw_the_same_states() -> None:
    """Only the looks differ, so that results with and without can be compared goal by goal."""
    plain, varied = make_scene("push_t", seed=0), make_scene("push_t", seed=0, vary=["light"])
    np.testing.assert_array_equal(plain.reset(seed=3), varied.reset(seed=3))


def test_an_unknown_variation_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown variation 'ligth'.*camera.*mean light?") as error:
        make_scene("push_t", vary=["ligth"])
    assert "\n" not in str(error.value)
