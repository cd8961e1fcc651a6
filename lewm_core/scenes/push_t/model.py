"""The MuJoCo model of Push-T as MJCF text; `scene` says how it is driven.

Planar: the block has two slides and a hinge through its centre of gravity, the pusher two slides,
and there is no gravity. What would be sliding friction on a table is damping of the block's
joints, so that it stops within a tenth of a second when nothing pushes, as in the reference.

Gains and damping were chosen on a board of half-width 1; lengths here are 0.256 times as large.
Slide damping, masses, gains and time constants keep their values under that scaling, the hinge's
damping and inertia go with the square of the length.
"""

from __future__ import annotations

from lewm_core.scenes.push_t.geometry import (
    BOARD_SIZE,
    CENTRE_OF_GRAVITY,
    PUSHER_RADIUS,
    RECTANGLES,
    WALL,
)

#: Length of a physics step, s.
PHYSICS_STEP = 0.01
#: Of the actuators that pull the pusher, N/m and N s/m.
POSITION_GAIN = 1000.0
VELOCITY_GAIN = 100.0

_SLIDE_DAMPING = 20.0  # N s/m
_HINGE_DAMPING = 0.8 * (BOARD_SIZE / 2) ** 2  # N m s/rad
_BLOCK_MASS = 1.0  # kg
# The reference's: both rectangles about the body's origin, 3000 px^2 at mass 1.
_BLOCK_INERTIA = 3.0e-3  # kg m^2
_PUSHER_MASS = 5.0  # kg
# Half of the height (m) of everything that can touch; contacts happen at this height.
_HALF_HEIGHT = PUSHER_RADIUS


def push_t_mjcf() -> str:
    """Return the model: joints ``agent_x agent_y block_x block_y block_angle``, camera ``top``.

    Colours are emitted, not lit, so that a picture has no shading and compresses well. The
    orthographic camera shows exactly the board.
    """
    half = BOARD_SIZE / 2
    rim_half = (half - WALL) / 2
    rim_centre = WALL + rim_half
    z = _HALF_HEIGHT
    centre_x, centre_y = CENTRE_OF_GRAVITY
    block = "\n".join(
        f'<geom type="box" class="block" pos="{(x0 + x1) / 2 - centre_x} '
        f'{(y0 + y1) / 2 - centre_y} 0" size="{(x1 - x0) / 2} {(y1 - y0) / 2} {z}"/>'
        for x0, y0, x1, y1 in RECTANGLES
    )
    walls = "\n".join(
        f'<geom type="plane" class="wall" pos="{-x * WALL} {-y * WALL} {z}" zaxis="{x} {y} 0"/>'
        f'<geom type="box" class="rim" pos="{-x * rim_centre} {-y * rim_centre} 0" '
        f'size="{rim_half if x else half} {rim_half if y else half} 0.001"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return f"""
<mujoco model="push_t">
  <compiler angle="radian" inertiafromgeom="false"/>
  <option timestep="{PHYSICS_STEP}" integrator="implicitfast" gravity="0 0 0"/>
  <visual>
    <global offwidth="64" offheight="64"/>
    <quality offsamples="0" shadowsize="0"/>
    <headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/>
    <map znear="0.1" zfar="10"/>
  </visual>
  <statistic center="0 0 0" extent="{BOARD_SIZE}"/>
  <asset>
    <material name="board" rgba="0.94 0.93 0.89 1" emission="1"/>
    <material name="rim" rgba="0.45 0.45 0.45 1" emission="1"/>
    <material name="block" rgba="0.10 0.32 0.62 1" emission="1"/>
    <material name="pusher" rgba="0.92 0.32 0.08 1" emission="1"/>
  </asset>
  <default>
    <geom friction="0.3" solref="0.02 1" condim="3"/>
    <default class="block"><geom material="block" contype="1" conaffinity="1"/></default>
    <default class="pusher"><geom material="pusher" contype="1" conaffinity="1"/></default>
    <default class="wall">
      <geom contype="1" conaffinity="1" size="1 1 0.1" group="3"/>
    </default>
    <default class="rim"><geom material="rim" contype="0" conaffinity="0"/></default>
  </default>
  <worldbody>
    <camera name="top" pos="0 0 1" projection="orthographic" fovy="{BOARD_SIZE}"/>
    <geom name="board" type="box" material="board" contype="0" conaffinity="0"
          pos="0 0 -0.002" size="{half} {half} 0.001"/>
    {walls}
    <body name="agent" pos="0 0 {z}">
      <inertial pos="0 0 0" mass="{_PUSHER_MASS}" diaginertia="0.01 0.01 0.01"/>
      <joint name="agent_x" type="slide" axis="1 0 0"/>
      <joint name="agent_y" type="slide" axis="0 1 0"/>
      <geom name="pusher" type="sphere" class="pusher" size="{PUSHER_RADIUS}"/>
    </body>
    <body name="block" pos="0 0 {z}">
      <inertial pos="0 0 0" mass="{_BLOCK_MASS}"
                diaginertia="{_BLOCK_INERTIA} {_BLOCK_INERTIA} {_BLOCK_INERTIA}"/>
      <joint name="block_x" type="slide" axis="1 0 0" damping="{_SLIDE_DAMPING}"/>
      <joint name="block_y" type="slide" axis="0 1 0" damping="{_SLIDE_DAMPING}"/>
      <joint name="block_angle" type="hinge" axis="0 0 1" damping="{_HINGE_DAMPING}"/>
      {block}
    </body>
  </worldbody>
  <actuator>
    <position name="agent_x" joint="agent_x" kp="{POSITION_GAIN}" kv="{VELOCITY_GAIN}"/>
    <position name="agent_y" joint="agent_y" kp="{POSITION_GAIN}" kv="{VELOCITY_GAIN}"/>
  </actuator>
</mujoco>
"""
