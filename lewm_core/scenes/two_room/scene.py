"""Two-Room as physics and camera: a point robot, a wall, a door whose place varies.

Sizes are those of stable-worldmodel's TwoRoomEnv (0.1.1), one of its 224 pixels a centimetre here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.outcome import Criterion, Outcome
from lewm_core.scenes.variations import VariedParts

#: Edge of the square floor that the picture shows, m.
FLOOR_SIZE = 2.24
#: The outer walls' inner faces are at plus and minus this, m (the reference's border: 14 px).
WALL = 0.98
#: Half of the thickness of the wall between the rooms, m (10 px).
INNER_WALL_HALF = 0.05
#: Half of the width of the door, m (14 px).
DOOR_HALF = 0.14
#: Of the robot, m (7 px).
ROBOT_RADIUS = 0.07
#: Of the robot along each axis, m/s (5 px a control step of 0.1 s).
SPEED_LIMIT = 0.5
#: The robot's centre can reach plus and minus this, m.
REACH = WALL - ROBOT_RADIUS
#: The door's centre is drawn within plus and minus this, m.
DOOR_REACH = 0.75
#: m; 16 px.
POSITION_TOLERANCE = 0.16

#: Distance of the robot's centre to the middle of the inner wall when it touches it, m.
_WALL_CONTACT = INNER_WALL_HALF + ROBOT_RADIUS
#: Deepest overlap that `TwoRoomScene.check_state` accepts, m: contacts are soft.
_LARGEST_OVERLAP = 0.005
_PHYSICS_STEP = 0.005  # s
_ROBOT_MASS = 1.0  # kg
#: N s/m: the robot takes up a commanded velocity within a time constant of 33 ms.
_VELOCITY_GAIN = 30.0


def two_room_mjcf() -> str:
    """Return the model: joints ``agent_x agent_y``, mocap bodies ``wall_above wall_below``.

    Colours are emitted, not lit; the orthographic camera shows exactly the floor. The two parts of
    the inner wall are as long as the floor, so that they reach out of the picture wherever the
    door is.
    """
    half, rim = FLOOR_SIZE / 2, (FLOOR_SIZE / 2 - WALL) / 2
    outer = "\n".join(
        f'<geom type="plane" class="contact" pos="{-x * WALL} {-y * WALL} 0" zaxis="{x} {y} 0"/>'
        f'<geom type="box" class="wall" pos="{-x * (WALL + rim)} {-y * (WALL + rim)} 0" '
        f'size="{rim if x else half} {rim if y else half} 0.001"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    inner = "\n".join(
        f'<body name="{name}" mocap="true"><geom type="box" class="inner" '
        f'size="{INNER_WALL_HALF} {half} 0.1"/></body>'
        for name in ("wall_above", "wall_below")
    )
    return f"""
<mujoco model="two_room">
  <compiler angle="radian" inertiafromgeom="false"/>
  <option timestep="{_PHYSICS_STEP}" integrator="implicitfast" gravity="0 0 0"/>
  <visual>
    <global offwidth="64" offheight="64"/>
    <quality offsamples="0" shadowsize="0"/>
    <headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/>
    <map znear="0.1" zfar="10"/>
  </visual>
  <statistic center="0 0 0" extent="{FLOOR_SIZE}"/>
  <asset>
    <material name="floor" rgba="0.94 0.93 0.89 1" emission="1"/>
    <material name="wall" rgba="0.25 0.27 0.30 1" emission="1"/>
    <material name="robot" rgba="0.86 0.18 0.12 1" emission="1"/>
  </asset>
  <default>
    <geom friction="0" condim="1" solref="0.01 1" contype="0" conaffinity="0"/>
    <default class="wall"><geom material="wall"/></default>
    <default class="inner"><geom material="wall" contype="1" conaffinity="1"/></default>
    <default class="contact">
      <geom contype="1" conaffinity="1" size="2 2 0.1" group="3"/>
    </default>
  </default>
  <worldbody>
    <camera name="top" pos="0 0 2" projection="orthographic" fovy="{FLOOR_SIZE}"/>
    <geom name="floor" type="box" material="floor" pos="0 0 -0.002" size="{half} {half} 0.001"/>
    {outer}
    {inner}
    <body name="agent">
      <inertial pos="0 0 0" mass="{_ROBOT_MASS}" diaginertia="0.01 0.01 0.01"/>
      <joint name="agent_x" type="slide" axis="1 0 0"/>
      <joint name="agent_y" type="slide" axis="0 1 0"/>
      <geom name="robot" type="sphere" material="robot" size="{ROBOT_RADIUS}"
            contype="1" conaffinity="1"/>
    </body>
  </worldbody>
  <actuator>
    <velocity name="agent_x" joint="agent_x" kv="{_VELOCITY_GAIN}"/>
    <velocity name="agent_y" joint="agent_y" kv="{_VELOCITY_GAIN}"/>
  </actuator>
