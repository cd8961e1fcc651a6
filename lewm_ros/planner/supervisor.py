"""Watches over the planner while it is active: its callbacks, its clock, the dead-man switch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool

from lewm_ros import qos
from lewm_ros.planner.clock_watch import ClockWatch
from lewm_ros.planner.parameters import PlannerParameters
from lewm_ros.safety import DeadManSwitch, Watchdog

#: How long the watchdog waits for a command that is just being decided on.
_COMMAND_S = 0.05


class Supervised(Protocol):
    """What the supervisor needs of the planner."""

    def ros_time_ns(self) -> int:
        """ROS time."""
        ...

    def callbacks_stand_still(self, reason: str) -> None:
        """Publish hold in their place; called in the watchdog's thread."""
        ...

    def clock_stands_still(self, still_s: float) -> None:
        """ROS time did not change for so long (s of wall time)."""
        ...

    def clock_was_set(self, step_s: float) -> None:
        """The system's clock was set by so much (s)."""
        ...

    def deadman_released(self) -> None:
        """Somebody let go of the dead-man switch."""
        ...


class Supervisor:
    """Lives from configure to cleanup, works while the planner is active.

    Args:
        node: Timers and subscriptions are made on it.
        planner: What is watched.
        settings: Of the node.
        period_s: Between two looks: the control period.
        safely: Wraps a callback such that an error in it holds.

    Attributes:
        deadman: The dead-man switch; None: the robot needs none.
    """

    def __init__(
        self,
        node: LifecycleNode,
        planner: Supervised,
        settings: PlannerParameters,
        period_s: float,
        safely: Callable[[Callable[..., None]], Callable[..., Any]],
    ) -> None:
        self._node = node
        self._planner = planner
        self._period_s = period_s
        self._commanding = threading.Lock()
        self._watchdog: Watchdog | None = None
        self._pulse = node.create_timer(
            period_s, safely(self._on_pulse), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._pulse.cancel()
        self.deadman: DeadManSwitch | None = None
        self._subscription: Any = None
        if settings.deadman_topic:
            self._subscription = node.create_subscription(
                Bool, settings.deadman_topic, safely(self._on_deadman), qos.DEADMAN
            )
            topic = self._subscription.topic_name
            self.deadman = DeadManSwitch(topic, settings.deadman_timeout)

    def start(self, settings: PlannerParameters) -> None:
        """Watch: the planner is active."""
        simulated = self._node.get_parameter("use_sim_time").value
        self._clock = ClockWatch(simulated, time.monotonic())
        self._watchdog = Watchdog(settings.watchdog_timeout, self._period_s, self._on_hungry)
        self._watchdog.start()
        self._pulse.reset()

    def stop(self) -> None:
        """Watch no more."""
        if self._watchdog is not None:
            self._watchdog.end()
            self._watchdog = None
        self._pulse.cancel()

    def destroy(self) -> None:
        """Free everything."""
        self.stop()
        self._node.destroy_timer(self._pulse)
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)

    @contextmanager
    def commanding(self) -> Iterator[None]:
        """Decide on a command and publish it inside: the watchdog keeps out meanwhile."""
        with self._commanding:
            yield

    def _on_pulse(self) -> None:
        if self._watchdog is None:
            return
        self._watchdog.feed()
        before_s = time.monotonic()
        ros_ns = self._planner.ros_time_ns()
        still_s, step_s = self._clock.look(ros_ns, before_s, time.monotonic())
        if step_s:
            self._planner.clock_was_set(step_s)
        if still_s > 0.0:
            self._planner.clock_stands_still(still_s)

    def _on_deadman(self, message: Bool) -> None:
        self.deadman.hear(message.data, time.monotonic())
        if not message.data:
            self._planner.deadman_released()

    def _on_hungry(self, still_s: float) -> None:
        # The callbacks may stand still inside `commanding`; that must not keep the robot moving.
        locked = self._commanding.acquire(timeout=_COMMAND_S)
        try:
            self._planner.callbacks_stand_still(
                f"the node's callbacks stand still for {still_s:.1f} s: the watchdog holds"
            )
        finally:
            if locked:
                self._commanding.release()
