"""The control rate, on whole multiples of the control period of ROS time.

A timer that begins at some moment ticks off the grid of the recorded data by up to a period, and
every action of a plan would come late by as much: actions are planned for the periods between
pictures, and a simulated scene takes its pictures on this grid.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node


class ControlTimer:
    """Calls back at the control rate.

    Args:
        node: Its clock counts: ROS time.
        period_s: The control period.
        callback: Called at every tick.
    """

    def __init__(self, node: Node, period_s: float, callback: Callable[[], None]) -> None:
        self._node = node
        self._period_ns = round(period_s * 1e9)
        self._timer = node.create_timer(period_s, callback)
        self.stop()

    def start(self) -> None:
        """Tick from the next whole multiple of the period on."""
        remaining_ns = -self._node.get_clock().now().nanoseconds % self._period_ns
        # A reset puts the next tick one period from now; the period after it is the one in force
        # then. Ticks that a clock's jump skips are left out, so it stays on the grid.
        self._timer.timer_period_ns = remaining_ns or self._period_ns
        self._timer.reset()
        self._timer.timer_period_ns = self._period_ns

    def stop(self) -> None:
        """Tick no more."""
        self._timer.cancel()

    def destroy(self) -> None:
        """Free the timer."""
        self._node.destroy_timer(self._timer)

    def lateness_s(self, now_ns: int) -> float:
        """Seconds from the nearest whole multiple of the period."""
        phase_ns = now_ns % self._period_ns
        return min(phase_ns, self._period_ns - phase_ns) * 1e-9
