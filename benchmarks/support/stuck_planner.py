"""The planner node, whose callbacks can be made to stand still: a fault to be injected.

    python benchmarks/support/stuck_planner.py --ros-args ...   # as lewm_ros.planner

A message on ``~/block`` (std_msgs/Float64) keeps the executor's thread for that many seconds, as a
callback that hangs would.
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
    """Node ``planner`` with a topic that blocks it."""

    def __init__(self) -> None:
        super().__init__()
        self.create_subscription(Float64, "~/block", lambda told: time.sleep(told.data), 1)


if __name__ == "__main__":
    sys.exit(run_node(StuckPlanner))
