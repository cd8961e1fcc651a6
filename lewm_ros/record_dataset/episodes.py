"""Puts messages into the episodes they belong to, and episodes into their files.

What the recorder's node does with what it receives; knows no subscriptions, services or timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lewm_core.errors import BagError, UserError
from lewm_ros.msg import EpisodeEvent
from lewm_ros.record_dataset.dataset_folder import (
    LABELS,
    find_episode,
    free_folder,
    label_folder,
    remove_episode,
)
from lewm_ros.record_dataset.disk_guard import DiskGuard
from lewm_ros.record_dataset.episode_file import EpisodeFile
from lewm_ros.record_dataset.episode_span import EpisodeSpan, EpisodeSpans
from lewm_ros.record_dataset.pre_trigger import PreTriggerBuffer
from lewm_ros.record_dataset.topic_taps import TopicTap
from lewm_ros.stamps import stamp_to_ns

_MIB = 2**20

#: Messages kept while no episode is on: those of an episode's first moment may arrive before the
#: event that begins it.
_EARLY_MESSAGES = 256

#: A message: its topic, its header's stamp and its receive time in ns, its bytes.
StampedMessage = tuple[TopicTap, int, int, bytes]


class RecorderEpisodes:
    """The episodes of a recorder: which are on, what they take, how they end.

    Args:
        out: Folder of the dataset.
        settings: Values of the node's parameters.
        taps: Of all topics.
        logger: Of the node.

    Attributes:
        settings: May be replaced: what may change at run time counts from then on.
        spans: The episodes that take messages.
        complaint: What went wrong last; empty since an episode has begun after that.
        disk_failure: What the disk refused last; likewise.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], taps: Sequence[TopicTap], logger: Any
    ) -> None:
        self.settings = settings
        self.spans = EpisodeSpans()
        self.complaint = ""
        self.disk_failure = ""
        self._out = out
        self._taps = taps
        self._logger = logger
        #: The one that has settled last.
        self._settled: EpisodeSpan | None = None
        self._recorded_bytes = 0
        self._early: deque[StampedMessage] = deque(maxlen=_EARLY_MESSAGES)
        self._before: PreTriggerBuffer[StampedMessage] | None = None
        if settings["pre_trigger"]:
            self._before = PreTriggerBuffer(
                settings["pre_trigger"], int(settings["pre_trigger_mib"] * _MIB)
            )

    @property
    def episode(self) -> EpisodeFile | None:
        """The episode that is on, if it has a file."""
        return self.spans.on.file if self.spans.on is not None else None

    # Messages.

    def receive(
        self, messages: Iterable[StampedMessage], events: Sequence[EpisodeEvent] = ()
    ) -> None:
        """Handle what has arrived: first events, then messages."""
        for event in events:
            self._follow(event)
        if events:
            early, self._early = self._early, deque(maxlen=_EARLY_MESSAGES)
            self.keep(early)
        self.keep(messages)
        if self.spans.on is not None and self.spans.on.file is None:
            self._try_open(self.spans.on)

    def keep(self, messages: Iterable[StampedMessage]) -> None:
        """Put each message into the episode it belongs to."""
        for message in messages:
            tap, stamp_ns, receive_ns, data = message
            span = self.spans.owner(stamp_ns)
            if span is None:
                self._keep_early(message)
                continue
            if span.file is None and not self._try_open(span):
                continue
            if tap.topic not in span.file.counters:
                span.file.add_topic(tap.topic, str(tap.type_name), qos=tap.offered)
            if not span.file.put(tap.topic, receive_ns, data):
                reason = span.file.failure or "the queue is full: the disk is too slow"
                self._complain(f"{span.file.name}: messages are dropped, {reason}")

    def _keep_early(self, message: StampedMessage) -> None:
        """Keep a message that belongs to no episode, until its episode begins."""
        tap, stamp_ns, receive_ns, data = message
        if self._before is not None:
            short = self._before.short
            self._before.add(receive_ns, len(data), message)
            if self._before.short and not short:
                self._complain(
                    f"pre_trigger_mib {self.settings['pre_trigger_mib']:g} does not hold "
                    f"pre_trigger {self.settings['pre_trigger']:g} s: the oldest messages go"
                )
        if not self.settings["follow_events"]:
            return
        self._early.append(message)
        last = self._settled
        if last is not None and last.holds(stamp_ns) and tap.stamp_ns(data) is not None:
            self._complain(
                f"{tap.topic}: messages of episode {last.title} arrived after its file was "
                "closed: raise settle_time"
            )

    def lost(self, topic: str, count: int) -> None:
        """Note that the middleware lost messages."""
        files = [span.file for span in self.spans if span.file is not None]
        if files and count > 0:
            files[-1].lost(topic, count)
            self._complain(f"{topic}: the middleware lost {count} messages")

    # Episodes.

    def begin(self, reason: str, now_ns: int) -> str:
        """Begin an episode without an event and return its name.

        Args:
            reason: For the log.
            now_ns: Receive time of what arrives now: the end of the time before the start.

        Raises:
            UserError: If one is on, or the disk guard refuses.
            OSError: If its folder cannot be made.
        """
        self.require_none_on()
        span = EpisodeSpan()
        name = self._open(span, reason)
        self.spans.on = span
        if self._before is not None:
            before = self._before.take(now_ns)
            self.keep(before)
            span.file.early = len(before)
        return name

    def require_none_on(self) -> None:
        """Refuse a second episode.

        Raises:
            UserError: One is on.
        """
        if self.spans.on is not None:
            raise UserError(f"episode {self.spans.on.title} is on: call stop_episode first")

    def finish_settled(self, now: float) -> None:
        """Close the files of the episodes that have settled by now, in s of `time.monotonic`."""
        for span in self.spans.settled(now):
            self.finish(span)
            self._settled = span

    def guard_disk(self) -> str:
        """End episodes that the disk does not take; return why nothing may be recorded."""
        guard = self.disk_complaint()
        if guard and any(self.spans):
            for span in list(self.spans):
                self.finish(span, "disk guard")
            self._complain(guard)
        for span in list(self.spans):
            if span.file is not None and span.file.failure is not None:
                self.finish(span, "disk failure")
        if self.episode is not None:
            for text in self.episode.complaints.values():
                self._complain(text)
        return guard

    def label(self, name: str, label: str) -> str:
        """Label an episode and return which one it was.

        Raises:
            UserError: The label or the episode is not known.
            OSError: The disk refuses.
        """
        if label not in LABELS:
            raise UserError(f"label {label!r} is none of success, failure, discard")
        span = self.spans.find(name)
        if span is not None:
            if label == "discard":
                return self.finish(span, "label", discard=True)
            span.label = label
            return span.title
        folder = find_episode(self._out, name)
        if label == "discard":
            remove_episode(folder)
            self._logger.info(f"episode {folder.name} is discarded, as its label asks")
        else:
            label_folder(folder, label)
        return folder.name

    def _follow(self, event: EpisodeEvent) -> None:
        """Do what an event asks for."""
        stamp_ns = stamp_to_ns(event.header.stamp)
        begins = event.event == EpisodeEvent.START
        if begins:
            self.spans.settle("next episode", stamp_ns - 1, self.settings["settle_time"])
            self.spans.on = EpisodeSpan(event.episode, stamp_ns)
        span = self.spans.on
        if span is None or event.episode != span.name:
            # Ended already, by its teleoperation node or expert, or not ours.
            return
        span.events.append(
            {
                "event": "start" if begins else "end",
                "episode": event.episode,
                "seed": event.seed,
                "label": event.label,
                "stamp_ns": stamp_ns,
            }
        )
        if not begins and event.label == "discard":
            self.finish(span, "event", discard=True)
        elif not begins:
            # What a person said goes before an event that says nothing.
            span.label = event.label or span.label
            self.spans.settle("event", stamp_ns, self.settings["settle_time"])

    def _try_open(self, span: EpisodeSpan) -> bool:
        """Make the file of an episode that follows events; one that cannot be made is given up."""
        try:
            self._open(span, "event")
        except (UserError, OSError) as error:
            self.spans.remove(span)
            self._complain(str(error))
            return False
        return True

    def _open(self, span: EpisodeSpan, reason: str) -> str:
        """Make an episode's file and return its name.

        Raises:
            UserError: If the disk guard refuses.
            OSError: If its folder cannot be made.
        """
        guard = self.disk_complaint()
        if guard:
            raise BagError(guard)
        folder = free_folder(self._out, span.name, self.settings["episode_prefix"])
        queue_bytes = int(self.settings["queue_mib"] * _MIB)
        span.file = EpisodeFile(folder, queue_bytes, self.settings["storage"])
        self.complaint = self.disk_failure = ""
        span.file.events = span.events
        if span.reason:
            span.file.over()
        for tap in self._taps:
            if tap.connected:
                span.file.add_topic(tap.topic, str(tap.type_name), qos=tap.offered)
        missing = [tap.topic for tap in self._taps if not tap.connected]
        waiting = f"; no publisher yet of {', '.join(missing)}" if missing else ""
        self._logger.info(f"episode {folder.name} begins ({reason}){waiting}")
        return folder.name

    def finish(self, span: EpisodeSpan, reason: str = "", discard: bool = False) -> str:
        """Close an episode's file, if it has one, and return its name.

        Args:
            span: The episode.
            reason: For the report; empty: why it has ended.
            discard: Whether to delete it.
        """
        self.spans.remove(span)
        name, file = span.title, span.file
        nothing = True
        if file is not None:
            report = file.close(reason or span.reason, span.label)
            self._recorded_bytes += file.size
            nothing = span.since_ns is not None and not file.received
            if file.failure is not None:
                self.disk_failure = report["error"]
                self._logger.error(f"{name}: {self.disk_failure}")
            if discard or nothing:
                self._remove(file.folder)
            elif report["error"]:
                self._complain(f"{name}: {report['error']}")
        if discard:
            outcome = f"is discarded, as its {reason} asks"
        elif nothing:
            # Most often a late joiner hears of it, which missed it (see qos.EPISODE_PUBLISHER).
            outcome = "is over: nothing recorded"
        else:
            outcome = f"ended ({reason or span.reason}): {file.summary()}"
        self._logger.info(f"episode {name} {outcome}")
        return name

    def _remove(self, folder: Path) -> None:
        """Delete an episode's folder; if the disk refuses that, nothing else may stop."""
        try:
            remove_episode(folder)
        except OSError as error:
            self._complain(f"{folder} cannot be deleted: {error}")

    def disk_complaint(self) -> str:
        """Return why nothing may be recorded, or an empty text."""
        current = sum(span.file.size for span in self.spans if span.file is not None)
        guard = DiskGuard(
            self._out, self.settings["minimum_free_gib"], self.settings["quota_gib"]
        )
        return guard.complaint(self._recorded_bytes + current)

    def _complain(self, text: str) -> None:
        self.complaint = " ".join(text.split())
        self._logger.error(self.complaint, throttle_duration_sec=1.0)
