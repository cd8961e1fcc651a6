"""The scenes by name, and what every scene offers to its drivers."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.outcome import Criterion, Outcome


class Scene(Protocol):
    """Physics and camera of a scene, as the collector and the ROS scene node drive it.

    A: length of the action vector, N: of the ground truth.
    """

    title: str  # for messages
    state_names: Sequence[str]  # N names
    state_units: Sequence[str]
    physics_step_s: float
    control_period_s: float
    action_lower: NDArray  # (A,)
    action_upper: NDArray  # (A,)
    criterion: Criterion
    cameras: Sequence[str]  # names; the first is the usual one

    def reset(self, seed: int | None = None, state: ArrayLike | None = None) -> NDArray:
        """Begin anew from a drawn state or a ground truth (N,); returns the ground truth (N,)."""

    def set_command(self, command: ArrayLike) -> None:
        """Set the command (A,) in force until the next call."""

    def step_physics(self, duration_s: float) -> None:
        """Advance by a whole multiple of `physics_step_s`."""

    def step_control(self, command: ArrayLike) -> NDArray:
        """Apply a command (A,) for one control period; returns the ground truth (N,)."""

    def ground_truth(self) -> NDArray:
        """Return the ground truth (N,)."""

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare a ground truth (N,) with that of a goal (N,)."""

    def get_state(self) -> NDArray:
        """Return everything the future depends on, for `set_state`."""

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned, to the bit."""

    def render(self, width: int, height: int, camera: str | None = None) -> NDArray:
        """Return what a camera sees, by default the first: (height, width, 3) uint8 RGB."""

    def render_state(
        self, state: ArrayLike, width: int, height: int, camera: str | None = None
    ) -> NDArray:
        """Return the picture of a ground truth (N,) without disturbing the simulation."""

    def close(self) -> None:
        """Free the camera's buffers."""


class Expert(Protocol):
    """A scripted policy that sees the ground truth only."""

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; restart the random stream if a seed is given."""

    def act(self, ground_truth: ArrayLike) -> NDArray:
        """Return the command (A,) for the next control period."""

    def goal_state(self, ground_truth: ArrayLike) -> NDArray | None:
        """Return the ground truth (N,) that is pursued at present.

        None where there is none: the expert wanders, or does what it does without a goal that it
        would reach.
        """


@dataclass(frozen=True)
class _Entry:
    scene: str  # module:class
    expert: str
    environment_id: str
    environment: str
    max_episode_steps: int


_SCENES = {
    "cube": _Entry(
        scene="lewm_core.scenes.cube.scene:CubeScene",
        expert="lewm_core.scenes.cube.expert:CubeExpert",
        environment_id="lewm/Cube-v0",
        environment="lewm_core.scenes.cube.environment:CubeEnv",
        max_episode_steps=200,
    ),
    "cube_double": _Entry(
        scene="lewm_core.scenes.cube.scene:CubeDoubleScene",
        expert="lewm_core.scenes.cube.expert:CubeExpert",
        environment_id="lewm/CubeDouble-v0",
        environment="lewm_core.scenes.cube.environment:CubeDoubleEnv",
        max_episode_steps=500,
    ),
    "push_t": _Entry(
        scene="lewm_core.scenes.push_t.scene:PushTScene",
        expert="lewm_core.scenes.push_t.expert:PushTExpert",
        environment_id="lewm/PushT-v0",
        environment="lewm_core.scenes.push_t.environment:PushTEnv",
        max_episode_steps=300,
    ),
    "reacher": _Entry(
        scene="lewm_core.scenes.reacher.scene:ReacherScene",
        expert="lewm_core.scenes.reacher.expert:ReacherExpert",
        environment_id="lewm/Reacher-v0",
        environment="lewm_core.scenes.reacher.environment:ReacherEnv",
        max_episode_steps=500,
    ),
    "two_room": _Entry(
        scene="lewm_core.scenes.two_room.scene:TwoRoomScene",
        expert="lewm_core.scenes.two_room.expert:TwoRoomExpert",
        environment_id="lewm/TwoRoom-v0",
        environment="lewm_core.scenes.two_room.environment:TwoRoomEnv",
        max_episode_steps=300,
    ),
}


def known_scenes() -> list[str]:
    """Return the names that `make_scene` takes."""
    return sorted(_SCENES)


def make_scene(name: str, seed: int | None = None, vary: Sequence[str] = ()) -> Scene:
    """Make the physics and camera of a scene.

    Args:
        name: One of `known_scenes`; a scene's contract has the same name.
        seed: Of its resets.
        vary: Variations of looks and physics, see `variations.known_variations`.

    Raises:
        UserError: Unknown scene or variation, or MuJoCo or OpenGL is missing.
    """
    return _load(_entry(name).scene)(seed=seed, vary=vary)


def make_expert(name: str, seed: int | None = None) -> Expert:
    """Make the scripted expert of a scene.

    Raises:
        UserError: Unknown scene.
    """
    return _load(_entry(name).expert)(seed=seed)


def environment_id(name: str) -> str:
    """Return the id under which a scene's environment is registered with Gymnasium.

    Raises:
        UserError: Unknown scene.
    """
    return _entry(name).environment_id


def register_scenes() -> None:
    """Register every scene's environment with Gymnasium; a second call changes nothing."""
    for entry in _SCENES.values():
        if entry.environment_id not in gymnasium.registry:
            gymnasium.register(
                id=entry.environment_id,
                entry_point=entry.environment,
                max_episode_steps=entry.max_episode_steps,
            )


def _entry(name: str) -> _Entry:
    if name not in _SCENES:
        nearest = difflib.get_close_matches(name, _SCENES, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"unknown scene {name!r}; known scenes: {', '.join(known_scenes())}{hint}")
    return _SCENES[name]


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
