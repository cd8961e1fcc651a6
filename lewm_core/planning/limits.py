"""Limits of the action vector: range, rate of change, and the command that means "hold"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import PlanningError

#: Value of ``hold`` for a field that stays where it was last commanded.
HOLD_LAST = "last"


@dataclass(frozen=True)
class ActionLimits:
    """The contract's limits, in its units.

    Attributes:
        lower: ``(A,)`` least value of each field.
        upper: ``(A,)`` greatest value.
        rate_limit: ``(A,)`` greatest change per second; infinite where there is none.
        hold: ``A`` values that stop the robot, each a number or ``"last"`` (repeat what was last
            commanded, for positions).

    Raises:
        PlanningError: Lengths differ, or the lower limit exceeds the upper one.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    rate_limit: NDArray[np.float64]
    hold: tuple[float | str, ...]

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "rate_limit"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "hold", tuple(self.hold))
        shapes = {self.lower.shape, self.upper.shape, self.rate_limit.shape, (len(self.hold),)}
        if len(shapes) != 1:
            raise PlanningError(
                f"action limits differ in length: lower {self.lower.shape}, upper "
                f"{self.upper.shape}, rate_limit {self.rate_limit.shape}, hold {len(self.hold)}"
            )
        if not bool((self.lower <= self.upper).all()) or not bool((self.rate_limit > 0).all()):
            raise PlanningError(
                "action limits need lower <= upper and rate_limit > 0 in every field, got lower "
                f"{self.lower.tolist()}, upper {self.upper.tolist()}, rate_limit "
                f"{self.rate_limit.tolist()}"
            )

    @classmethod
    def unlimited(cls, action_dim: int, hold: float = 0.0) -> ActionLimits:
        """No limits; every field holds at ``hold``."""
        infinite = np.full(action_dim, np.inf)
        return cls(-infinite, infinite, infinite, (hold,) * action_dim)

    @property
    def action_dim(self) -> int:
        """A."""
        return len(self.hold)

    def apply(
        self, values: ArrayLike, last: ArrayLike | None, elapsed_s: float
    ) -> NDArray[np.float64]:
        """Bring a command inside the range, and no further from the last one than allowed.

        Args:
            values: ``(A,)`` wanted; finite.
            last: ``(A,)`` published before; None: nothing was, then a field with a numeric hold
                value is taken to stand there, and a ``"last"`` field is free.
            elapsed_s: Seconds since then.

        Returns:
            ``(A,)``.
        """
        command = np.clip(np.asarray(values, dtype=np.float64), self.lower, self.upper)
        if last is None:
            reference = np.array(
                [command[i] if value == HOLD_LAST else float(value)
                 for i, value in enumerate(self.hold)]
            )
        else:
            reference = np.asarray(last, dtype=np.float64)
        # Infinity (no rate limit) times no time would be NaN.
        step = self.rate_limit * max(elapsed_s, 1e-12)
        return np.clip(command, reference - step, reference + step)

    def hold_values(
        self, last: Sequence[float] | NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """The command that stops the robot.

        It is not rate limited: a stop that comes late is worse than a hard one.

        Args:
            last: ``(A,)`` published before; None: nothing was.

        Returns:
            ``(A,)``; None when a field holds at ``"last"`` and nothing was commanded yet. Then
            nothing must be published.
        """
        if last is None and HOLD_LAST in self.hold:
            return None
        return np.array(
            [last[i] if value == HOLD_LAST else float(value) for i, value in enumerate(self.hold)],
            dtype=np.float64,
        )
