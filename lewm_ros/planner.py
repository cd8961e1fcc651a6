"""Node ``planner``: drives a robot to goal pictures with a world model."""

from __future__ import annotations

import math
import queue
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import ImageError, UserError
from lewm_ros.runtime import end_node, ros_imports, run_node

with ros_imports("lewm_ros.planner"):
    from diagnostic_msgs.msg import DiagnosticArray
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
    from rclpy.duration import Duration
    from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import Image

    from lewm_ros import qos
    from lewm_ros.camera_watch import CameraWatch
    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.control_timer import ControlTimer
    from lewm_ros.msg import ActionPlan, EpisodeEvent, PlanStatus
    from lewm_ros.planner_goals import goal_from_file, goal_from_message, picture_from_message
    from lewm_ros.planner_messages import CommandWriter, action_plan, imagination, message_class
    from lewm_ros.planner_mission import Ending, GoalRequest, Mission
    from lewm_ros.planner_parameters import check_changes, declare_parameters, read_parameters
    from lewm_ros.planner_requests import PlannerRequests
    from lewm_ros.planner_session import PlannerSession, open_session
    from lewm_ros.planner_status import PlannerReport
    from lewm_ros.planner_thread import (
        GoalTaken,
        GoalWanted,
        Outcome,
        PictureAssessed,
        PlanMade,
        PlanningThread,
    )
    from lewm_ros.safety import SafeCommand, StopLatch

#: How long a stopping node waits for the last hold command to arrive, and for a plan to end.
_ACKNOWLEDGE_S = 0.5
_PLAN_END_S = 5.0

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE


