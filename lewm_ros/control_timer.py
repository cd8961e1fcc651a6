"""The control rate, on whole multiples of the control period of ROS time.

A timer that begins at some moment ticks off the grid of the recorded data by up to a period, and
every action of a plan would come late by as much: actions are planned for the periods between
pictures, and a simulated scene takes its pictures on this grid.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

#: A beginning further from the grid than this share of the period is tried again, so often.
_SLACK, _ATTEMPTS = 0.1, 3


class ControlTimer:
    """Calls back at the control rate.

    Args:
        node: Its clock counts: ROS time.
        period_s: The control period.
        callback: Called at every tick.
    """

    def __init__(self, node: Node, period_s: float, callback: Callable[[], None]) -> None:
        self._node = node
        self._callback = callback
        self._period_ns = round(period_s * 1e9)
        self._attempts = 0
        self._first = node.create_timer(period_s, self._on_first)
        self._regular = node.create_timer(period_s, callback)
        self.stop()

    def start(self) -> None:
        """Begin at the next whole multiple of the period."""
        self.stop()
        self._attempts = _ATTEMPTS
        self._aim()

    def stop(self) -> None:
        """Tick no more."""
        self._first.cancel()
        self._regular.cancel()

    def destroy(self) -> None:
        """Free the timers."""
        self._node.destroy_timer(self._first)
        self._node.destroy_timer(self._regular)

    def lateness_s(self, now_ns: int) -> float:
        """Seconds from the nearest whole multiple of the period."""
        phase_ns = now_ns % self._period_ns
        return min(phase_ns, self._period_ns - phase_ns) * 1e-9

    def _aim(self) -> None:
        remaining_ns = -self._node.get_clock().now().nanoseconds % self._period_ns
        self._first.timer_period_ns = remaining_ns or self._period_ns
        self._first.reset()

    def _on_first(self) -> None:
        self._first.cancel()
        self._attempts -= 1
        lateness_s = self.lateness_s(self._node.get_clock().now().nanoseconds)
        # The clock may have jumped meanwhile, as simulated time does when it begins.
        if lateness_s > _SLACK * self._period_ns * 1e-9 and self._attempts > 0:
            self._aim()
            return
        self._regular.reset()
        self._callback()
