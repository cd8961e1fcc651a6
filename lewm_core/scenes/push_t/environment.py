"""``lewm/PushT-v0``: Push-T in MuJoCo as a Gymnasium environment; the docstring specifies it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lewm_core.scenes.environment import SceneEnvironment
from lewm_core.scenes.push_t.geometry import BOARD_SIZE, WALL
from lewm_core.scenes.push_t.scene import PushTScene


class PushTEnv(SceneEnvironment):
    """A round pusher moves a T-shaped block on a board towards a goal state.

    ## Description

    The board is 0.512 m x 0.512 m, its centre the origin, x to the right and y up in the picture;
    four walls stand 7 mm inside its edge. One pixel of the reference (gym-pusht, 512 px) is one
    millimetre here: the T has bars of 30 mm, 120 mm wide and 120 mm long, the pusher a radius
    of 15 mm. Nothing falls: all motion is in the plane.

    A *state* is five numbers: ``agent_x, agent_y, block_x, block_y`` in m and ``block_angle`` in
    rad within [-pi, pi), counter-clockwise. The block's position is the middle of its bar's outer
    edge, as in the reference; at angle 0 the stem points down (negative y).

    ## Action space

    ``Box(-0.15, 0.15, (2,), float32)``: velocity (x, y) in m/s of the pusher's target during the
    next control period of 0.1 s. Numbers beyond the bounds are clamped to them.

    ## Dynamics

    A control period is ten physics steps of 0.01 s (``implicitfast``). Each physics step moves the
    target by velocity times step, keeps it within the pusher's reach (0.234 m from the centre on
    each axis) and within 0.02 m of the pusher on each axis, and pulls the pusher of 5 kg towards
    it with 1000 N/m and, by the difference of their velocities, 100 N s/m: a free pusher makes
    the commanded 15 mm per control step and is back on its target 0.3 s after a jump of the
    command. The block of 1 kg and 0.003 kg m^2 about its centre of gravity (45 mm from the bar's
    outer edge) is damped with 20 N s/m and 0.0524 N m s/rad, so it stops within 0.2 s when nothing
    pushes. Friction is 0.3 between all surfaces.

    ## Observation space

    ``observation="picture"`` (default): ``Box(0, 255, (image_size, image_size, 3), uint8)``, RGB,
    what an orthographic camera above the centre sees; it shows exactly the board, row 0 is its
    upper edge. The goal is not drawn. ``observation="state"``: the state, float64; no picture is
    rendered then.

    ## Reward, success, end of an episode

    Success is the published criterion (``PushT.eval_state`` of stable-worldmodel): the norm of the
    *four* coordinate differences of pusher and block to the goal state is below 20 mm, *and* the
    block's angle differs by less than pi/9. The reward is the negative of the larger of the two
    ratios difference / tolerance, so success is a reward above -1. The episode terminates on
    success, unless ``terminate_on_success=False``. It is truncated after 300 control steps (by
    ``gymnasium.make``; the published evaluation allows 50).

    ## Reset

    State and goal state are drawn without overlaps: the pusher uniform within 0.2 m of the centre
    on each axis, the block's centre of gravity within 0.15 m, its angle uniform. Options:

    * ``options["state"]``: begin from this state (5,).
    * ``options["goal_state"]``: this goal state (5,).

    Giving one leaves the draw of the other unchanged. The pusher is at rest on its target.

    ## Info

    ``state`` and ``goal_state`` (5,) float64; ``success`` and ``object_success`` (the criterion
    for the block alone); ``position_distance`` (of pusher and block together), ``agent_distance``,
    ``block_distance`` in m and ``angle_distance`` in rad, all to the goal; ``margin``, the larger
    ratio of a difference to its tolerance; ``time_s`` since the reset.

    ## Full state

    `get_state` and `set_state` keep and restore everything, to the bit: positions, velocities,
    target, time, the solver's warm start, and the goal. `render_state` shows any state without
    disturbing the current one, `goal_picture` the goal.

    ## Arguments

    >>> import gymnasium, lewm_core.scenes
    >>> env = gymnasium.make("lewm/PushT-v0", observation="state", render_mode="rgb_array")
    >>> observation, info = env.reset(seed=0)

    * ``render_mode``: ``None`` or ``"rgb_array"``.
    * ``observation``: ``"picture"`` or ``"state"``.
    * ``image_size``: edge of pictures in pixels, 1 to 1024; default 224.
    * ``terminate_on_success``: default True.

    ## Versions

    * v0: first version.

    Raises:
        UserError: An argument or a reset option is not one of the above, a given state is not
            five finite numbers without overlaps, or MuJoCo or OpenGL is missing.
    """

    scene_class = PushTScene
    environment_id = "lewm/PushT-v0"

    def _state_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # Contacts are soft: positions may pass a wall by a millimetre or two.
        reach = np.array([WALL, WALL, BOARD_SIZE / 2, BOARD_SIZE / 2, math.pi])
        return -reach, reach
