"""Asks a running planner to reach goals in a running scene, and watches what happens.

Only topics, services and actions of the two nodes are used, as any other client would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import rclpy
import rclpy.executors
from builtin_interfaces.msg import Duration
from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from lewm_core.data import Contract
from lewm_core.errors import UserError
from lewm_ros import codecs, qos
from lewm_ros.action import ReachGoal
from lewm_ros.msg import PlanStatus
from lewm_ros.srv import ResetScene

Picture = npt.NDArray[np.uint8]

#: ReachGoal's result codes as words.
REASONS = {
    value: name.lower()
    for name, value in vars(ReachGoal.Result).items()
    if name.isupper() and isinstance(value, int)
}


@dataclass
class GoalTrace:
    """What was seen while one goal was pursued.

    Attributes:
        pictures: Of the camera, each ``(H, W, 3)`` uint8 RGB.
        states: Ground truth of the scene at the control rate, each ``(S,)``.
        reason: Why the planner stopped, as in ReachGoal's result.
        message: The same as a sentence.
        plan_times_s: Of every plan made.
        encode_times_s: Of every plan's pictures.
        image_to_command_s: Age of the picture behind the command, at every status report.
        commands_held: Hold commands published meanwhile.
        commands: All commands published meanwhile.
    """

    pictures: list[Picture] = field(default_factory=list)
    states: list[npt.NDArray[np.float64]] = field(default_factory=list)
    reason: str = ""
    message: str = ""
    plan_times_s: list[float] = field(default_factory=list)
    encode_times_s: list[float] = field(default_factory=list)
    image_to_command_s: list[float] = field(default_factory=list)
    commands_held: int = 0
    commands: int = 0


class GoalRunner(Node):
    """Resets the scene, sends a goal, records pictures, states and reports until it ends."""

    def __init__(self, contract: Contract) -> None:
        """Connect to the scene and the planner.

        Args:
            contract: Names the camera topic and, as its first state topic, the scene's ground
                truth in a sensor_msgs/JointState.
        """
        super().__init__("goal_runner")
        self._lock = threading.Lock()
        self._trace: GoalTrace | None = None
        self._newest_picture_ns = -1
        self._newest_status: PlanStatus | None = None
        self._first_status: PlanStatus | None = None
        self.create_subscription(
            Image, contract.camera.topic, self._on_image, qos.CAMERA_SENSOR_DATA
        )
        self.create_subscription(JointState, contract.states[0].topic, self._on_state, qos.STATE)
        self.create_subscription(PlanStatus, "/planner/status", self._on_status, 50)
        self._reset = self.create_client(ResetScene, "/scene/reset")
        self._reach = ActionClient(self, ReachGoal, "/planner/reach_goal")
        self._executor = rclpy.executors.SingleThreadedExecutor()
        self._executor.add_node(self)
        self._spinner = threading.Thread(target=self._executor.spin, daemon=True)
        self._spinner.start()

    def close(self) -> None:
        """Stop listening."""
        self._executor.shutdown()
        self._spinner.join(timeout=5.0)
        self.destroy_node()

    def wait_ready(self, timeout_s: float, check: Callable[[], None]) -> None:
        """Wait until scene and planner answer and pictures arrive.

        Args:
            timeout_s: For all of it together, wall clock.
            check: Called again and again; raises where waiting is of no use any more.

        Raises:
            UserError: Something did not come up.
        """
        self._wait_for(self._reset.service_is_ready, timeout_s, check, "the scene's reset service")
        self._wait_for(self._reach.server_is_ready, timeout_s, check, "the planner's action server")
        self._wait_for(lambda: self._newest_picture_ns >= 0, timeout_s, check, "camera pictures")
        self._wait_for(
            lambda: self._newest_status is not None
            and self._newest_status.state != PlanStatus.INACTIVE
            and self._newest_status.images > 0,
            timeout_s,
            check,
            "an active planner that sees pictures",
        )

    def pursue(
        self,
        start: npt.NDArray[np.float64],
        goal: Picture | Sequence[Picture],
        timeout_s: float,
        tolerance: float,
        check: Callable[[], None],
    ) -> GoalTrace:
        """Put the scene into ``start`` and let the planner drive to ``goal``.

        Args:
            start: Ground truth of the scene, ``(S,)``.
            goal: ``(H, W, 3)`` uint8 RGB of the camera's size; for a model of several cameras one
                of each, in its order.
            timeout_s: For the goal, in ROS time.
            tolerance: Squared latent distance that counts as reached; 0: the planner's default.
            check: As in `wait_ready`.

        Raises:
            UserError: Scene or planner refused or stopped answering.
        """
        request = ResetScene.Request(seed=-1, state=[float(value) for value in start])
        answer = self._result(self._reset.call_async(request), 20.0, check, "the scene's reset")
        if not answer.success:
            raise UserError(f"the scene refused to reset: {answer.message}")
        reset_ns = self._newest_picture_ns
        self._wait_for(
            lambda: self._newest_picture_ns > reset_ns, 20.0, check, "a picture after the reset"
        )
        message = ReachGoal.Goal(tolerance=float(tolerance))
        pictures = [goal] if isinstance(goal, np.ndarray) else goal
        message.goals = [codecs.encode_image(picture) for picture in pictures]
        message.timeout = Duration(
            sec=int(timeout_s), nanosec=int(round((timeout_s - int(timeout_s)) * 1e9))
        )
        trace = GoalTrace()
        with self._lock:
            self._first_status = self._newest_status
            self._trace = trace
        handle = self._result(
            self._reach.send_goal_async(message), 20.0, check, "the planner's answer to a goal"
        )
        if not handle.accepted:
            raise UserError("the planner refused a goal; its log says why")
        patience_s = 60.0 + 20.0 * timeout_s
        outcome = self._result(handle.get_result_async(), patience_s, check, "the goal's result")
        with self._lock:
            self._trace = None
            if self._first_status is not None and self._newest_status is not None:
                trace.commands = self._newest_status.commands - self._first_status.commands
                trace.commands_held = (
                    self._newest_status.commands_held - self._first_status.commands_held
                )
        trace.reason = REASONS.get(outcome.result.reason, str(outcome.result.reason))
        trace.message = outcome.result.message
        return trace

    def _on_image(self, message: Image) -> None:
        picture = codecs.decode_message(message)
        with self._lock:
            self._newest_picture_ns = codecs.stamp_to_ns(message.header.stamp)
            if self._trace is not None:
                self._trace.pictures.append(picture.copy())

    def _on_state(self, message: JointState) -> None:
        with self._lock:
            if self._trace is not None:
                self._trace.states.append(np.array(message.position, np.float64))

    def _on_status(self, message: PlanStatus) -> None:
        with self._lock:
            previous = self._newest_status
            self._newest_status = message
            if self._trace is None:
                return
            if previous is not None and message.plans > previous.plans:
                self._trace.plan_times_s.append(message.plan_time)
                self._trace.encode_times_s.append(message.encode_time)
            if not message.holding and np.isfinite(message.image_to_command):
                self._trace.image_to_command_s.append(message.image_to_command)

    def _result(self, future, timeout_s: float, check: Callable[[], None], what: str):
        self._wait_for(future.done, timeout_s, check, what)
        return future.result()

    def _wait_for(
        self, condition: Callable[[], bool], timeout_s: float, check: Callable[[], None], what: str
    ) -> None:
        """Wait on the wall clock: simulated time may be what stands still."""
        finished = threading.Event()
        for _ in range(max(1, round(timeout_s / 0.02))):
            if condition():
                return
            check()
            finished.wait(0.02)
        raise UserError(f"{what} did not come within {timeout_s:.0f} s")
