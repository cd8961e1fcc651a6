"""Node ``planner``: drives a robot to goal pictures with a world model."""

from __future__ import annotations

import dataclasses
import queue
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.contract_parts import Camera, State
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import CheckpointError, ConfigError
from lewm_ros.runtime import ros_imports, run_node

with ros_imports("lewm_ros.planner"):
    from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image

    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.lifecycle import ManagedNode
    from lewm_ros.msg import EpisodeEvent, PlanStatus
    from lewm_ros.planner.camera_watch import fingerprint
    from lewm_ros.planner.control_timer import ControlTimer
    from lewm_ros.planner.goals import goal_from_messages, goal_from_text, picture_from_message
    from lewm_ros.planner.mission import Ending, Goal, GoalRequest, Mission
    from lewm_ros.planner.parameters import DECLARATIONS, PlannerParameters, read_settings
    from lewm_ros.planner.pilot import PlannerPilot
    from lewm_ros.planner.reporter import Reporter
    from lewm_ros.planner.requests import PlannerRequests
    from lewm_ros.planner.session import PlannerSession, open_session
    from lewm_ros.planner.status import PlannerReport
    from lewm_ros.planner.supervisor import Supervisor
    from lewm_ros.planner.thread import Outcome, PlanningThread
    from lewm_ros.planner.topics import PlannerTopics
    from lewm_ros.safety import SafeCommand, StopLatch

#: How long a stopping node waits for the last hold command to arrive, and for a plan to end.
_ACKNOWLEDGE_S = 0.5
_PLAN_END_S = 5.0