class PlannerNode(LifecycleNode):
    """Node ``planner``: drives a robot to goal pictures with a world model (lifecycle node).

    Subscribes the contract's camera topic, publishes the contract's action topic at the control
    rate, ``~/status``, ``~/plan``, ``~/imagination`` (while someone listens) and
    ``/diagnostics``; action ``~/reach_goal``; services ``~/set_goal``, ``~/stop``, ``~/resume``.

    Whatever is missing, late, not finite or not understood ends in the contract's hold command
    and a reason on ``~/status``.

    example: python -m lewm_ros.planner --ros-args -p checkpoint:=push_t-nano -p autostart:=true
    """

    # All callbacks run in one executor thread and return at once; the model runs in the planning
    # thread, whose outcomes come back through a queue. So nothing below needs a lock.

    def __init__(self) -> None:
        """Declare the parameters; nothing is loaded before configure.

        Raises:
            ConfigError: A parameter given at start cannot be used.
        """
        super().__init__("planner")
        declare_parameters(self)
        self._settings = read_parameters(self)
        self.add_on_set_parameters_callback(self._on_check_parameters)
        self.add_post_set_parameters_callback(self._on_parameters)
        self.mission = Mission()
        self._latch = StopLatch()
        self._report = PlannerReport()
        self._session: PlannerSession | None = None
        self._thread: PlanningThread | None = None
        self._active = False
        self._failure: UserError | None = None
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._woken = self.create_guard_condition(self._safely(self._on_outcomes))
        self._requests = PlannerRequests(self, self)
        self._status_publisher = self.create_publisher(PlanStatus, "~/status", qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
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
        self._clock_seen = (-1, 0.0)
        if self._settings.autostart:
            self._start_timer = self.create_timer(0.0, self._on_autostart, clock=steady)

    def close(self) -> None:
        """Hold for the last time; called when the process ends, whatever ends it."""
        if self._active:
            self._leave_active("the planner's process ends")
            self._command_publisher.wait_for_all_acked(
                Duration(nanoseconds=round(_ACKNOWLEDGE_S * 1e9))
            )
        self._report.state, self._report.reason = PlanStatus.INACTIVE, "the process ended"
        self._publish_status()
        if self._thread is not None:
            self._thread.end(_PLAN_END_S)
        self._requests.destroy()

    # --- lifecycle ------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm everything, make the topics; on failure the reason is in the log."""
        self._failure = None
        self._settings = read_parameters(self)
        for line in self._settings.lines():
            self.get_logger().info(f"parameter {line}")
        try:
            self._session = open_session(self._settings, self.get_logger().info)
            self._make_topics(self._session)
        except (UserError, OSError) as error:
            self._fail_configure(error if isinstance(error, UserError) else UserError(str(error)))
            return _FAILURE
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            self._fail_configure(UserError(f"{type(error).__name__}: {error}"))
            return _FAILURE
        self._report.reason = "configured, not active"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to publish commands: hold, until there is a goal, a picture and a plan."""
        result = super().on_activate(state)
        session = self._require_session()
        self._report = PlannerReport()
        self._camera.reset()
        self._newest_picture: NDArray[np.uint8] | None = None
        self._assessed_ns = -1
        self._withheld = False
        session.controller.clear_goal()
        session.controller.reset()
        session.guard.reset()
        session.guard.active = True
        self.mission.forget()
        self._active = True
        self._replan_timer.timer_period_ns = round(
            session.replan_period_s(self._settings) * 1e9
        )
        self._replan_timer.reset()
        self._control.start()
        if self._goal_from_file is not None and not self._latch.latched:
            tolerance = self.tolerance(0.0)
            self.pursue(
                GoalRequest([self._goal_from_file], self._settings.goal_file, tolerance)
            )
        self._update_status(PlanStatus.WAITING, "just activated", holding=True)
        self.get_logger().info("active")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish hold, end what is pursued, and fall silent."""
        self._leave_active("the planner was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure made."""
        self._tear_down()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold if active, and free everything."""
        self._leave_active("the planner was shut down")
        self._tear_down()
        self._report.reason = "shut down"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: hold, free everything, back to unconfigured."""
        self.get_logger().error("a lifecycle transition failed; the planner is unconfigured now")
        self._leave_active("a lifecycle transition failed")
        self._tear_down()
        return _SUCCESS

    def _on_autostart(self) -> None:
        self._start_timer.cancel()
        configured = self.trigger_configure()
        if configured != _SUCCESS:
            end_node(1, self._failure or UserError("the planner could not be configured"))
        elif self.trigger_activate() != _SUCCESS:
            end_node(1, UserError("the planner could not be activated; see its log"))

    def _fail_configure(self, error: UserError) -> None:
        self._failure = error
        self._tear_down()
        line = " ".join(str(error).split())
        self._report.reason = f"configure failed: {line}"
        self.get_logger().error(f"configure failed: {line}")

    def _require_session(self) -> PlannerSession:
        if self._session is None:
            raise UserError("the planner is not configured")
        return self._session

    def _make_topics(self, session: PlannerSession) -> None:
        contract = session.contract
        camera = contract.camera
        self._writer = CommandWriter(contract)
        self._camera = CameraWatch(camera.topic, camera.timeout)
        self._goal_from_file = None
        if self._settings.goal_file:
            self._goal_from_file = self.goal_picture(self._settings.goal_file)
        self._command_publisher = self.create_lifecycle_publisher(
            self._writer.message_type, contract.action.topic, qos.COMMAND
        )
        self._plan_publisher = self.create_lifecycle_publisher(ActionPlan, "~/plan", 5)
        self._imagination_publisher = self.create_lifecycle_publisher(Image, "~/imagination", 1)
        self._camera_subscription = self.create_subscription(
            message_class(camera.message),
            camera.topic,
            self._safely(self._on_image),
            qos.CAMERA_NEWEST,
        )
        self._episode_subscription = self.create_subscription(
            EpisodeEvent, "episode", self._safely(self._on_episode), qos.EPISODE
        )
        # Before the control timer: where both are due, the plan is asked for first.
        self._replan_timer = self.create_timer(
            session.replan_period_s(self._settings), self._safely(self._on_replan_timer)
        )
        self._replan_timer.cancel()
        self._control = ControlTimer(
            self, contract.control_period, self._safely(self._on_control_tick)
        )
        self._thread = PlanningThread(
            session.controller, self._now_ns, self._hand_over, session.threads
        )
        self._status_timer.timer_period_ns = round(1e9 / self._settings.status_rate)

    def _leave_active(self, reason: str) -> None:
        if not self._active:
            return
        self._publish_command(self._require_session().guard.hold(reason, self._now_ns()))
        self.give_up(Ending.FAILED, reason)
        self._active = False
        self._require_session().guard.active = False
        self._control.stop()
        self._replan_timer.cancel()
        self._update_status(PlanStatus.INACTIVE, "configured, not active", holding=False)
        self.get_logger().info(f"not active any more: {reason}")

    def _tear_down(self) -> None:
        if self._thread is not None:
            if not self._thread.end(_PLAN_END_S):
                self.get_logger().warning("a plan is still being made; its result is dropped")
            self._thread = None
            self.destroy_subscription(self._camera_subscription)
            self.destroy_subscription(self._episode_subscription)
            self._control.destroy()
            self.destroy_timer(self._replan_timer)
            for publisher in (
                self._command_publisher, self._plan_publisher, self._imagination_publisher
            ):
                self.destroy_lifecycle_publisher(publisher)
        self._session = None
        self._report = PlannerReport()

    # --- what the requests need (`lewm_ros.planner_requests.Host`) -------------------------------

    def why_not(self) -> str:
        """Why no goal can be taken at all now; empty if one can."""
        if not self._active:
            return "the planner is not active: configure and activate it first"
        return self._latch.reason

    def stopped(self) -> bool:
        """Whether ``~/stop`` is latched."""
        return self._latch.latched

    def goal_picture(self, source: Image | str) -> NDArray[np.uint8]:
        """Return a goal as the model sees it, ``(3, S, S)``.

        Raises:
            ImageError: It cannot be read or has another size than the camera's pictures.
        """
        session = self._require_session()
        read = goal_from_file if isinstance(source, str) else goal_from_message
        return read(source, session.contract.camera, session.image_size)

    def tolerance(self, asked: float) -> float | None:
        """Return the tolerance for a goal that asked for this one (0: the default)."""
        return asked if asked > 0.0 else self._require_session().default_tolerance(self._settings)

    def pursue(self, request: GoalRequest) -> None:
        """Take up a request; one that is under way is pre-empted."""
        self._thread.drop()
        self._require_session().controller.clear_goal()
        self.mission.begin(request, self._now_ns())
        self._want_goal()
        self.get_logger().info(f"pursuing {request.label}, tolerance {request.tolerance}")

    def give_up(self, ending: Ending, message: str) -> None:
        """End what is pursued, and hold from the next command on."""
        if self._session is not None and self._thread is not None:
            self._thread.drop()
            self._session.controller.clear_goal()
        self.mission.end(ending, message)

    def stop(self, reason: str) -> None:
        """Latch the stop, and hold at once."""
        self._latch.stop(reason)
        self.get_logger().warning(f"stopped: {reason}")
        self.give_up(Ending.STOPPED, reason)
        if self._active:
            self._control_now()

    def resume(self) -> bool:
        """Release the stop; the robot stays where it is until a new goal comes."""
        self.get_logger().info("released")
        return self._latch.resume()

    # --- what comes in --------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        if not self._active:
            return
        session = self._require_session()
        camera, now_ns = session.contract.camera, self._now_ns()
        stamp_ns = stamp_to_ns(message.header.stamp) if camera.clock == "header" else now_ns
        if not self._camera.accepts(stamp_ns, now_ns):
            return
        try:
            picture = picture_from_message(message, camera, session.image_size)
        except (ImageError, ValueError) as error:
            self._camera.refuse(" ".join(str(error).split()))
            self.get_logger().warning(
                f"picture refused: {error}", throttle_duration_sec=2.0
            )
            return
        self._camera.accept(stamp_ns)
        self._newest_picture = picture
        session.controller.observe(stamp_ns, picture)
        # More often than the control rate, a distance is of no use to anybody.
        due_ns = self._assessed_ns + round(0.9e9 * session.contract.control_period)
        if self.mission.request is not None and not self._assessed_ns <= stamp_ns < due_ns:
            self._assessed_ns = stamp_ns
            self._thread.want_assessment(self.mission.serial, stamp_ns)

    def _on_episode(self, event: EpisodeEvent) -> None:
        if self._active and event.event == EpisodeEvent.START:
            # A scene was reset: what was seen before belongs to another past.
            self._require_session().controller.reset()

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if self._active:
            self.get_logger().warning("ROS time was set back or its source changed: starting anew")
            self._require_session().controller.reset()
            self._camera.forget()
            self._assessed_ns = -1
            self._control.start()

    def _on_check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        return check_changes(changes, lambda: self._session is not None)

    def _on_parameters(self, _: list[Parameter]) -> None:
        self._settings = read_parameters(self)
        if self._active:
            period_ns = round(self._require_session().replan_period_s(self._settings) * 1e9)
            if self._replan_timer.timer_period_ns != period_ns:
                self._replan_timer.timer_period_ns = period_ns
                self._replan_timer.reset()

    def _hand_over(self, outcome: Outcome) -> None:
        """Called in the planning thread."""
        self._outcomes.put(outcome)
        self._woken.trigger()

    def _on_outcomes(self) -> None:
        while not self._outcomes.empty():
            outcome = self._outcomes.get()
            if not self._active or self.mission.request is None:
                continue
            if outcome.serial != self.mission.serial:
                continue
            if isinstance(outcome, GoalTaken):
                self._goal_taken(outcome)
            elif isinstance(outcome, PlanMade):
                self._plan_made(outcome)
            else:
                self._picture_assessed(outcome)
        if self._active and self._withheld and not self._thread.planning:
            self._withheld = False
            self._control_now()

    def _goal_taken(self, taken: GoalTaken) -> None:
        if taken.failure:
            self.mission.plan_failure = f"the goal cannot be encoded: {taken.failure}"
            return
        self._replan_timer.reset()
        self._thread.want_plan(taken.serial)

    def _plan_made(self, made: PlanMade) -> None:
        report, session, result = self._report, self._require_session(), made.result
        if result.failed:
            if not self.mission.plan_failure:
                self.get_logger().error(f"{result.reason}; the next attempt follows")
            self.mission.plan_failure = result.reason
            return
        if result.plan is None:
            return
        self.mission.plan_failure = ""
        self.mission.plan_cost = float(result.plan.cost[0])
        report.plans += 1
        report.candidates_dropped += result.plan.dropped
        report.encode_times.add(result.encode_s)
        report.plan_times.add(result.plan_s)
        period_s = session.replan_period_s(self._settings)
        report.plans_late += (made.done_ns - made.asked_ns) * 1e-9 > period_s
        self._plan_publisher.publish(
            action_plan(
                session.contract,
                result.plan.actions[0].numpy(),
                result.start_ns,
                result.image_stamp_ns,
                self.mission.plan_cost,
                result.predicted_distances,
            )
        )

    def _picture_assessed(self, seen: PictureAssessed) -> None:
        self.mission.picture_failure = seen.failure
        if seen.failure:
            return
        needed = self._settings.reached_pictures
        if not self.mission.saw(seen.stamp_ns, seen.distance, seen.reached, needed):
            return
        label = self.mission.request.label
        self.get_logger().info(f"goal reached: {label}, distance {seen.distance:.4g}")
        if self.mission.arrive(self._now_ns()):
            self._want_goal()
        else:
            self._require_session().controller.clear_goal()

    def _want_goal(self) -> None:
        mission = self.mission
        self._thread.want_goal(
            GoalWanted(mission.serial, mission.request.picture, mission.request.tolerance)
        )

    # --- what goes out --------------------------------------------------------------------------

    def _on_replan_timer(self) -> None:
        # A plan that is still being made is late (counted when it is done); this one is skipped.
        if self._active and self.mission.request is not None and not self._obstacle():
            if self.mission.plan_failure.startswith("the goal"):
                self._want_goal()
            else:
                self._thread.want_plan(self.mission.serial)

    def _on_control_tick(self) -> None:
        if not self._active:
            return
        self._report.command_jitters.add(self._control.lateness_s(self._now_ns()))
        if self._settings.lock_step and self._thread.planning and not self._latch.latched:
            self._withheld = True
            return
        self._control_now()

    def _control_now(self) -> None:
        """Decide what to do now, publish it, and say so where it changed."""
        now_ns = self._now_ns()
        request = self.mission.request
        if request is not None and request.timed_out(now_ns):
            self.give_up(
                Ending.TIMEOUT, f"{request.label} was not reached in {request.timeout_s:g} s"
            )
        state, command = self._decide(now_ns)
        self._publish_command(command)
        self._update_status(state, command.reason, command.hold)

    def _decide(self, now_ns: int) -> tuple[int, SafeCommand]:
        session, mission = self._require_session(), self.mission
        self._report.image_to_command = math.nan
        if self._latch.latched:
            return PlanStatus.STOPPED, session.guard.hold(self._latch.reason, now_ns)
        if mission.request is None:
            state = PlanStatus.REACHED if mission.reached else PlanStatus.WAITING
            reason = mission.ended_because if mission.reached else (
                f"no goal: {mission.ended_because or 'call ~/set_goal or ~/reach_goal'}"
            )
            return state, session.guard.hold(reason, now_ns)
        obstacle = self._obstacle()
        if obstacle:
            return PlanStatus.WAITING, session.guard.hold(obstacle, now_ns)
        if mission.failure:
            return PlanStatus.FAILED, session.guard.hold(mission.failure, now_ns)
        wanted = session.controller.command(now_ns)
        values = None if wanted.hold else wanted.values
        command = session.guard.check(values, now_ns, self._camera.deadline_ns(), wanted.reason)
        if not command.hold:
            age_s = (now_ns - wanted.image_stamp_ns) * 1e-9
            self._report.image_to_command = age_s
            self._report.command_ages.add(age_s)
            return PlanStatus.PLANNING, command
        if session.controller.wants_plan(now_ns):
            # The plan ran out or was dropped: the next one must not wait for the timer.
            self._thread.want_plan(mission.serial)
        return PlanStatus.WAITING, command

    def _obstacle(self) -> str:
        """Why nothing can be done whatever the plan is; empty if something can."""
        problem = self._camera.problem(self._now_ns())
        if problem and not self.count_publishers(self._camera_subscription.topic_name):
            problem += "; nobody publishes it"
        if not problem and self._command_publisher.get_subscription_count() == 0:
            problem = f"nobody listens on {self._command_publisher.topic_name}"
        return problem

    def _publish_command(self, command: SafeCommand) -> None:
        if command.values is None:
            return
        now_ns = self._now_ns()
        self._command_publisher.publish(self._writer.write(command.values, now_ns))
        self._require_session().controller.record(now_ns, command.values)
        self._report.commands += 1
        self._report.commands_held += command.hold

    def _update_status(self, state: int, reason: str, holding: bool) -> None:
        before = self._report.key()
        self._report.state, self._report.reason = state, reason
        self._report.holding = holding
        self._refresh_report()
        if self._report.key() != before:
            self._publish_status()

    def _refresh_report(self) -> None:
        report, request = self._report, self.mission.request
        report.goal = "" if request is None else request.label
        report.goal_tolerance = math.nan
        if request is not None and request.tolerance is not None:
            report.goal_tolerance = request.tolerance
        report.goal_distance = self.mission.distance
        report.plan_cost = self.mission.plan_cost
        if self._session is not None and self._active:
            report.image_age = self._camera.age_s(self._now_ns())
            report.images = self._camera.counters.received
            report.images_refused = self._camera.counters.refused
            report.commands_clipped = self._session.guard.counters.clipped
            report.commands_slowed = self._session.guard.counters.slowed

    def _publish_status(self) -> None:
        self._status_publisher.publish(self._report.message(self._now_ns()))

    def _on_status_timer(self) -> None:
        now_ns, wall_s = self._now_ns(), time.monotonic()
        if now_ns != self._clock_seen[0]:
            self._clock_seen = (now_ns, wall_s)
        still_s = wall_s - self._clock_seen[1]
        if self._active and still_s > self._settings.clock_timeout:
            reason = f"ROS time stands still for {still_s:.1f} s: does anybody publish /clock?"
            self._publish_command(self._require_session().guard.hold(reason, now_ns))
            self._update_status(PlanStatus.WAITING, reason, holding=True)
        self._refresh_report()
        self._publish_status()
        if self._active:
            self._requests.send_feedback(now_ns)
            self._publish_imagination(now_ns)

    def _publish_imagination(self, now_ns: int) -> None:
        if (
            self._newest_picture is None
            or self._imagination_publisher.get_subscription_count() == 0
        ):
            return
        request = self.mission.request
        caption = f"camera | goal   distance {self.mission.distance:.3g}"
        goal = None if request is None else request.picture
        self._imagination_publisher.publish(
            imagination(self._newest_picture, goal, caption, now_ns)
        )

    def _on_diagnostics_timer(self) -> None:
        hardware = "" if self._session is None else self._session.device
        self._diagnostics.publish(
            self._report.diagnostics(self._now_ns(), self.get_name(), hardware)
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _safely(self, function: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback: an error that nobody thought of holds and is told, not lost."""

        def callback(*arguments: Any) -> None:
            try:
                function(*arguments)
            except Exception as error:
                self.get_logger().error(traceback.format_exc())
                if self._active:
                    reason = f"{type(error).__name__}: {error}"
                    self.mission.plan_failure = reason
                    self._publish_command(
                        self._require_session().guard.hold(reason, self._now_ns())
                    )
                    self._update_status(PlanStatus.FAILED, reason, holding=True)

        return callback


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(PlannerNode, argv)


if __name__ == "__main__":
    sys.exit(main())
