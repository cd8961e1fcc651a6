"""Where the planner's report goes: ``~/status``, ``/diagnostics`` and the log."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode

from lewm_ros import qos
from lewm_ros.msg import PlanStatus
from lewm_ros.planner.status import PlannerReport

#: s after which the log has the same reason to hold again.
_SAME_REASON_S = 5.0


class Reporter:
    """Tells operators and their tools what a `PlannerReport` says.

    Args:
        node: The topics are made on this node and live as long as it does: a planner that is not
            active reports, too.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._logged = ("", 0.0)
        self._status = node.create_publisher(PlanStatus, "~/status", qos.STATUS)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    def tell(self, report: PlannerReport) -> None:
        """Publish ``~/status``. From any thread."""
        self._status.publish(report.message(self._now_ns()))

    def diagnose(self, report: PlannerReport, hardware: str) -> None:
        """Publish ``/diagnostics``; ``hardware`` is where the model runs."""
        name = self._node.get_name()
        self._diagnostics.publish(report.diagnostics(self._now_ns(), name, hardware))

    def log_hold(self, report: PlannerReport) -> None:
        """Log why it holds."""
        # What comes and goes from tick to tick is told once in a while.
        words, now_s = report.words(), time.monotonic()
        if words != self._logged[0] or now_s - self._logged[1] > _SAME_REASON_S:
            self._logged = (words, now_s)
            self._node.get_logger().warning(f"holding: {report.reason}")

    def log_other_drivers(self, others: str, topic: str) -> None:
        """Log who else publishes the commands; empty: nobody does any more."""
        if others:
            self._node.get_logger().warning(
                f"{others} also publishes {topic}: two drivers of one robot disturb each other; "
                "stop one of them, or let a multiplexer such as twist_mux choose"
            )
        else:
            self._node.get_logger().info(f"nobody else publishes {topic} any more")

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
