"""Cube: OGBench's law and physics, pictures that show what is there, an expert that places."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm_core.collection.recording import check_scene_contract
from lewm_core.commands.collect import main
from lewm_core.data.cache import build_cache
from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.errors import ContractError, UserError
from lewm_core.scenes import make_expert
from lewm_core.scenes.cube import CubeScene
from lewm_core.scenes.cube.model import merge_vertices
from lewm_core.scenes.cube.scene import (
    CUBE_SIZE,
    GRIP_LIMIT,
    POSITION_TOLERANCE,
    SPEED_LIMIT,
    TURN_LIMIT,
    WORKSPACE,
)

# Found, not imported: OGBench loads OpenGL, and triton must come before (see `rendering`).
needs_ogbench = pytest.mark.skipif(
    importlib.util.find_spec("ogbench") is None,
    reason="ogbench is not installed: pip install 'lewm-ros[cube]'",
)

#: Above the middle of the table, half open; the cube out of the way.
MIDDLE = np.array([0.42, 0.0, 0.2, 0.5, 0.5, 0.5, 0.25, 0.02, 0.3])


@pytest.fixture(scope="module")
def scene() -> CubeScene:
    return CubeScene(seed=0)


@needs_ogbench
def test_law_and_physics_are_ogbenchs_without_gravity(scene: CubeScene) -> None:
    import mujoco
    from ogbench.manipspace.envs.cube_env import CubeEnv

    theirs = CubeEnv("single", mode="data_collection", visualize_info=False)
    theirs.reset(seed=0)
    ours, model, data = scene._model, theirs.model, theirs.data
    for name in ("body_mass", "geom_size", "geom_friction", "dof_damping", "actuator_biasprm"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(model, name))
    rng = np.random.default_rng(0)
    gravity = ours.opt.gravity.copy()
    try:
        # What is compensated here weighs nothing there.
        ours.opt.gravity[:] = model.opt.gravity[:] = 0.0
        for _ in range(10):
            scene.reset(state=scene.draw_state(rng))
            for _ in range(4):
                action = rng.uniform(-1.0, 1.0, 5)
                data.qpos[:], data.qvel[:] = scene._data.qpos, scene._data.qvel
                data.qacc_warmstart[:] = scene._data.qacc_warmstart
                theirs._data.time = scene._data.time
                mujoco.mj_forward(model, data)
                theirs.set_control(action)
                scene.set_command(action * scene.action_upper)
                scene.step_physics()
                np.testing.assert_allclose(scene._data.ctrl, data.ctrl, atol=1e-9)
                mujoco.mj_step(model, data, 25)
                scene.step_physics(0.048)
                np.testing.assert_allclose(scene._data.qpos, data.qpos, atol=1e-6)
    finally:
        ours.opt.gravity[:] = gravity


@needs_ogbench
@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("part", [-1.0, -0.3, 0.3, 1.0])
def test_a_free_arm_moves_as_commanded(scene: CubeScene, axis: int, part: float) -> None:
    scene.reset(state=MIDDLE)
    command = np.zeros(5)
    command[axis] = part * (TURN_LIMIT if axis == 3 else SPEED_LIMIT)
    states = [scene.step_control(command) for _ in range(5)]
    speed = (states[-1] - states[1])[axis] / 0.15
    assert speed == pytest.approx(command[axis], rel=1 / 6)


@needs_ogbench
def test_the_gripper_opens_and_closes_as_commanded(scene: CubeScene) -> None:
    for rate in (2.0, -2.0):
        scene.reset(state=MIDDLE)
        states = [scene.step_control([0, 0, 0, 0, rate])[4] for _ in range(3)]
        assert (states[-1] - 0.5) / 0.15 == pytest.approx(rate, rel=0.1)
    for _ in range(10):
        state = scene.step_control([0, 0, 0, 0, GRIP_LIMIT])
    assert state[4] > 0.95


@needs_ogbench
def test_no_command_holds_the_arm_and_what_it_holds(scene: CubeScene) -> None:
    start = scene.reset(state=MIDDLE)
    for _ in range(60):
        state = scene.step_control(np.zeros(5))
    np.testing.assert_allclose(state[:4], start[:4], atol=1e-4)
    np.testing.assert_allclose(state[5:], start[5:], atol=1e-3)
    scene.reset(state=[0.42, 0.1, 0.02, 0.0, 0.0, 0.42, 0.1, 0.02, 0.0])
    for command, steps in (([0, 0, 0, 0, 8], 12), ([0, 0, 0.3, 0, 8], 10)):
        for _ in range(steps):
            lifted = scene.step_control(command)
    assert lifted[7] > 0.1
    for _ in range(40):
        held = scene.step_control(np.zeros(5))
    assert held[7] == pytest.approx(lifted[7], abs=0.03)
    for _ in range(20):
        dropped = scene.step_control([0, 0, 0, 0, -8])
    assert dropped[7] == pytest.approx(CUBE_SIZE / 2, abs=2e-3)


@needs_ogbench
def test_targets_stay_in_the_workspace(scene: CubeScene) -> None:
    scene.reset(state=MIDDLE)
    for _ in range(40):
        state = scene.step_control([SPEED_LIMIT, SPEED_LIMIT, -SPEED_LIMIT, 0.0, 0.0])
    np.testing.assert_allclose(
        state[:3], [WORKSPACE[1, 0], WORKSPACE[1, 1], WORKSPACE[0, 2]], atol=0.01
    )


@needs_ogbench
def test_states_are_placed_where_they_say_they_are(scene: CubeScene) -> None:
    rng = np.random.default_rng(1)
    lower = np.array([*WORKSPACE[0], -math.pi, 0.0, 0.3, -0.3, 0.02, -math.pi / 4])
    upper = np.array([*WORKSPACE[1], math.pi, 1.0, 0.55, 0.3, 0.3, math.pi / 4])
    for _ in range(100):
        state = rng.uniform(lower, upper)
        np.testing.assert_allclose(scene.reset(state=state), state, atol=1e-6)


@needs_ogbench
@pytest.mark.parametrize("place", [(0.3, -0.3), (0.3, 0.3), (0.55, -0.3), (0.55, 0.3), (0.4, 0.0)])
def test_the_picture_shows_the_cube_where_it_is(
    scene: CubeScene, place: tuple[float, float]
) -> None:
    size = 224
    # The gripper behind it, from the camera.
    state = np.array([0.26, 0.0, 0.35, 0.0, 0.0, *place, 0.02, 0.2])
    picture = scene.render_state(state, size, size).astype(int)
    red = (picture[..., 0] > 120) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
    rows, columns = np.nonzero(red)
    camera = scene._shown.camera("workspace")
    seen = camera.xmat.reshape(3, 3).T @ (state[5:8] - camera.xpos)
    focus = size / 2 / math.tan(math.radians(scene._shown_model.camera("workspace").fovy[0]) / 2)
    expected = size / 2 + focus * np.array([seen[0], -seen[1]]) / -seen[2]
    assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx(expected, abs=1.5)
    # At 64 px these are 10 and more.
    assert len(rows) > 120


def _red(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cube's pixels."""
    colours = picture.astype(int)
    return np.nonzero((colours[..., 0] > 120) & (colours[..., 1:] < 90).all(axis=-1))


