"""``lewm/Cube-v0`` and ``lewm/CubeDouble-v0``: an arm and cubes as Gymnasium environments.

The docstrings specify them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lewm_core.scenes.cube.scene import CubeDoubleScene, CubeScene
from lewm_core.scenes.environment import SceneEnvironment


class CubeEnv(SceneEnvironment):
    """An arm with a gripper brings a cube to where it is in a goal state.

    ## Description

    OGBench's ``cube-single-v0`` (package ``ogbench``): a UR5e with a Robotiq 2F-85 gripper before a
    table, and on the table a cube of 40 mm and 79 g. x points away from the robot's foot, y to the
    right in the picture, z up; the table is z = 0. Invisible walls keep the cube on the
    table.

    A *state* is nine numbers: ``effector_x, effector_y, effector_z`` in m of the point between the
    fingertips, ``effector_yaw`` in rad within [-pi, pi), ``gripper_closed`` from 0 (open) to 1
    (OGBench calls the same number the opening), ``cube_x, cube_y, cube_z`` in m of the cube's
    middle, and ``cube_yaw`` in rad within [-pi/4, pi/4): after a quarter turn a cube looks the
    same.

    ## Action space

    ``Box(-[0.44, 0.44, 0.44, 1.35, 8], [0.44, 0.44, 0.44, 1.35, 8], (5,), float32)``:
    velocity (x, y, z) in m/s of the point between the fingertips, yaw rate in rad/s, closing rate
    of the gripper in 1/s, during the next control period of 0.05 s. Numbers beyond the bounds are
    clamped to them. Divided by the bounds it is OGBench's action in [-1, 1].

    ## Dynamics

    A control period is 25 physics steps of 0.002 s. At its beginning the target of arm and gripper
    is set ahead of where they are: by 0.05 m, 0.3 rad and 1 for the full command; it is kept in
    the workspace (0.25 to 0.60, -0.35 to 0.35, 0.02 to 0.35 m), with the gripper pointing down.
    Inverse kinematics make joint angles of it, which servos follow. A free arm then moves as
    commanded, to within a sixth. This is OGBench's law. Gravity is compensated for arm and gripper,
    which it is not in OGBench: there a command of 0 lets the arm sink by 35 mm/s.

    ## Observation space

    ``observation="picture"`` (default): ``Box(0, 255, (image_size, image_size, 3), uint8)``, RGB,
    from in front of the table. The arm's meshes are coarser than OGBench's, the arm is opaque,
    there are no shadows, and the goal is not drawn. ``observation="state"``: the state, float64.

    ## Reward, success, end of an episode

    Success is the published criterion (OGBench's, which stable-worldmodel uses): the cube's middle
    no farther than 0.04 m from its place in the goal state. The reward is the negative of the
    distance over 0.04 m, so success is a reward of at least -1. The episode terminates on success,
    unless ``terminate_on_success=False``. It is truncated after 200 control steps (by
    ``gymnasium.make``; as in OGBench).

    ## Reset

    State and goal state are drawn as in OGBench's data collection: the gripper open, above the
    table, with any yaw; the cube lying within 0.30 to 0.55 and -0.30 to 0.30 m. Options:

    * ``options["state"]``: begin from this state (9,).
    * ``options["goal_state"]``: this goal state (9,).

    ## Info

    ``state`` and ``goal_state`` (9,) float64; ``success`` and ``object_success``, which are the
    same; ``position_distance`` of the cube in m; ``margin``, that distance over the tolerance;
    ``time_s`` since the reset.

    ## Full state

    `get_state` and `set_state` keep and restore everything, to the bit. `render_state` shows any
    state without disturbing the current one, `goal_picture` the goal: the gripper straight down,
    the cube lying flat, which they are nearly when the arm moves.

    ## Arguments

    >>> import gymnasium, lewm_core.scenes
    >>> env = gymnasium.make("lewm/Cube-v0", observation="state", render_mode="rgb_array")
    >>> observation, info = env.reset(seed=0)

    * ``render_mode``: ``None`` or ``"rgb_array"``.
    * ``observation``: ``"picture"`` or ``"state"``.
    * ``image_size``: edge of pictures in pixels, 1 to 1024; default 224.
    * ``terminate_on_success``: default True.

    ## Versions

    * v0: first version.

    Raises:
        UserError: An argument or a reset option is not one of the above, a given state is not nine
            finite numbers in their ranges, or ogbench, MuJoCo or OpenGL is missing.
    """

    metadata = SceneEnvironment.metadata | {"render_fps": 20}
    scene_class = CubeScene
    environment_id = "lewm/Cube-v0"

    def _state_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # What the arm can reach at all, and as high as a cube may be thrown.
        cubes = [1.0, 1.0, 1.0, math.pi / 4] * self.scene_class.cubes
        upper = np.array([1.0, 1.0, 1.0, math.pi, 1.0, *cubes])
        lower = -upper
        lower[4] = 0.0
        return lower, upper


class CubeDoubleEnv(CubeEnv):
    """An arm with a gripper brings two cubes to where they are in a goal state.

    OGBench's ``cube-double-v0``. All is as in `CubeEnv`, except that there is a second, green cube:

    * A *state* is thirteen numbers, the last four ``cube2_x, cube2_y, cube2_z`` in m and
      ``cube2_yaw`` in rad. Drawn cubes are 0.08 m apart at least.
    * Success: the middles of both cubes are no farther than 0.04 m from their places. Distance and
      reward are those of the cube that is farther away.

    >>> import gymnasium, lewm_core.scenes
    >>> env = gymnasium.make("lewm/CubeDouble-v0", observation="state", render_mode="rgb_array")
    >>> observation, info = env.reset(seed=0)

    ## Versions

    * v0: first version.

    Raises:
        UserError: As `CubeEnv`.
    """

    scene_class = CubeDoubleScene
    environment_id = "lewm/CubeDouble-v0"
