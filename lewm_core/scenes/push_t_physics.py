"""Push-T as physics and camera, without Gymnasium: what the environment, the collector and the
ROS scene node drive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.push_t_geometry import (
    CENTRE_OF_GRAVITY,
    PUSHER_REACH,
    STATE_NAMES,
    STATE_UNITS,
    draw_state,
    pusher_clearance,
    to_board,
    wall_clearance,
    wrap_angle,
)
from lewm_core.scenes.push_t_model import (
    PHYSICS_STEP,
    POSITION_GAIN,
    VELOCITY_GAIN,
    push_t_mjcf,
)
from lewm_core.scenes.rendering import PictureRenderer, load_mujoco

#: Largest speed of the pusher's target along each axis, m/s: 0.06 of half a board in 0.1 s.
SPEED_LIMIT = 0.15
#: The target stays within this of the pusher along each axis, m. In free motion the two are apart
#: by 10 mm at most, right after a reversal; the limit bounds the force on a block that is held by
#: a wall, and keeps the target, which no picture shows, from running away.
TARGET_LEASH = 0.02
#: s; the actuators damp the pusher's own velocity, so leading the target by its velocity times
#: this makes them damp the *difference* of the two velocities. Without it the pusher would trail
#: its target by 15 mm at full speed, and two states that look alike would move apart.
_LEAD = VELOCITY_GAIN / POSITION_GAIN
#: Deepest overlap that `PushTPhysics.reset` accepts in a given state, m. Contacts are soft, so
#: recorded states overlap by a fraction of this.
_LARGEST_OVERLAP = 0.003


class PushTPhysics:
    """The Push-T scene: a pusher, a T block and four walls on a board of 0.512 m.

    Action: the velocity (2,) in m/s of the pusher's *target*, each axis within plus and minus
    0.15. Every physics step of 0.01 s moves the target by velocity times step, keeps it within the
    pusher's reach and within 0.02 m of the pusher, and pulls the pusher (5 kg) towards it with
    1000 N/m and, by the difference of their velocities, 100 N s/m. The block (1 kg) is damped
    with 20 N s/m and 0.0524 N m s/rad; friction between all surfaces is 0.3.

    Ground truth: ``agent_x agent_y block_x block_y block_angle`` in m and rad (in [-pi, pi)); the
    block's position is the middle of its bar's outer edge (see `push_t_geometry`).
    """

    state_names: Sequence[str] = STATE_NAMES
    state_units: Sequence[str] = STATE_UNITS
    #: s; `step_physics` advances by whole multiples of it.
    physics_step_s = PHYSICS_STEP
    #: s; one command per period.
    control_period_s = 0.1
    #: (2,) m/s.
    action_lower = np.full(2, -SPEED_LIMIT)
    action_upper = np.full(2, SPEED_LIMIT)

    def __init__(self, seed: int | None = None) -> None:
        """Build the model and reset to a drawn state.

        Args:
            seed: Of the random stream behind `reset`; None draws one from the system.

        Raises:
            UserError: MuJoCo or the OpenGL library it is told to use is missing.
        """
        self._mujoco = load_mujoco()
        self._model = self._mujoco.MjModel.from_xml_string(push_t_mjcf())
        self._data = self._mujoco.MjData(self._model)
        # Pictures are drawn from data of their own: they never touch the simulation's state.
        self._shown = self._mujoco.MjData(self._model)
        self._renderer = PictureRenderer(self._model, "top")
        self._state_kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._state_size = self._mujoco.mj_stateSize(self._model, self._state_kind)
        self._target = self._velocity = (0.0, 0.0)
        self._steps = 0
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(
        self, seed: int | None = None, state: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Begin anew at time 0, at rest, with the target at the pusher.

        Args:
            seed: Restart the random stream; None continues it.
            state: Ground truth (5,) to begin from; None draws one.

        Returns:
            The ground truth (5,).

        Raises:
            UserError: The given state is not five finite numbers on the board, or pusher, block
                and walls overlap in it.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        values = draw_state(self._rng) if state is None else check_state(state)
        self._mujoco.mj_resetData(self._model, self._data)
        self._place(self._data, values)
        self._data.ctrl[:] = self._data.qpos[:2]
        self._target = (float(values[0]), float(values[1]))
        self._velocity = (0.0, 0.0)
        self._steps = 0
        return self.ground_truth()

    def set_target_velocity(self, velocity: ArrayLike) -> None:
        """Set the velocity (2,) in m/s of the pusher's target until the next call.

        Values beyond the limits are clamped to them.

        Raises:
            ValueError: Not two finite numbers.
        """
        values = np.asarray(velocity, dtype=np.float64)
        if values.shape != (2,) or not np.isfinite(values).all():
            raise ValueError(f"a target velocity is two finite numbers in m/s, got {velocity!r}")
        x, y = values.tolist()
        self._velocity = (
            min(max(x, -SPEED_LIMIT), SPEED_LIMIT),
            min(max(y, -SPEED_LIMIT), SPEED_LIMIT),
        )

    def step_physics(self, duration_s: float = PHYSICS_STEP) -> None:
        """Advance by ``duration_s``, a whole multiple of `physics_step_s`.

        Raises:
            ValueError: ``duration_s`` is not a positive multiple of the physics step.
        """
        steps = round(duration_s / PHYSICS_STEP)
        if steps < 1 or abs(steps * PHYSICS_STEP - duration_s) > 1e-9:
            raise ValueError(
                f"physics advances by multiples of {PHYSICS_STEP} s, got {duration_s!r} s"
            )
        model, data, step = self._model, self._data, self._mujoco.mj_step
        position, control, lead = data.qpos, data.ctrl, _LEAD / PHYSICS_STEP
        move_x, move_y = self._velocity[0] * PHYSICS_STEP, self._velocity[1] * PHYSICS_STEP
        x, y = self._target
        for _ in range(steps):
            agent_x, agent_y = position[:2].tolist()
            next_x = _clamp(x + move_x, agent_x)
            next_y = _clamp(y + move_y, agent_y)
            control[:] = x + lead * (next_x - x), y + lead * (next_y - y)
            x, y = next_x, next_y
            step(model, data)
        self._target = (x, y)
        self._steps += steps

    def step_control(self, velocity: ArrayLike) -> NDArray[np.float64]:
        """Apply ``velocity`` (2,) in m/s for one control period; return the ground truth (5,)."""
        self.set_target_velocity(velocity)
        self.step_physics(self.control_period_s)
        return self.ground_truth()

    @property
    def time_s(self) -> float:
        """Simulated time since the reset, s."""
        return self._steps * PHYSICS_STEP

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset, ns, exact."""
        return self._steps * round(PHYSICS_STEP * 1e9)

    def ground_truth(self) -> NDArray[np.float64]:
        """Return ``agent_x agent_y block_x block_y block_angle`` (5,) in m and rad."""
        agent_x, agent_y, centre_x, centre_y, angle = self._data.qpos.tolist()
        cosine, sine = math.cos(angle), math.sin(angle)
        offset_x, offset_y = CENTRE_OF_GRAVITY
        return np.array(
            (
                agent_x,
                agent_y,
                centre_x - cosine * offset_x + sine * offset_y,
                centre_y - sine * offset_x - cosine * offset_y,
                wrap_angle(angle),
            )
        )

    def get_state(self) -> NDArray[np.float64]:
        """Return everything the future depends on, for `set_state`: (N,) float64.

        Holds positions, velocities, target, commanded velocity, time and the solver's warm start.
        Its layout is private; it fits any `PushTPhysics` of the same MuJoCo version.
        """
        full = np.empty(self._state_size + 5)
        self._mujoco.mj_getState(
            self._model, self._data, full[: self._state_size], self._state_kind
        )
        full[self._state_size :] = (*self._target, *self._velocity, self._steps)
        return full

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned: the same commands then give the same bits.

        Raises:
            ValueError: Not a state of this scene.
        """
        values = np.ascontiguousarray(full, dtype=np.float64)
        if values.shape != (self._state_size + 5,) or not np.isfinite(values).all():
            raise ValueError(
                f"a full state of Push-T is {self._state_size + 5} finite numbers, "
                f"got shape {values.shape}"
            )
        self._mujoco.mj_setState(
            self._model, self._data, values[: self._state_size], self._state_kind
        )
        target_x, target_y, velocity_x, velocity_y, steps = values[self._state_size :].tolist()
        self._target = (target_x, target_y)
        self._velocity = (velocity_x, velocity_y)
        self._steps = int(steps)

    def render(self, width: int = 224, height: int = 224) -> NDArray[np.uint8]:
        """Return what the top camera sees now: (height, width, 3) uint8 RGB.

        Raises:
            UserError: OpenGL is missing, or the size is out of range.
        """
        self._shown.qpos[:] = self._data.qpos
        return self._show(width, height)

    def render_state(
        self, state: ArrayLike, width: int = 224, height: int = 224
    ) -> NDArray[np.uint8]:
        """Return the picture of a ground truth (5,) without disturbing the simulation.

        Args:
            state: ``agent_x agent_y block_x block_y block_angle`` in m and rad. Overlaps are
                drawn as they are.
            width: Of the picture, pixels.
            height: Of the picture, pixels.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            UserError: The state is not five finite numbers, OpenGL is missing, or the size is out
                of range.
        """
        self._place(self._shown, _five_numbers(state))
        return self._show(width, height)

    def close(self) -> None:
        """Free the camera's buffers. The physics stays usable; a picture makes new buffers."""
        self._renderer.close()

    def _show(self, width: int, height: int) -> NDArray[np.uint8]:
        self._mujoco.mj_kinematics(self._model, self._shown)
        self._mujoco.mj_camlight(self._model, self._shown)
        return self._renderer.render(self._shown, width, height)

    @staticmethod
    def _place(data: object, state: NDArray[np.float64]) -> None:
        data.qpos[:2] = state[:2]
        data.qpos[2:4] = to_board(np.asarray(CENTRE_OF_GRAVITY), state[2:])
        data.qpos[4] = state[4]