@needs_ogbench
def test_the_wrist_sees_what_the_fingers_hold_wherever_the_arm_is(scene: CubeScene) -> None:
    for x, y, yaw in ((0.35, -0.2, 0.0), (0.5, 0.2, 0.6)):
        held = np.array([x, y, 0.02, yaw, 0.3, x, y, 0.02, yaw])
        rows, columns = _red(scene.render_state(held, 224, 224, "wrist"))
        # In the middle of the picture, as large as a cube of 40 mm some 20 cm away.
        assert [rows.mean(), columns.mean()] == pytest.approx([112, 112], abs=15)
        assert 1000 < len(rows) < 6000
    far = np.array([0.35, -0.2, 0.3, 0.0, 0.0, 0.5, 0.25, 0.02, 0.0])
    assert len(_red(scene.render_state(far, 224, 224, "wrist"))[0]) < 200


@needs_ogbench
def test_the_side_camera_sees_heights(scene: CubeScene) -> None:
    low = np.array([0.3, 0.2, 0.3, 0.0, 0.0, 0.45, 0.0, 0.02, 0.0])
    high = low.copy()
    high[7] = 0.22
    below, above = (_red(scene.render_state(state, 224, 224, "side")) for state in (low, high))
    # 200 mm, of which the camera, 34 degrees above, sees five sixths: 2.8 mm a pixel there.
    assert below[0].mean() - above[0].mean() == pytest.approx(200 * 0.829 * 224 / 800, rel=0.15)
    assert below[1].mean() == pytest.approx(above[1].mean(), abs=3)


