"""Is there a picture one may act on? Judged by header stamps against ROS time; no ROS inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

_NS = 1e-9


@dataclass
class CameraCounters:
    """Messages since activation."""

    received: int = 0
    accepted: int = 0
    refused: int = 0


class CameraWatch:
    """Knows the newest usable picture's stamp and what was wrong with the others.

    A picture that cannot be used is no picture: it is counted, its reason kept, and the age of
    the last usable one decides. So one broken frame does not stop a robot, a broken stream does.

    Args:
        topic: For the reasons.
        timeout_s: A picture older than this must not be acted on; a stamp further than this in
            the future is refused.
    """

    def __init__(self, topic: str, timeout_s: float) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self.counters = CameraCounters()
        self._newest_ns: int | None = None
        self._refusal = ""

    @property
    def newest_ns(self) -> int | None:
        """Header stamp of the newest usable picture; None before the first."""
        return self._newest_ns

    def reset(self) -> None:
        """Forget everything: the node was activated anew, or the clock jumped."""
        self.counters = CameraCounters()
        self.forget()

    def forget(self) -> None:
        """Forget the pictures but keep counting."""
        self._newest_ns = None
        self._refusal = ""

    def accepts(self, stamp_ns: int, now_ns: int) -> bool:
        """Judge a message by its stamp alone, before its picture is decoded.

        Returns:
            True if the picture is the newest and of this moment. What is merely out of order is
            passed over without becoming a reason to hold.
        """
        self.counters.received += 1
        if (stamp_ns - now_ns) * _NS > self._timeout_s:
            self._refuse(
                f"its stamp is {(stamp_ns - now_ns) * _NS:.2f} s in the future: set the clocks "
                "of camera and planner to the same time"
            )
            return False
        if (now_ns - stamp_ns) * _NS > self._timeout_s:
            self._refuse(
                f"it is {(now_ns - stamp_ns) * _NS:.2f} s old on arrival (limit "
                f"{self._timeout_s:g} s): the camera is late or its clock differs"
            )
            return False
        return self._newest_ns is None or stamp_ns > self._newest_ns

    def accept(self, stamp_ns: int) -> None:
        """Take note of a picture that was decoded and will be used."""
        self.counters.accepted += 1
        self._newest_ns = stamp_ns
        self._refusal = ""

    def refuse(self, reason: str) -> None:
        """Take note of a picture that cannot be used, and why."""
        self._refuse(reason)

    def age_s(self, now_ns: int) -> float:
        """Seconds since the newest usable picture was taken; NaN before the first."""
        if self._newest_ns is None:
            return math.nan
        return (now_ns - self._newest_ns) * _NS

    def deadline_ns(self) -> int | None:
        """Until when commands may rest on the newest usable picture; None if there is none."""
        if self._newest_ns is None:
            return None
        return self._newest_ns + round(self._timeout_s / _NS)

    def problem(self, now_ns: int) -> str:
        """Why nothing may be done now, in one sentence; empty if the newest picture is good."""
        if self._newest_ns is not None and self.age_s(now_ns) <= self._timeout_s:
            return ""
        if self._refusal:
            return f"no usable picture on {self._topic}: {self._refusal}"
        if self._newest_ns is None:
            return f"no picture on {self._topic} yet"
        return (
            f"the newest picture on {self._topic} is {self.age_s(now_ns):.2f} s old "
            f"(limit {self._timeout_s:g} s)"
        )

    def _refuse(self, reason: str) -> None:
        self.counters.refused += 1
        self._refusal = reason
