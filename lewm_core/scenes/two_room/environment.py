"""``lewm/TwoRoom-v0``: Two-Room as a Gymnasium environment; the docstring specifies it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lewm_core.scenes.environment import SceneEnvironment
from lewm_core.scenes.two_room.scene import DOOR_REACH, WALL, TwoRoomScene


class TwoRoomEnv(SceneEnvironment):
    """A point robot drives to a goal place, through a door if that is in the other room.

    ## Description

    The floor is 2.24 m x 2.24 m, its centre the origin, x to the right and y up in the picture.
    One pixel of the reference (stable-worldmodel's TwoRoomEnv, 224 px) is a centimetre here: outer
    walls 0.14 m inside the edge, a wall of 0.1 m at x = 0, a door of 0.28 m in it, a robot with a
    radius of 0.07 m. Where the door is, is drawn for every episode.

    A *state* is three numbers in m: ``agent_x, agent_y, door_y``.

    ## Action space

    ``Box(-0.5, 0.5, (2,), float32)``: velocity (x, y) in m/s that the robot is to take during the
    next control period of 0.1 s. Numbers beyond the bounds are clamped to them. At full speed along
    an axis a control step is 50 mm: 5 px of the reference.

    ## Dynamics

    A control period is twenty physics steps of 0.005 s (``implicitfast``). The robot of 1 kg is
    pushed with 30 N s/m times the difference of commanded and present velocity: a time constant of
    33 ms. It slides along walls without friction. (The reference has no dynamics: its robot jumps,
    and is set back from walls.)

    ## Observation space

    ``observation="picture"`` (default): ``Box(0, 255, (image_size, image_size, 3), uint8)``, RGB,
    what an orthographic camera above the centre sees; it shows exactly the floor, row 0 is its
    upper edge. The goal is not drawn. ``observation="state"``: the state, float64.

    ## Reward, success, end of an episode

    Success is the published criterion: the robot is nearer than 0.16 m (16 px) to its goal place.
    The reward is the negative of distance over tolerance, so success is a reward above -1. The
    episode terminates on success, unless ``terminate_on_success=False``. It is truncated after 300
    control steps (by ``gymnasium.make``).

    ## Reset

    The robot is drawn anywhere in either room, clear of the walls, the door within 0.75 m of the
    middle; the goal state has the same door. Options:

    * ``options["state"]``: begin from this state (3,).
    * ``options["goal_state"]``: this goal state (3,).

    ## Info

    ``state`` and ``goal_state`` (3,) float64; ``success`` and ``object_success``, which are the
    same; ``position_distance`` in m to the goal; ``margin``, the same over the tolerance;
    ``time_s`` since the reset.

    ## Full state

    `get_state` and `set_state` keep and restore everything, to the bit; `render_state` shows any
    state without disturbing the current one, `goal_picture` the goal.

    ## Arguments

    >>> import gymnasium, lewm_core.scenes
    >>> env = gymnasium.make("lewm/TwoRoom-v0", observation="state", render_mode="rgb_array")
    >>> observation, info = env.reset(seed=0)

    * ``render_mode``: ``None`` or ``"rgb_array"``.
    * ``observation``: ``"picture"`` or ``"state"``.
    * ``image_size``: edge of pictures in pixels, 1 to 1024; default 224.
    * ``terminate_on_success``: default True.

    ## Versions

    * v0: first version.

    Raises:
        UserError: An argument or a reset option is not one of the above, a given state is not
            three finite numbers clear of the walls, or MuJoCo or OpenGL is missing.
    """

    scene_class = TwoRoomScene
    environment_id = "lewm/TwoRoom-v0"

    def _state_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        reach = np.array([WALL, WALL, DOOR_REACH])
        return -reach, reach

    def _draw_goal(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        goal = super()._draw_goal(state)
        goal[2] = state[2]
        return goal