@needs_ogbench
def test_a_contract_of_several_cameras_names_those_of_the_scene(scene: CubeScene) -> None:
    contract = load_contract("cube_two_cameras")
    check_scene_contract(scene, "cube", contract)
    values = contract.to_dict()
    values["cameras"][1]["name"] = "elbow"
    with pytest.raises(ContractError, match="no camera 'elbow'; the scene has workspace, side, w"):
        check_scene_contract(scene, "cube", Contract.from_dict(values))


@needs_ogbench
def test_both_cameras_are_recorded(tmp_path: Path) -> None:
    arguments = ["cube", "--episodes", "1", "--steps", "10", "--workers", "1", "--seed", "3"]
    out, alone = tmp_path / "two", tmp_path / "one"
    assert main([*arguments, "--contract", "cube_two_cameras", "--out", str(out)]) == 0
    assert main([*arguments, "--out", str(alone)]) == 0
    assert contract_differences(load_contract(out), load_contract("cube_two_cameras")) == []
    names = ("workspace", "wrist")
    both = build_cache(out, load_contract(out), 64, tmp_path / "cache", cameras=names)
    one = build_cache(alone, load_contract(alone), 64, tmp_path / "cache")
    assert both.frames.shape == (3, 6, 64, 64)
    # The second camera changes nothing about the first.
    np.testing.assert_array_equal(both.frames[:, :3], one.frames)
    assert (both.frames[:, 3:] != both.frames[:, :3]).mean() > 0.5


@needs_ogbench
def test_pictures_have_no_target_and_a_bearable_number_of_triangles(scene: CubeScene) -> None:
    model = scene._shown_model
    names = [model.geom(geom).name for geom in range(model.ngeom)]
    assert "object_0" in names and not any("target" in name for name in names)
    assert model.mesh_facenum.sum() < 20_000 < 100_000 < scene._model.mesh_facenum.sum()


@needs_ogbench
def test_a_quarter_turn_and_another_face_are_the_same_cube(scene: CubeScene) -> None:
    import mujoco

    scene.reset(state=MIDDLE)
    cube = scene._data.qpos[scene._cube_joints[0] + 3 :][:4]
    half = math.pi / 4
    yaw = np.array([math.cos(0.15), 0.0, 0.0, math.sin(0.15)])
    turns = [[1.0, 0.0, 0.0, 0.0]]
    for axis in range(3):
        turns.append([math.cos(half), 0.0, 0.0, 0.0])
        turns[-1][1 + axis] = math.sin(half)
    for turn in turns:
        mujoco.mju_mulQuat(cube, yaw, np.array(turn))
        assert scene.ground_truth()[8] == pytest.approx(0.3)


@needs_ogbench
@pytest.mark.parametrize(
    ("index", "value", "words"),
    [
        (0, 0.8, "gripper is out of its workspace"),
        (2, -0.1, "gripper is out of its workspace"),
        (4, 1.2, "gripper_closed lies within"),
        (5, 0.1, "cube is not above the table"),
        (7, -0.02, "cube is not above the table"),
    ],
)
def test_inadmissible_states_are_refused(
    scene: CubeScene, index: int, value: float, words: str
) -> None:
    state = MIDDLE.copy()
    state[index] = value
    with pytest.raises(UserError, match=words):
        scene.reset(state=state)


