"""Which episode a message belongs to: by its stamp, whatever arrives first. Knows no ROS.

Topics have no order among one another: the event that ends an episode may arrive before the
episode's last messages, or before all of them. So an episode that has ended settles for a moment
before its file is closed, beside the next one, which may be on already.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lewm_ros.record_dataset.episode_file import EpisodeFile


@dataclass(eq=False)
class EpisodeSpan:
    """An episode, from its begin until its file is closed.

    Attributes:
        name: As announced; empty: the next number.
        since_ns: Messages stamped earlier do not belong to it; None: no limit.
        until_ns: Messages stamped later do not belong to it; None: no limit, it is on.
        reason: Why it has ended; empty while it is on.
        closes_at: When its file is closed, in s of `time.monotonic`: simulated time may stand
            still, or run many times faster than messages travel.
        events: What is known of its begin and end, for the report.
        label: ``success``, ``failure`` or empty, for the report.
        file: Where its messages go; None while there is nothing to write. An episode that is
            known to be over gets one with its first message: a recorder that joins late hears
            of episodes of which it will see nothing (see `lewm_ros.qos.EPISODE_PUBLISHER`).
    """

    name: str = ""
    since_ns: int | None = None
    until_ns: int | None = None
    reason: str = ""
    closes_at: float = math.inf
    events: list[dict[str, Any]] = field(default_factory=list)
    label: str = ""
    file: EpisodeFile | None = None

    @property
    def title(self) -> str:
        """How messages for operators call it."""
        return self.file.name if self.file is not None else self.name or "(without a name)"

    @property
    def begin(self) -> float:
        """Stamp from which on messages belong to it, ns."""
        return -math.inf if self.since_ns is None else self.since_ns

    def holds(self, stamp_ns: int) -> bool:
        """Return whether a message stamped at this time (ns) belongs to it."""
        return stamp_ns >= self.begin and (self.until_ns is None or stamp_ns <= self.until_ns)


class EpisodeSpans:
    """The episodes that take messages: one may be on, others have ended and settle.

    Iterating gives those that settle, oldest first, then the one that is on.

    Attributes:
        on: The episode that is on, or None.
        settling: Those that have ended and wait for messages that are on their way.
    """

    def __init__(self) -> None:
        self.on: EpisodeSpan | None = None
        self.settling: list[EpisodeSpan] = []

    def __iter__(self) -> Iterator[EpisodeSpan]:
        yield from self.settling
        if self.on is not None:
            yield self.on

    def find(self, name: str) -> EpisodeSpan | None:
        """Return the episode of this name; empty: the one that is on, or else the newest.

        Of several with the same name it is the newest.
        """
        return next((span for span in reversed([*self]) if name in ("", span.title)), None)

    def owner(self, stamp_ns: int) -> EpisodeSpan | None:
        """Return the episode that a message stamped at this time (ns) belongs to, or None.

        Where two touch, or a clock was set back, it is the one with the latest begin, and of two
        with the same begin the newer one.
        """
        found: EpisodeSpan | None = None
        for span in self:
            if span.holds(stamp_ns) and (found is None or span.begin >= found.begin):
                found = span
        return found

    def settle(self, reason: str, until_ns: int, settle_s: float) -> None:
        """End the episode that is on, if any; it goes on taking messages that belong to it.

        Args:
            reason: Why it ends.
            until_ns: Stamp of its last moment, ns.
            settle_s: s of real time for which its file stays open.
        """
        span, self.on = self.on, None
        if span is None:
            return
        span.reason, span.until_ns = reason, until_ns
        span.closes_at = time.monotonic() + settle_s
        if span.file is not None:
            span.file.over()
        self.settling.append(span)

    def settled(self, now: float) -> list[EpisodeSpan]:
        """Return the episodes whose files are to be closed by now, in s of `time.monotonic`."""
        return [span for span in self.settling if span.closes_at <= now]

    def remove(self, span: EpisodeSpan) -> None:
        """Take no more messages for an episode; a second time does nothing."""
        if span is self.on:
            self.on = None
        elif span in self.settling:
            self.settling.remove(span)