</mujoco>
"""


class TwoRoomScene(MujocoScene):
    """Two rooms of 0.93 m x 1.96 m, a wall between them, a door of 0.28 m, a robot of 0.14 m.

    Action: the velocity (2,) in m/s that the robot (1 kg) is to take, each axis within plus and
    minus 0.5; it follows with a time constant of 33 ms and slides along walls without friction.

    Ground truth: ``agent_x agent_y door_y`` in m, x to the right, y up, the origin in the middle.
    The door does not move during an episode.
    """

    title = "Two-Room"
    state_names = ("agent_x", "agent_y", "door_y")
    state_units = ("m", "m", "m")
    action_names = ("velocity_x", "velocity_y")
    action_unit = "m/s"
    action_lower = np.full(2, -SPEED_LIMIT)
    action_upper = np.full(2, SPEED_LIMIT)
    physics_step_s = _PHYSICS_STEP
    cameras = ("top",)
    criterion = Criterion("robot within 160 mm of the goal", POSITION_TOLERANCE)
    varied_parts = VariedParts({"top": FLOOR_SIZE}, ("robot",), ("agent",), (0, 2))

    def _make_model(self, mujoco: Any) -> Any:
        return mujoco.MjModel.from_xml_string(two_room_mjcf())

    def draw_state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a ground truth (3,): the robot anywhere in either room, clear of the walls."""
        door = rng.uniform(-DOOR_REACH, DOOR_REACH)
        x = rng.choice((-1.0, 1.0)) * rng.uniform(_WALL_CONTACT + 0.01, REACH - 0.01)
        return np.array([x, rng.uniform(-REACH + 0.01, REACH - 0.01), door])

    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as an admissible ground truth (3,) of m.

        Raises:
            UserError: Not three finite numbers, or the robot reaches into a wall.
        """
        values = self.numbers(state)
        text = "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
        if abs(values[2]) > DOOR_REACH + 1e-9:
            raise UserError(
                f"Two-Room state {text}: door_y lies within plus and minus {DOOR_REACH} m"
            )
        if wall_clearance(values) < -_LARGEST_OVERLAP:
            raise UserError(f"Two-Room state {text}: the robot reaches into a wall; move it")
        return values

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare the robot's place in a ground truth (3,) with that of a goal (3,).

        Success is the published criterion (stable-worldmodel's TwoRoomEnv): nearer than 16 of its
        pixels. The door's place is no part of it.
        """
        difference = np.asarray(state, np.float64)[:2] - np.asarray(goal_state, np.float64)[:2]
        distance = float(np.hypot(*difference))
        return Outcome(
            success=distance < POSITION_TOLERANCE,
            object_success=distance < POSITION_TOLERANCE,
            margin=distance / POSITION_TOLERANCE,
            position_distance=distance,
        )

    def ground_truth(self) -> NDArray[np.float64]:
        """Return ``agent_x agent_y door_y`` (3,) in m."""
        below = self._data.mocap_pos[1]
        return np.array([*self._data.qpos, below[1] + FLOOR_SIZE / 2 + DOOR_HALF])

    def _place(self, data: Any, state: NDArray[np.float64]) -> None:
        data.qpos[:] = state[:2]
        offset = FLOOR_SIZE / 2 + DOOR_HALF
        data.mocap_pos[:, 1] = state[2] + offset, state[2] - offset


def wall_clearance(state: ArrayLike) -> float:
    """Distance between the robot's surface and the nearest wall in ``state`` (3,), m."""
    x, y, door = (float(value) for value in np.asarray(state, dtype=np.float64))
    outer = WALL - max(abs(x), abs(y))
    beside = abs(x) - INNER_WALL_HALF
    within = DOOR_HALF - abs(y - door)
    # In the opening the nearest of the inner wall is a face of the door or one of its corners.
    inner = within if beside <= 0 else beside if within <= 0 else float(np.hypot(beside, within))
    return min(outer, inner) - ROBOT_RADIUS
