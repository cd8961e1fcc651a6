"""What to do now: the planner's judgement about pictures, goals, plans and time. No topics in here.

All methods are called in one thread and return at once; the model runs in the planning thread,
whose outcomes are handed to `PlannerPilot.handle`. So nothing in here needs a lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import ImageError
from lewm_ros.msg import PlanStatus
from lewm_ros.planner.mission import Ending, GoalRequest, Mission, Patience
from lewm_ros.planner.moments import Moment, MomentCollector
from lewm_ros.planner.parameters import PlannerParameters
from lewm_ros.planner.session import PlannerSession
from lewm_ros.planner.status import PlannerReport
from lewm_ros.planner.thread import (
    GoalTaken,
    GoalWanted,
    Outcome,
    PictureAssessed,
    PlanMade,
    PlanningThread,
)
from lewm_ros.safety import DeadManSwitch, SafeCommand, StopLatch

Log = Callable[[str], None]

#: Failures of a goal rather than of a plan begin like this; they are mended by another encoding.
_GOAL_FAILURE = "the goal cannot be encoded"


class Graph(Protocol):
    """Who is at the other end of the planner's topics."""

    def command_listeners(self) -> int:
        """Number of subscribers of the command topic."""
        ...

    def why_nobody_listens(self) -> str:
        """Why the command topic has no subscriber."""
        ...

    def why_no_pictures(self) -> str:
        """Why a camera's pictures do not come, as far as the graph says; empty if it does not."""
        ...

    def why_no_state(self, topic: str) -> str:
        """Why a state topic's messages do not come, as far as the graph says, or empty."""
        ...