def check_state(state: ArrayLike) -> NDArray[np.float64]:
    """Return ``state`` as an admissible ground truth (5,) of m, m, m, m, rad.

    Raises:
        UserError: Not five finite numbers, off the board, or with overlaps of more than 3 mm.
    """
    values = _five_numbers(state)
    text = "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
    if np.abs(values[:2]).max() > PUSHER_REACH + _LARGEST_OVERLAP:
        raise UserError(
            f"Push-T state {text}: the pusher is off the board; agent_x and agent_y lie within "
            f"plus and minus {PUSHER_REACH} m"
        )
    if wall_clearance(values[2:]) < -_LARGEST_OVERLAP:
        raise UserError(f"Push-T state {text}: the block reaches into a wall; move it inwards")
    if pusher_clearance(values) < -_LARGEST_OVERLAP:
        raise UserError(f"Push-T state {text}: pusher and block overlap; move one of them")
    return values


def _five_numbers(state: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(state, dtype=np.float64)
    if values.shape != (5,) or not np.isfinite(values).all():
        raise UserError(
            f"a Push-T state is five finite numbers ({', '.join(STATE_NAMES)} in m and rad), "
            f"got {np.asarray(state).tolist()}"
        )
    return values


def _clamp(target: float, agent: float) -> float:
    """Keep a target coordinate on its leash and within the pusher's reach, m."""
    target = min(max(target, agent - TARGET_LEASH), agent + TARGET_LEASH)
    return min(max(target, -PUSHER_REACH), PUSHER_REACH)
