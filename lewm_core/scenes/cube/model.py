"""The cube scene's models: OGBench's for the physics, and a lighter one of the same for pictures.

The physics model is what OGBench's own ``CubeEnv`` compiles, but for one thing: gravity is
compensated for arm and gripper, as the controllers of real arms do. Without it the arm sinks by
35 mm/s while it is told to stop, since OGBench places every target relative to where the gripper
*is*.

Its meshes have 185,000 triangles, and drawing them is all that a software renderer does. The model
that is shown has the same bodies and joints, no collision shapes, and meshes whose vertices are
merged within cells of a few millimetres, which is about a pixel of a large picture.
"""

from __future__ import annotations

import copy
import functools
import importlib
import logging
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.rendering import free_contexts_first, load_triton

#: Cameras of the model that is shown, each with the edge of what its picture shows where it looks
#: at, m; the first is the usual one.
VIEWS = {"workspace": 0.8, "side": 0.8, "wrist": 0.25}

_MISSING = "the scene 'cube' needs ogbench, which is not installed; pip install 'lewm-ros[cube]'"
#: Of the cameras that stand: what they look at, m, from how far, m, and from how high, rad.
_LOOKED_AT = (0.42, 0.0, 0.15)
_DISTANCE = 2.0
_ELEVATION, _SIDE_ELEVATION = math.radians(41.0), math.radians(34.0)
#: Of the wrist's: the body it is mounted on, where, and what it looks at there, m.
_WRIST_BODY = "ur5e/robotiq/base"
_WRIST_PLACE, _WRIST_LOOKED_AT = (0.11, 0.0, 0.0), (0.0, 0.0, 0.16)
#: m, edges of the cells that vertices are merged in: of the arm, and of the gripper, whose parts
#: are smaller.
_ARM_CELL, _GRIPPER_CELL = 0.008, 0.004
#: What OGBench calls its environment with so many cubes.
_OGBENCH_NAMES = {1: "single", 2: "double"}
#: What is shown in which colour, by the names of OGBench's materials. The cube is the only thing
#: that is red, a second one the only thing that is green.
_COLOURS = {
    "ur5e/black": (0.16, 0.17, 0.19),
    "ur5e/jointgray": (0.34, 0.36, 0.39),
    "ur5e/linkgray": (0.72, 0.74, 0.77),
    "ur5e/lightblue": (0.36, 0.56, 0.86),
    "ur5e/robotiq/metal": (0.58, 0.60, 0.62),
    "ur5e/robotiq/silicone": (0.10, 0.32, 0.60),
    "ur5e/robotiq/gray": (0.16, 0.44, 0.74),
    "ur5e/robotiq/black": (0.13, 0.26, 0.45),
    "ur5e/robotiq/pad_gray": (0.10, 0.32, 0.60),
}
_ADDED_COLOURS = {
    "cube": (0.93, 0.16, 0.12),
    "cube2": (0.15, 0.66, 0.22),
    "ground": (0.47, 0.49, 0.50),
    "table": (0.86, 0.85, 0.80),
}
#: Of the first and the second cube.
CUBE_MATERIALS = ("cube", "cube2")


@dataclass(frozen=True)
class CubeModels:
    """What the scene is made of.

    Attributes:
        physics: ``MjModel`` of OGBench with gravity compensated.
        shown: ``MjModel`` with the same joints in the same order, for pictures.
        kinematics: OGBench's inverse kinematics: `solve` gives joint angles for a flange pose.
        flange_offset: (3,) m, from the point between the fingertips to the flange, in the frame of
            the former.
        flange_turn: (4,) w x y z, likewise.
        home: (6,) rad, joint angles of OGBench's home position.
    """

    physics: Any
    shown: Any
    kinematics: Any
    flange_offset: NDArray[np.float64]
    flange_turn: NDArray[np.float64]
    home: NDArray[np.float64]


