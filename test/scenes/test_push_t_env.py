"""``lewm/PushT-v0`` as Gymnasium sees it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import lewm_core.scenes
from lewm_core.errors import UserError
from lewm_core.scenes.push_t import PushTEnv


@pytest.fixture
def env() -> Iterator[PushTEnv]:
    made = PushTEnv(observation="state", render_mode="rgb_array", image_size=64)
    yield made
    made.close()


@pytest.mark.parametrize("observation", ["picture", "state"])
def test_gymnasium_checker_has_nothing_to_say(observation: str) -> None:
    made = gymnasium.make(
        "lewm/PushT-v0", observation=observation, image_size=64, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)
    assert made.spec is not None and made.spec.max_episode_steps == 300
    made.close()


def test_registering_again_changes_nothing() -> None:
    before = gymnasium.spec("lewm/PushT-v0")
    lewm_core.scenes.register_scenes()
    assert gymnasium.spec("lewm/PushT-v0") is before


def test_resets_are_seeded_and_given_states_do_not_shift_the_draw(env: PushTEnv) -> None:
    drawn, info = env.reset(seed=5)
    again, info_again = env.reset(seed=5)
    np.testing.assert_array_equal(drawn, again)
    np.testing.assert_array_equal(info["goal_state"], info_again["goal_state"])
    _, later = env.reset()
    assert not np.array_equal(later["state"], drawn)

    state = [0.1, -0.15, -0.05, 0.12, -2.5]
    given, info_given = env.reset(seed=5, options={"state": state})
    np.testing.assert_allclose(given, state, atol=1e-12)
    np.testing.assert_array_equal(info_given["goal_state"], info["goal_state"])
    kept, info_goal = env.reset(seed=5, options={"goal_state": state})
    np.testing.assert_array_equal(kept, drawn)
    np.testing.assert_array_equal(info_goal["goal_state"], state)


def test_success_ends_the_episode_and_bounds_the_reward(env: PushTEnv) -> None:
    state = np.array([0.1, 0.1, -0.1, 0.0, 0.3])
    near = state + [0.01, 0.0, 0.0, 0.0, 0.2]
    env.reset(options={"state": state, "goal_state": near})
    observation, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert terminated and info["success"] and not truncated
    assert -1.0 < reward <= 0.0
    assert reward == pytest.approx(-0.2 / (math.pi / 9))
    np.testing.assert_array_equal(observation, info["state"])
    assert info["position_distance"] == pytest.approx(0.01, abs=1e-6)
    assert info["time_s"] == pytest.approx(0.1)

    env.reset(options={"state": state, "goal_state": [0.1, 0.1, 0.1, 0.0, 0.3]})
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert not terminated and not info["success"]
    assert reward == pytest.approx(-0.2 / 0.02)


def test_success_need_not_terminate() -> None:
    env = PushTEnv(observation="state", terminate_on_success=False)
    state, info = env.reset(seed=1)
    env.reset(options={"state": state, "goal_state": state})
    _, _, terminated, _, info = env.step(np.zeros(2))
    assert info["success"] and not terminated


def test_full_state_brings_back_trajectory_and_goal(env: PushTEnv) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.15, 0.15, size=(30, 2)).astype(np.float32)
    _, info = env.reset(seed=8)
    for action in actions[:10]:
        env.step(action)
    full = env.get_state()
    first = [env.step(action) for action in actions]
    env.reset(seed=99)
    env.set_state(full)
    for action, expected in zip(actions, first, strict=True):
        observation, reward, _, _, now = env.step(action)
        np.testing.assert_array_equal(observation, expected[0])
        assert reward == expected[1]
        np.testing.assert_array_equal(now["goal_state"], info["goal_state"])
    with pytest.raises(ValueError, match="full state"):
        env.set_state(full[:-1])


def test_pictures_of_the_goal_and_of_now(env: PushTEnv) -> None:
    _, info = env.reset(seed=3)
    now = env.render()
    goal = env.goal_picture()
    assert now is not None and now.shape == goal.shape == (64, 64, 3)
    np.testing.assert_array_equal(env.render_state(info["state"]), now)
    np.testing.assert_array_equal(env.render_state(info["goal_state"]), goal)
    assert not np.array_equal(now, goal)
    env.reset(options={"state": info["goal_state"]})
    np.testing.assert_array_equal(env.render(), goal)


def test_observation_is_the_picture() -> None:
    env = PushTEnv(image_size=48)
    observation, info = env.reset(seed=3)
    np.testing.assert_array_equal(observation, env.render_state(info["state"]))
    assert env.render() is None
    env.close()


def test_bad_arguments_are_named(env: PushTEnv) -> None:
    with pytest.raises(UserError, match="human"):
        PushTEnv(render_mode="human")
    with pytest.raises(UserError, match="pixels"):
        PushTEnv(observation="pixels")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="goal_states.*known options: state, goal_state"):
        env.reset(options={"goal_states": np.zeros(5)})
    with pytest.raises(UserError, match="overlap"):
        env.reset(options={"goal_state": [0.0, -0.015, 0.0, 0.0, 0.0]})
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([math.nan, 0.0]))
