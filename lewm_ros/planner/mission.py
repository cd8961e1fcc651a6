"""What the planner is asked to reach, how far it is, and how it ended. No ROS, no threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Ending(IntEnum):
    """How a request ended; the values are those of ReachGoal's result."""

    REACHED = 0
    TIMEOUT = 1
    CANCELLED = 2
    PREEMPTED = 3
    INVALID_GOAL = 4
    STOPPED = 5
    FAILED = 6
    NO_PROGRESS = 7
    CANNOT_PLAN = 8


@dataclass(frozen=True)
class Outcome:
    """The answer to a request.

    Attributes:
        ending: How it ended.
        message: The same as a sentence.
        goals_reached: How many of its goals.
        final_distance: Squared latent distance to the last one pursued; NaN if unknown.
    """

    ending: Ending
    message: str
    goals_reached: int = 0
    final_distance: float = math.nan


#: A distance that is this much less than the least so far is progress.
_PROGRESS = 0.95


@dataclass(frozen=True, eq=False)
class Goal:
    """One picture to be reached.

    Attributes:
        picture: ``(3 C, S, S)`` uint8 RGB.
        tolerance: Squared latent distance that counts as reached; None: never.
        timeout_s: ROS time for it; 0: no limit.
    """

    picture: NDArray[np.uint8]
    tolerance: float | None = None
    timeout_s: float = 0.0


@dataclass(frozen=True)
class Patience:
    """When a goal is reached, and when it is given up.

    Attributes:
        pictures: Consecutive pictures within the tolerance that make a goal reached.
        within_s: Time by their stamps that they must cover, besides.
        progress_s: ROS time without progress until it is given up; 0: never.
        failure_s: ROS time without a plan, since planning failed, until it is given up; 0: never.
    """

    pictures: int = 3
    within_s: float = 0.0
    progress_s: float = 0.0
    failure_s: float = 0.0


@dataclass
class GoalRequest:
    """What somebody asked for: one goal after the other.

    Attributes:
        goals: At least one.
        source: Where they came from: a file, "service", "action".
        answer: Called once with the outcome, if somebody waits for it.
    """

    goals: list[Goal]
    source: str
    answer: Callable[[Outcome], None] | None = None
    index: int = field(default=0, init=False)
    started_ns: int = field(default=0, init=False)

    @property
    def goal(self) -> Goal:
        """The one being pursued."""
        return self.goals[self.index]

    @property
    def label(self) -> str:
        """For the status: "service", "action 2/5"."""
        if len(self.goals) == 1:
            return self.source
        return f"{self.source} {self.index + 1}/{len(self.goals)}"

    def hear_clock(self, now_ns: int) -> None:
        """Count from now where the goal was taken up before the first ``/clock`` (ROS time 0)."""
        if self.started_ns == 0:
            self.started_ns = now_ns

    def elapsed_s(self, now_ns: int) -> float:
        """Seconds since the current goal was taken up; never negative."""
        return max(0.0, (now_ns - self.started_ns) * 1e-9)

    def timed_out(self, now_ns: int) -> bool:
        """Whether the current goal has had its time."""
        return self.goal.timeout_s > 0.0 and self.elapsed_s(now_ns) >= self.goal.timeout_s


