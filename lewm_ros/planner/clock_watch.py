"""Does ROS time go on, and does nobody set it? Judged by a clock that does neither; no ROS inside.

rclpy tells of jumps of simulated time. It does not tell when simulated time stands still, and not
when somebody sets the system's clock, which is ROS time on a robot.
"""

from __future__ import annotations

#: s between two looks by which the system's clock may be corrected; more is a step.
STEP_S = 0.1


class ClockWatch:
    """Compares ROS time with a monotonic clock, look by look.

    Args:
        simulated: Whether ROS time is simulated: then it may run at any speed.
        now_s: The monotonic clock, s.
    """

    def __init__(self, simulated: bool, now_s: float) -> None:
        self._simulated = simulated
        self._ros_ns: int | None = None
        self._changed_s = now_s
        self._offset_ns: int | None = None

    def look(self, ros_ns: int, before_s: float, after_s: float) -> tuple[float, float]:
        """Take in one look.

        Args:
            ros_ns: ROS time.
            before_s: The monotonic clock before ROS time was read, s.
            after_s: And after, s.

        Returns:
            For how long ROS time stands still (s), and by how much it was set since the look before
            (s; 0 unless it is more than `STEP_S`).
        """
        if ros_ns != self._ros_ns:
            self._ros_ns, self._changed_s = ros_ns, after_s
        still_s = after_s - self._changed_s
        if self._simulated or after_s - before_s > STEP_S / 10:
            # Interrupted between the two clocks: no difference between them means anything.
            return still_s, 0.0
        before_ns, self._offset_ns = self._offset_ns, ros_ns - round(after_s * 1e9)
        step_s = 0.0 if before_ns is None else (self._offset_ns - before_ns) * 1e-9
        return still_s, step_s if abs(step_s) > STEP_S else 0.0
