"""Push-T as physics and camera, without Gymnasium: what the environment, the collector and the
ROS scene node drive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import UserError
from lewm_core.scenes.base import MujocoScene
from lewm_core.scenes.push_t.geometry import (
    BOARD_SIZE,
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
from lewm_core.scenes.push_t.model import (
    PHYSICS_STEP,
    POSITION_GAIN,
    VELOCITY_GAIN,
    push_t_mjcf,
)
from lewm_core.scenes.push_t.success import CRITERION, PushTOutcome, push_t_outcome
from lewm_core.scenes.variations import VariedParts

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
#: Deepest overlap that `PushTScene.reset` accepts in a given state, m. Contacts are soft, so
#: recorded states overlap by a fraction of this.
_LARGEST_OVERLAP = 0.003


class PushTScene(MujocoScene):
    """The Push-T scene: a pusher, a T block and four walls on a board of 0.512 m.

    Action: the velocity (2,) in m/s of the pusher's *target*, each axis within plus and minus
    0.15. Every physics step of 0.01 s moves the target by velocity times step, keeps it within the
    pusher's reach and within 0.02 m of the pusher, and pulls the pusher (5 kg) towards it with
    1000 N/m and, by the difference of their velocities, 100 N s/m. The block (1 kg) is damped
    with 20 N s/m and 0.0524 N m s/rad; friction between all surfaces is 0.3.

    Ground truth: ``agent_x agent_y block_x block_y block_angle`` in m and rad (in [-pi, pi)); the
    block's position is the middle of its bar's outer edge (see `geometry`).
    """

    title = "Push-T"
    state_names = STATE_NAMES
    state_units = STATE_UNITS
    action_names = ("velocity_x", "velocity_y")
    action_unit = "m/s"
    action_lower = np.full(2, -SPEED_LIMIT)
    action_upper = np.full(2, SPEED_LIMIT)
    physics_step_s = PHYSICS_STEP
    cameras = ("top",)
    criterion = CRITERION
    varied_parts = VariedParts({"top": BOARD_SIZE}, ("pusher",), ("block",), (2, 5))

    _target = (0.0, 0.0)

    def _make_model(self, mujoco: Any) -> Any:
        return mujoco.MjModel.from_xml_string(push_t_mjcf())

    def draw_state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a ground truth (5,) without contact, see `geometry.draw_state`."""
        return draw_state(rng)

    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return ``state`` as an admissible ground truth (5,) of m, m, m, m, rad.

        Raises:
            UserError: Not five finite numbers, off the board, or with overlaps of more than 3 mm.
        """
        values = self.numbers(state)
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

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> PushTOutcome:
        """Compare a ground truth (5,) with that of a goal (5,), see `success`."""
        return push_t_outcome(state, goal_state)

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

    def _place(self, data: Any, state: NDArray[np.float64]) -> None:
        data.qpos[:2] = state[:2]
        data.qpos[2:4] = to_board(np.asarray(CENTRE_OF_GRAVITY), state[2:])
        data.qpos[4] = state[4]

    def _begin(self, state: NDArray[np.float64]) -> None:
        self._data.ctrl[:] = self._data.qpos[:2]
        self._target = (float(state[0]), float(state[1]))

    def _advance(self, steps: int) -> None:
        model, data, step = self._model, self._data, self._mujoco.mj_step
        position, control, lead = data.qpos, data.ctrl, _LEAD / PHYSICS_STEP
        move_x, move_y = (self._command * PHYSICS_STEP).tolist()
        x, y = self._target
        for _ in range(steps):
            agent_x, agent_y = position[:2].tolist()
            next_x = _clamp(x + move_x, agent_x)
            next_y = _clamp(y + move_y, agent_y)
            control[:] = x + lead * (next_x - x), y + lead * (next_y - y)
            x, y = next_x, next_y
            step(model, data)
        self._target = (x, y)

    def _own_state(self) -> tuple[float, ...]:
        return self._target

    def _set_own_state(self, values: Sequence[float]) -> None:
        self._target = (values[0], values[1])


def _clamp(target: float, agent: float) -> float:
    """Keep a target coordinate on its leash and within the pusher's reach, m."""
    target = min(max(target, agent - TARGET_LEASH), agent + TARGET_LEASH)
    return min(max(target, -PUSHER_REACH), PUSHER_REACH)
