"""What all scenes share: a MuJoCo model that is driven by commands and seen by a camera.

A scene's own file says what there is (`_make_model`), how a ground truth is drawn, checked, placed
and read, what a command does to the physics, and when a goal is reached. The rest is here: seeded
resets, physics step and control step, the full state to the bit, and pictures that never touch the
simulation.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.outcome import Criterion, Outcome
from lewm_core.scenes.rendering import PictureRenderer, load_mujoco
from lewm_core.scenes.variations import Variations, VariedParts, check_violation

#: Numbers of a position of a free, ball, slide and hinge joint (mjtJoint).
_COORDINATES = (7, 4, 1, 1)


class MujocoScene(abc.ABC):
    """A scene: physics and camera. N: numbers of the ground truth, A: of a command.

    Attributes:
        title: What messages call the scene.
        state_names: N names of the ground truth.
        state_units: N units.
        action_names: A names of a command.
        action_unit: Of all its numbers.
        action_lower: (A,) limits; commands beyond them are clamped.
        action_upper: (A,).
        physics_step_s: s, of one step of MuJoCo.
        control_period_s: s, one command each; a whole multiple of `physics_step_s`.
        cameras: Names of those that pictures are taken through; the first is the usual one.
        criterion: When a goal counts as reached, for reports; `outcome` decides.
        varied_parts: What variations of looks and physics are about.
    """

    title: ClassVar[str]
    state_names: ClassVar[Sequence[str]]
    state_units: ClassVar[Sequence[str]]
    action_names: ClassVar[Sequence[str]]
    action_unit: ClassVar[str]
    action_lower: ClassVar[NDArray[np.float64]]
    action_upper: ClassVar[NDArray[np.float64]]
    physics_step_s: ClassVar[float]
    control_period_s: ClassVar[float] = 0.1
    cameras: ClassVar[Sequence[str]]
    criterion: ClassVar[Criterion]
    varied_parts: ClassVar[VariedParts]

    def __init__(self, seed: int | None = None, vary: Sequence[str] = ()) -> None:
        """Build the model and reset to a drawn state.

        Args:
            seed: Of the random stream behind `reset`; None draws one from the system.
            vary: Variations drawn anew at every reset, see `variations`.

        Raises:
            UserError: An unknown variation, or MuJoCo, the OpenGL library it is told to use, or a
                package that the scene needs is missing.
        """
        self._mujoco = load_mujoco()
        self._model = self._make_model(self._mujoco)
        self._data = self._mujoco.MjData(self._model)
        # Pictures are drawn from data of their own: they never touch the simulation's state.
        self._shown_model = self._make_shown_model()
        self._shown = self._mujoco.MjData(self._shown_model)
        models = [self._model]
        if self._shown_model is not self._model:
            models.append(self._shown_model)
        self._variations = Variations(self._mujoco, models, vary, self.varied_parts)
        self._renderer = PictureRenderer(self._shown_model, self.cameras)
        self._state_kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._state_size = self._mujoco.mj_stateSize(self._model, self._state_kind)
        self._command = np.zeros(len(self.action_lower))
        self._steps = 0
        self._rng = np.random.default_rng(seed)
        self.reset()

    # What a scene says about itself.

    @abc.abstractmethod
    def _make_model(self, mujoco: Any) -> Any:
        """Return the ``MjModel``; its time step is `physics_step_s`."""

    def _make_shown_model(self) -> Any:
        """Return the ``MjModel`` that pictures show; by default the physics' own.

        Another one has the same joints and mocap bodies in the same order, and what `varied_parts`
        names.
        """
        return self._model

    @abc.abstractmethod
    def draw_state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw an admissible ground truth (N,) that an episode may begin from."""

    @abc.abstractmethod
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as an admissible ground truth (N,).

        Raises:
            UserError: It is none; the message says why (`numbers` checks count and finiteness).
        """

    @abc.abstractmethod
    def _place(self, data: Any, state: NDArray[np.float64]) -> None:
        """Write a ground truth (N,) into ``data``, at rest; overlaps are shown as they are."""

    @abc.abstractmethod
    def ground_truth(self) -> NDArray[np.float64]:
        """Return the ground truth (N,), see `state_names` and `state_units`."""

    @abc.abstractmethod
    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare a ground truth (N,) with that of a goal (N,)."""

    def _begin(self, state: NDArray[np.float64]) -> None:  # noqa: B027 (most need nothing)
        """Set what is neither in MuJoCo's state nor 0 at the beginning of an episode."""

    def _advance(self, steps: int) -> None:
        """Make physics steps under the command in force; by default it is MuJoCo's control."""
        self._data.ctrl[:] = self._command
        self._mujoco.mj_step(self._model, self._data, steps)

    def _own_state(self) -> tuple[float, ...]:
        """What the future depends on besides MuJoCo's state and the command; always as many."""
        return ()

    def _set_own_state(self, values: Sequence[float]) -> None:  # noqa: B027 (likewise)
        """Go back to what `_own_state` returned."""

    # What all scenes do alike.

    def reset(
        self, seed: int | None = None, state: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Begin anew at time 0, at rest.

        Args:
            seed: Restart the random stream; None continues it.
            state: Ground truth (N,) to begin from; None draws one.

        Returns:
            The ground truth (N,).

        Raises:
            UserError: The given state is not admissible.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        values = self.draw_state(self._rng) if state is None else self.check_state(state)
        # Not 0, which is the scene as it was made; and no violation goes on.
        drawn = int(self._rng.integers(1, 2**31)) if self._variations.names else 0
        self._variations.apply(drawn)
        self._mujoco.mj_resetData(self._model, self._data)
        self._place(self._data, values)
        self._command = np.zeros(len(self.action_lower))
        self._steps = 0
        self._begin(values)
        return self.ground_truth()

    def set_command(self, command: ArrayLike) -> None:
        """Set the command (A,) in force until the next call; clamped to its limits.

        Raises:
            ValueError: Not A finite numbers.
        """
        values = np.asarray(command, dtype=np.float64)
        if values.shape != self.action_lower.shape or not np.isfinite(values).all():
            raise ValueError(
                f"a command of {self.title} is {len(self.action_lower)} finite numbers "
                f"({', '.join(self.action_names)} in {self.action_unit}), got {command!r}"
            )
        self._command = np.minimum(np.maximum(values, self.action_lower), self.action_upper)

    def step_physics(self, duration_s: float | None = None) -> None:
        """Advance by ``duration_s``, a whole multiple of `physics_step_s`; by default one step.

        Raises:
            ValueError: ``duration_s`` is not a positive multiple of the physics step.
        """
        step = self.physics_step_s
        duration_s = step if duration_s is None else duration_s
        steps = round(duration_s / step)
        if steps < 1 or abs(steps * step - duration_s) > 1e-9:
            raise ValueError(f"physics advances by multiples of {step} s, got {duration_s!r} s")
        self._advance(steps)
        self._steps += steps

    def step_control(self, command: ArrayLike) -> NDArray[np.float64]:
        """Apply a command (A,) for one control period; return the ground truth (N,)."""
        self.set_command(command)
        self.step_physics(self.control_period_s)
        return self.ground_truth()

    @property
    def time_s(self) -> float:
        """Simulated time since the reset, s."""
        return self._steps * self.physics_step_s

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset, ns, exact."""
        return self._steps * round(self.physics_step_s * 1e9)

    def get_state(self) -> NDArray[np.float64]:
        """Return everything the future depends on, for `set_state`: (M,) float64.

        Holds MuJoCo's state with the solver's warm start, the command in force, what the scene
        keeps, the seed of its variations and the violations in force. Its layout is private; it
        fits any instance of the scene with the same variations and MuJoCo version.
        """
        changes = self._variations.seed, self._variations.violated
        own = (*self._command, *self._own_state(), self._steps, *changes)
        full = np.empty(self._state_size + len(own))
        self._mujoco.mj_getState(
            self._model, self._data, full[: self._state_size], self._state_kind
        )
        full[self._state_size :] = own
        return full

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned: the same commands then give the same bits.

        Raises:
            ValueError: Not a state of this scene.
        """
        values = np.ascontiguousarray(full, dtype=np.float64)
        actions = len(self.action_lower)
        size = self._state_size + actions + len(self._own_state()) + 3
        if values.shape != (size,) or not np.isfinite(values).all():
            raise ValueError(
                f"a full state of {self.title} is {size} finite numbers, got shape {values.shape}"
            )
        own = values[self._state_size :].tolist()
        self._variations.apply(int(own[-2]), int(own[-1]))
        self._mujoco.mj_setState(
            self._model, self._data, values[: self._state_size], self._state_kind
        )
        self._command = np.array(own[:actions])
        self._set_own_state(own[actions:-3])
        self._steps = int(own[-3])

    def violate(self, name: str, seed: int = 0) -> None:
        """Let something happen to the object that cannot be; for tests of surprise.

        Args:
            name: ``teleport``: it is elsewhere at once, where an episode could begin. The others
                last until the next reset: ``freeze``: it stands still, whatever pushes it;
                ``ghost``: it touches nothing any more; ``recolour``: it has another colour.
            seed: Decides where to.

        Raises:
            UserError: Unknown violation; the message lists the known ones.
        """
        check_violation(name)
        model, data = self._model, self._data
        bodies = [model.body(part).id for part in self.varied_parts.weighed_bodies]
        if name != "teleport":
            self._variations.violate(name)
            if name == "freeze":
                # It stands at once. Damping alone would brake it so hard that MuJoCo takes the
                # simulation for unstable and begins anew.
                data.qvel[np.isin(model.dof_bodyid, bodies)] = 0.0
            return
        rng, columns = np.random.default_rng(seed), self.varied_parts.object_state
        while True:
            state = self.ground_truth()
            state[columns] = self.draw_state(rng)[columns]
            try:
                self.check_state(state)
            except UserError:
                # Where something else is.
                continue
            break
        self._place(self._shown, state)
        for joint in np.flatnonzero(np.isin(model.jnt_bodyid, bodies)):
            first = model.jnt_qposadr[joint]
            place = slice(first, first + _COORDINATES[model.jnt_type[joint]])
            data.qpos[place] = self._shown.qpos[place]

    def render(
        self, width: int = 224, height: int = 224, camera: str | None = None
    ) -> NDArray[np.uint8]:
        """Return what a camera sees now, by default the first: (height, width, 3) uint8 RGB.

        Raises:
            UserError: OpenGL is missing, the size is out of range, or there is no such camera.
        """
        shown, data = self._shown, self._data
        shown.qpos[:] = data.qpos
        if self._model.nmocap:
            shown.mocap_pos[:], shown.mocap_quat[:] = data.mocap_pos, data.mocap_quat
        return self._show(width, height, camera)

    def render_state(
        self,
        state: ArrayLike,
        width: int = 224,
        height: int = 224,
        camera: str | None = None,
    ) -> NDArray[np.uint8]:
        """Return the picture of a ground truth (N,) without disturbing the simulation.

        Args:
            state: See `state_names`. Overlaps are drawn as they are.
            width: Of the picture, pixels.
            height: Of the picture, pixels.
            camera: One of `cameras`; None: the first.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            UserError: The state is not N finite numbers, OpenGL is missing, the size is out of
                range, or there is no such camera.
        """
        self._place(self._shown, self.numbers(state))
        return self._show(width, height, camera)

    def close(self) -> None:
        """Free the camera's buffers. The physics stays usable; a picture makes new buffers."""
        self._renderer.close()

    def numbers(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as N finite numbers.

        Raises:
            UserError: It is something else.
        """
        values = np.asarray(state, dtype=np.float64)
        if values.shape != (len(self.state_names),) or not np.isfinite(values).all():
            units = " and ".join(dict.fromkeys(self.state_units))
            raise UserError(
                f"a state of {self.title} is {len(self.state_names)} finite numbers "
                f"({', '.join(self.state_names)} in {units}), got {np.asarray(state).tolist()}"
            )
        return values

    def _show(self, width: int, height: int, camera: str | None) -> NDArray[np.uint8]:
        self._mujoco.mj_kinematics(self._shown_model, self._shown)
        self._mujoco.mj_camlight(self._shown_model, self._shown)
        return self._renderer.render(self._shown, width, height, camera)
