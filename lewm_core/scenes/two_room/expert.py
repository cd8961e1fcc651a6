"""A scripted expert for Two-Room that goes from place to place, through the door and along walls.

It sees the ground truth (3,) only. Every leg draws its goal, its speed and its noise; now and then
it wanders, into walls as well, or stands still: a planner tries all of these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.two_room.scene import (
    DOOR_HALF,
    INNER_WALL_HALF,
    REACH,
    ROBOT_RADIUS,
    SPEED_LIMIT,
)

#: Share of legs that end in the other room.
_CROSSING_SHARE = 0.7
#: Share of legs that go straight for their goal as if there were no wall, for some steps.
_BLIND_SHARE = 0.2
#: Share of choices that are no leg but some steps in any direction.
_WANDER_SHARE = 0.2
#: Share of choices that are no leg but some steps of standing still.
_PAUSE_SHARE = 0.15
#: m: a way point is reached within this.
_ARRIVED = 0.02
#: m from the middle of the wall to the way points before and behind the door.
_BEFORE_DOOR = INNER_WALL_HALF + ROBOT_RADIUS + 0.04
#: Control steps after which a leg is given up.
_PATIENCE = 150
_PERIOD_S = 0.1


class TwoRoomExpert:
    """Goes to random places in both rooms, with random speed and noise.

    Stateful: call `act` once per control step of 0.1 s with the newest ground truth, and `reset`
    at the beginning of every episode. The same seed and ground truths give the same commands.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Begin with the random stream of ``seed``; None draws one from the system."""
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; restart the random stream if ``seed`` is given."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._way: list[NDArray[np.float64]] = []
        self._wanders = False
        self._steady = np.zeros(2)
        self._steps_left = 0
        self._speed = SPEED_LIMIT
        self._noise = 0.0

    def act(self, ground_truth: ArrayLike) -> NDArray[np.float64]:
        """Return the velocity (2,) in m/s for the next control step."""
        state = np.asarray(ground_truth, dtype=np.float64)
        position = state[:2]
        while self._way and np.abs(self._way[0] - position).max() < _ARRIVED:
            self._way.pop(0)
        if self._steps_left <= 0 or (not self._way and not self._wanders):
            self._choose(state)
        self._steps_left -= 1
        if self._wanders:
            wanted = self._steady
        else:
            wanted = self._towards(self._way[0] - position)
        noise = self._noise * self._rng.standard_normal(2)
        return np.clip(wanted + noise, -SPEED_LIMIT, SPEED_LIMIT)

    def goal_state(self, ground_truth: ArrayLike) -> NDArray[np.float64] | None:
        """Return the ground truth (3,) that the leg ends with; None while it wanders or stands."""
        if not self._way:
            return None
        return np.array([*self._way[-1], np.asarray(ground_truth, dtype=np.float64)[2]])

    def _choose(self, state: NDArray[np.float64]) -> None:
        rng = self._rng
        kind = rng.uniform()
        self._way = []
        self._wanders = kind < _WANDER_SHARE + _PAUSE_SHARE
        self._noise = rng.uniform(0.0, 0.1)
        if self._wanders:
            self._steps_left = int(rng.integers(3, 11))
            self._steady = rng.uniform(-SPEED_LIMIT, SPEED_LIMIT, size=2)
            if kind >= _WANDER_SHARE:
                self._steady, self._noise = np.zeros(2), 0.0
            return
        self._steps_left = _PATIENCE
        self._speed = rng.uniform(0.4, 1.0) * SPEED_LIMIT
        x, _, door = state
        side = 1.0 if x >= 0 else -1.0
        ends = -side if rng.uniform() < _CROSSING_SHARE else side
        goal = np.array(
            [ends * rng.uniform(_BEFORE_DOOR, REACH - 0.01), rng.uniform(-REACH, REACH)]
        )
        if rng.uniform() < _BLIND_SHARE:
            self._steps_left = int(rng.integers(10, 31))
        elif ends != side:
            # Straight through, a little off the middle.
            play = 0.6 * (DOOR_HALF - ROBOT_RADIUS)
            y = door + rng.uniform(-play, play)
            self._way = [np.array([side * _BEFORE_DOOR, y]), np.array([ends * _BEFORE_DOOR, y])]
        self._way.append(goal)

    def _towards(self, difference: NDArray[np.float64]) -> NDArray[np.float64]:
        """Velocity along a straight line that does not overshoot its end."""
        distance = float(np.linalg.norm(difference))
        speed = min(self._speed, distance / _PERIOD_S)
        velocity = difference * (speed / max(distance, 1e-9))
        return velocity / max(1.0, float(np.abs(velocity).max()) / SPEED_LIMIT)
