"""Reacher: moves as dm_control's arm does, and the expert gets where it wants."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import make_expert
from lewm_core.scenes.reacher import ReacherScene
from lewm_core.scenes.reacher.scene import (
    ANGLE_TOLERANCE,
    TORQUE_LIMIT,
    VIEW_SIZE,
    WRIST_LIMIT,
    fingertip,
)


@pytest.fixture(scope="module")
def scene() -> ReacherScene:
    return ReacherScene(seed=0)


def test_it_moves_as_dm_controls_arm_does(scene: ReacherScene) -> None:
    # Found, not imported: dm_control makes an OpenGL display of its own.
    package = importlib.util.find_spec("dm_control")
    if package is None or package.origin is None:
        pytest.skip("dm_control is not installed: pip install dm_control")
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(Path(package.origin).parent / "suite/reacher.xml"))
    data = mujoco.MjData(model)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    data.qpos[:] = scene.reset(state=[0.4, -0.7])
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, 2)
        state = scene.step_control(action * TORQUE_LIMIT)
        turned = (data.qpos - state + math.pi) % (2 * math.pi) - math.pi
        np.testing.assert_allclose(turned, 0.0, atol=1e-9)
    assert scene.physics_step_s == model.opt.timestep


def test_full_torque_ends_at_five_radians_a_second(scene: ReacherScene) -> None:
    scene.reset(state=[0.0, 0.0])
    for _ in range(200):
        before = scene.ground_truth()
        after = scene.step_control([TORQUE_LIMIT, 0.0])
    speed = ((after - before)[0] % (2 * math.pi)) / scene.control_period_s
    assert speed == pytest.approx(5.0, rel=0.02)


def test_the_wrist_has_stops(scene: ReacherScene) -> None:
    scene.reset(state=[0.0, 2.0])
    for _ in range(200):
        state = scene.step_control([0.0, TORQUE_LIMIT])
    assert state[1] == pytest.approx(WRIST_LIMIT, abs=0.1)
    with pytest.raises(UserError, match="beyond its stop"):
        scene.reset(state=[0.0, 3.0])


def test_the_picture_shows_the_fingertip(scene: ReacherScene) -> None:
    size = 112
    for state in ([0.3, 0.9], [-2.0, -1.2]):
        picture = scene.render_state(state, size, size).astype(int)
        rows, columns = np.nonzero((picture[..., 0] > 200) & (picture[..., 1] < 120))
        metres = VIEW_SIZE / size
        seen = [
            (columns.mean() + 0.5) * metres - VIEW_SIZE / 2,
            VIEW_SIZE / 2 - (rows.mean() + 0.5) * metres,
        ]
        np.testing.assert_allclose(seen, fingertip(state), atol=metres)


def test_the_criterion_is_every_joints_and_the_shorter_way_round(scene: ReacherScene) -> None:
    goal = np.array([3.13, 0.5])
    for state, success in (
        ([-3.13, 0.5], True),
        ([3.13, 0.549], True),
        ([3.13, 0.551], False),
        ([3.07, 0.5], False),
    ):
        assert scene.outcome(state, goal).success is success
    outcome = scene.outcome([3.13, 0.525], goal)
    assert outcome.margin == pytest.approx(0.5)
    assert outcome.angle_distance == pytest.approx(0.025)
    assert outcome.position_distance == pytest.approx(0.12 * 0.025, rel=1e-3)
    assert scene.criterion.angle_tolerance == ANGLE_TOLERANCE


def test_the_expert_arrives_and_keeps_moving(scene: ReacherScene) -> None:
    expert = make_expert("reacher", seed=0)
    states, legs, arrived = [], 0, 0
    for episode in range(12):
        state = scene.reset(seed=episode)
        expert.reset(seed=episode)
        goal = None
        for _ in range(250):
            action = expert.act(state)
            after = expert.goal_state(state)
            if goal is not None and not np.array_equal(after, goal):
                legs += 1
                arrived += scene.outcome(state, goal).success
            goal = after
            state = scene.step_control(action)
            states.append(state)
    assert legs > 40
    assert arrived / legs > 0.9
    turned = np.reshape(states, (12, 250, 2))
    windows = np.abs((turned[:, 25:] - turned[:, :-25] + math.pi) % (2 * math.pi) - math.pi)
    assert (windows.max(axis=-1) < ANGLE_TOLERANCE).mean() < 0.05
    assert windows.mean(axis=(0, 1)).min() > 0.3
