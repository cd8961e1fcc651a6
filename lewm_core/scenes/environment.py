"""A scene as a Gymnasium environment: what all of them do alike."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.rendering import LARGEST_PICTURE

_OPTIONS = ("state", "goal_state")


class SceneEnvironment(gymnasium.Env):
    """A scene with a goal state: observation, reward, success, reset options, full state.

    A scene's environment subclasses it, names its class and id, and specifies itself in its
    docstring. The reward is the negative of the outcome's margin, so success is a reward above -1.

    Attributes:
        scene: Physics and camera.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    #: Class of the scene, and the id that messages use.
    scene_class: ClassVar[type[MujocoScene]]
    environment_id: ClassVar[str]

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
        if not 1 <= image_size <= LARGEST_PICTURE:
            raise UserError(f"image_size is {image_size}; take 1 to {LARGEST_PICTURE}")
        self.render_mode = render_mode
        self.image_size = image_size
        self.terminate_on_success = terminate_on_success
        self.scene = self.scene_class(seed=0)
        self._observation = observation
        self._goal = self.scene.ground_truth()
        self.action_space = spaces.Box(
            self.scene.action_lower.astype(np.float32),
            self.scene.action_upper.astype(np.float32),
            dtype=np.float32,
        )
        if observation == "picture":
            self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        else:
            lower, upper = self._state_bounds()
            self.observation_space = spaces.Box(lower, upper, dtype=np.float64)

    def _state_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds (N,) of the ground truth."""
        bound = np.full(len(self.scene.state_names), np.inf)
        return -bound, bound

    def _draw_goal(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draw a goal state (N,) for an episode that begins in ``state`` (N,)."""
        return self.scene.draw_state(self.np_random)

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
                f"unknown reset option {unknown[0]!r} of {self.environment_id}; known options: "
                + ", ".join(_OPTIONS)
            )
        state = self.scene.draw_state(self.np_random)
        goal = self._draw_goal(state)
        if options.get("state") is not None:
            state = np.asarray(options["state"], dtype=np.float64)
        if options.get("goal_state") is not None:
            goal = self.scene.check_state(options["goal_state"])
        self.scene.reset(state=state)
        self._goal = goal
        return self._observe(), self._info()

    def step(self, action: ArrayLike) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control period.

        Returns:
            Observation, reward, terminated, truncated (always False), info.

        Raises:
            ValueError: The action is not finite or of another shape.
        """
        state = self.scene.step_control(action)
        outcome = self.scene.outcome(state, self._goal)
        terminated = self.terminate_on_success and outcome.success
        return self._observe(), -outcome.margin, terminated, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """Return the picture (image_size, image_size, 3) uint8 if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        return self.scene.render(self.image_size, self.image_size)

    def render_state(self, state: ArrayLike) -> NDArray[np.uint8]:
        """Return the picture (image_size, image_size, 3) uint8 of a state (N,).

        The current state is not disturbed.
        """
        return self.scene.render_state(state, self.image_size, self.image_size)

    def goal_picture(self) -> NDArray[np.uint8]:
        """Return the picture (image_size, image_size, 3) uint8 of the goal state."""
        return self.render_state(self._goal)

    def get_state(self) -> NDArray[np.float64]:
        """Return everything the future depends on, for `set_state`: (M,) float64."""
        return np.concatenate((self._goal, self.scene.get_state()))

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned, to the bit.

        Raises:
            ValueError: Not a full state of this environment.
        """
        values = np.asarray(full, dtype=np.float64)
        count = len(self.scene.state_names)
        if values.ndim != 1 or len(values) < count:
            raise ValueError(f"not a full state of {self.environment_id}: shape {values.shape}")
        self.scene.set_state(values[count:])
        self._goal = values[:count].copy()

    def close(self) -> None:
        """Free the camera's buffers."""
        self.scene.close()

    def _observe(self) -> NDArray:
        if self._observation == "state":
            return self.scene.ground_truth()
        return self.scene.render(self.image_size, self.image_size)

    def _info(self) -> dict[str, Any]:
        state = self.scene.ground_truth()
        return {
            "state": state,
            "goal_state": self._goal.copy(),
            **self.scene.outcome(state, self._goal).info(),
            "time_s": self.scene.time_s,
        }
