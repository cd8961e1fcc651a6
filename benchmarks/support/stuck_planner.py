"""The planner node, with faults that cannot be injected from outside.

    python benchmarks/support/stuck_planner.py --ros-args ...   # as lewm_ros.planner

A message on ``~/block`` (std_msgs/Float64) keeps the executor's thread for that many seconds, as a
callback that hangs would. One on ``~/shift_clock`` sets its clock off by so many seconds, as
somebody would who sets the system's clock.
"""

from __future__ import annotations

import sys
import time

from lewm_ros.missing import ros_imports

with ros_imports("benchmarks/support/stuck_planner.py"):
    from std_msgs.msg import Float64

    from lewm_ros.planner.node import PlannerNode
    from lewm_ros.runtime import run_node


class StuckPlanner(PlannerNode):
    """Node ``planner`` with two topics that do it harm."""

    _shift_ns = 0

    def __init__(self) -> None:
        super().__init__()
        self.create_subscription(Float64, "~/block", lambda told: time.sleep(told.data), 1)
        self.create_subscription(Float64, "~/shift_clock", self._on_shift, 1)

    def _on_shift(self, told: Float64) -> None:
        self._shift_ns = round(told.data * 1e9)

    def _now_ns(self) -> int:
        return super()._now_ns() + self._shift_ns


if __name__ == "__main__":
    sys.exit(run_node(StuckPlanner))
