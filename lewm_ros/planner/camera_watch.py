"""Is there a picture one may act on? Judged by header stamps against ROS time; no ROS inside."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NS = 1e-9

#: Bytes of a picture that its fingerprint looks at: all of a small one, some of each row of a large
#: one, since a camera's noise is everywhere.
_FINGERPRINT_BYTES = 2**18


def fingerprint(data: NDArray[np.uint8]) -> int:
    """Return a number that is the same for the same bytes.

    Args:
        data: ``(N,)``, a message's picture as it came.
    """
    step = max(1, -(-len(data) // _FINGERPRINT_BYTES))
    # Odd, so that over rows of even length it does not always meet the same columns and channels.
    sample = data if step == 1 else data[:: step | 1]
    return zlib.crc32(np.ascontiguousarray(sample))


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

    Attributes:
        frozen_timeout_s: Pictures that stay the same for this long, while the robot is commanded to
            move, must not be acted on; 0: however long.
    """

    def __init__(self, topic: str, timeout_s: float) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self.frozen_timeout_s = 0.0
        self.counters = CameraCounters()
        self.forget()

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
        self._fingerprint: int | None = None
        self.try_again()

    def try_again(self) -> None:
        """Let pictures that stay the same count from now on: somebody asks for motion anew."""
        self._same_s = 0.0

    @property
    def frozen(self) -> bool:
        """Whether the pictures have stayed the same for too long."""
        return 0.0 < self.frozen_timeout_s <= self._same_s

    def compare(self, mark: int, stamp_ns: int, moving: bool) -> None:
        """Note whether a picture is the same as the one before; before `accept`.

        Args:
            mark: Its `fingerprint`.
            stamp_ns: When it was taken.
            moving: Whether the robot was commanded to move since the one before.
        """
        if mark != self._fingerprint:
            self._fingerprint, self._same_s = mark, 0.0
        elif moving and self._newest_ns is not None and not self.frozen:
            self._same_s += (stamp_ns - self._newest_ns) * _NS

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
        if self.frozen:
            return (
                f"the picture on {self._topic} has not changed for {self._same_s:.2f} s while the "
                "robot was commanded to move: the camera is frozen or the robot does not move; a "
                "new picture or a new goal goes on"
            )
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
