"""How others ask the planner for something: action ``~/reach_goal``, services, episode events."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lewm_core.errors import PlanningError, UserError
from lewm_ros.action import ReachGoal
from lewm_ros.planner.goals import CAPTURE
from lewm_ros.planner.mission import Ending, Goal, GoalRequest, Mission, Outcome
from lewm_ros.planner.status import as_float32
from lewm_ros.srv import SetGoal

#: Goals of one request: each is kept as the model sees it until it is reached.
MOST_GOALS = 256


class Host(Protocol):
    """What the requests need of the planner node. All of it is called in the executor's thread."""

    mission: Mission

    def why_not(self) -> str:
        """Why no goal can be taken at all now; empty if one can."""
        ...

    def stopped(self) -> bool:
        """Whether ``~/stop`` is latched."""
        ...

    def number_of_cameras(self) -> int:
        """How many pictures a goal has: C."""
        ...

    def goal_picture(self, source: Sequence[Image] | str) -> NDArray[np.uint8]:
        """A goal as the model sees it, ``(3 C, S, S)``; raises `UserError`. From any thread."""
        ...

    def captured_picture(self) -> NDArray[np.uint8]:
        """What the cameras show at the moment, ``(3 C, S, S)``; raises `UserError`."""
        ...

    def tolerance(self, asked: float) -> float | None:
        """The tolerance in force for a goal that asked for this one (0: the default)."""
        ...

    def pursue(self, request: GoalRequest) -> None:
        """Take up a request."""
        ...

    def give_up(self, ending: Ending, message: str) -> None:
        """End what is pursued, and hold."""
        ...

    def stop(self, reason: str) -> None:
        """Latch the stop."""
        ...

    def resume(self) -> bool:
        """Release the stop; whether it was latched."""
        ...


