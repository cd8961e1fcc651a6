"""The planner node, if it is running: its lifecycle state, its newest report, its clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

from lewm_ros import qos
from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.msg import PlanStatus
from lewm_ros.planner.status import STATE_NAMES

_CHECK = "planner"
_ANSWER_S = 2.0


class PlannerProbe:
    """Asks the planner; made before the executor spins, asked while it does.

    Args:
        node: That asks.
        planner: Full name of the planner's node.
    """

    def __init__(self, node: Node, planner: str) -> None:
        self._node = node
        self._planner = planner
        self._statuses: list[PlanStatus] = []
        self._state = node.create_client(GetState, f"{planner}/get_state")
        self._parameters = node.create_client(GetParameters, f"{planner}/get_parameters")
        node.create_subscription(
            PlanStatus, f"{planner}/status", self._statuses.append, qos.STATUS
        )

    def judge(self, simulated: bool) -> list[Finding]:
        """Ask and judge; waits a few seconds at most.

        Args:
            simulated: ``use_sim_time`` of this node.
        """
        present = [
            name
            for name, space in self._node.get_node_names_and_namespaces()
            if f"{space.rstrip('/')}/{name}" == self._planner
        ]
        if not present:
            return [ok(_CHECK, f"{self._planner} is not running")]
        if len(present) > 1:
            return [
                fail(
                    _CHECK, f"{len(present)} nodes are called {self._planner}",
                    "stop all but one: both would drive the robot",
                )
            ]
        state = self._ask(self._state, GetState.Request())
        if state is None:
            return [
                fail(
                    _CHECK, f"{self._planner} does not answer within {_ANSWER_S:g} s",
                    "see its log; start it anew",
                )
            ]
        return [
            self._judge_status(state.current_state.label),
            *self._judge_parameters(simulated),
        ]

    def _judge_status(self, label: str) -> Finding:
        if not self._statuses:
            return warning(
                _CHECK, f"{self._planner} is {label}, but nothing came on its status topic",
                "look for a remapping of status",
            )
        return judge_status(self._planner, label, self._statuses[-1])

    def _judge_parameters(self, simulated: bool) -> Sequence[Finding]:
        answer = self._ask(self._parameters, GetParameters.Request(names=["use_sim_time"]))
        if answer is None or not answer.values:
            return []
        theirs = answer.values[0].bool_value
        if theirs == simulated:
            return []
        return [
            fail(
                f"{_CHECK}: clock", f"{self._planner} has use_sim_time "
                f"{str(theirs).lower()}, the doctor {str(simulated).lower()}",
                "start all nodes with the same use_sim_time",
            )
        ]

    def _ask(self, client: Any, request: Any) -> Any:
        """Return the answer, or None if there is none in time."""
        deadline = time.monotonic() + _ANSWER_S
        if not client.wait_for_service(_ANSWER_S):
            return None
        future = client.call_async(request)
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.02)
        return future.result() if future.done() else None


def judge_status(planner: str, label: str, status: PlanStatus) -> Finding:
    """Judge the newest report.

    Args:
        planner: Its name.
        label: Its lifecycle state.
        status: The report.
    """
    check, reason = _CHECK, status.reason
    text = f"{planner} is {label}, {STATE_NAMES[status.state]}" + (f": {reason}" if reason else "")
    failed = status.state == PlanStatus.FAILED or (
        status.state == PlanStatus.INACTIVE and ("failed" in reason or "refused" in reason)
    )
    if failed:
        return fail(check, text, "docs/planner-node.md, When it holds")
    if status.state == PlanStatus.STOPPED:
        return warning(check, text, f"call {planner}/resume, then send a goal")
    waits = status.state == PlanStatus.WAITING and not reason.startswith(("no goal", "just"))
    if waits:
        return warning(check, text, "docs/planner-node.md, When it holds")
    return ok(check, text)
