"""What stands between a plan and a motor: every published command passes through here.

No ROS and no torch, so that it can be read and tested on its own. A command is published as it
is, clipped and slowed to the contract's limits, or replaced by the contract's hold command, and
the result always says which of these and why.

The hold command itself is never slowed by a rate limit. A stop that comes late is worse than a
hard one, and a robot must survive a hard one anyway: the planner's process may die at any time,
and then the robot's own timeout stops it just as hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import ContractError

#: Value of a contract's ``hold`` for "stay at what was last commanded".
HOLD_LAST = "last"


@dataclass(frozen=True)
class SafeCommand:
    """What may be published now.

    Attributes:
        values: ``(A,)`` in the contract's units, inside its limits; None when there is nothing
            safe to publish (hold is "last" and nothing was published yet).
        hold: True if this is the hold command.
        reason: Why it holds, a sentence for an operator; empty if it does not.
    """

    values: NDArray[np.float64] | None
    hold: bool
    reason: str


@dataclass
class GuardCounters:
    """What the guard did since it was made or reset."""

    passed: int = 0
    held: int = 0
    clipped: int = 0
    slowed: int = 0


class CommandGuard:
    """Lets a command pass if it is finite, in time, inside the limits and from an active node.

    Args:
        lower: ``(A,)`` lower limits, in the contract's units.
        upper: ``(A,)`` upper limits.
        rate_limit: ``(A,)`` largest change per second; infinite where there is no limit.
        hold: ``A`` values of the hold command, each a number or "last".
        control_period_s: Seconds between two commands; the rate limit never allows more change
            at once than in one such period, however long the last command is ago.

    Raises:
        ContractError: The limits are not finite, do not enclose the hold command, or differ in
            length.
    """

    def __init__(
        self,
        lower: ArrayLike,
        upper: ArrayLike,
        rate_limit: ArrayLike,
        hold: Sequence[float | str],
        control_period_s: float,
    ) -> None:
        self._lower = np.asarray(lower, dtype=np.float64)
        self._upper = np.asarray(upper, dtype=np.float64)
        self._rate_limit = np.asarray(rate_limit, dtype=np.float64)
        self._hold = tuple(hold)
        self._period_s = float(control_period_s)
        self._check_limits()
        self.active = False
        self.counters = GuardCounters()
        self._last_values: NDArray[np.float64] | None = None
        self._last_ns: int | None = None

    @property
    def last_values(self) -> NDArray[np.float64] | None:
        """``(A,)`` of the command published last; None before the first."""
        return None if self._last_values is None else self._last_values.copy()

    def reset(self) -> None:
        """Forget the last command and the counters: the node was activated anew."""
        self.counters = GuardCounters()
        self._last_values = None
        self._last_ns = None

    def check(
        self, values: ArrayLike | None, now_ns: int, deadline_ns: int | None = None,
        reason: str = "",
    ) -> SafeCommand:
        """Return what may be published now instead of ``values``.

        Args:
            values: ``(A,)`` in the contract's units; None holds for ``reason``.
            now_ns: ROS time.
            deadline_ns: After this time the command is too old; None: no deadline.
            reason: Why there are no values, if there are none.
        """
        problem = self._problem(values, now_ns, deadline_ns, reason)
        if problem:
            return self.hold(problem, now_ns)
        wanted = np.asarray(values, dtype=np.float64)
        safe = np.clip(wanted, self._lower, self._upper)
        if not np.array_equal(safe, wanted):
            self.counters.clipped += 1
        slowed = self._slow(safe, now_ns)
        if not np.array_equal(slowed, safe):
            self.counters.slowed += 1
        self.counters.passed += 1
        self._remember(slowed, now_ns)
        return SafeCommand(slowed, hold=False, reason="")

    def hold(self, reason: str, now_ns: int) -> SafeCommand:
        """Return the hold command, at once and whatever came before.

        Args:
            reason: Why, a sentence for an operator.
            now_ns: ROS time.
        """
        self.counters.held += 1
        values = self._hold_values()
        if values is not None:
            self._remember(values, now_ns)
        return SafeCommand(values, hold=True, reason=reason or "no command")

    def _problem(
        self, values: ArrayLike | None, now_ns: int, deadline_ns: int | None, reason: str
    ) -> str:
        if not self.active:
            return "the node is not active"
        if values is None:
            return reason or "no command"
        wanted = np.asarray(values, dtype=np.float64)
        if wanted.shape != self._lower.shape:
            return f"the command has shape {wanted.shape}, the contract {self._lower.shape}"
        if not np.all(np.isfinite(wanted)):
            return "the command is not finite"
        if self._last_ns is not None and now_ns < self._last_ns:
            late_s = (self._last_ns - now_ns) * 1e-9
            self._last_ns = None
            return f"the clock went back by {late_s:.2f} s"
        if deadline_ns is not None and now_ns > deadline_ns:
            return f"the command is {(now_ns - deadline_ns) * 1e-9:.2f} s past its deadline"
        return ""

    def _slow(self, values: NDArray[np.float64], now_ns: int) -> NDArray[np.float64]:
        start = self._last_values
        if start is None:
            start = self._hold_values()
        if start is None:
            # Positions, and none was commanded yet: nobody here knows where the robot stands.
            return values
        elapsed_s = self._period_s
        if self._last_ns is not None:
            elapsed_s = min(elapsed_s, (now_ns - self._last_ns) * 1e-9)
        step = self._rate_limit * elapsed_s
        return np.clip(values, start - step, start + step)

    def _hold_values(self) -> NDArray[np.float64] | None:
        if HOLD_LAST in self._hold and self._last_values is None:
            return None
        return np.array(
            [
                self._last_values[index] if value == HOLD_LAST else float(value)
                for index, value in enumerate(self._hold)
            ],
            dtype=np.float64,
        )

    def _remember(self, values: NDArray[np.float64], now_ns: int) -> None:
        self._last_values = values.copy()
        self._last_ns = now_ns

    def _check_limits(self) -> None:
        shapes = {self._lower.shape, self._upper.shape, self._rate_limit.shape, (len(self._hold),)}
        if len(shapes) != 1:
            raise ContractError(
                f"action limits of different lengths: lower {self._lower.shape}, upper "
                f"{self._upper.shape}, rate_limit {self._rate_limit.shape}, hold "
                f"({len(self._hold)},)"
            )
        if not (np.all(np.isfinite(self._lower)) and np.all(np.isfinite(self._upper))):
            raise ContractError("action limits must be finite numbers")
        if np.any(self._lower > self._upper):
            raise ContractError("an action's lower limit is above its upper limit")
        if not np.all(self._rate_limit > 0.0):
            raise ContractError("an action's rate_limit must be above 0")
        if not self._period_s > 0.0:
            raise ContractError(f"control period {self._period_s} s must be above 0")
        for index, value in enumerate(self._hold):
            inside = value == HOLD_LAST or self._lower[index] <= float(value) <= self._upper[index]
            if not inside:
                raise ContractError(
                    f"hold {value} of action {index} is outside its limits "
                    f"{self._lower[index]} to {self._upper[index]}"
                )


class StopLatch:
    """Remembers that somebody asked to stop, until somebody says that it may go on."""

    def __init__(self) -> None:
        self._reason = ""

    @property
    def latched(self) -> bool:
        """True from `stop` to `resume`."""
        return bool(self._reason)

    @property
    def reason(self) -> str:
        """Who stopped it; empty if nobody did."""
        return self._reason

    def stop(self, reason: str) -> None:
        """Latch; a stop while stopped keeps the first reason."""
        self._reason = self._reason or reason or "stopped"

    def resume(self) -> bool:
        """Release; returns whether it was latched."""
        was_latched = self.latched
        self._reason = ""
        return was_latched
