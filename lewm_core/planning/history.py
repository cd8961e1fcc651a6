"""What was seen and what was commanded, by stamps: the planner's memory of the last seconds.

A world model is trained on frames exactly one block apart. A camera delivers at its own rate, so
the history is *sampled*: the newest frame, and those nearest to one, two, ... blocks before it.
All times are integer nanoseconds of one clock (ROS time in the nodes).
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import PlanningError


class FrameHistory:
    """The newest frames, by header stamp.

    Args:
        block_period_s: Seconds between two frames of the history: frame skip / control rate.
        length: Most frames in a sample.
        tolerance_s: How far a frame may lie from where the history wants one; also how far into
            the future a stamp may point, for clocks of two machines are never equal.

    Raises:
        PlanningError: A number is out of range.
    """

    def __init__(self, block_period_s: float, length: int, tolerance_s: float) -> None:
        if block_period_s <= 0 or length < 1 or not 0 <= tolerance_s < block_period_s:
            raise PlanningError(
                f"history of {length} frames every {block_period_s} s with tolerance "
                f"{tolerance_s} s: the period must be above 0, the length at least 1, the "
                "tolerance below the period"
            )
        self.length = length
        self._period_ns = round(block_period_s * 1e9)
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._stamps: list[int] = []
        self._frames: list[Any] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest frame; None if there is none."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp_ns: int, picture: Any) -> None:
        """Remember a frame, and forget those that no sample can need any more.

        A stamp that lies before the newest by more than the tolerance means that the clock was
        set back (a simulation or a bag began anew): everything older is forgotten, because it
        belongs to another past.

        Args:
            stamp_ns: Header stamp.
            picture: ``(3, S, S)`` uint8; kept as it is, not copied.
        """
        if self._stamps and stamp_ns < self._stamps[-1] - self._tolerance_ns:
            self.clear()
        index = bisect.bisect_left(self._stamps, stamp_ns)
        if index < len(self._stamps) and self._stamps[index] == stamp_ns:
            self._frames[index] = picture
            return
        self._stamps.insert(index, stamp_ns)
        self._frames.insert(index, picture)
        oldest_needed = self._stamps[-1] - (self.length - 1) * self._period_ns - self._tolerance_ns
        # A frame that points into the future is not sampled yet, so one span more is kept.
        keep_from = bisect.bisect_left(self._stamps, oldest_needed - self._period_ns)
        del self._stamps[:keep_from], self._frames[:keep_from]

    def clear(self) -> None:
        """Forget all frames."""
        self._stamps.clear()
        self._frames.clear()

    def sample(self, now_ns: int) -> list[tuple[int, Any]]:
        """Return the frames a world model wants to see.

        Args:
            now_ns: Frames stamped later than this (and the tolerance) are left alone.

        Returns:
            ``[(stamp_ns, picture), ...]`` oldest first, at most `length`: the newest frame and
            those nearest to whole blocks before it. It stops at the first block for which no
            frame lies within the tolerance, so that what is returned has no gap. Empty if there
            is no frame.
        """
        newest = bisect.bisect_right(self._stamps, now_ns + self._tolerance_ns) - 1
        if newest < 0:
            return []
        chosen = [newest]
        for blocks_back in range(1, self.length):
            wanted = self._stamps[newest] - blocks_back * self._period_ns
            index = self._nearest(wanted)
            if index >= chosen[-1] or abs(self._stamps[index] - wanted) > self._tolerance_ns:
                break
            chosen.append(index)
        return [(self._stamps[index], self._frames[index]) for index in reversed(chosen)]

    def missing(self, now_ns: int, timeout_ns: int) -> str:
        """Why no plan may rely on the frames now; empty if one may.

        Args:
            now_ns: See `sample`.
            timeout_ns: A newest frame older than this, or as far in the future, cannot be used.
        """
        if not self._stamps:
            return "no picture yet"
        age_ns = now_ns - self._stamps[-1]
        if age_ns > timeout_ns:
            return f"picture {age_ns * 1e-9:.1f} s old (limit {timeout_ns * 1e-9:g} s)"
        if -age_ns > timeout_ns:
            return f"picture stamped {-age_ns * 1e-9:.1f} s in the future; compare the clocks"
        if not self.sample(now_ns):
            return "no picture yet: the first is stamped ahead of the clock"
        return ""

    def _nearest(self, stamp_ns: int) -> int:
        right = bisect.bisect_left(self._stamps, stamp_ns)
        if right == 0:
            return 0
        if right == len(self._stamps):
            return right - 1
        before = stamp_ns - self._stamps[right - 1]
        after = self._stamps[right] - stamp_ns
        return right - 1 if before <= after else right


class CommandLog:
    """The commands that were published, so that past blocks hold what the robot really got.

    Args:
        action_dim: A.
        control_period_s: Seconds between two actions.
        keep_s: How far back commands are remembered.
        timeout_s: The robot's side stops obeying a command that is older; from then on the
            action counts as missing. None: a command holds until the next.
    """

    def __init__(
        self,
        action_dim: int,
        control_period_s: float,
        keep_s: float = 60.0,
        timeout_s: float | None = None,
    ) -> None:
        self.action_dim = action_dim
        self._period_ns = round(control_period_s * 1e9)
        self._keep_ns = round(keep_s * 1e9)
        self._timeout_ns = None if timeout_s is None else round(timeout_s * 1e9)
        self._stamps: deque[int] = deque()
        self._values: deque[NDArray[np.float64]] = deque()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def last(self) -> tuple[int, NDArray[np.float64]] | None:
        """Stamp and values ``(A,)`` of the newest command; None before the first."""
        return (self._stamps[-1], self._values[-1].copy()) if self._stamps else None

    def add(self, stamp_ns: int, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Remember a command. The same stamp again replaces it; an earlier one (the clock was
        set back) forgets everything.

        Args:
            stamp_ns: When it was published.
            values: ``(A,)`` in physical units.

        Raises:
            PlanningError: The shape is not ``(A,)``.
        """
        command = np.array(values, dtype=np.float64)
        if command.shape != (self.action_dim,):
            raise PlanningError(
                f"command has shape {command.shape}, expected ({self.action_dim},)"
            )
        if self._stamps and stamp_ns < self._stamps[-1]:
            self.clear()
        if self._stamps and stamp_ns == self._stamps[-1]:
            self._values[-1] = command
            return
        self._stamps.append(stamp_ns)
        self._values.append(command)
        while self._stamps[0] < stamp_ns - self._keep_ns:
            self._stamps.popleft()
            self._values.popleft()

    def clear(self) -> None:
        """Forget all commands."""
        self._stamps.clear()
        self._values.clear()

    def stood_still(self, since_ns: int, hold: Sequence[float | str]) -> bool:
        """Whether every command in force from ``since_ns`` on was hold.

        Args:
            since_ns: Begin of a control period; if no command was in force in it (see `block`),
                nobody knows: False.
            hold: ``A`` values of the hold command, each a number or ``"last"``.
        """
        first = bisect.bisect_right(self._stamps, since_ns + self._period_ns // 2) - 1
        if first < 0:
            return False
        reference = [
            self._values[first][i] if value == "last" else float(value)
            for i, value in enumerate(hold)
        ]
        return all(
            np.array_equal(self._values[index], reference)
            for index in range(first, len(self._values))
        )

    def block(self, start_ns: int, frame_skip: int) -> NDArray[np.float64]:
        """Return the commands in force during the block that begins at ``start_ns``.

        Control period j of the block begins at ``start_ns + j * control period``; the command that
        was in force in the middle of it counts. A command is meant for the period in which it is
        published, but a timer comes some milliseconds late, and a camera may take its pictures at
        any phase: what was newest at the beginning was replaced at once, or soon.

        Returns:
            ``(F, A)`` in physical units; rows of NaN where nothing was commanded.
        """
        stamps = list(self._stamps)
        block = np.full((frame_skip, self.action_dim), np.nan)
        for step in range(frame_skip):
            tick = start_ns + step * self._period_ns
            index = bisect.bisect_right(stamps, tick + self._period_ns // 2) - 1
            if index < 0:
                continue
            if self._timeout_ns is None or tick - stamps[index] <= self._timeout_ns:
                block[step] = self._values[index]
        return block
