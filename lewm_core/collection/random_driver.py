"""Random commands in the place of a scripted expert: data that teach a model little.

Uniform commands leave the object alone nearly all the time (docs/scenes.md), so a model trained on
them does not learn what pushing does. Worth having as the counter-example that `lewm-check` and
the calibration of its thresholds need.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.registry import Scene


class RandomDriver:
    """Uniform commands within the limits, another one every control step; an `Expert`.

    Args:
        lower: (A,) limits in the contract's units.
        upper: (A,).
        seed: Of the random stream; None draws one from the system.
    """

    def __init__(self, lower: ArrayLike, upper: ArrayLike, seed: int | None = None) -> None:
        self._lower = np.asarray(lower, dtype=np.float64)
        self._upper = np.asarray(upper, dtype=np.float64)
        self._rng = np.random.default_rng(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; restart the random stream if ``seed`` is given."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def act(self, ground_truth: ArrayLike) -> NDArray[np.float64]:
        """Return a drawn command (A,); the ground truth is not looked at."""
        return self._rng.uniform(self._lower, self._upper)

    def goal_state(self, ground_truth: ArrayLike) -> None:
        """There is none."""
        return None


def random_driver(scene: Scene) -> RandomDriver:
    """Return what drives a scene by uniform commands within its limits."""
    return RandomDriver(scene.action_lower, scene.action_upper, seed=0)
