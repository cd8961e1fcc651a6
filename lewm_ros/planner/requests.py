"""How others ask the planner for something: action ``~/reach_goal``, services, episode events."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lewm_core.errors import UserError
from lewm_ros.action import ReachGoal
from lewm_ros.planner.mission import Ending, GoalRequest, Mission, Outcome
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
        """A goal as the model sees it, ``(3 C, S, S)``; raises `UserError`."""
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
        node.create_service(SetGoal, "~/set_goal", self._on_set_goal)
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
        )

    def destroy(self) -> None:
        """Take the action server down; the node does so for its services."""
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

    # --- services -------------------------------------------------------------------------------

    def _on_set_goal(self, asked: SetGoal.Request, answer: SetGoal.Response) -> SetGoal.Response:
        answer.message = self._host.why_not() or self._take_service_goal(asked)
        answer.success = not answer.message
        if answer.message:
            self._node.get_logger().warning(f"set_goal refused: {answer.message}")
        return answer

    def _take_service_goal(self, asked: SetGoal.Request) -> str:
        """Take up the goal of a `SetGoal` request; returns why it cannot be."""
        if asked.path and len(asked.image.data):
            return "both image and path are given: give one"
        if not asked.path and not len(asked.image.data):
            return "neither image nor path is given: give one"
        problem = _tolerance_problem(asked.tolerance)
        if problem:
            return problem
        try:
            pictures = [asked.image, *asked.further_images]
            picture = self._host.goal_picture(asked.path or pictures)
        except UserError as error:
            return _line(error)
        tolerance = self._host.tolerance(asked.tolerance)
        self._host.pursue(GoalRequest([picture], asked.path or "service", tolerance))
        return ""

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
        future = Future(executor=self._node.executor)
        self._outcomes[bytes(handle.goal_id.uuid)] = future
        outcome = self._refusal(handle.request)
        if outcome is not None:
            self._node.get_logger().warning(f"reach_goal refused: {outcome.message}")
            future.set_result(outcome)
        else:
            self._take_action_goal(handle, future.set_result)
        handle.execute()

    def _refusal(self, asked: ReachGoal.Goal) -> Outcome | None:
        """Why this request is not taken up, or None. One that is under way goes on then."""
        if self._host.stopped():
            return Outcome(Ending.STOPPED, self._host.why_not())
        problem = _tolerance_problem(asked.tolerance)
        cameras = self._host.number_of_cameras()
        if not asked.goals:
            problem = "goals is empty: give at least one picture"
        elif len(asked.goals) > MOST_GOALS * cameras:
            problem = f"goals has {len(asked.goals)} pictures: give at most {MOST_GOALS} goals"
        elif len(asked.goals) % cameras:
            problem = (
                f"goals has {len(asked.goals)} pictures, but the model sees {cameras} cameras: "
                "give one of each for every goal"
            )
        if asked.timeout.sec < 0:
            problem = f"timeout is {asked.timeout.sec} s: give 0 (no limit) or more"
        if problem:
            return Outcome(Ending.INVALID_GOAL, problem)
        for index, images in enumerate(self._goals(asked)):
            try:
                self._host.goal_picture(images)
            except UserError as error:
                return Outcome(Ending.INVALID_GOAL, f"goals[{index * cameras}]: {_line(error)}")
        return None

    def _goals(self, asked: ReachGoal.Goal) -> list[Sequence[Image]]:
        """The pictures of each goal, one of each camera."""
        cameras = self._host.number_of_cameras()
        return [
            asked.goals[first : first + cameras] for first in range(0, len(asked.goals), cameras)
        ]

    def _take_action_goal(
        self, handle: ServerGoalHandle, answer: Callable[[Outcome], None]
    ) -> None:
        asked = handle.request
        pictures = [self._host.goal_picture(images) for images in self._goals(asked)]
        timeout_s = asked.timeout.sec + asked.timeout.nanosec * 1e-9
        request = GoalRequest(
            pictures, "action", self._host.tolerance(asked.tolerance), timeout_s, answer
        )
        self._host.pursue(request)
        self._current = handle

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._current is None or handle.goal_id != self._current.goal_id:
            return CancelResponse.REJECT
        self._current = None
        self._host.give_up(Ending.CANCELLED, "cancelled by the client")
        return CancelResponse.ACCEPT

    async def _on_execute(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        outcome = await self._outcomes.pop(bytes(handle.goal_id.uuid))
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


def _tolerance_problem(tolerance: float) -> str:
    if math.isfinite(tolerance) and tolerance >= 0.0:
        return ""
    return f"tolerance is {tolerance}: give 0 (the default) or a squared latent distance"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
