"""Reacher as physics and camera: a two-link arm in the plane that is driven by torques.

The arm is dm_control's (suite/reacher.xml): lengths, density, damping, gear, limits and time step.
`test/scenes/test_reacher.py` holds the motion against dm_control's own model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.outcome import Criterion, Outcome
from lewm_core.scenes.variations import VariedParts

#: Of both links, m: from the shoulder to the wrist, from there to the middle of the fingertip.
LINK_LENGTH = 0.12
#: Of each motor, N m.
TORQUE_LIMIT = 0.05
#: rad; the wrist turns within plus and minus this, the shoulder has no stop.
WRIST_LIMIT = math.radians(160.0)
#: rad, for each joint: the tolerance of stable-worldmodel's ReacherQPosMatchTask.
ANGLE_TOLERANCE = 0.05
#: Edge of the square that the picture shows, m; the arm reaches 0.25 m.
VIEW_SIZE = 0.56

_PHYSICS_STEP = 0.02  # s
_RADIUS = 0.01  # m, of the links and the fingertip
_HAND_LENGTH = 0.1  # m, of the second link's capsule, which ends before the fingertip
_DAMPING = 0.01  # N m s/rad
_HEIGHT = 0.01  # m, of the arm above the floor
#: rad beyond the stop that a given state may have: stops are soft.
_LARGEST_OVERRUN = 0.15


def reacher_mjcf() -> str:
    """Return the model: joints ``shoulder wrist``, motors of the same names, camera ``top``.

    Colours are emitted, not lit; the orthographic camera looks down on the whole reach.
    """
    half = VIEW_SIZE / 2
    return f"""
<mujoco model="reacher">
  <compiler angle="radian"/>
  <option timestep="{_PHYSICS_STEP}"><flag contact="disable"/></option>
  <visual>
    <global offwidth="64" offheight="64"/>
    <quality offsamples="0" shadowsize="0"/>
    <headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/>
    <map znear="0.1" zfar="10"/>
  </visual>
  <statistic center="0 0 0" extent="{VIEW_SIZE}"/>
  <asset>
    <material name="floor" rgba="0.94 0.93 0.89 1" emission="1"/>
    <material name="base" rgba="0.25 0.27 0.30 1" emission="1"/>
    <material name="arm" rgba="0.10 0.32 0.62 1" emission="1"/>
    <material name="hand" rgba="0.32 0.55 0.83 1" emission="1"/>
    <material name="finger" rgba="0.92 0.32 0.08 1" emission="1"/>
  </asset>
  <default>
    <joint type="hinge" axis="0 0 1" damping="{_DAMPING}"/>
    <motor gear="{TORQUE_LIMIT}" ctrlrange="-1 1" ctrllimited="true"/>
  </default>
  <worldbody>
    <camera name="top" pos="0 0 1" projection="orthographic" fovy="{VIEW_SIZE}"/>
    <geom name="floor" type="box" material="floor" pos="0 0 -0.002" size="{half} {half} 0.001"/>
    <geom name="base" type="cylinder" material="base" pos="0 0 0.012" size="0.016 0.01"/>
    <body name="arm" pos="0 0 {_HEIGHT}">
      <joint name="shoulder"/>
      <geom name="arm" type="capsule" material="arm" fromto="0 0 0 {LINK_LENGTH} 0 0"
            size="{_RADIUS}"/>
      <body name="hand" pos="{LINK_LENGTH} 0 0">
        <joint name="wrist" limited="true" range="{-WRIST_LIMIT} {WRIST_LIMIT}"/>
        <geom name="hand" type="capsule" material="hand" fromto="0 0 0 {_HAND_LENGTH} 0 0"
              size="{_RADIUS}"/>
        <body name="finger" pos="{LINK_LENGTH} 0 0">
          <geom name="finger" type="sphere" material="finger" size="{_RADIUS}"/>
          <geom name="tip" type="sphere" material="finger" size="{1.4 * _RADIUS}" mass="0"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder"/>
    <motor name="wrist" joint="wrist"/>
  </actuator>
