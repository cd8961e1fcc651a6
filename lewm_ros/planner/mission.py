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


@dataclass
class GoalRequest:
    """What somebody asked for: one goal picture after the other.

    Attributes:
        pictures: Each ``(3 C, S, S)`` uint8 RGB.
        source: Where they came from: a file, "service", "action".
        tolerance: Squared latent distance that counts as reached; None: never.
        timeout_s: ROS time for each goal; 0: no limit.
        answer: Called once with the outcome, if somebody waits for it.
    """

    pictures: list[NDArray[np.uint8]]
    source: str
    tolerance: float | None = None
    timeout_s: float = 0.0
    answer: Callable[[Outcome], None] | None = None
    index: int = field(default=0, init=False)
    started_ns: int = field(default=0, init=False)

    @property
    def picture(self) -> NDArray[np.uint8]:
        """``(3, S, S)`` of the goal being pursued."""
        return self.pictures[self.index]

    @property
    def label(self) -> str:
        """For the status: "service", "action 2/5"."""
        if len(self.pictures) == 1:
            return self.source
        return f"{self.source} {self.index + 1}/{len(self.pictures)}"

    def hear_clock(self, now_ns: int) -> None:
        """Count from now where the goal was taken up before the first ``/clock`` (ROS time 0)."""
        if self.started_ns == 0:
            self.started_ns = now_ns

    def elapsed_s(self, now_ns: int) -> float:
        """Seconds since the current goal was taken up; never negative."""
        return max(0.0, (now_ns - self.started_ns) * 1e-9)

    def timed_out(self, now_ns: int) -> bool:
        """Whether the current goal has had its time."""
        return self.timeout_s > 0.0 and self.elapsed_s(now_ns) >= self.timeout_s


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
        reached = len(request.pictures) if self.reached else request.index
        if request.answer is not None:
            request.answer(Outcome(ending, message, reached, self.distance))

    def forget(self) -> None:
        """Forget how the last request ended: the node is activated anew."""
        self.reached = False
        self.ended_because = ""
        self._restart()

    def saw(self, stamp_ns: int, distance: float, within: bool, needed: int) -> bool:
        """Take in what one picture says about the goal.

        Args:
            stamp_ns: Of the picture; one that is not newer counts for nothing.
            distance: Squared latent distance to the goal.
            within: Whether that is within the tolerance.
            needed: Consecutive pictures within it.

        Returns:
            True if the goal is reached.
        """
        self.distance = distance
        if self._newest_ns is None or stamp_ns > self._newest_ns:
            self._newest_ns = stamp_ns
            self._within = self._within + 1 if within else 0
        return self._within >= needed

    def arrive(self, now_ns: int) -> bool:
        """The goal is reached: take up the next one of the request, or end it.

        Returns:
            True if there is a next one.
        """
        request = self.request
        if request is None:
            return False
        if request.index == len(request.pictures) - 1:
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
        self._newest_ns: int | None = None

    @property
    def failure(self) -> str:
        """Why the model cannot be used for this goal at the moment; empty if it can."""
        return self.plan_failure or self.picture_failure
