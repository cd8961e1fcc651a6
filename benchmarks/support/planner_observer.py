"""Watches what a planner publishes, and sets it goals: for benchmarks in a process beside it."""

from __future__ import annotations

import bisect
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from lewm_core.data.contract import Contract
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import UserError
from lewm_core.evaluation.goals import StartGoal
from lewm_ros import qos
from lewm_ros.codecs import encode_image, stamp_to_ns
from lewm_ros.command_messages import message_class
from lewm_ros.msg import ActionPlan, PlanStatus
from lewm_ros.srv import ResetScene, SetGoal

_READY_S, _ANSWER_S = 120.0, 20.0
#: Squared latent distance that no picture comes within.
_NEVER_REACHED = 1e-9
#: A status belongs to a command, and a plan may be the one behind it, if it was published at most
#: this long after it: callbacks of one node come one after the other.
_AFTER_NS = 20_000_000
#: Reports and plans that may wait while this process is busy.
_DEPTH = 50

#: A start with its goal, and the goal as each camera of the model sees it.
Task = tuple[StartGoal, list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Command:
    """A command: when it was published and when it came here (ns), and its values ``(A,)``."""

    sent_ns: int
    arrived_ns: int
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """A plan: stamp of its picture and when it was published (ns), its actions ``(steps, A)``."""

    image_ns: int
    sent_ns: int
    actions: NDArray[np.float64]

    def has(self, values: NDArray[np.float64]) -> bool:
        """Whether one of its actions is this ``(A,)``."""
        return bool(np.isclose(self.actions, values, rtol=0.0, atol=1e-7).all(axis=1).any())


@dataclass
class Recording:
    """All that was seen of one camera rate, in order of publication.

    Attributes:
        commands: Of the planner.
        plans: Of the planner.
        statuses: When each was published (ns), and the message.
        pursuits: From when (ns) to when (ns) each goal was pursued undisturbed.
        memory: Resident set of the planner, kB, every half second.
        processor_s: Processor time of each process from the end of the warm-up on, s.
        elapsed_s: Real time of that, s.
    """

    commands: list[Command] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    statuses: list[tuple[int, PlanStatus]] = field(default_factory=list)
    pursuits: list[tuple[int, int]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    processor_s: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = math.nan

    def first_commands(self, commands: Sequence[Command]) -> Iterator[tuple[Plan, int]]:
        """Yield every plan that was followed, with its picture's age (ns) when its first command
        came here."""
        sent = [plan.sent_ns for plan in self.plans]
        followed = -1
        for command in commands:
            index = bisect.bisect_right(sent, command.sent_ns) - 1
            after = bisect.bisect_right(sent, command.sent_ns + _AFTER_NS) - 1
            # A plan is followed from the moment it is made, and published a moment later.
            if after > index and self.plans[after].has(command.values):
                if index < 0 or not self.plans[index].has(command.values):
                    index = after
            if index > followed and self.plans[index].has(command.values):
                followed = index
                yield self.plans[index], command.arrived_ns - self.plans[index].image_ns

    def reason_to_hold(self, command: Command) -> str:
        """Return why a command holds, without the reason's numbers; empty if it does not."""
        index = bisect.bisect_right(
            self.statuses, command.sent_ns + _AFTER_NS, key=lambda entry: entry[0]
        ) - 1
        if index < 0 or not self.statuses[index][1].holding:
            return ""
        words = self.statuses[index][1].reason.split()
        return " ".join(word for word in words if not word[0].isdigit())


class PlannerObserver:
    """Sets goals, resets the scene, and notes what the planner publishes.

    Args:
        contract: Names the command's topic, type and fields.
        domain: ``ROS_DOMAIN_ID``.
        check: Called while waiting; raises where a node has ended.
    """

    def __init__(self, contract: Contract, domain: int, check: Callable[[], None]) -> None:
        self.seen = Recording()
        self._check = check
        self._selectors = [FieldSelector.parse(item.selector) for item in contract.action.fields]
        # A context of its own: that of the process would answer Ctrl-C instead of this program.
        self._context = Context()
        self._context.init(domain_id=domain)
        self._node = node = Node("latency", context=self._context)
        command = contract.action
        node.create_subscription(
            message_class(command.message), command.topic, self._on_command, qos.COMMAND
        )
        node.create_subscription(ActionPlan, "/planner/plan", self._on_plan, _DEPTH)
        node.create_subscription(PlanStatus, "/planner/status", self._on_status, _DEPTH)
        self._reset = node.create_client(ResetScene, "/scene/reset")
        self._set_goal = node.create_client(SetGoal, "/planner/set_goal")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_ready(self) -> None:
        """Wait until both nodes answer and the planner sees pictures.

        Raises:
            UserError: They do not.
        """
        statuses = self.seen.statuses
        self._wait(self._reset.service_is_ready, _READY_S, "the scene's reset service")
        self._wait(self._set_goal.service_is_ready, _READY_S, "the planner's goal service")
        self._wait(
            lambda: bool(statuses)
            and statuses[-1][1].state != PlanStatus.INACTIVE
            and statuses[-1][1].images > 0,
            _READY_S, "an active planner that sees pictures",
        )

    def begin(self, task: Task) -> None:
        """Put the scene to a start, and let the planner pursue the goal.

        Raises:
            UserError: One of them refuses.
        """
        start_goal, pictures = task
        first, *others = [encode_image(picture) for picture in pictures]
        for client, request in (
            (self._reset, ResetScene.Request(seed=-1, state=start_goal.start_truth.tolist())),
            (self._set_goal, SetGoal.Request(
                image=first, further_images=others, tolerance=_NEVER_REACHED
            )),
        ):
            future = client.call_async(request)
            self._wait(future.done, _ANSWER_S, f"an answer of {client.srv_name}")
            if not future.result().success:
                raise UserError(f"{client.srv_name}: {future.result().message}")

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                raise UserError(f"{what} did not come within {timeout_s:.0f} s")
            time.sleep(0.005)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_command(self, message: Any, about: dict[str, int]) -> None:
        now_ns = time.time_ns()
        values = np.array([selector.get(message) for selector in self._selectors])
        self.seen.commands.append(Command(about["source_timestamp"], now_ns, values))

    def _on_plan(self, message: ActionPlan, about: dict[str, int]) -> None:
        actions = np.array(message.actions).reshape(message.steps, -1)
        image_ns = stamp_to_ns(message.image_stamp)
        self.seen.plans.append(Plan(image_ns, about["source_timestamp"], actions))

    def _on_status(self, message: PlanStatus, about: dict[str, int]) -> None:
        self.seen.statuses.append((about["source_timestamp"], message))