</mujoco>
"""


class ReacherScene(MujocoScene):
    """A two-link arm of 0.24 m in the plane; nothing to collide with.

    Action: the torques (2,) in N m of shoulder and wrist, each within plus and minus 0.05, for a
    control period of 0.04 s: two physics steps of dm_control, which is how stable-worldmodel
    steps it (``action_repeat`` 2). Both joints are damped with 0.01 N m s/rad: at full torque a
    joint ends at 5 rad/s.

    Ground truth: ``shoulder_angle`` in [-pi, pi) and ``wrist_angle`` within 160 degrees, rad. The
    velocities are part of the full state only: no picture shows them.
    """

    title = "Reacher"
    state_names = ("shoulder_angle", "wrist_angle")
    state_units = ("rad", "rad")
    action_names = ("shoulder_torque", "wrist_torque")
    action_unit = "N m"
    action_lower = np.full(2, -TORQUE_LIMIT)
    action_upper = np.full(2, TORQUE_LIMIT)
    physics_step_s = _PHYSICS_STEP
    control_period_s = 0.04
    cameras = ("top",)
    criterion = Criterion(
        "each joint within 0.05 rad of the goal configuration", angle_tolerance=ANGLE_TOLERANCE
    )
    varied_parts = VariedParts(
        {"top": VIEW_SIZE}, ("arm", "hand", "tip"), ("arm", "hand", "finger"), (0, 2)
    )

    def _make_model(self, mujoco: Any) -> Any:
        return mujoco.MjModel.from_xml_string(reacher_mjcf())

    def draw_state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a configuration (2,), uniform in the joints' range, as dm_control does."""
        return np.array([rng.uniform(-math.pi, math.pi), rng.uniform(-WRIST_LIMIT, WRIST_LIMIT)])

    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as an admissible configuration (2,), rad.

        Raises:
            UserError: Not two finite numbers, or the wrist is beyond its stop.
        """
        values = self.numbers(state)
        if abs(values[1]) > WRIST_LIMIT + _LARGEST_OVERRUN:
            raise UserError(
                f"Reacher state [{values[0]:.3f}, {values[1]:.3f}]: wrist_angle is beyond its stop "
                f"at plus and minus {WRIST_LIMIT:.3f} rad"
            )
        return values

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare a configuration (2,) with that of a goal (2,).

        Success is the published criterion (stable-worldmodel's ReacherQPosMatchTask): each joint
        nearer than 0.05 rad; the shoulder's difference is taken the shorter way round, since it has
        no stop. ``position_distance`` is that of the fingertips and decides nothing.
        """
        now, goal = np.asarray(state, np.float64), np.asarray(goal_state, np.float64)
        difference = np.abs((now - goal + math.pi) % (2.0 * math.pi) - math.pi)
        angle = float(difference.max())
        return Outcome(
            success=angle < ANGLE_TOLERANCE,
            object_success=angle < ANGLE_TOLERANCE,
            margin=angle / ANGLE_TOLERANCE,
            position_distance=float(np.linalg.norm(fingertip(now) - fingertip(goal))),
            angle_distance=angle,
        )

    def ground_truth(self) -> NDArray[np.float64]:
        """Return ``shoulder_angle wrist_angle`` (2,) in rad."""
        shoulder, wrist = self._data.qpos.tolist()
        return np.array([(shoulder + math.pi) % (2.0 * math.pi) - math.pi, wrist])

    def _place(self, data: Any, state: NDArray[np.float64]) -> None:
        data.qpos[:] = state

    def _advance(self, steps: int) -> None:
        self._data.ctrl[:] = self._command / TORQUE_LIMIT
        self._mujoco.mj_step(self._model, self._data, steps)


def fingertip(state: ArrayLike) -> NDArray[np.float64]:
    """Return where the fingertip is (2,), m, in a configuration (2,), rad."""
    shoulder, wrist = (float(value) for value in np.asarray(state, dtype=np.float64))
    return LINK_LENGTH * np.array(
        [
            math.cos(shoulder) + math.cos(shoulder + wrist),
            math.sin(shoulder) + math.sin(shoulder + wrist),
        ]
    )