class Mission:
    """The request that is pursued, if there is one.

    Every goal gets a serial number of its own, never used again, so that what a slower thread
    says about an earlier goal can be told apart and dropped.

    A goal is reached when several pictures in a row lie within its tolerance. One is not enough:
    a pusher that flies past, or one noisy picture, is no arrival.
    """

    def __init__(self) -> None:
        self.serial = 0
        self.request: GoalRequest | None = None
        self.reached = False
        self.ended_because = ""
        self._restart()

    def begin(self, request: GoalRequest, now_ns: int) -> None:
        """Pursue ``request`` from now on; one that is under way is pre-empted."""
        self.end(Ending.PREEMPTED, "a newer goal took its place")
        self.request = request
        self.reached = False
        self.ended_because = ""
        self._take_up(now_ns)

    def end(self, ending: Ending, message: str) -> None:
        """End what is pursued, and answer whoever waits for it; nothing if there is nothing."""
        request, self.request = self.request, None
        if request is None:
            return
        self.serial += 1
        self.reached = ending == Ending.REACHED
        self.ended_because = message
        reached = len(request.goals) if self.reached else request.index
        if request.answer is not None:
            request.answer(Outcome(ending, message, reached, self.distance))

    def forget(self) -> None:
        """Forget how the last request ended: the node is activated anew."""
        self.reached = False
        self.ended_because = ""
        self._restart()

    def saw(self, stamp_ns: int, distance: float, within: bool, patience: Patience) -> bool:
        """Take in what one picture says about the goal.

        Args:
            stamp_ns: Of the picture; one that is not newer counts for nothing.
            distance: Squared latent distance to the goal.
            within: Whether that is within the tolerance.
            patience: How long it must be within it.

        Returns:
            True if the goal is reached.
        """
        self.distance = distance
        if self._newest_ns is None or stamp_ns > self._newest_ns:
            self._newest_ns = stamp_ns
            self._within = self._within + 1 if within else 0
            if self._within == 1:
                self._within_since_ns = stamp_ns
            if distance < _PROGRESS * self._least:
                self._least, self._progress_ns = distance, stamp_ns
        if self._within < patience.pictures:
            return False
        # Stamps are whole: a period that is not must not cost one picture more.
        return (stamp_ns - self._within_since_ns) * 1e-9 >= patience.within_s - 1e-3

    def kept_waiting(self, now_ns: int) -> None:
        """Something else is in the way: this time does not count as time without progress."""
        self._progress_ns = now_ns
        self._failing_since_ns = None

    def hopeless(self, now_ns: int, patience: Patience) -> tuple[Ending, str] | None:
        """Return how and why what is pursued is to be given up; None if it is not."""
        request = self.request
        if request is None:
            return None
        if request.timed_out(now_ns):
            return Ending.TIMEOUT, (
                f"goal not within the tolerance in {request.goal.timeout_s:g} s ({request.label})"
            )
        if self.plan_failure:
            self._failing_since_ns = self._failing_since_ns or now_ns
            failing_s = (now_ns - self._failing_since_ns) * 1e-9
            if 0.0 < patience.failure_s <= failing_s:
                return Ending.CANNOT_PLAN, f"no plan for {failing_s:.0f} s: {self.plan_failure}"
        else:
            self._failing_since_ns = None
        idle_s = (now_ns - (self._progress_ns or request.started_ns)) * 1e-9
        if 0.0 < patience.progress_s <= idle_s:
            return Ending.NO_PROGRESS, (
                f"no progress in {idle_s:.0f} s: the least distance was {self._least:.3g} "
                f"({request.label})"
            )
        return None

    def arrive(self, now_ns: int) -> bool:
        """The goal is reached: take up the next one of the request, or end it.

        Returns:
            True if there is a next one.
        """
        request = self.request
        if request is None:
            return False
        if request.index == len(request.goals) - 1:
            self.end(Ending.REACHED, f"goal reached ({request.label})")
            return False
        request.index += 1
        self._take_up(now_ns)
        return True

    def _take_up(self, now_ns: int) -> None:
        self.serial += 1
        self.request.started_ns = now_ns
        self._restart()

    def _restart(self) -> None:
        self.distance = math.nan
        self.plan_cost = math.nan
        self.plan_failure = ""
        self.picture_failure = ""
        self._within = 0
        self._within_since_ns = 0
        self._newest_ns: int | None = None
        self._least = math.inf
        self._progress_ns: int | None = None
        self._failing_since_ns: int | None = None

    @property
    def failure(self) -> str:
        """Why the model cannot be used for this goal at the moment; empty if it can."""
        return self.plan_failure or self.picture_failure
