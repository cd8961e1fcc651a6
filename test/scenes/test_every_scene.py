"""What every scene promises, whatever is in it: one list for all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lewm_core.collection.recording import check_scene_contract
from lewm_core.data.contract import load_contract
from lewm_core.errors import UserError
from lewm_core.evaluation.closed_loop import DoNothing, ReplayActions, run_goal
from lewm_core.evaluation.goals import goals_from_expert
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.registry import environment_id
from test.scenes.every_scene import SCENES


@pytest.fixture(scope="module", params=SCENES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def scene(name: str) -> Iterator[MujocoScene]:
    made = make_scene(name, seed=0)
    assert isinstance(made, MujocoScene)
    yield made
    made.close()


def commands(scene: MujocoScene, number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(scene.action_lower, scene.action_upper, (number, len(scene.action_lower)))


def test_the_contract_is_the_scenes(name: str, scene: MujocoScene) -> None:
    contract = load_contract(name)
    check_scene_contract(scene, name, contract)
    lower, upper, *_ = contract.action_limits()
    np.testing.assert_allclose(lower, scene.action_lower)
    np.testing.assert_allclose(upper, scene.action_upper)
    assert tuple(contract.action_names) == tuple(scene.action_names)
    # An expert over ROS sees the state topic and nothing else.
    assert tuple(contract.state_names) == tuple(scene.state_names)
    assert tuple(contract.state_units) == tuple(scene.state_units)


@pytest.mark.parametrize("observation", ["picture", "state"])
def test_gymnasium_checker_has_nothing_to_say(name: str, observation: str) -> None:
    made = gymnasium.make(
        environment_id(name), observation=observation, image_size=32, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Actions have units: a limit may be above 1.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")
        check_env(made.unwrapped)
    made.reset(seed=0)
    for _ in range(3):
        observed, reward, *_, info = made.step(made.action_space.sample())
        assert made.observation_space.contains(observed)
        assert math.isfinite(reward) and reward == -info["margin"]
    made.close()


def test_resets_are_seeded_and_admissible(name: str, scene: MujocoScene) -> None:
    first = [scene.reset(seed=4), scene.reset(), scene.reset()]
    again = [scene.reset(seed=4), scene.reset(), scene.reset()]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    for drawn in first:
        np.testing.assert_allclose(scene.reset(state=drawn), drawn, atol=2e-3)
    assert scene.time_s == 0.0


def test_full_state_is_bit_exact_also_in_another_instance(name: str, scene: MujocoScene) -> None:
    actions = commands(scene, 30)
    scene.reset(seed=1)
    for action in actions[:10]:
        scene.step_control(action)
    full = scene.get_state()
    expected = [scene.step_control(action) for action in actions]
    picture = scene.render(48, 48)
    other = make_scene(name, seed=9)
    for instance in (scene, other):
        instance.set_state(full)
        np.testing.assert_array_equal(instance.get_state(), full)
        found = [instance.step_control(action) for action in actions]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(instance.render(48, 48), picture)
    other.close()
    with pytest.raises(ValueError, match="full state"):
        scene.set_state(full[:-1])


def test_a_control_step_is_its_physics_steps(scene: MujocoScene) -> None:
    action = commands(scene, 1)[0]
    scene.reset(seed=2)
    full = scene.get_state()
    at_once = scene.step_control(action)
    scene.set_state(full)
    scene.set_command(action)
    scene.step_physics(scene.control_period_s)
    np.testing.assert_array_equal(scene.ground_truth(), at_once)
    assert scene.time_s == pytest.approx(scene.control_period_s)
    assert scene.time_ns == round(scene.control_period_s * 1e9)
    for duration in (0.0, -scene.physics_step_s, 1.5 * scene.physics_step_s):
        with pytest.raises(ValueError, match="multiples"):
            scene.step_physics(duration)


def test_commands_are_clamped_and_checked(scene: MujocoScene) -> None:
    scene.reset(seed=3)
    full = scene.get_state()
    at_limit = scene.step_control(scene.action_upper)
    scene.set_state(full)
    np.testing.assert_array_equal(scene.step_control(3.0 * scene.action_upper), at_limit)
    wrong = np.zeros(len(scene.action_lower) + 1)
    for command in (wrong, wrong[:-1] + math.nan):
        with pytest.raises(ValueError, match=f"{len(scene.action_lower)} finite numbers"):
            scene.step_control(command)


def test_pictures_show_states_and_disturb_nothing(scene: MujocoScene) -> None:
    state = scene.reset(seed=5)
    full = scene.get_state()
    now = scene.render(64, 64)
    assert now.shape == (64, 64, 3) and now.dtype == np.uint8
    other = scene.draw_state(np.random.default_rng(11))
    assert not np.array_equal(scene.render_state(other, 64, 64), now)
    np.testing.assert_array_equal(scene.render_state(state, 64, 64), now)
    np.testing.assert_array_equal(scene.render(64, 64), now)
    assert scene.render(96, 48).shape == (48, 96, 3)
    np.testing.assert_array_equal(scene.get_state(), full)


def test_every_camera_gives_pictures_and_others_are_refused(scene: MujocoScene) -> None:
    scene.reset(seed=2)
    pictures = [scene.render(48, 32, camera) for camera in scene.cameras]
    np.testing.assert_array_equal(scene.render(48, 32), pictures[0])
    for number, picture in enumerate(pictures):
        assert picture.shape == (32, 48, 3) and picture.std() > 5
        assert all((picture != other).any() for other in pictures[:number])
    with pytest.raises(UserError, match=f"unknown camera 'sky'; the scene has {scene.cameras[0]}"):
        scene.render(48, 32, "sky")


def test_states_that_cannot_be_are_refused_in_one_line(scene: MujocoScene) -> None:
    state = scene.reset(seed=6)
    for wrong in (state[:-1], np.full_like(state, math.nan)):
        for refuse in (scene.check_state, lambda s: scene.reset(state=s), scene.render_state):
            with pytest.raises(UserError, match=f"{len(state)} finite numbers") as error:
                refuse(wrong)
            assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=scene.title):
        scene.check_state(np.full_like(state, 99.0))


def test_a_state_is_its_own_goal(scene: MujocoScene) -> None:
    rng = np.random.default_rng(7)
    state, other = scene.draw_state(rng), scene.draw_state(rng)
    same, apart = scene.outcome(state, state), scene.outcome(state, other)
    assert same.success and same.object_success and same.margin == 0.0
    assert same.position_distance == 0.0
    assert apart.success == (apart.margin < 1.0)
    assert scene.criterion.text and "\n" not in scene.criterion.text
    for value, tolerance in (
        (apart.position_distance, scene.criterion.position_tolerance),
        (apart.angle_distance, scene.criterion.angle_tolerance),
    ):
        assert tolerance is None or math.isfinite(value)


def test_the_expert_is_seeded_and_stays_within_limits(name: str, scene: MujocoScene) -> None:
    expert = make_expert(name, seed=0)

    def episode() -> np.ndarray:
        state = scene.reset(seed=8)
        expert.reset(seed=8)
        actions = []
        for _ in range(60):
            # As from a topic of 32-bit numbers.
            actions.append(expert.act(state.astype(np.float32)))
            state = scene.step_control(actions[-1])
        return np.array(actions)

    first = episode()
    np.testing.assert_array_equal(episode(), first)
    assert np.isfinite(first).all()
    assert (first >= scene.action_lower - 1e-12).all()
    assert (first <= scene.action_upper + 1e-12).all()
    assert first.std(axis=0).min() > 0


def test_goals_of_the_expert_are_reached_by_its_commands_and_not_by_waiting(
    name: str, scene: MujocoScene
) -> None:
    """`replay` is the ceiling of every evaluation, `do nothing` its floor."""
    size = load_contract(name).camera.size
    goals = goals_from_expert(scene, 12, seed=3, picture_size=size, scene_name=name)
    replayed = [run_goal(scene, goal, ReplayActions(), 25) for goal in goals]
    hold = np.zeros(len(scene.action_lower))
    waited = [run_goal(scene, goal, DoNothing(hold), 25) for goal in goals]
    assert all(result.success_end for result in replayed)
    # Cubes wait for the arm in four of ten windows of this length and more.
    most = {"cube": 6, "cube_double": 8}.get(name, 3)
    assert sum(result.success_end for result in waited) <= most
