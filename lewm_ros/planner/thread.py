"""The thread that encodes and plans, so that nothing else ever waits for the model.

It does one thing at a time; of each kind of work only the newest request is kept. What comes out
is handed to a callback, in this thread; the node puts it into a queue for its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_core.errors import PlanningError
from lewm_core.planning import PlanResult, RecedingHorizonController

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoalWanted:
    """Pursue this goal from now on; ``serial`` tells it from others."""

    serial: int
    picture: NDArray[np.uint8]
    tolerance: float | None


@dataclass(frozen=True)
class GoalTaken:
    """A goal was encoded and is pursued now, or could not be (``failure``)."""

    serial: int
    failure: str


@dataclass(frozen=True)
class PlanMade:
    """A planning attempt for the goal ``serial`` ended; times are ROS time."""

    serial: int
    result: PlanResult
    asked_ns: int
    done_ns: int


@dataclass(frozen=True)
class PictureAssessed:
    """The newest picture was compared with the goal ``serial``; ``encode_s`` is 0 if it was
    encoded before."""

    serial: int
    stamp_ns: int
    distance: float
    reached: bool
    encode_s: float
    failure: str


Outcome = GoalTaken | PlanMade | PictureAssessed


class PlanningThread:
    """Runs a controller's slow parts.

    Args:
        controller: Its `set_goal`, `replan` and `assess` are called here only.
        now_ns: ROS time; called from this thread.
        done: Gets every outcome, in this thread.
        threads: Of torch, in this thread.
    """

    def __init__(
        self,
        controller: RecedingHorizonController,
        now_ns: Callable[[], int],
        done: Callable[[Outcome], None],
        threads: int,
    ) -> None:
        self._controller = controller
        self._now_ns = now_ns
        self._done = done
        self._threads = threads
        self._wake = threading.Condition()
        self._goal: GoalWanted | None = None
        self._plan_serial: int | None = None
        self._picture: tuple[int, int] | None = None
        self._planning = False
        self._ended = False
        # A daemon, so that a search of many seconds cannot keep a stopped robot's node alive.
        self._thread = threading.Thread(target=self._run, name="planning", daemon=True)
        self._thread.start()

    @property
    def planning(self) -> bool:
        """Whether a goal or a plan is wanted or being worked on."""
        with self._wake:
            return self._planning or self._goal is not None or self._plan_serial is not None

    @property
    def alive(self) -> bool:
        """Whether requests are still worked on."""
        return self._thread.is_alive()

    def want_goal(self, goal: GoalWanted) -> None:
        """Encode and pursue this goal; one that waits is forgotten."""
        with self._wake:
            self._goal = goal
            self._plan_serial = None
            self._wake.notify()

    def want_plan(self, serial: int) -> bool:
        """Make a plan as soon as possible; False if one is under way or waiting already."""
        with self._wake:
            if self._planning or self._goal is not None or self._plan_serial is not None:
                return False
            self._plan_serial = serial
            self._wake.notify()
            return True

    def want_assessment(self, serial: int, stamp_ns: int) -> None:
        """Compare the newest picture, of this stamp, with the goal when there is time."""
        with self._wake:
            self._picture = (serial, stamp_ns)
            self._wake.notify()

    def drop(self) -> None:
        """Forget what waits: nothing is pursued any more."""
        with self._wake:
            self._goal = self._plan_serial = self._picture = None

    def end(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; False if it still runs after ``timeout_s``."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        # OpenMP keeps the number of threads per calling thread.
        torch.set_num_threads(self._threads)
        while True:
            with self._wake:
                while not (
                    self._ended or self._goal or self._plan_serial is not None or self._picture
                ):
                    self._wake.wait()
                if self._ended:
                    return
                goal, self._goal = self._goal, None
                serial = picture = None
                if goal is None:
                    serial, self._plan_serial = self._plan_serial, None
                if goal is None and serial is None:
                    picture, self._picture = self._picture, None
                self._planning = picture is None
            outcome: Outcome
            if goal is not None:
                outcome = self._take_goal(goal)
            elif serial is not None:
                outcome = self._make_plan(serial)
            else:
                outcome = self._assess(*picture)
            with self._wake:
                self._planning = False
            self._done(outcome)

    def _take_goal(self, goal: GoalWanted) -> GoalTaken:
        failure = ""
        try:
            self._controller.set_goal(goal.picture, tolerance=goal.tolerance)
        except PlanningError as error:
            failure = str(error)
        except Exception as error:
            # Whatever it is, the robot must hold and say so; the traceback goes to the log.
            logger.exception("the goal could not be encoded")
            failure = f"{type(error).__name__}: {error}"
        return GoalTaken(goal.serial, failure)

    def _make_plan(self, serial: int) -> PlanMade:
        asked_ns = self._now_ns()
        result = self._controller.replan(asked_ns)
        done_ns = self._now_ns()
        if result.plan is not None:
            self._controller.note_delay(done_ns - asked_ns)
        return PlanMade(serial, result, asked_ns, done_ns)

    def _assess(self, serial: int, stamp_ns: int) -> PictureAssessed:
        failure, distance = "", float("nan")
        try:
            distance = self._controller.assess(self._now_ns())
        except PlanningError as error:
            failure = str(error)
        except Exception as error:
            logger.exception("a picture could not be encoded")
            failure = f"{type(error).__name__}: {error}"
        return PictureAssessed(
            serial, stamp_ns, distance, self._controller.goal_reached, self._controller.encode_s,
            failure,
        )

