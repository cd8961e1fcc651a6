"""A scripted expert for cubes: picks one up, carries it to a random place, puts it down, leaves.

In the spirit of OGBench's plan oracle: key poses with random durations and heights, straight lines
between them, noise that is correlated in time on top; the command is what is missing to the plan.
It is not theirs, because theirs draws from NumPy's global random stream and needs their
environment, and an expert has the ground truth (N,) only, so that it drives over topics as well.
Some of its choices are commands that are held, and grasps at nothing: a planner tries these.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.cube.scene import (
    CUBE_SIZE,
    EFFECTOR_DRAWN,
    LARGEST_LEAD,
    WORKSPACE,
    CubeScene,
    cube_columns,
    draw_free_place,
)

_LIMITS = CubeScene.action_upper
#: Control steps between key poses, uniform; a descent takes half as long again.
_SEGMENT = (6.0, 10.0)
#: m above the cube at which a grasp begins, and above its place, uniform.
_ABOVE = (0.08, 0.16)
#: Of the noise on the plan, in parts of `LARGEST_LEAD`: each plan draws its own up to this, with a
#: correlation of this between two steps.
_LARGEST_NOISE, _CORRELATION = 0.2, 0.6
#: Shares of choices that are a held command, and a flight to somewhere with the fingers moving.
_HELD_SHARE, _FLIGHT_SHARE = 0.12, 0.12
#: m; a cube farther than this from the fingertips, while it should be in the air, was lost.
_LOST = 0.045

#: What a plan has of each control step: where to be (x, y, z m, yaw rad), how far closed.
_Plan = NDArray[np.float64]


class CubeExpert:
    """Picks and places a cube, of several any one, with random ways, speeds and noise.

    Stateful: call `act` once per control step of 0.05 s with the newest ground truth, and `reset`
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
        self._goal: NDArray[np.float64] | None = None
        self._held: NDArray[np.float64] | None = None
        self._plan: _Plan = np.zeros((0, 5))
        self._carried = (0, 0)
        self._cube = slice(5, 9)  # columns of the one that is placed
        self._noise = 0.0
        self._error = np.zeros(5)
        self._step = 0

    def goal_state(self, ground_truth: ArrayLike) -> NDArray[np.float64] | None:
        """Return the state (N,) at the end of the placement that is under way, or None."""
        return self._goal

    def act(self, ground_truth: ArrayLike) -> NDArray[np.float64]:
        """Return the command (5,) in m/s, rad/s and 1/s for the next control step."""
        state = np.asarray(ground_truth, dtype=np.float64)
        if self._step >= len(self._plan) or self._has_lost(state):
            self._choose(state)
        wanted = self._plan[self._step]
        self._step += 1
        rng = self._rng
        fresh = math.sqrt(1.0 - _CORRELATION**2) * rng.standard_normal(5)
        self._error = _CORRELATION * self._error + fresh
        if self._held is not None:
            lead = self._held
        else:
            away = wanted - state[:5]
            away[3] = _wrap(away[3], math.pi)
            lead = away / LARGEST_LEAD
        return np.clip(lead + self._noise * self._error, -1.0, 1.0) * _LIMITS

    def _has_lost(self, state: NDArray[np.float64]) -> bool:
        first, last = self._carried
        if not first <= self._step < last:
            return False
        return float(np.linalg.norm(state[:3] - state[self._cube][:3])) > _LOST

    def _choose(self, state: NDArray[np.float64]) -> None:
        """Make the next plan."""
        rng = self._rng
        self._step, self._goal, self._held, self._carried = 0, None, None, (0, 0)
        self._noise = rng.uniform(0.0, _LARGEST_NOISE)
        choice = rng.uniform()
        if choice < _HELD_SHARE:
            self._held = rng.uniform(-1.0, 1.0, 5)
            self._plan = np.zeros((int(rng.integers(3, 11)), 5))
        elif choice < _HELD_SHARE + _FLIGHT_SHARE:
            self._plan = self._flight(state)
        else:
            self._plan = self._placement(state)

    def _flight(self, state: NDArray[np.float64]) -> _Plan:
        """Go somewhere, as far down as the table, and open or close the fingers."""
        rng = self._rng
        lower = np.array([*EFFECTOR_DRAWN[0, :2], WORKSPACE[0, 2]])
        end = [*rng.uniform(lower, EFFECTOR_DRAWN[1]), state[3] + rng.uniform(-1.5, 1.5)]
        return _lines([state[:5], np.array([*end, rng.uniform()])], [rng.uniform(8.0, 20.0)])

    def _placement(self, state: NDArray[np.float64]) -> _Plan:
        """Pick a cube up and put it down at a place that is drawn, and free."""
        rng = self._rng
        cubes = list(cube_columns(state))
        self._cube = cubes[int(rng.integers(len(cubes)))] if len(cubes) > 1 else cubes[0]
        others = [state[columns] for columns in cubes if columns != self._cube]
        cube, yaw = state[self._cube][:3], _nearest_grasp(state[self._cube][3], state[3])
        place = np.array([*draw_free_place(rng, others), CUBE_SIZE / 2])
        place_yaw = _nearest_grasp(rng.uniform(-math.pi / 4, math.pi / 4), yaw)
        grasp = np.array([*cube[:2], max(cube[2], WORKSPACE[0, 2]), yaw])
        put = np.array([*place, place_yaw])
        up, down = (np.array([0.0, 0.0, rng.uniform(*_ABOVE), 0.0]) for _ in range(2))
        over = (grasp + put) / 2 + [*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.1, 0.3), 0.0]
        over[:3] = np.clip(over[:3], *WORKSPACE)
        end = np.array([*rng.uniform(*EFFECTOR_DRAWN), place_yaw + rng.uniform(-1.5, 1.5)])
        # Pose, fingers at its end, and its duration in segments.
        keys = [
            (grasp + up, 0.0, max(1.0, _duration(state[:3], grasp[:3] + up[:3]))),
            (grasp, 0.0, 1.5),
            (grasp, 1.0, 1.0),
            (grasp + up, 1.0, 1.0),
            (over, 1.0, 1.0),
            (put + down, 1.0, 1.0),
            (put, 1.0, 1.5),
            (put, 0.0, 1.0),
            (put + down, 0.0, 1.0),
            (end, 0.0, 1.0),
        ]
        poses = [state[:5], *(np.append(pose, closed) for pose, closed, _ in keys)]
        # The fingers begin to open on the way, not by a jump at the first step.
        segment = rng.uniform(*_SEGMENT)
        steps = [length * segment * rng.uniform(0.8, 1.2) for *_, length in keys]
        self._carried = (round(sum(steps[:4])), round(sum(steps[:6])))
        self._goal = np.array([*end[:3], _wrap(end[3], math.pi), 0.0, *state[5:]])
        self._goal[self._cube] = *place, _wrap(place_yaw, math.pi / 4)
        return _lines(poses, steps)


def _duration(start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Segments that a way takes which is longer than one of them allows."""
    return float(np.abs(end - start).max()) / 0.16


def _nearest_grasp(yaw: float, effector_yaw: float) -> float:
    """Return the yaw, rad, that is a whole number of quarter turns from ``yaw`` and nearest."""
    return effector_yaw + _wrap(yaw - effector_yaw, math.pi / 4)


def _lines(poses: list[NDArray[np.float64]], steps: list[float]) -> _Plan:
    """Straight lines through poses (P,) of 5 numbers, ``steps`` (P-1,) control steps apart."""
    times = np.concatenate(([0.0], np.cumsum(steps)))
    ticks = np.arange(1.0, times[-1] + 1.0)
    columns = np.array(poses).T
    return np.stack([np.interp(ticks, times, column) for column in columns], axis=1)


def _wrap(angle: float, half: float) -> float:
    """Return an angle in rad within [-half, half) by whole turns of twice ``half``."""
    return (angle + half) % (2.0 * half) - half