class PlannerPilot:
    """Lives from configure to cleanup; commands something other than hold only while active.

    Args:
        session: Model, contract and controller.
        thread: Where the model runs.
        mission: What is asked for.
        latch: Whether somebody said stop.
        graph: Who else is there.
        simulated: Whether ROS time is simulated.
        deadman: What somebody has to hold down for the robot to move; None: nothing.
        log: Gets sentences for the operator.
    """

    def __init__(
        self,
        session: PlannerSession,
        thread: PlanningThread,
        mission: Mission,
        latch: StopLatch,
        graph: Graph,
        simulated: bool,
        deadman: DeadManSwitch | None,
        log: Log,
    ) -> None:
        self._session = session
        self._controller = session.controller
        self._guard = session.guard
        self._positions = session.positions
        self._thread = thread
        self._mission = mission
        self._latch = latch
        self._graph = graph
        self._simulated = simulated
        self._deadman = deadman
        self._log = log
        self._moments = MomentCollector(session.layout, session.contract)
        self._period_ns = round(session.contract.control_period * 1e9)
        self.report = PlannerReport()
        self._restart()

    def _restart(self) -> None:
        self.newest_picture: NDArray[np.uint8] | None = None
        self._assessed_ns: int | None = None
        self._plan_due_ns: int | None = None
        self.withheld = False

    # --- activation -----------------------------------------------------------------------------

    def activate(self, settings: PlannerParameters) -> None:
        """Begin with nothing: no picture, no goal, counters at 0."""
        self.apply(settings)
        self.report = PlannerReport(verdict=self._session.verdict_text)
        self._restart()
        self._moments.reset()
        self._controller.clear_goal()
        self._controller.reset()
        self._guard.reset()
        self._positions.forget()
        self._guard.active = True
        self._mission.forget()

    def apply(self, settings: PlannerParameters) -> None:
        """Take over parameters that may change at any time."""
        self.settings = settings
        self.patience = Patience(
            settings.reached_pictures,
            settings.reached_time,
            settings.progress_timeout,
            settings.failure_timeout,
        )
        self._guard.speed_scale = settings.speed_scale
        self._guard.drives = not settings.dry_run
        frozen_s: float | None = settings.frozen_timeout
        if settings.frozen_timeout < 0.0:
            frozen_s = 0.0 if self._simulated else None
        self._moments.set_frozen_timeout(frozen_s)
        if self._deadman is not None:
            self._deadman.timeout_s = settings.deadman_timeout

    def deactivate(self, reason: str, now_ns: int) -> SafeCommand:
        """End what is pursued; returns the last command, hold."""
        command = self._guard.hold(reason, now_ns)
        self.give_up(Ending.FAILED, reason)
        self._guard.active = False
        return command

    # --- goals ----------------------------------------------------------------------------------

    def captured_picture(self, now_ns: int) -> NDArray[np.uint8]:
        """Return what the cameras show, ``(3 C, S, S)``.

        Raises:
            ImageError: There is no picture that one may act on.
        """
        problem = self._moments.problem(now_ns)
        if problem or self.newest_picture is None:
            raise ImageError(f"nothing to capture: {problem or 'no picture yet'}")
        return self.newest_picture

    def pursue(self, request: GoalRequest, now_ns: int) -> None:
        """Take up a request; one that is under way is pre-empted."""
        self._thread.drop()
        self._controller.clear_goal()
        self._mission.begin(request, now_ns)
        self._moments.try_again()
        self._want_goal()
        self._log(f"pursuing {request.label}, tolerance {request.goal.tolerance}")

    def give_up(self, ending: Ending, message: str) -> None:
        """End what is pursued, and hold from the next command on."""
        self._thread.drop()
        self._controller.clear_goal()
        self._plan_due_ns = None
        self._mission.end(ending, message)

    def astray(self, now_ns: int) -> str:
        """Why the robot is not where it was sent, so that it must be stopped; empty if it is."""
        self._guard.watch(now_ns)
        return self._guard.astray

    def resume(self) -> None:
        """Somebody released the stop: a robot that went astray goes on from where it stands."""
        self._guard.go_on()

    def _want_goal(self) -> None:
        request = self._mission.request
        self._plan_due_ns = None
        self._thread.want_goal(
            GoalWanted(self._mission.serial, request.goal.picture, request.goal.tolerance)
        )

    # --- pictures and time ----------------------------------------------------------------------

    def picture_came(
        self,
        camera: str,
        stamp_ns: int,
        now_ns: int,
        read: Callable[[], NDArray[np.uint8]],
        mark: Callable[[], int] | None = None,
    ) -> str:
        """Take a picture.

        Args:
            camera: Its name in the contract.
            stamp_ns: When it was taken.
            now_ns: ROS time.
            read: Decodes it to ``(3, S, S)`` uint8; called only if the stamp is good.
            mark: Returns a number that is the same for the same picture; None: not compared.

        Returns:
            Why it cannot be used; empty otherwise.
        """
        moving = self._guard.moving and not self.settings.dry_run
        refusal = self._moments.picture_came(camera, stamp_ns, now_ns, read, mark, moving)
        self._look()
        return refusal

    def state_came(
        self, topic: str, stamp_ns: int, now_ns: int, values: Mapping[str, float]
    ) -> None:
        """Take what the robot measured of itself, by the names of the contract's fields."""
        self._positions.hear(topic, stamp_ns, now_ns, values)
        self._moments.state_came(topic, stamp_ns, now_ns, values)
        self._look()

    def _look(self) -> None:
        """See whether what came makes a moment to plan from, and plan if it is time."""
        moment = self._moments.take()
        if moment is None:
            return
        self.newest_picture = moment.seen.picture
        self._controller.observe(moment.stamp_ns, moment.seen.picture, moment.seen.state)
        if self._mission.request is None:
            return
        if self._plan_due_ns is not None:
            self._want_plan()
        self._assess(moment)

    def _assess(self, moment: Moment) -> None:
        # More often than the control rate, a distance is of no use to anybody.
        stamp_ns = moment.stamp_ns
        since_ns = math.inf if self._assessed_ns is None else stamp_ns - self._assessed_ns
        if not 0 <= since_ns < 0.9 * self._period_ns:
            self._assessed_ns = stamp_ns
            self._thread.want_assessment(self._mission.serial, stamp_ns)

    def scene_began(self) -> None:
        """A scene was reset: what was seen before belongs to another past."""
        self._controller.reset()

    def clock_jumped(self) -> None:
        """ROS time was set back or changed its source: stamps from before mean nothing."""
        self._controller.reset()
        self._moments.forget()
        self._positions.forget()
        self._assessed_ns = None
        self._plan_due_ns = None

    def replan(self, now_ns: int) -> None:
        """It is time for a new plan.

        It is made from a picture that is as new as can be: from the next one, unless the newest
        just came. A plan that is still being made is late; the new one is skipped then.
        """
        if self._mission.request is None or self._obstacle(now_ns):
            return
        if self._mission.plan_failure.startswith(_GOAL_FAILURE):
            self._want_goal()
        elif not self._thread.planning:
            self._plan_due_ns = now_ns
            if self._moments.age_s(now_ns) * 1e9 < self._period_ns / 2:
                self._want_plan()

    def _want_plan(self) -> None:
        self._plan_due_ns = None
        self._thread.want_plan(self._mission.serial)

    # --- outcomes of the planning thread --------------------------------------------------------

    def handle(self, outcome: Outcome, now_ns: int) -> PlanMade | None:
        """Take in what the planning thread did; returns a plan that is to be published."""
        if self._mission.request is None or outcome.serial != self._mission.serial:
            return None
        if isinstance(outcome, GoalTaken):
            if outcome.failure:
                self._mission.plan_failure = f"{_GOAL_FAILURE}: {outcome.failure}"
            else:
                self._mission.plan_failure = ""
                self._want_plan()
        elif isinstance(outcome, PictureAssessed):
            self._picture_assessed(outcome, now_ns)
        elif self._plan_made(outcome):
            return outcome
        return None

    def _plan_made(self, made: PlanMade) -> bool:
        report, result = self.report, made.result
        if result.failed:
            if not self._mission.plan_failure:
                self._log(f"{result.reason}; the next attempt follows")
            self._mission.plan_failure = result.reason
            return False
        if result.plan is None:
            return False
        self._mission.plan_failure = ""
        self._mission.plan_cost = float(result.plan.cost[0])
        report.plans += 1
        report.candidates_dropped += result.plan.dropped
        self._note_encoding(result.encode_s)
        report.plan_times.add(result.plan_s)
        period_s = self._session.replan_period_s(self.settings)
        report.plans_late += (made.done_ns - made.asked_ns) * 1e-9 > period_s
        return True

    def _note_encoding(self, encode_s: float) -> None:
        # Mostly a picture was compared with the goal before a plan is made from it.
        if encode_s > 0.0:
            self.report.encode_times.add(encode_s)

    def _picture_assessed(self, seen: PictureAssessed, now_ns: int) -> None:
        mission = self._mission
        mission.picture_failure = seen.failure
        self._note_encoding(seen.encode_s)
        if seen.failure or not mission.saw(
            seen.stamp_ns, seen.distance, seen.reached, self.patience
        ):
            return
        self._log(f"goal reached: {mission.request.label}, distance {seen.distance:.4g}")
        if mission.arrive(now_ns):
            self._want_goal()
        else:
            self._controller.clear_goal()

    # --- commands -------------------------------------------------------------------------------

    def withholds(self) -> bool:
        """Whether the command of this tick has to wait for a plan: in lock step only."""
        waits = self._thread.planning or self._plan_due_ns is not None
        self.withheld = self.settings.lock_step and waits and not self._latch.latched
        return self.withheld

    def owes_command(self) -> bool:
        """Whether a command that was withheld can be given now."""
        return self.withheld and not self.withholds()

    def decide(self, now_ns: int) -> tuple[int, SafeCommand]:
        """Return the state to report and the command to publish for the period from now."""
        request = self._mission.request
        if request is not None:
            request.hear_clock(now_ns)
        hopeless = self._mission.hopeless(now_ns, self.patience)
        if hopeless is not None:
            self._log(f"given up: {hopeless[1]}")
            self.give_up(*hopeless)
        self.report.image_to_command = math.nan
        state, reason = self._reason_to_hold(now_ns)
        if reason:
            return state, self._guard.hold(reason, now_ns)
        wanted = self._controller.command(now_ns)
        values = None if wanted.hold else wanted.values
        reason = wanted.reason
        if reason == "plan exhausted":
            reason += f"; making one takes {self.report.plan_times.newest:.2f} s"
        command = self._guard.check(values, now_ns, self._moments.deadline_ns(), reason)
        if command.hold:
            if self._controller.wants_plan(now_ns):
                # The plan ran out or was dropped: the next one must not wait for the timer.
                self._want_plan()
            return PlanStatus.WAITING, command
        age_s = (now_ns - wanted.image_stamp_ns) * 1e-9
        self.report.image_to_command = age_s
        self.report.command_ages.add(age_s)
        self.report.image_ages.add(self._moments.age_s(now_ns))
        if self._plan_due_ns is not None and now_ns - self._plan_due_ns >= self._period_ns:
            # No new picture came meanwhile; an older one must do.
            self._want_plan()
        return PlanStatus.PLANNING, command

    def hold(self, reason: str, now_ns: int) -> SafeCommand:
        """Return the hold command."""
        return self._guard.hold(reason, now_ns)

    def failed(self, reason: str) -> None:
        """Something that nobody thought of failed; hold until the next plan."""
        self._mission.plan_failure = reason

    def published(self, command: SafeCommand, now_ns: int) -> None:
        """Take note of what was published."""
        if command.values is not None and not self.settings.dry_run:
            self._controller.record(now_ns, command.values)
            self.report.commands += 1
            self.report.commands_held += command.hold

    def _reason_to_hold(self, now_ns: int) -> tuple[int, str]:
        """Why to hold whatever the plan is, with the state that goes with it."""
        mission = self._mission
        if self._latch.latched:
            return PlanStatus.STOPPED, self._latch.reason
        if mission.request is None and mission.reached:
            return PlanStatus.REACHED, mission.ended_because
        if mission.request is None:
            because = mission.ended_because or "call ~/set_goal or ~/reach_goal"
            return PlanStatus.WAITING, f"no goal: {because}"
        obstacle = self._obstacle(now_ns)
        if obstacle:
            mission.kept_waiting(now_ns)
            return PlanStatus.WAITING, obstacle
        if not self._thread.alive:
            return PlanStatus.FAILED, "the planning thread has ended, the log says why: restart"
        return PlanStatus.FAILED, mission.failure

    def _obstacle(self, now_ns: int) -> str:
        """Why nothing can be done until somebody else does something; empty if it can."""
        if self._deadman is not None:
            released = self._deadman.problem(time.monotonic())
            if released:
                return released
        problem = self._moments.problem(now_ns)
        if problem:
            because = self._graph.why_no_pictures()
            return f"{problem}; {because}" if because else problem
        unknown, topic = self._guard.why_no_position(now_ns)
        if unknown:
            because = self._graph.why_no_state(topic) if topic else ""
            return f"{unknown}; {because}" if because else unknown
        if self._graph.command_listeners() == 0 and not self.settings.dry_run:
            return self._graph.why_nobody_listens()
        return ""

    # --- reports --------------------------------------------------------------------------------

    def refresh_report(self, now_ns: int) -> None:
        """Bring the report's numbers up to date."""
        report, request = self.report, self._mission.request
        report.goal = "" if request is None else request.label
        report.goal_tolerance = math.nan
        if request is not None and request.goal.tolerance is not None:
            report.goal_tolerance = request.goal.tolerance
        report.goal_distance = self._mission.distance
        report.plan_cost = self._mission.plan_cost
        counters = self._moments.counters
        report.image_age = self._moments.age_s(now_ns)
        report.images = counters.received
        report.images_refused = counters.refused
        report.commands_clipped = self._guard.counters.clipped
        report.commands_slowed = self._guard.counters.slowed
        report.speed_scale = self.settings.speed_scale
        report.dry_run = self.settings.dry_run