def build_models(mujoco: Any, cubes: int = 1) -> CubeModels:
    """Build the models of a scene; the first time takes seconds, later ones are copies.

    Args:
        mujoco: The module.
        cubes: 1 or 2.

    Raises:
        UserError: ``ogbench``, or a package that it needs, is not installed.
    """
    with _building:
        arm = _load_ogbench(mujoco, cubes)
    solver, flange = arm._ik, arm._T_pa
    return CubeModels(
        physics=copy.copy(arm.model),
        shown=copy.copy(arm.shown),
        # It works in data of its own, which no two threads may share.
        kinematics=type(solver)(model=solver._model, sites=["attachment_site"]),
        flange_offset=flange.translation().copy(),
        flange_turn=flange.rotation().wxyz.copy(),
        home=arm._home_qpos.copy(),
    )


_building = threading.Lock()


@functools.lru_cache(maxsize=2)
def _load_ogbench(mujoco: Any, cubes: int) -> Any:
    """Return OGBench's environment with our models; it is never stepped."""
    # dm_control, on which OGBench stands, makes an OpenGL display when it is imported.
    load_triton()
    try:
        # It tells everybody at INFO level which OpenGL it takes, and is not asked to draw.
        importlib.import_module("absl.logging")
        logging.getLogger("absl").setLevel(logging.WARNING)
        environment = importlib.import_module("ogbench.manipspace.envs.cube_env").CubeEnv
        utilities = importlib.import_module("ogbench.manipspace.mjcf_utils")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("ogbench", "absl"):
            raise UserError(_MISSING) from error
        raise UserError(
            f"the scene 'cube' needs ogbench, which cannot be loaded: {error}"
        ) from error
    free_contexts_first()

    class CompensatedCube(environment):
        """OGBench's environment with gravity compensated for all that the arm moves."""

        def compile_model_and_data(self) -> None:
            spec = mujoco.MjSpec.from_string(
                utilities.to_string(self._mjcf_model),
                assets=utilities.get_assets(self._mjcf_model),
            )
            for body in spec.bodies:
                if body.name.startswith("ur5e/"):
                    body.gravcomp = 1.0
            _add_cameras(spec)
            # Before compiling, which writes into it what it found out about the meshes.
            shown = spec.copy()
            self._model = spec.compile()
            self._model.opt.timestep = self.physics_timestep()
            self._data = mujoco.MjData(self._model)
            mujoco.mj_forward(self._model, self._data)
            self.post_compilation()
            self._dirty = False
            self.shown = _compile_shown(mujoco, shown, self._model)

    arm = CompensatedCube(_OGBENCH_NAMES[cubes], mode="data_collection", visualize_info=False)
    # Only compiles: what it draws from its random stream is not used.
    arm.reset(seed=0)
    if arm.shown.nq != arm.model.nq or arm.shown.nmocap != arm.model.nmocap:
        raise UserError("the scene 'cube' does not know this version of ogbench; take 1.2")
    return arm


def _compile_shown(mujoco: Any, spec: Any, physics: Any) -> Any:
    """Turn the physics' specification into that of what is shown, and compile it."""
    for geom in list(spec.geoms):
        # Group 3: collision shapes and walls. The target marker would give the goal away.
        if geom.group == 3 or geom.name.startswith(("target_", "floor")):
            spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms if geom.meshname}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
            continue
        cell = _GRIPPER_CELL if "robotiq" in mesh.name else _ARM_CELL
        vertices, faces = merge_vertices(*_mesh_of(mujoco, physics, mesh.name), cell)
        mesh.file = ""
        mesh.uservert, mesh.userface = vertices.ravel().tolist(), faces.ravel().tolist()
        mesh.scale = (1.0, 1.0, 1.0)
        # Merged surfaces are not closed: only a shell has an inertia, which nobody asks for.
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    for material in spec.materials:
        if material.name in _COLOURS:
            material.rgba = (*_COLOURS[material.name], 1.0)
            material.specular, material.shininess = 0.2, 0.3
    for name, colour in _ADDED_COLOURS.items():
        spec.add_material(name=name, rgba=(*colour, 1.0), specular=0.1)
    # A colour of its own would come before the material's.
    for number, material in enumerate(CUBE_MATERIALS):
        cube = spec.geom(f"object_{number}")
        if cube is not None:
            cube.material, cube.rgba = material, (0.5, 0.5, 0.5, 1.0)
    for texture in list(spec.textures):
        # The sky of stars costs more than the arm.
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    for light in list(spec.lights):
        spec.delete(light)
    _furnish(mujoco, spec)
    return spec.compile()


