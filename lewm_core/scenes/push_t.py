"""``lewm/PushT-v0``: Push-T in MuJoCo as a Gymnasium environment; the docstring specifies it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.push_t_geometry import BOARD_SIZE, WALL, draw_state
from lewm_core.scenes.push_t_physics import SPEED_LIMIT, PushTPhysics, check_state
from lewm_core.scenes.success import ANGLE_TOLERANCE, POSITION_TOLERANCE, push_t_outcome

_OPTIONS = ("state", "goal_state")


class PushTEnv(gymnasium.Env):
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

    ``state`` and ``goal_state`` (5,) float64; ``success`` and ``block_success`` (the criterion for
    the block alone); ``joint_distance``, ``agent_distance``, ``block_distance`` in m and
    ``angle_distance`` in rad, all to the goal; ``time_s`` since the reset.

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

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        render_mode: str | None = None,
        observation: Literal["picture", "state"] = "picture",
        image_size: int = 224,
        terminate_on_success: bool = True,
    ) -> None:
        """Make the scene; see the class for the arguments."""
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise UserError(f"render_mode {render_mode!r} is unknown; use None or 'rgb_array'")
        if observation not in ("picture", "state"):
            raise UserError(f"observation {observation!r} is unknown; use 'picture' or 'state'")
        self.render_mode = render_mode
        self.image_size = image_size
        self.terminate_on_success = terminate_on_success
        self.physics = PushTPhysics(seed=0)
        self._observation = observation
        self._goal = self.physics.ground_truth()
        self.action_space = spaces.Box(-SPEED_LIMIT, SPEED_LIMIT, (2,), np.float32)
        if observation == "picture":
            self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        else:
            # Contacts are soft: positions may pass a wall by a millimetre or two.
            reach = np.array([WALL, WALL, BOARD_SIZE / 2, BOARD_SIZE / 2, math.pi])
            self.observation_space = spaces.Box(-reach, reach, (5,), np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Begin an episode; see the class for the options.

        Returns:
            Observation and info.

        Raises:
            UserError: Unknown option, or a state that is not admissible.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise UserError(
                f"unknown reset option {unknown[0]!r} of lewm/PushT-v0; known options: "
                + ", ".join(_OPTIONS)
            )
        state, goal = draw_state(self.np_random), draw_state(self.np_random)
        if options.get("state") is not None:
            state = np.asarray(options["state"], dtype=np.float64)
        if options.get("goal_state") is not None:
            goal = check_state(options["goal_state"])
        self.physics.reset(state=state)
        self._goal = goal
        return self._observe(), self._info()

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        """Apply an action (2,) in m/s for one control period of 0.1 s.

        Returns:
            Observation, reward, terminated, truncated (always False), info.

        Raises:
            ValueError: The action is not two finite numbers.
        """
        self.physics.step_control(action)
        info = self._info()
        reward = -max(
            info["joint_distance"] / POSITION_TOLERANCE, info["angle_distance"] / ANGLE_TOLERANCE
        )
        terminated = self.terminate_on_success and info["success"]
        return self._observe(), reward, terminated, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return the picture (image_size, image_size, 3) uint8 if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        return self.physics.render(self.image_size, self.image_size)

    def render_state(self, state: ArrayLike) -> NDArray[np.uint8]:
        """Return the picture (image_size, image_size, 3) uint8 of a state (5,).

        The current state is not disturbed.
        """
        return self.physics.render_state(state, self.image_size, self.image_size)

    def goal_picture(self) -> NDArray[np.uint8]:
        """Return the picture (image_size, image_size, 3) uint8 of the goal state."""
        return self.render_state(self._goal)

    def get_state(self) -> NDArray[np.float64]:
        """Return everything the future depends on, for `set_state`: (N,) float64."""
        return np.concatenate((self._goal, self.physics.get_state()))

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned, to the bit.

        Raises:
            ValueError: Not a full state of this environment.
        """
        values = np.asarray(full, dtype=np.float64)
        if values.ndim != 1 or len(values) < 5:
            raise ValueError(f"not a full state of lewm/PushT-v0: shape {values.shape}")
        self.physics.set_state(values[5:])
        self._goal = values[:5].copy()

    def close(self) -> None:
        """Free the camera's buffers."""
        self.physics.close()

    def _observe(self) -> NDArray:
        if self._observation == "state":
            return self.physics.ground_truth()
        return self.physics.render(self.image_size, self.image_size)

    def _info(self) -> dict[str, Any]:
        state = self.physics.ground_truth()
        return {
            "state": state,
            "goal_state": self._goal.copy(),
            **asdict(push_t_outcome(state, self._goal)),
            "time_s": self.physics.time_s,
        }
