"""The cube scenes as physics and camera: a UR5e with a Robotiq gripper, a table, one cube or two.

Model, control law, bounds and criterion are those of OGBench's ``cube-single-v0`` and
``cube-double-v0`` (the package ``ogbench``); `model` says what is different.
`test/scenes/test_cube.py` holds the motion against theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.cube.model import VIEWS, build_models
from lewm_core.scenes.outcome import Criterion, Outcome
from lewm_core.scenes.variations import VariedParts

#: m; `CubeEnv._compute_successes` of OGBench and of stable-worldmodel.
POSITION_TOLERANCE = 0.04
#: Edge of the cube, m.
CUBE_SIZE = 0.04
#: m, lower and upper: where the point between the fingertips is sent; where it begins; where cubes
#: and their targets are drawn (x and y).
WORKSPACE = np.array([[0.25, -0.35, 0.02], [0.60, 0.35, 0.35]])
EFFECTOR_DRAWN = np.array([[0.25, -0.35, 0.20], [0.60, 0.35, 0.35]])
CUBE_DRAWN = np.array([[0.30, -0.30], [0.55, 0.30]])
#: m, lower and upper: invisible walls around the table keep the cube's middle in here.
TABLE = np.array([[0.223, -0.377], [0.627, 0.377]])
#: Full command: m/s, rad/s and 1/s that a free arm and gripper make of it, to within a sixth.
SPEED_LIMIT, TURN_LIMIT, GRIP_LIMIT = 0.44, 1.35, 8.0
#: The same in OGBench's terms: how far the target is set ahead of where the gripper is, m, rad, 1.
LARGEST_LEAD = np.array([0.05, 0.05, 0.05, 0.3, 1.0])

_PHYSICS_STEP = 0.002  # s
_CONTROL_STEPS = 25  # physics steps between two targets
_LIMITS = np.array([SPEED_LIMIT, SPEED_LIMIT, SPEED_LIMIT, TURN_LIMIT, GRIP_LIMIT])
#: rad, of the joint that closes the gripper.
_CLOSED_ANGLE = 0.8
#: Positions of a finger's four joints (driver, coupler, spring link, follower) per rad of its
#: driver: it keeps its pads parallel.
_FINGER = np.array([1.0, 0.0, 1.0, -0.962])
#: m between the middles of two cubes: at least, where they are drawn, and in a given state, whose
#: contacts are soft.
APART = 0.08
_LEAST_APART = 0.036
#: m that a given state may be beyond where things are sent: arms overshoot, contacts are soft.
_LARGEST_OVERRUN = 0.03
#: Of inverse kinematics when a state is placed: m and rad.
_PLACED_EXACTLY = 1e-8
_ARM_ACTUATORS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")


class CubeScene(MujocoScene):
    """A UR5e with a Robotiq gripper above a table with a cube.

    Action: the velocity (3,) in m/s of the point between the fingertips, the gripper's yaw rate in
    rad/s and its closing rate in 1/s, within plus and minus 0.44, 1.35 and 8. It is OGBench's law:
    every 0.05 s the arm's target is set ahead of where the gripper *is*, in proportion to the
    command, and inverse kinematics and joint servos follow. A command that comes in between waits
    for the next target.

    Ground truth: ``effector_x effector_y effector_z`` in m of the point between the fingertips,
    ``effector_yaw`` in [-pi, pi) rad, ``gripper_closed`` from 0 (open) to 1, ``cube_x cube_y
    cube_z`` in m of the cube's middle, and ``cube_yaw`` in [-pi/4, pi/4) rad: a quarter turn looks
    the same. x points away from the robot, z up, the table is z = 0. Placing a ground truth points
    the gripper straight down and lays the cube flat; the full state keeps the joints as they are.
    """

    title = "Cube"
    cubes: ClassVar[int] = 1
    state_names = (
        "effector_x", "effector_y", "effector_z", "effector_yaw", "gripper_closed",
        "cube_x", "cube_y", "cube_z", "cube_yaw",
    )  # fmt: skip
    state_units = ("m", "m", "m", "rad", "1", "m", "m", "m", "rad")
    action_names = ("velocity_x", "velocity_y", "velocity_z", "yaw_rate", "closing_rate")
    action_unit = "m/s, rad/s and 1/s"
    action_lower = -_LIMITS
    action_upper = _LIMITS
    physics_step_s = _PHYSICS_STEP
    control_period_s = _CONTROL_STEPS * _PHYSICS_STEP
    cameras = tuple(VIEWS)
    criterion = Criterion("the cube within 40 mm of its place in the goal", POSITION_TOLERANCE)
    varied_parts = VariedParts(VIEWS, ("object_0",), ("object_0",), (5, 9))

    def _make_model(self, mujoco: Any) -> Any:
        self._models = models = build_models(mujoco, self.cubes)
        model = models.physics
        self._pinch = model.site("ur5e/robotiq/pinch").id
        self._arm = model.joint("ur5e/shoulder_pan_joint").qposadr[0] + np.arange(6)
        self._fingers = [
            model.joint(f"ur5e/robotiq/{side}_driver_joint").qposadr[0] + np.arange(4)
            for side in ("right", "left")
        ]
        self._cube_joints = [
            int(model.joint(f"object_joint_{number}").qposadr[0]) for number in range(self.cubes)
        ]
        self._arm_controls = np.array(
            [model.actuator(f"ur5e/{name}").id for name in _ARM_ACTUATORS]
        )
        self._grip_control = model.actuator("ur5e/robotiq/fingers_actuator").id
        return model

    def _make_shown_model(self) -> Any:
        return self._models.shown

    def draw_state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a ground truth (N,): gripper open and above the table, cubes lying on it, apart.

        Bounds are those of OGBench's data collection.
        """
        state = np.concatenate(
            (rng.uniform(*EFFECTOR_DRAWN), [rng.uniform(-math.pi, math.pi), 0.0])
        )
        for _ in range(self.cubes):
            place = draw_free_place(rng, [state[columns] for columns in cube_columns(state)])
            yaw = rng.uniform(-math.pi / 4, math.pi / 4)
            state = np.concatenate((state, place, [CUBE_SIZE / 2, yaw]))
        return state

    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as an admissible ground truth (N,), see the class for the units.

        Raises:
            UserError: Not N finite numbers, the gripper is out of its workspace or further closed
                than possible, a cube is not above the table, or two are in the same place.
        """
        values = self.numbers(state)
        text = "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
        lower, upper = WORKSPACE[0] - _LARGEST_OVERRUN, WORKSPACE[1] + _LARGEST_OVERRUN
        if (values[:3] < lower).any() or (values[:3] > upper).any():
            raise UserError(
                f"{self.title} state {text}: the gripper is out of its workspace; effector_x, "
                f"effector_y and effector_z lie within {WORKSPACE[0].tolist()} and "
                f"{WORKSPACE[1].tolist()} m"
            )
        if not -0.05 <= values[4] <= 1.05:
            raise UserError(f"{self.title} state {text}: gripper_closed lies within 0 and 1")
        lower, upper = TABLE[0] - _LARGEST_OVERRUN, TABLE[1] + _LARGEST_OVERRUN
        places = [values[columns][:3] for columns in cube_columns(values)]
        for number, (x, y, z) in enumerate(places):
            on_table = ((x, y) >= lower).all() and ((x, y) <= upper).all()
            if not on_table or not 0.01 <= z <= 0.6:
                name = _CUBE_NAMES[number]
                raise UserError(
                    f"{self.title} state {text}: the cube is not above the table; {name}_x and "
                    f"{name}_y lie within {TABLE[0].tolist()} and {TABLE[1].tolist()} m, {name}_z "
                    "within 0.01 and 0.6 m"
                )
        if self.cubes == 2 and np.linalg.norm(places[0] - places[1]) < _LEAST_APART:
            raise UserError(
                f"{self.title} state {text}: the cubes are in the same place; their middles are "
                f"{_LEAST_APART} m apart at least"
            )
        return values

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare a ground truth (N,) with that of a goal (N,).

        Success is the published criterion: the middle of every cube no farther than 0.04 m from
        where it is in the goal, wherever the gripper is and however a cube is turned.
        """
        difference = np.asarray(state, np.float64) - np.asarray(goal_state, np.float64)
        distance = max(
            float(np.linalg.norm(difference[columns][:3])) for columns in cube_columns(difference)
        )
        return Outcome(
            success=distance <= POSITION_TOLERANCE,
            object_success=distance <= POSITION_TOLERANCE,
            margin=distance / POSITION_TOLERANCE,
            position_distance=distance,
        )

    def ground_truth(self) -> NDArray[np.float64]:
        """Return the ground truth (N,), see the class."""
        position, yaw, closed = self._measure()
        values = [*position, yaw, closed]
        for joint in self._cube_joints:
            cube = self._data.qpos[joint : joint + 7]
            values += [*cube[:3], self._cube_yaw(cube[3:])]
        return np.array(values)

    def _measure(self) -> tuple[NDArray[np.float64], float, float]:
        """Where the gripper is: position (3,) m, yaw in [-pi, pi) rad, how far it is closed."""
        data = self._data
        # Of the present joint angles: what a step leaves behind is of its beginning.
        self._mujoco.mj_kinematics(self._model, data)
        rotation = data.site_xmat[self._pinch]
        yaw = _wrap(math.atan2(rotation[3], rotation[0]), math.pi)
        closed = float(data.qpos[self._fingers[0][0]]) / _CLOSED_ANGLE
        return data.site_xpos[self._pinch].copy(), yaw, min(max(closed, 0.0), 1.0)

    def _cube_yaw(self, quaternion: NDArray[np.float64]) -> float:
        """Yaw of a horizontal edge, rad within [-pi/4, pi/4), whichever face the cube lies on."""
        rotation = np.empty(9)
        self._mujoco.mju_quat2Mat(rotation, quaternion)
        axes = rotation.reshape(3, 3).T
        x, y, _ = axes[int(np.argmin(np.abs(axes[:, 2])))]
        return _wrap(math.atan2(y, x), math.pi / 4)

    def _place(self, data: Any, state: NDArray[np.float64]) -> None:
        x, y, z, yaw, closed = state[:5].tolist()
        # From above the place: the same posture of elbow and wrist wherever it is.
        start = self._models.home.copy()
        start[0] += math.atan2(y, x)
        data.qpos[self._arm] = self._solve((x, y, z), yaw, start, 200, _PLACED_EXACTLY)
        for finger in self._fingers:
            data.qpos[finger] = _FINGER * closed * _CLOSED_ANGLE
        for joint, columns in zip(self._cube_joints, cube_columns(state), strict=True):
            *place, cube_yaw = state[columns].tolist()
            cube = data.qpos[joint : joint + 7]
            cube[:3] = place
            cube[3:] = math.cos(cube_yaw / 2), 0.0, 0.0, math.sin(cube_yaw / 2)

    def _begin(self, state: NDArray[np.float64]) -> None:
        self._aim(np.zeros(5))

    def _advance(self, steps: int) -> None:
        done = self._steps % _CONTROL_STEPS
        while steps > 0:
            if done == 0:
                self._aim(self._command / _LIMITS * LARGEST_LEAD)
            now = min(steps, _CONTROL_STEPS - done)
            self._mujoco.mj_step(self._model, self._data, now)
            steps -= now
            done = (done + now) % _CONTROL_STEPS

    def _aim(self, lead: NDArray[np.float64]) -> None:
        """Set the servos' targets ``lead`` (5,) m, rad, 1 ahead of where the gripper is."""
        position, yaw, closed = self._measure()
        data = self._data
        aim = np.clip(position + lead[:3], *WORKSPACE)
        data.ctrl[self._arm_controls] = self._solve(
            aim, yaw + lead[3], data.qpos[self._arm], 20, 1e-4
        )
        data.ctrl[self._grip_control] = 255.0 * min(max(closed + lead[4], 0.0), 1.0)

    def _solve(
        self,
        position: ArrayLike,
        yaw: float,
        start: NDArray[np.float64],
        iterations: int,
        tolerance: float,
    ) -> NDArray[np.float64]:
        """Joint angles (6,) rad that point the gripper down at ``position`` (3,) m with ``yaw``."""
        mujoco = self._mujoco
        down = np.array([0.0, math.cos(yaw / 2), math.sin(yaw / 2), 0.0])
        offset, turn = np.empty(3), np.empty(4)
        mujoco.mju_rotVecQuat(offset, self._models.flange_offset, down)
        mujoco.mju_mulQuat(turn, down, self._models.flange_turn)
        return self._models.kinematics.solve(
            pos=np.asarray(position) + offset,
            quat=turn,
            curr_qpos=start,
            max_iters=iterations,
            pos_thresh=tolerance,
            ori_thresh=tolerance,
        )