class PlannerRequests:
    """The planner's services and its action server.

    Args:
        node: They are made on this node and live as long as it does; while it is not active they
            refuse, with the reason.
        host: The planner behind them.
    """

    def __init__(self, node: LifecycleNode, host: Host) -> None:
        self._node = node
        self._host = host
        self._outcomes: dict[bytes, Future] = {}
        self._current: ServerGoalHandle | None = None
        #: Goals are numbered as they come, by action or service: how many came, and which one was
        #: taken up last. Those up to a number count no more if they are still being read.
        self._arrived = self._taken_up = 0
        self._void = (0, Ending.STOPPED, "")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="goals")
        # In the default group nothing else, not even a command, would go on while it reads a goal.
        reading = ReentrantCallbackGroup()
        node.create_service(SetGoal, "~/set_goal", self._on_set_goal, callback_group=reading)
        node.create_service(Trigger, "~/stop", self._on_stop)
        node.create_service(Trigger, "~/resume", self._on_resume)
        self._server = ActionServer(
            node,
            ReachGoal,
            "~/reach_goal",
            self._on_execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            callback_group=reading,
        )

    def destroy(self) -> None:
        """Take the action server down; the node does so for its services."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._server.destroy()

    def send_feedback(self, now_ns: int) -> None:
        """Tell whoever waits for the goal that is pursued how far it is."""
        request = self._host.mission.request
        if request is None or request.answer is None or self._current is None:
            return
        elapsed_s = request.elapsed_s(now_ns)
        feedback = ReachGoal.Feedback(
            goal_index=request.index,
            distance=as_float32(self._host.mission.distance),
            plan_cost=as_float32(self._host.mission.plan_cost),
        )
        feedback.elapsed.sec = int(elapsed_s)
        feedback.elapsed.nanosec = int((elapsed_s - int(elapsed_s)) * 1e9)
        self._current.publish_feedback(feedback)

    def void(self, ending: Ending, reason: str) -> None:
        """Let no goal be taken up that is still being read: the robot was stopped meanwhile."""
        self._void = (self._arrived, ending, reason)

    def _arrive(self) -> int:
        self._arrived += 1
        return self._arrived

    def _take_up(self, number: int, request: GoalRequest) -> None:
        self._taken_up = number
        self._host.pursue(request)

    def _overtaken(self, number: int) -> Outcome | None:
        """Return how a goal that was just read has ended meanwhile; None: it has not."""
        last, ending, reason = self._void
        if number <= last:
            return Outcome(ending, reason)
        if number < self._taken_up:
            return Outcome(Ending.PREEMPTED, "a newer goal took its place")
        return None

    # --- pictures -------------------------------------------------------------------------------

    async def _read(self, source: Sequence[Image] | str) -> NDArray[np.uint8]:
        """Return a goal picture ``(3 C, S, S)``.

        Raises:
            UserError: It cannot be read.
        """
        if source == CAPTURE:
            return self._host.captured_picture()
        # A file may be large and its disk slow; commands must not wait for it.
        done = Future(executor=self._node.executor)

        def hand_over(read: Any) -> None:
            done.set_result(read)
            # Who awaits is looked at again when the executor's wait ends.
            self._node.executor.wake()

        self._reader.submit(self._host.goal_picture, source).add_done_callback(hand_over)
        finished = await done
        error = finished.exception()
        if error is None or isinstance(error, UserError):
            return finished.result()
        # Whatever it is, whoever asked must hear of it, and the planner goes on.
        raise PlanningError(f"the goal cannot be read: {self._unforeseen(error)}") from error

    def _unforeseen(self, error: BaseException) -> str:
        """Log an error that nobody thought of; returns it as one line for whoever asked."""
        self._node.get_logger().error("".join(traceback.format_exception(error)))
        return f"{type(error).__name__}: {_line(error)}"

    def _broke(self, error: Exception) -> str:
        """Hold, since a request broke while it was taken up; returns why, as one line."""
        reason = self._unforeseen(error)
        self._host.give_up(Ending.FAILED, reason)
        return reason

    # --- services -------------------------------------------------------------------------------

    async def _on_set_goal(
        self, asked: SetGoal.Request, answer: SetGoal.Response
    ) -> SetGoal.Response:
        try:
            answer.message = self._host.why_not() or await self._take_service_goal(asked)
        except Exception as error:
            answer.message = self._broke(error)
        answer.success = not answer.message
        if answer.message:
            self._node.get_logger().warning(f"set_goal refused: {answer.message}")
        return answer

    async def _take_service_goal(self, asked: SetGoal.Request) -> str:
        """Take up the goal of a `SetGoal` request; returns why it cannot be."""
        if asked.path and len(asked.image.data):
            return "both image and path are given: give one"
        if not asked.path and not len(asked.image.data):
            return "neither image nor path is given: give one"
        problem = _tolerance_problem(asked.tolerance)
        if problem:
            return problem
        number = self._arrive()
        try:
            picture = await self._read(asked.path or [asked.image, *asked.further_images])
        except UserError as error:
            return _line(error)
        # Meanwhile somebody may have stopped it.
        refusal, overtaken = self._host.why_not(), self._overtaken(number)
        if not refusal and overtaken is None:
            goal = Goal(picture, self._host.tolerance(asked.tolerance))
            self._take_up(number, GoalRequest([goal], asked.path or "service"))
        return refusal or (overtaken.message if overtaken else "")

    def _on_stop(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        self._host.stop("~/stop was called; ~/resume releases it")
        answer.success = True
        answer.message = "stopped; call ~/resume, then send a goal"
        return answer

    def _on_resume(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        answer.success = True
        answer.message = (
            "released; send a goal" if self._host.resume() else "it was not stopped"
        )
        return answer

    # --- action ---------------------------------------------------------------------------------

    def _on_goal(self, _: ReachGoal.Goal) -> GoalResponse:
        reason = self._host.why_not()
        if reason and not self._host.stopped():
            # There is no message in a rejection; what has one is accepted and ended at once.
            self._node.get_logger().warning(f"reach_goal rejected: {reason}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        key = bytes(handle.goal_id.uuid)
        self._outcomes[key] = Future(executor=self._node.executor)
        self._node.executor.create_task(self._take_action_goal(handle, self._arrive()))
        handle.execute()

    async def _take_action_goal(self, handle: ServerGoalHandle, number: int) -> None:
        """Read the goals, and pursue them; what cannot be taken up ends, and nothing else does."""
        ended = self._outcomes[bytes(handle.goal_id.uuid)]
        try:
            outcome = await self._try_action_goal(handle, number, ended.set_result)
        except Exception as error:
            outcome = Outcome(Ending.FAILED, self._broke(error))
        if outcome is not None:
            self._node.get_logger().warning(f"reach_goal refused: {outcome.message}")
            if not ended.done():
                ended.set_result(outcome)

    async def _try_action_goal(
        self, handle: ServerGoalHandle, number: int, answer: Callable[[Outcome], None]
    ) -> Outcome | None:
        """Take the goals up if they can be; returns how they ended if they cannot."""
        asked = handle.request
        outcome: Outcome | None = None
        try:
            goals = await self._read_goals(asked)
        except UserError as error:
            outcome = Outcome(Ending.INVALID_GOAL, _line(error))
        # Meanwhile somebody may have stopped the planner, cancelled, or asked for something newer.
        if self._host.stopped():
            outcome = Outcome(Ending.STOPPED, self._host.why_not())
        elif self._host.why_not():
            outcome = Outcome(Ending.FAILED, self._host.why_not())
        elif handle.is_cancel_requested:
            outcome = Outcome(Ending.CANCELLED, "cancelled by the client")
        elif outcome is None:
            # By one that was taken up: one that was refused disturbs nobody.
            outcome = self._overtaken(number)
        if outcome is None:
            self._take_up(number, GoalRequest(goals, "action", answer))
            self._current = handle
        return outcome

    async def _read_goals(self, asked: ReachGoal.Goal) -> list[Goal]:
        """Return the goals of an action.

        Raises:
            UserError: Naming the field that cannot be used.
        """
        sources = self._sources(asked)
        number = len(sources)
        tolerances = _one_for_each("tolerances", asked.tolerances, asked.tolerance, number)
        timeouts = _one_for_each("timeouts", asked.timeouts, asked.timeout, number)
        for tolerance in tolerances:
            problem = _tolerance_problem(tolerance)
            if problem:
                raise PlanningError(problem)
        for timeout in timeouts:
            if timeout.sec < 0:
                raise PlanningError(f"timeout is {timeout.sec} s: give 0 (no limit) or more")
        goals = []
        for (name, source), tolerance, timeout in zip(sources, tolerances, timeouts, strict=True):
            try:
                picture = await self._read(source)
            except UserError as error:
                raise PlanningError(f"{name}: {_line(error)}") from error
            timeout_s = timeout.sec + timeout.nanosec * 1e-9
            goals.append(Goal(picture, self._host.tolerance(tolerance), timeout_s))
        return goals

    def _sources(self, asked: ReachGoal.Goal) -> list[tuple[str, Sequence[Image] | str]]:
        """Return each goal's field name, and its pictures (one of each camera) or path.

        Raises:
            UserError: There are none, too many of a kind, or not one of each camera.
        """
        cameras = self._host.number_of_cameras()
        if asked.goals and asked.paths:
            raise PlanningError("both goals and paths are given: give one")
        if not asked.goals and not asked.paths:
            raise PlanningError("goals is empty: give at least one picture, or a path")
        if len(asked.paths) > MOST_GOALS or len(asked.goals) > MOST_GOALS * cameras:
            raise PlanningError(f"more than {MOST_GOALS} goals: send them in several requests")
        if len(asked.goals) % cameras:
            raise PlanningError(
                f"goals has {len(asked.goals)} pictures, but the model sees {cameras} cameras: "
                "give one of each for every goal"
            )
        return [(f"paths[{index}]", path) for index, path in enumerate(asked.paths)] + [
            (f"goals[{first}]", asked.goals[first : first + cameras])
            for first in range(0, len(asked.goals), cameras)
        ]

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if bytes(handle.goal_id.uuid) not in self._outcomes:
            return CancelResponse.REJECT
        if self._current is None or handle.goal_id != self._current.goal_id:
            # Its pictures are being read.
            return CancelResponse.ACCEPT
        self._current = None
        self._host.give_up(Ending.CANCELLED, "cancelled by the client")
        return CancelResponse.ACCEPT

    async def _on_execute(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        outcome = await self._outcomes[bytes(handle.goal_id.uuid)]
        del self._outcomes[bytes(handle.goal_id.uuid)]
        if self._current is not None and handle.goal_id == self._current.goal_id:
            self._current = None
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome.ending == Ending.REACHED:
            handle.succeed()
        else:
            handle.abort()
        self._node.get_logger().info(
            f"reach_goal ended: {outcome.ending.name.lower()}: {outcome.message}"
        )
        return ReachGoal.Result(
            reason=int(outcome.ending),
            message=outcome.message,
            goals_reached=outcome.goals_reached,
            final_distance=as_float32(outcome.final_distance),
        )


def _one_for_each(name: str, given: Sequence[Any], default: Any, number: int) -> Sequence[Any]:
    """Return one value for each goal.

    Raises:
        PlanningError: Some are given, but not one for each.
    """
    if len(given) not in (0, number):
        raise PlanningError(
            f"{name} has {len(given)} values for {number} goals: give one for each, or none"
        )
    return given if len(given) else [default] * number


def _tolerance_problem(tolerance: float) -> str:
    if math.isfinite(tolerance) and tolerance >= 0.0:
        return ""
    return f"tolerance is {tolerance}: give 0 (the default) or a squared latent distance"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