@needs_ogbench
def test_the_criterion_is_the_cubes_place(scene: CubeScene) -> None:
    goal = MIDDLE.copy()
    goal[[0, 3, 8]] += 0.2
    for away, success in ((0.0399, True), (0.0401, False)):
        goal[5:8] = MIDDLE[5:8] + away * np.array([0.6, 0.0, 0.8])
        outcome = scene.outcome(MIDDLE, goal)
        assert outcome.success is success and outcome.object_success is success
        assert outcome.margin == pytest.approx(away / POSITION_TOLERANCE)
        assert math.isnan(outcome.angle_distance)


@needs_ogbench
def test_the_expert_places_the_cube_where_it_wants(scene: CubeScene) -> None:
    expert = make_expert("cube", seed=0)
    placed, air, commands = [], [], []
    for episode in range(8):
        state = scene.reset(seed=episode)
        expert.reset(seed=episode)
        goal = None
        for _ in range(250):
            commands.append(expert.act(state))
            after = expert.goal_state(state)
            if goal is not None and after is not goal:
                placed.append(scene.outcome(state, goal).success)
            goal = after
            state = scene.step_control(commands[-1])
            air.append(state[7] > 0.03)
    assert len(placed) >= 12 and np.mean(placed) > 0.9
    assert 0.2 < np.mean(air) < 0.6
    # It does not live at the limits.
    assert (np.abs(commands) > 0.99 * scene.action_upper).mean() < 0.3


def test_merging_vertices_keeps_the_shape() -> None:
    # A sheet of 2 x 10 x 10 triangles, 100 mm wide.
    x, y = np.meshgrid(np.arange(11) * 0.01, np.arange(11) * 0.01)
    sheet = np.stack((x.ravel(), y.ravel(), np.zeros(121)), axis=1)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    faces = np.concatenate(
        (corner[:, None] + [0, 1, 12], corner[:, None] + [0, 12, 11])
    )  # fmt: skip
    vertices, merged = merge_vertices(sheet, faces, 0.025)
    assert len(merged) < len(faces) / 3 and merged.max() == len(vertices) - 1
    assert np.abs(vertices.min(axis=0) - sheet.min(axis=0)).max() < 0.025
    assert np.abs(vertices.max(axis=0) - sheet.max(axis=0)).max() < 0.025
    a, b, c = vertices[merged].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    kept = np.prod(vertices.max(axis=0)[:2] - vertices.min(axis=0)[:2])
    assert area == pytest.approx(kept, rel=0.05)
    same, all_faces = merge_vertices(sheet, faces, 0.001)
    assert len(same) == 121 and len(all_faces) == 200


_WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ogbench":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from lewm_core.errors import UserError
from lewm_core.scenes import known_scenes, make_scene
print("cube" in known_scenes())
try:
    make_scene("cube", seed=0)
except UserError as error:
    print(error)
"""


def test_without_ogbench_one_line_says_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=60, check=True
    )
    known, message = done.stdout.splitlines()
    assert known == "True" and done.stderr == ""
    assert message == (
        "the scene 'cube' needs ogbench, which is not installed; pip install 'lewm-ros[cube]'"
    )


_BESIDE = """
import importlib.util
import sys
from lewm_core.scenes import make_scene
first = make_scene("{0}", seed=0)
first.render(32, 32)
second = make_scene("{1}", seed=0)
second.render(32, 32)
first.render(32, 32)
# Before the OpenGL that ogbench brings, or a later import of torch crashes.
modules = list(sys.modules)
if importlib.util.find_spec("triton"):
    assert modules.index("triton._C.libtriton") < modules.index("dm_control")
"""


@needs_ogbench
@pytest.mark.parametrize("scenes", [("push_t", "cube"), ("cube", "push_t")])
def test_pictures_beside_another_scene_end_without_complaints(scenes: tuple[str, str]) -> None:
    program = _BESIDE.format(*scenes)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == ""
