"""The scripted expert: seeded, within limits, and it moves the block."""

from __future__ import annotations

import numpy as np
import pytest

from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.push_t.geometry import pusher_clearance, wall_clearance
from lewm_core.scenes.push_t.success import push_t_distances, push_t_success


def rollout(seed: int, steps: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """States (steps + 1, 5) and actions (steps, 2) of one episode."""
    scene, expert = make_scene("push_t", seed=seed), make_expert("push_t", seed=seed)
    states, actions = [scene.ground_truth()], []
    for _ in range(steps):
        actions.append(expert.act(states[-1]))
        states.append(scene.step_control(actions[-1]))
    return np.array(states), np.array(actions)


@pytest.fixture(scope="module")
def episodes() -> tuple[np.ndarray, np.ndarray]:
    """States (24, 251, 5) and actions (24, 250, 2)."""
    states, actions = zip(*(rollout(seed) for seed in range(24)), strict=True)
    return np.array(states), np.array(actions)


def test_same_seed_same_commands() -> None:
    first, again = rollout(3, steps=120), rollout(3, steps=120)
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], rollout(4, steps=120)[1])


def test_reset_with_a_seed_begins_again(episodes: tuple[np.ndarray, np.ndarray]) -> None:
    states, actions = episodes
    expert = make_expert("push_t", seed=1)
    for state in states[1, :40]:
        expert.act(state)
    expert.reset(seed=0)
    for state, action in zip(states[0, :100], actions[0, :100], strict=False):
        np.testing.assert_array_equal(expert.act(state), action)


def test_commands_are_finite_and_within_limits(episodes: tuple[np.ndarray, np.ndarray]) -> None:
    actions = episodes[1]
    assert np.isfinite(actions).all()
    assert np.abs(actions).max() <= 0.15 + 1e-12
    assert actions.std(axis=(0, 1)).min() > 0.07


def test_windows_of_25_steps_move_the_block(episodes: tuple[np.ndarray, np.ndarray]) -> None:
    states = episodes[0]
    distances = push_t_distances(states[:, 25:], states[:, :-25])
    assert 0.05 < distances[..., 2].mean() < 0.08  # m; 59 px in the reference prototype
    assert np.degrees(distances[..., 3].mean()) > 25
    joint, block = push_t_success(states[:, 25:], states[:, :-25])
    assert joint.mean() < 0.01
    assert block.mean() < 0.15


def test_no_episode_is_wasted(episodes: tuple[np.ndarray, np.ndarray]) -> None:
    states = episodes[0]
    travelled = np.linalg.norm(np.diff(states[..., 2:4], axis=1), axis=-1).sum(axis=1)
    assert travelled.min() > 0.15
    # The block is met in its whole range, not in one place or at the walls.
    assert states[..., 2:4].std(axis=(0, 1)).min() > 0.06
    poses = states.reshape(-1, 5)[::25]
    assert np.mean([wall_clearance(pose[2:]) < 0.005 for pose in poses]) < 0.15


def test_contacts_are_gentle(episodes: tuple[np.ndarray, np.ndarray]) -> None:
    states = episodes[0].reshape(-1, 5)
    clearances = np.array([pusher_clearance(state) for state in states])
    assert clearances.min() > -0.003
    assert 0.2 < np.mean(clearances < 0.0005) < 0.6
    steps = np.linalg.norm(np.diff(episodes[0][..., 2:4], axis=1), axis=-1)
    assert steps.max() < 0.025


def test_expert_works_from_float32_states_of_a_topic() -> None:
    scene, expert = make_scene("push_t", seed=2), make_expert("push_t", seed=2)
    start = scene.ground_truth()
    for _ in range(150):
        state = scene.step_control(expert.act(scene.ground_truth().astype(np.float32)))
    assert np.hypot(*(state[2:4] - start[2:4])) > 0.02