def _furnish(mujoco: Any, spec: Any) -> None:
    """Add floor, table top and light."""
    box, world = mujoco.mjtGeom.mjGEOM_BOX, spec.worldbody
    size, place = (1.5, 1.5, 0.005), (0.0, 0.0, -0.007)
    world.add_geom(name="ground", type=box, size=size, pos=place, material="ground")
    # What the walls enclose: where the cube can be.
    size, place = (0.205, 0.38, 0.001), (0.425, 0.0, -0.001)
    world.add_geom(name="table", type=box, size=size, pos=place, material="table")
    sun = world.add_light(name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    sun.pos, sun.dir = (1.0, 0.6, 2.0), (-0.45, -0.25, -0.85)
    sun.diffuse, sun.specular, sun.castshadow = (0.55,) * 3, (0.1,) * 3, False
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse = (0.42,) * 3, (0.22,) * 3
    headlight.specular = (0.0,) * 3
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 10.0


def _add_cameras(spec: Any) -> None:
    """Add the cameras.

    ``workspace`` is in front of the table, as high as OGBench's ``front_pixels``. It is farther
    away and has a longer lens, so that what is near is hardly larger: the fingertips are in the
    picture wherever the workspace lets them go, and the cube is as large as that allows. ``side``
    is as far away, low, at the end of the table, and sees heights. ``wrist`` is mounted beside the
    gripper and looks at what lies between and below the fingertips.
    """
    look = np.array(_LOOKED_AT)
    for name, elevation, azimuth in (
        ("workspace", _ELEVATION, 0.0),
        ("side", _SIDE_ELEVATION, math.pi / 2),
    ):
        towards = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
        place = math.cos(elevation) * towards + (0.0, 0.0, math.sin(elevation))
        _add_camera(spec.worldbody, name, look + _DISTANCE * place, look, (0.0, 0.0, 1.0))
    wrist = spec.body(_WRIST_BODY)
    _add_camera(wrist, "wrist", _WRIST_PLACE, _WRIST_LOOKED_AT, (-1.0, 0.0, 0.0))


def _add_camera(
    body: Any, name: str, place: ArrayLike, looked_at: ArrayLike, up: ArrayLike
) -> None:
    """Add a camera of `VIEWS` to a body; all in the body's frame, ``up`` is up in the picture."""
    backwards = np.asarray(place, np.float64) - np.asarray(looked_at, np.float64)
    distance = float(np.linalg.norm(backwards))
    right = np.cross(up, backwards)
    right /= np.linalg.norm(right)
    body.add_camera(
        name=name,
        pos=place,
        xyaxes=(*right, *np.cross(backwards / distance, right)),
        fovy=math.degrees(2.0 * math.atan(VIEWS[name] / 2.0 / distance)),
    )


def _mesh_of(mujoco: Any, model: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices (V, 3), m, and faces (F, 3) of a compiled mesh in the frame of its file."""
    mesh = model.mesh(name)
    first, count = int(mesh.vertadr[0]), int(mesh.vertnum[0])
    vertices = model.mesh_vert[first : first + count].astype(np.float64)
    first, count = int(mesh.faceadr[0]), int(mesh.facenum[0])
    faces = model.mesh_face[first : first + count].astype(np.int64)
    # Compiled meshes are turned into their inertia's axes.
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.mesh_quat[mesh.id])
    return vertices @ rotation.reshape(3, 3).T + model.mesh_pos[mesh.id], faces


def merge_vertices(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make a mesh coarser: the vertices in a cubic cell become one, their mean.

    Args:
        vertices: (V, 3), m.
        faces: (F, 3) indices of vertices.
        cell: Edge of the cells, m.

    Returns:
        Vertices (W, 3) and those faces (G, 3) that still have three corners, each once.
    """
    cells = np.floor(vertices / cell).astype(np.int64)
    _, member = np.unique(cells, axis=0, return_inverse=True)
    member = member.reshape(-1)
    count = np.bincount(member)
    merged = np.stack(
        [np.bincount(member, weights=vertices[:, axis]) / count for axis in range(3)], axis=1
    )
    corners = member[faces]
    a, b, c = corners.T
    corners = corners[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    kept, renumbered = np.unique(corners[np.sort(first)], return_inverse=True)
    return merged[kept], renumbered.reshape(-1, 3)
