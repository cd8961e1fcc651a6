"""A scripted expert for Reacher: from configuration to configuration by a joint controller.

It sees the angles only and takes velocities from their differences. Every leg draws its goal, its
stiffness and its noise; some choices are a torque that is held, whatever comes of it: a planner
tries these.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.reacher.scene import TORQUE_LIMIT, WRIST_LIMIT

_PERIOD_S = 0.04
#: N m/rad of the stiffest leg, and N m s/rad of shoulder and wrist beside the joints' own damping.
#: The outstretched arm, of 1.3e-3 kg m^2 about the shoulder, hardly overshoots at 10 rad/s; the
#: wrist moves a sixth of that, and is damped enough by itself.
_STIFFNESS = 0.12
_DAMPING = np.array([0.012, 0.002])
#: rad; a leg is over within this of its goal, with less than `_AT_REST` rad/s.
_ARRIVED, _AT_REST = 0.04, 0.8
#: rad, of the shoulder: a leg turns it by no more.
_LONGEST_TURN = 2.5
#: Share of choices that are a held torque.
_HELD_SHARE = 0.25
#: Control steps after which a leg is given up.
_PATIENCE = 40


class ReacherExpert:
    """Goes to random configurations, with random stiffness and noise.

    Stateful: call `act` once per control step of 0.04 s with the newest ground truth, and `reset`
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
        self._before: NDArray[np.float64] | None = None
        self._goal: NDArray[np.float64] | None = None
        self._held = np.zeros(2)
        self._steps_left = 0
        self._noise = 0.0
        self._gain = 1.0

    def goal_state(self, ground_truth: ArrayLike) -> NDArray[np.float64] | None:
        """Return the configuration (2,) that is gone to, rad; None while a torque is held."""
        return self._goal

    def act(self, ground_truth: ArrayLike) -> NDArray[np.float64]:
        """Return the torques (2,) in N m for the next control step."""
        angles = np.asarray(ground_truth, dtype=np.float64)
        velocity = np.zeros(2)
        if self._before is not None:
            velocity = _shorter(angles - self._before) / _PERIOD_S
        self._before = angles
        if self._steps_left <= 0 or self._has_arrived(angles, velocity):
            self._choose(angles)
        self._steps_left -= 1
        if self._goal is None:
            wanted = self._held
        else:
            away = np.array([_shorter(self._goal[0] - angles[0]), self._goal[1] - angles[1]])
            # Stiffness by the square of the gain and damping by the gain: as fast as it may be
            # without overshooting.
            wanted = self._gain**2 * _STIFFNESS * away - self._gain * _DAMPING * velocity
        noise = self._noise * self._rng.standard_normal(2)
        return np.clip(wanted + noise, -TORQUE_LIMIT, TORQUE_LIMIT)

    def _has_arrived(self, angles: NDArray[np.float64], velocity: NDArray[np.float64]) -> bool:
        if self._goal is None:
            return False
        away = np.abs(_shorter(angles - self._goal))
        return bool(away.max() < _ARRIVED and np.abs(velocity).max() < _AT_REST)

    def _choose(self, angles: NDArray[np.float64]) -> None:
        rng = self._rng
        self._noise = rng.uniform(0.0, 0.3) * TORQUE_LIMIT
        if rng.uniform() < _HELD_SHARE:
            self._goal = None
            self._steps_left = int(rng.integers(3, 11))
            self._held = rng.uniform(-TORQUE_LIMIT, TORQUE_LIMIT, size=2)
            return
        self._steps_left = _PATIENCE
        self._gain = rng.uniform(0.7, 1.0)
        turn = rng.uniform(-_LONGEST_TURN, _LONGEST_TURN)
        self._goal = np.array(
            [_shorter(angles[0] + turn), rng.uniform(-0.97, 0.97) * WRIST_LIMIT]
        )


def _shorter(angle: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return angles (rad) in [-pi, pi)."""
    return np.asarray((np.asarray(angle) + math.pi) % (2.0 * math.pi) - math.pi)