class PlannerNode(ManagedNode):
    """Node ``planner``: drives a robot to goal pictures with a world model (lifecycle node).

    Subscribes the camera topics, and state topics, that the checkpoint's model is given; publishes
    the contract's action topic at the control rate, ``~/status``, ``~/plan``, ``~/imagination``
    (while someone listens) and ``/diagnostics``; action ``~/reach_goal``; services
    ``~/set_goal``, ``~/stop``, ``~/resume``.

    Whatever is missing, late, not finite or not understood ends in the contract's hold command
    and a reason on ``~/status``.

    example: python -m lewm_ros.planner --ros-args -p checkpoint:=push_t-nano -p autostart:=true
    """

    # All callbacks run in one executor thread and return at once; the model runs in the planning
    # thread, whose outcomes come back through a queue. So nothing below needs a lock, but for
    # commands: the watchdog publishes hold from a thread of its own.

    label = "the planner"
    declarations = DECLARATIONS

    def __init__(self) -> None:
        """Declare the parameters; nothing is loaded before configure.

        Raises:
            ConfigError: A parameter given at start cannot be used.
        """
        super().__init__("planner")
        self.mission = Mission()
        self._latch = StopLatch()
        self._idle_report = PlannerReport()
        self._session: PlannerSession | None = None
        self._pilot: PlannerPilot | None = None
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._woken = self.create_guard_condition(self._safely(self._on_outcomes))
        self._requests = PlannerRequests(self, self)
        self._reporter = Reporter(self)
        # Reports must come when ROS time stands still, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._status_timer = self.create_timer(
            1.0 / self._settings.status_rate, self._safely(self._on_status_timer), clock=steady
        )
        self.create_timer(1.0, self._safely(self._on_diagnostics_timer), clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_clock_jump,
        )

    def close(self) -> None:
        """Hold for the last time; called when the process ends, whatever ends it."""
        super().close()
        self._requests.destroy()

    # --- lifecycle (`lewm_ros.lifecycle.ManagedNode`) --------------------------------------------

    def read_settings(self) -> PlannerParameters:
        """Return the values of all parameters."""
        return read_settings(self)

    def configure(self) -> None:
        """Load and warm everything, make the topics.

        Raises:
            UserError: Something cannot be loaded or made.
            OSError: Likewise.
        """
        settings = self._settings
        session = open_session(settings, self.get_logger().info)
        self._goal_from_file = None
        if settings.goal_file:
            self._goal_from_file = goal_from_text(
                settings.goal_file, session.layout.cameras, session.image_size
            )
        contract = session.contract
        self._topics = PlannerTopics(
            self,
            contract,
            session.layout,
            session.positions.topics,
            self._safely(self._on_image),
            self._safely(self._on_state),
            self._safely(self._on_episode),
        )
        self.free_later(self._topics.destroy)
        # Before the control timer: where both are due, the plan is asked for first.
        self._replan_timer = self.create_timer(
            session.replan_period_s(settings), self._safely(self._on_replan_timer)
        )
        self.free_later(self.destroy_timer, self._replan_timer)
        self._replan_timer.cancel()
        self._control = ControlTimer(
            self, contract.control_period, self._safely(self._on_control_tick)
        )
        self.free_later(self._control.destroy)
        self._supervisor = Supervisor(self, self, settings, contract.control_period, self._safely)
        self.free_later(self._supervisor.destroy)
        self._status_timer.timer_period_ns = round(1e9 / settings.status_rate)
        self._thread = PlanningThread(
            session.controller, self._now_ns, self._hand_over, session.threads
        )
        self.free_later(self._end_planning)
        self._pilot = PlannerPilot(
            session,
            self._thread,
            self.mission,
            self._latch,
            self._topics,
            self.get_parameter("use_sim_time").value,
            self._supervisor.deadman,
            self.get_logger().info,
        )
        self._session = session

    def activate(self) -> None:
        """Begin to publish commands: hold, until there is a goal, a picture and a plan.

        Raises:
            CheckpointError: ``lewm-check`` found that the checkpoint cannot plan, and ``force`` is
                not set.
        """
        refusal = self._session.why_not_activate(self._settings)
        if refusal:
            raise CheckpointError(refusal)
        if self._session.verdict is not None and self._session.verdict.verdict != "can plan":
            self.get_logger().warning(f"lewm-check: {self._session.verdict_text}")
        self._pilot.activate(self._settings)
        self._reset_replan_timer()
        self._control.start()
        self._supervisor.start(self._settings)
        if self._goal_from_file is not None and not self._latch.latched:
            goal = Goal(self._goal_from_file, self.tolerance(0.0))
            self.pursue(GoalRequest([goal], self._settings.goal_file))
        self._update_status(PlanStatus.WAITING, "just activated", holding=True)

    def deactivate(self, reason: str) -> None:
        """Publish hold once more, and wait until it has arrived; end what is pursued."""
        self._supervisor.stop()
        with self._supervisor.commanding():
            self._publish_command(self._pilot.deactivate(reason, self._now_ns()))
        self._requests.void(Ending.FAILED, reason)
        self._control.stop()
        self._replan_timer.cancel()
        self._topics.wait_commands_received(_ACKNOWLEDGE_S)

    def tell(self, reason: str) -> None:
        """Report, while not active, why."""
        verdict = "" if self._session is None else self._session.verdict_text
        self._idle_report = PlannerReport(reason=reason, verdict=verdict)
        self._reporter.tell(self._report())

    def apply_changes(self, names: set[str]) -> None:
        """Go on with changed parameters."""
        if self._active:
            self._pilot.apply(self._settings)
            if "replan_rate" in names:
                self._reset_replan_timer()

    def _end_planning(self) -> None:
        self._session = self._pilot = None
        if not self._thread.end(_PLAN_END_S):
            self.get_logger().warning("a plan is still being made; its result is dropped")

    # --- what the requests need (`lewm_ros.planner.requests.Host`) -------------------------------

    def why_not(self) -> str:
        """Why no goal can be taken at all now; empty if one can."""
        if not self._active:
            return "the planner is not active: configure and activate it first"
        return self._latch.reason

    def stopped(self) -> bool:
        """Whether ``~/stop`` is latched."""
        return self._latch.latched

    def number_of_cameras(self) -> int:
        """How many pictures a goal has."""
        return len(self._session.layout.cameras)

    def goal_picture(self, source: Sequence[Image] | str) -> NDArray[np.uint8]:
        """Return a goal as the model sees it, ``(3 C, S, S)``.

        Raises:
            ImageError: It cannot be read or has another size than the cameras' pictures.
        """
        session = self._session
        if session is None:
            raise ConfigError("the planner is not configured: configure it first")
        read = goal_from_text if isinstance(source, str) else goal_from_messages
        return read(source, session.layout.cameras, session.image_size)

    def captured_picture(self) -> NDArray[np.uint8]:
        """Return what the cameras show at the moment, as the model sees it, ``(3 C, S, S)``.

        Raises:
            ImageError: There is no picture that one may act on.
        """
        return self._pilot.captured_picture(self._now_ns())

    def tolerance(self, asked: float) -> float | None:
        """Return the tolerance for a goal that asked for this one (0: the default)."""
        return asked if asked > 0.0 else self._session.default_tolerance(self._settings)

    def pursue(self, request: GoalRequest) -> None:
        """Take up a request; one that is under way is pre-empted."""
        self._pilot.pursue(request, self._now_ns())
        self._replan_timer.reset()

    def give_up(self, ending: Ending, message: str) -> None:
        """End what is pursued, and hold from the next command on."""
        if self._active:
            self._pilot.give_up(ending, message)

    def stop(self, reason: str) -> None:
        """Latch the stop, and hold at once."""
        self._latch.stop(reason)
        self.get_logger().warning(f"stopped: {reason}")
        self._requests.void(Ending.STOPPED, reason)
        if self._active:
            self._pilot.give_up(Ending.STOPPED, reason)
            self._control_now()

    def resume(self) -> bool:
        """Release the stop; the robot stays where it is until a new goal comes."""
        self.get_logger().info("released")
        if self._active:
            self._pilot.resume()
        return self._latch.resume()

    # --- what comes in --------------------------------------------------------------------------

    def _on_image(self, camera: Camera, message: Any) -> None:
        if not self._active:
            return
        now_ns = self._now_ns()
        stamp_ns = stamp_to_ns(message.header.stamp) if camera.clock == "header" else now_ns
        size = self._session.image_size
        refusal = self._pilot.picture_came(
            camera.name,
            stamp_ns,
            now_ns,
            lambda: picture_from_message(message, camera, size),
            lambda: fingerprint(np.frombuffer(message.data, np.uint8)),
        )
        if refusal:
            self.get_logger().warning(f"picture refused: {refusal}", throttle_duration_sec=2.0)

    def _on_state(self, state: State, fields: dict[str, FieldSelector], message: Any) -> None:
        if not self._active:
            return
        try:
            values = {name: selector.get(message) for name, selector in fields.items()}
        except LookupError as error:
            self.get_logger().warning(
                f"state on {state.topic} refused: {error}", throttle_duration_sec=2.0
            )
            return
        now_ns = self._now_ns()
        stamp_ns = stamp_to_ns(message.header.stamp) if state.clock == "header" else now_ns
        self._pilot.state_came(state.topic, stamp_ns, now_ns, values)

    def _on_episode(self, event: EpisodeEvent) -> None:
        if self._active and event.event == EpisodeEvent.START:
            self._pilot.scene_began()

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if self._active:
            self._start_anew("ROS time was set back or its source changed")

    def _start_anew(self, reason: str) -> None:
        self.get_logger().warning(f"{reason}: starting anew")
        self._pilot.clock_jumped()
        self._control.start()

    # --- what the supervisor tells (`lewm_ros.planner.supervisor.Supervised`) --------------------

    def ros_time_ns(self) -> int:
        """Return ROS time."""
        return self._now_ns()

    def callbacks_stand_still(self, reason: str) -> None:
        """Hold in the place of callbacks that do not return; called in the watchdog's thread."""
        if not self._active:
            return
        report = self._pilot.report
        report.watchdog_holds += 1
        self._publish_command(self._pilot.hold(reason, self._now_ns()))
        told = dataclasses.replace(report, state=PlanStatus.FAILED, reason=reason, holding=True)
        self._reporter.tell(told)
        self.get_logger().error(reason, throttle_duration_sec=1.0)

    def clock_stands_still(self, still_s: float) -> None:
        """Hold, if it lasts: nobody knows how old anything is."""
        # In lock step the scene's clock waits for the command that is withheld.
        if still_s > self._settings.clock_timeout and not self._pilot.withheld:
            self._hold_for(
                PlanStatus.WAITING,
                f"ROS time stands still for {still_s:.1f} s: does anybody publish /clock?",
            )

    def clock_was_set(self, step_s: float) -> None:
        """Forget what was seen: its stamps mean nothing any more."""
        self._start_anew(f"the system's clock was set by {step_s:+.2f} s")

    def deadman_released(self) -> None:
        """Hold at once, not at the next tick."""
        if self._active and not self._pilot.report.holding:
            self._control_now()

    def _reset_replan_timer(self) -> None:
        self._session.limit_time(self._settings)
        period_s = self._session.replan_period_s(self._settings)
        self._replan_timer.timer_period_ns = round(period_s * 1e9)
        self._replan_timer.reset()

    def _hand_over(self, outcome: Outcome) -> None:
        """Called in the planning thread."""
        self._outcomes.put(outcome)
        self._woken.trigger()

    def _on_outcomes(self) -> None:
        while not self._outcomes.empty():
            outcome = self._outcomes.get()
            plan = self._pilot.handle(outcome, self._now_ns()) if self._active else None
            if plan is not None:
                self._topics.send_plan(plan)
        if self._active and self._pilot.owes_command():
            self._control_now()

    # --- what goes out --------------------------------------------------------------------------

    def _on_replan_timer(self) -> None:
        if self._active:
            self._pilot.replan(self._now_ns())

    def _on_control_tick(self) -> None:
        if not self._active:
            return
        self._pilot.report.command_jitters.add(self._control.lateness_s(self._now_ns()))
        with self._supervisor.commanding():
            astray = self._pilot.astray(self._now_ns())
        if astray and not self._latch.latched:
            self.stop(f"{astray}; ~/resume lets it begin where it stands")
        elif not self._pilot.withholds():
            self._control_now()

    def _control_now(self) -> None:
        """Decide what to do now, publish it, and say so where it changed."""
        with self._supervisor.commanding():
            state, command = self._pilot.decide(self._now_ns())
            self._publish_command(command)
        self._update_status(state, command.reason, command.hold)

    def _publish_command(self, command: SafeCommand) -> None:
        """Publish, right after it was decided on; call it with the lock."""
        now_ns = self._now_ns()
        if command.values is not None and not self._settings.dry_run:
            began = time.perf_counter()
            self._topics.send_command(command.values, now_ns)
            self._pilot.report.publish_times.add(time.perf_counter() - began)
        self._pilot.published(command, now_ns)

    def _update_status(self, state: int, reason: str, holding: bool) -> None:
        report = self._pilot.report
        before = report.key()
        report.state, report.reason, report.holding = state, reason, holding
        self._pilot.refresh_report(self._now_ns())
        if report.key() != before:
            if holding and state in (PlanStatus.WAITING, PlanStatus.FAILED):
                self._reporter.log_hold(report)
            self._reporter.tell(report)

    def _report(self) -> PlannerReport:
        return self._pilot.report if self._active else self._idle_report

    def _on_status_timer(self) -> None:
        now_ns = self._now_ns()
        if self._active:
            self._pilot.refresh_report(now_ns)
            self._requests.send_feedback(now_ns)
            request = self.mission.request
            goal = None if request is None else request.goal.picture
            self._topics.send_imagination(
                self._pilot.newest_picture, goal, self.mission.distance, now_ns
            )
        self._reporter.tell(self._report())

    def _look_for_other_drivers(self) -> None:
        # It warns and does not hold: hold commands would fight the other driver just as well.
        if not self._active or self._settings.dry_run:
            return
        report, others = self._pilot.report, self._topics.other_drivers()
        if others != report.other_drivers:
            report.other_drivers = others
            self._reporter.log_other_drivers(others, self._topics.command_topic)
            self._reporter.tell(report)

    def _on_diagnostics_timer(self) -> None:
        self._look_for_other_drivers()
        self._reporter.diagnose(
            self._report(), "" if self._session is None else self._session.device
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _hold_for(self, state: int, reason: str) -> None:
        """Publish the hold command outside the control rate."""
        with self._supervisor.commanding():
            self._publish_command(self._pilot.hold(reason, self._now_ns()))
        self._update_status(state, reason, holding=True)

    def _safely(self, function: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback: an error that nobody thought of holds and is told, not lost."""

        def callback(*arguments: Any) -> None:
            try:
                function(*arguments)
            except Exception as error:
                self.get_logger().error(traceback.format_exc())
                if self._active:
                    reason = f"{type(error).__name__}: {error}"
                    self._pilot.failed(reason)
                    self._hold_for(PlanStatus.FAILED, reason)

        return callback


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(PlannerNode, argv)
