"""``lewm/Reacher-v0``: the two-link arm as a Gymnasium environment; the docstring specifies it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lewm_core.scenes.environment import SceneEnvironment
from lewm_core.scenes.reacher.scene import WRIST_LIMIT, ReacherScene


class ReacherEnv(SceneEnvironment):
    """A two-link arm in the plane goes to a goal configuration.

    ## Description

    dm_control's reacher: two links of 0.12 m in the horizontal plane, capsules of 0.01 m radius and
    1000 kg/m^3, nothing to collide with. In the place of its target ball the goal is a
    configuration of the joints, as in the published protocol (stable-worldmodel's
    ReacherQPosMatchTask).

    A *state* is two numbers in rad: ``shoulder_angle`` in [-pi, pi), counter-clockwise from x, and
    ``wrist_angle`` within 160 degrees.

    ## Action space

    ``Box(-0.05, 0.05, (2,), float32)``: torques of shoulder and wrist in N m during the next
    control period of 0.04 s (dm_control: -1 to 1 times a gear of 0.05). Numbers beyond the bounds
    are clamped to them.

    ## Dynamics

    A control period is two physics steps of 0.02 s (Euler), as stable-worldmodel steps it. Both
    joints are damped with 0.01 N m s/rad: at full torque a joint ends at 5 rad/s. The wrist has
    soft stops, the shoulder none.

    ## Observation space

    ``observation="picture"`` (default): ``Box(0, 255, (image_size, image_size, 3), uint8)``, RGB,
    what an orthographic camera above the shoulder sees: 0.56 m x 0.56 m. The goal is not drawn, and
    velocities do not show. ``observation="state"``: the state, float64.

    ## Reward, success, end of an episode

    Success is the published criterion: each joint is nearer than 0.05 rad to the goal
    configuration; the shoulder's difference is taken the shorter way round. The reward is the
    negative of the larger difference over that tolerance, so success is a reward above -1. The
    episode terminates on success, unless ``terminate_on_success=False``. It is truncated after 500
    control steps (by ``gymnasium.make``; 20 s, as in dm_control).

    ## Reset

    State and goal state are uniform in the joints' range, at rest. Options:

    * ``options["state"]``: begin from this state (2,).
    * ``options["goal_state"]``: this goal state (2,).

    ## Info

    ``state`` and ``goal_state`` (2,) float64; ``success`` and ``object_success``, which are the
    same; ``angle_distance``, the larger difference of a joint in rad; ``position_distance`` of the
    fingertip in m; ``margin``, the angle distance over the tolerance; ``time_s`` since the reset.

    ## Full state

    `get_state` and `set_state` keep and restore everything, velocities included, to the bit;
    `render_state` shows any state without disturbing the current one, `goal_picture` the goal.

    ## Arguments

    >>> import gymnasium, lewm_core.scenes
    >>> env = gymnasium.make("lewm/Reacher-v0", observation="state", render_mode="rgb_array")
    >>> observation, info = env.reset(seed=0)

    * ``render_mode``: ``None`` or ``"rgb_array"``.
    * ``observation``: ``"picture"`` or ``"state"``.
    * ``image_size``: edge of pictures in pixels, 1 to 1024; default 224.
    * ``terminate_on_success``: default True.

    ## Versions

    * v0: first version.

    Raises:
        UserError: An argument or a reset option is not one of the above, a given state is not two
            finite numbers within the wrist's stops, or MuJoCo or OpenGL is missing.
    """

    metadata = SceneEnvironment.metadata | {"render_fps": 25}
    scene_class = ReacherScene
    environment_id = "lewm/Reacher-v0"

    def _state_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # Stops are soft: the wrist may pass them by a few degrees.
        reach = np.array([math.pi, 1.2 * WRIST_LIMIT])
        return -reach, reach
