"""What stands between a plan and a motor: every published command passes through here.

No ROS and no torch, so that it can be read and tested on its own. A command is published as it
is, clipped and slowed to the contract's limits, or replaced by the contract's hold command, and
the result always says which of these and why.

The hold command itself is never slowed by a rate limit. A stop that comes late is worse than a
hard one, and a robot must survive a hard one anyway: the planner's process may die at any time,
and then the robot's own timeout stops it just as hard.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.errors import ContractError
from lewm_ros.positions import MeasuredPositions

logger = logging.getLogger(__name__)

#: From where on a command counts as moving the robot: share of half the range away from a hold of
#: fixed values (velocities), share of the range away from the last command (positions).
_MOVES_VELOCITY, _MOVES_POSITION = 0.2, 0.001

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
        positions: Where the robot stands; needed where a hold is "last".

    Raises:
        ContractError: The limits are not finite, do not enclose the hold command, or differ in
            length; or a hold is "last" and there are no positions.
    """

    def __init__(
        self,
        lower: ArrayLike,
        upper: ArrayLike,
        rate_limit: ArrayLike,
        hold: Sequence[float | str],
        control_period_s: float,
        positions: MeasuredPositions | None = None,
    ) -> None:
        self._lower = np.asarray(lower, dtype=np.float64)
        self._upper = np.asarray(upper, dtype=np.float64)
        self._rate_limit = np.asarray(rate_limit, dtype=np.float64)
        self._hold = tuple(hold)
        self._period_s = float(control_period_s)
        self._positions = positions
        self._check_limits()
        self.active = False
        self.counters = GuardCounters()
        #: Whether the command given last moves the robot by more than a little.
        self.moving = False
        #: Whether commands reach the robot; if not, it need not be where it was sent.
        self.drives = True
        #: Why the robot is not where it was sent, until `go_on`; empty if it is.
        self.astray = ""
        self._speed_scale = 1.0
        self._moves = np.array(
            [
                (_MOVES_POSITION if value == HOLD_LAST else _MOVES_VELOCITY / 2)
                for value in self._hold
            ]
        ) * (self._upper - self._lower)
        self._last_values: NDArray[np.float64] | None = None
        self._last_ns: int | None = None

    @property
    def last_values(self) -> NDArray[np.float64] | None:
        """``(A,)`` of the command published last; None before the first."""
        return None if self._last_values is None else self._last_values.copy()

    @property
    def speed_scale(self) -> float:
        """Share of a command's way from the hold command that is published, 0 to 1."""
        return self._speed_scale

    @speed_scale.setter
    def speed_scale(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"speed_scale is {value}: give 0 (stand still) to 1")
        self._speed_scale = float(value)

    def reset(self) -> None:
        """Forget the last command and the counters: the node was activated anew."""
        self.counters = GuardCounters()
        self.moving = False
        self.astray = ""
        self._last_values = None
        self._last_ns = None

    def go_on(self) -> None:
        """Begin again where the robot stands, after it went `astray`: somebody said that it may."""
        self.astray = ""

    def why_no_position(self, now_ns: int) -> tuple[str, str]:
        """Why no position can be commanded, and the topic that lacks; empty if one can.

        Args:
            now_ns: ROS time.
        """
        if HOLD_LAST not in self._hold:
            return "", ""
        if self.astray:
            return self.astray, ""
        topic, problem = self._positions.missing(now_ns)
        if self._last_values is None:
            problem = problem or self._positions.outside(self._rate_limit * self._period_s)
            problem = problem and f"nothing is commanded: {problem}"
        return problem, topic

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
        self.watch(now_ns)
        problem = self._problem(values, now_ns, deadline_ns, reason)
        if problem:
            return self.hold(problem, now_ns)
        wanted = np.asarray(values, dtype=np.float64)
        safe = np.clip(wanted, self._lower, self._upper)
        if not np.array_equal(safe, wanted):
            self.counters.clipped += 1
        safe = self._scale(safe)
        slowed = self._slow(safe, now_ns)
        if not np.array_equal(slowed, safe):
            self.counters.slowed += 1
        self.counters.passed += 1
        self.moving = bool(np.any(np.abs(slowed - self._rest()) > self._moves))
        self._remember(slowed, now_ns)
        return SafeCommand(slowed, hold=False, reason="")

    def hold(self, reason: str, now_ns: int) -> SafeCommand:
        """Return the hold command, at once and whatever came before.

        Args:
            reason: Why, a sentence for an operator.
            now_ns: ROS time.
        """
        self.watch(now_ns)
        self.counters.held += 1
        self.moving = False
        values = self._hold_values()
        if values is not None:
            self._remember(values, now_ns)
        return SafeCommand(values, hold=True, reason=reason or "no command")

    def watch(self, now_ns: int) -> None:
        """See whether the robot is about where it was sent; if not, it is `astray`.

        Then nothing is published any more, not even the last position: the robot would jump there
        as soon as whatever keeps it away lets go.

        Args:
            now_ns: ROS time.
        """
        if HOLD_LAST not in self._hold or self._last_values is None or not self.drives:
            return
        if not self._positions.missing(now_ns)[1]:
            self.astray = self._positions.astray(self._last_values)
            if self.astray:
                self._last_values = None

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
        return self.why_no_position(now_ns)[0]

    def _scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._speed_scale == 1.0:
            return values
        rest = self._rest()
        # A robot may stand a little outside its limits.
        return np.clip(rest + self._speed_scale * (values - rest), self._lower, self._upper)

    def _slow(self, values: NDArray[np.float64], now_ns: int) -> NDArray[np.float64]:
        start = self._rest() if self._last_values is None else self._last_values
        elapsed_s = self._period_s
        if self._last_ns is not None:
            elapsed_s = min(elapsed_s, (now_ns - self._last_ns) * 1e-9)
        step = self._rate_limit * elapsed_s
        return np.clip(values, start - step, start + step)

    def _rest(self) -> NDArray[np.float64]:
        """The hold command; of positions of which none was commanded yet, where the robot stands.

        For a command that is checked: then the robot has told where it stands.
        """
        values = self._hold_values()
        return self._positions.values() if values is None else values

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
        if HOLD_LAST in self._hold and self._positions is None:
            raise ContractError(
                "a position that holds at 'last' needs a measurement of where it stands"
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


class DeadManSwitch:
    """Lets a robot move only while somebody says so, again and again.

    Args:
        topic: For the reasons.
        timeout_s: Seconds of wall time for which one message counts.
    """

    def __init__(self, topic: str, timeout_s: float) -> None:
        self._topic = topic
        self.timeout_s = timeout_s
        self._pressed = False
        self._heard_s = -math.inf

    def hear(self, pressed: bool, now_s: float) -> None:
        """Take a message; ``now_s`` is a clock that never stands still (s)."""
        self._pressed = pressed
        self._heard_s = now_s

    def problem(self, now_s: float) -> str:
        """Why the robot must not move, a sentence; empty if it may."""
        silent_s = now_s - self._heard_s
        if math.isinf(silent_s):
            return f"dead-man switch: nothing heard on {self._topic} yet"
        if silent_s > self.timeout_s:
            return f"dead-man switch: {self._topic} is silent for {silent_s:.2f} s"
        return "" if self._pressed else f"dead-man switch: {self._topic} is released"


class Watchdog:
    """Bites when nobody has fed it for a while, in a thread of its own.

    It watches the thread that publishes commands: if that one is stuck, in a callback or in the
    middleware, nothing else would stop the robot. It bites again in every period until it is fed.
    Native code that never lets go of Python's interpreter lock stops it, too; against that, and
    against a process that is killed or suspended, only the robot's own timeout helps.

    Args:
        timeout_s: Seconds without food until it bites.
        period_s: Between two looks.
        bite: Called in its thread with the seconds since it was fed.
    """

    def __init__(
        self, timeout_s: float, period_s: float, bite: Callable[[float], None]
    ) -> None:
        self._timeout_s = timeout_s
        self._period_s = period_s
        self._bite = bite
        self._fed_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; the first food is now."""
        self.feed()
        self._thread.start()

    def feed(self) -> None:
        """Say that the watched thread is alive."""
        self._fed_s = time.monotonic()

    def end(self, timeout_s: float = 1.0) -> None:
        """Watch no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            hungry_s = time.monotonic() - self._fed_s
            if hungry_s > self._timeout_s:
                try:
                    self._bite(hungry_s)
                except Exception:
                    # It must go on watching, and try again in the next period.
                    logger.exception("the watchdog could not hold")