class CubeDoubleScene(CubeScene):
    """The same arm and table with two cubes, a red one and a green one.

    Ground truth (13,): that of `CubeScene`, and of the second cube ``cube2_x cube2_y cube2_z`` and
    ``cube2_yaw``. A goal is reached when both cubes are where they are in it.
    """

    title = "Cube Double"
    cubes = 2
    state_names = (*CubeScene.state_names, "cube2_x", "cube2_y", "cube2_z", "cube2_yaw")
    state_units = (*CubeScene.state_units, "m", "m", "m", "rad")
    criterion = Criterion("both cubes within 40 mm of their places in the goal", POSITION_TOLERANCE)
    # What happens to an object happens to the first; both vary.
    varied_parts = VariedParts(
        VIEWS, ("object_0", "object_1"), ("object_0",), (5, 9), also_weighed=("object_1",)
    )


#: Prefixes of the names of what a ground truth has of each cube.
_CUBE_NAMES = ("cube", "cube2")


def cube_columns(state: NDArray[np.float64]) -> Iterator[slice]:
    """Yield where in a ground truth (N,) the x, y, z in m and the yaw in rad of each cube are."""
    for first in range(5, len(state), 4):
        yield slice(first, first + 4)


def draw_free_place(
    rng: np.random.Generator, others: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Draw a place (2,) m on the table that is `APART` from other cubes, each (4,)."""
    while True:
        place = rng.uniform(*CUBE_DRAWN)
        if all(np.linalg.norm(place - other[:2]) >= APART for other in others):
            return place


def _wrap(angle: float, half: float) -> float:
    """Return an angle in rad within [-half, half) by whole turns of twice ``half``."""
    return (angle + half) % (2.0 * half) - half
