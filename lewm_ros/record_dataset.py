"""Node ``record_dataset``: topics of a contract to bags, one per episode."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lewm_core.data import load_contract
from lewm_core.errors import BagError, UserError
from lewm_ros.dataset_folder import (
    LABELS,
    find_episode,
    free_folder,
    label_folder,
    prepare_folder,
    remove_episode,
)
from lewm_ros.disk_guard import DiskGuard
from lewm_ros.pre_trigger import PreTriggerBuffer
from lewm_ros.runtime import ros_imports, run_node

with ros_imports("lewm_ros.record_dataset"):
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.clock import Clock, ClockType
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.episode_file import EpisodeFile
    from lewm_ros.episode_span import EpisodeSpan, EpisodeSpans
    from lewm_ros.lifecycle import ManagedNode
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.recorder_diagnostics import diagnostics, idle_diagnostics
    from lewm_ros.recorder_parameters import DECLARATIONS, check_parameters
    from lewm_ros.srv import LabelEpisode
    from lewm_ros.stamps import stamp_to_ns
    from lewm_ros.topic_taps import TopicTap

_MIB = 2**20

#: Messages kept while no episode is on: those of an episode's first moment may arrive before the
#: event that begins it.
_EARLY_MESSAGES = 256

#: s between two looks at what has settled, or, at the very end, at what still arrives.
_SETTLE_PERIOD_S = 0.1
_CLOSE_PERIOD_S = 0.02

#: What the services answer when they have nothing to do.
_FOLLOWS = "follow_events is set: episodes begin and end by the events on /episode"

#: A message: its topic, its header's stamp and its receive time in ns, its bytes.
_Stamped = tuple[TopicTap, int, int, bytes]


class RecordDatasetNode(ManagedNode):
    """Node ``record_dataset``: topics of a contract to MCAP bags, one per episode (lifecycle node).

    Messages are copied as they came, never decoded; each topic is subscribed with the QoS that
    its publishers offer, also when they appear late. An episode begins and ends by the services
    ``~/start_episode`` and ``~/stop_episode``, by the events of a scene or a teleoperation node
    (``follow_events``), or at once (``record_at_start``). With events, an episode's file is closed
    ``settle_time`` after its end, since its last messages may arrive after that event; the next
    episode may be on by then. ``~/label_episode`` labels an episode or discards it. Counters
    per topic (received, written, dropped, lost, gaps) are logged, written to ``recorder.json``
    beside the bag, and published on ``/diagnostics``.

    example: python -m lewm_ros.record_dataset --ros-args -p out:=data/mine -p record_at_start:=true
    """

    label = "the recorder"
    declarations = DECLARATIONS

    def __init__(self) -> None:
        """Declare the parameters; no folder is touched before configure.

        Raises:
            ConfigError: A parameter given at start cannot be used.
        """
        super().__init__("record_dataset")
        self._idle_reason = "not configured"
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS
        )
        # Not on simulated time, which stands still while nothing happens.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._watch, clock=self._steady)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Judge the parameters together.

        Raises:
            ConfigError: Naming the parameter.
        """
        check_parameters(settings)

    def configure(self) -> None:
        """Check the folder, and look for the topics.

        Raises:
            UserError: The contract or the folder cannot be used.
            OSError: The folder cannot be made.
        """
        settings = self._settings
        contract = load_contract(settings["contract"])
        self._out = Path(settings["out"]).expanduser()
        prepare_folder(self._out, contract)
        self._spans = EpisodeSpans()
        #: The one that has settled last.
        self._settled: EpisodeSpan | None = None
        self._simulated = self.get_parameter("use_sim_time").value
        self._recorded_bytes = 0
        self._guard = DiskGuard(self._out, settings["minimum_free_gib"], settings["quota_gib"])
        self._complaint = ""
        #: What the disk refused last; empty since an episode has begun after that.
        self._disk_failure = ""
        self._early: deque[_Stamped] = deque(maxlen=_EARLY_MESSAGES)
        self._before: PreTriggerBuffer[_Stamped] | None = None
        if settings["pre_trigger"]:
            self._before = PreTriggerBuffer(
                settings["pre_trigger"], int(settings["pre_trigger_mib"] * _MIB)
            )
        types = dict(contract.topic_types())
        for topic in filter(None, settings["extra_topics"]):
            types.setdefault(self.resolve_topic_name(topic, only_expand=True), None)
        self._taps = [
            TopicTap(self, topic, type_name, self._on_message, self._on_lost)
            for topic, type_name in types.items()
        ]
        for tap in self._taps:
            self.free_later(tap.disconnect)
        self._make_timer(0.2, self._connect)
        self._events: Any = None
        if settings["follow_events"]:
            self._events = self.create_subscription(
                EpisodeEvent, "/episode", self._on_event, qos.EPISODE
            )
            self.free_later(self.destroy_subscription, self._events)
            self._make_timer(_SETTLE_PERIOD_S, self._close_settled)
        for kind, name, answer in (
            (Trigger, "start_episode", self._on_start),
            (Trigger, "stop_episode", self._on_stop),
            (LabelEpisode, "label_episode", self._on_label),
        ):
            self.free_later(
                self.destroy_service, self.create_service(kind, f"~/{name}", answer)
            )
        self._connect()

    def activate(self) -> None:
        """Take in messages, and begin an episode where that is asked for.

        Raises:
            UserError: The disk guard refuses the episode.
            OSError: Its folder cannot be made.
        """
        if self._settings["record_at_start"]:
            self._begin("record_at_start")
        topics = ", ".join(tap.topic for tap in self._taps)
        self.get_logger().info(f"recorder is ready: {topics} -> {self._out}")

    def deactivate(self, reason: str) -> None:
        """Finish every episode; those that have just ended have their time to settle."""
        self._receive()
        with contextlib.ExitStack() as stack:
            # Each of them even if one fails: its writer's thread keeps the process alive.
            for span in self._spans.settling:
                stack.callback(self._finish, span)
            closes_at = max((span.closes_at for span in self._spans.settling), default=0.0)
            if self._spans.on is not None:
                self._finish(self._spans.on, "shutdown")
            while time.monotonic() < closes_at:
                time.sleep(_CLOSE_PERIOD_S)
                self._keep(self._drain())

    def tell(self, reason: str) -> None:
        """Note, while not active, why, and publish it."""
        self._idle_reason = reason
        self._publish_diagnostics("")

    def apply_changes(self, names: set[str]) -> None:
        """Go on with other limits of the disk."""
        self._guard.limit(self._settings["minimum_free_gib"], self._settings["quota_gib"])

    def _make_timer(self, period_s: float, callback: Callable[[], None]) -> None:
        self.free_later(
            self.destroy_timer, self.create_timer(period_s, callback, clock=self._steady)
        )

    # Messages.

    def _on_message(self, tap: TopicTap, data: bytes) -> None:
        if not self._active:
            return
        # Everything that has arrived at once: going back to the executor for each message costs
        # more than the message.
        self._receive([self._stamped(tap, data)])

    def _on_event(self, event: EpisodeEvent) -> None:
        if self._active:
            self._receive(events=[event])

    def _receive(
        self, messages: Iterable[_Stamped] = (), events: Iterable[EpisodeEvent] = ()
    ) -> None:
        """Handle these and all that has reached this process: first events, then messages."""
        in_hand = [*messages, *self._drain()]
        # After the messages were taken, so that no event that came before one of them is missed.
        arrived = [*events, *self._drain_events()]
        for event in arrived:
            self._follow(event)
        if arrived:
            early, self._early = self._early, deque(maxlen=_EARLY_MESSAGES)
            self._keep(early)
        self._keep(in_hand)
        if self._spans.on is not None and self._spans.on.file is None:
            self._try_open(self._spans.on)

    def _drain_events(self) -> list[EpisodeEvent]:
        """Return the events that have arrived but were not handled yet, in order."""
        taken: list[EpisodeEvent] = []
        while self._events is not None:
            handle = self._events.handle
            with handle:
                entry = handle.take_message(EpisodeEvent, False)
            if entry is None:
                break
            taken.append(entry[0])
        return taken

    def _stamped(self, tap: TopicTap, data: bytes) -> _Stamped:
        """Return the message with its header's stamp (or its receive time) and receive time."""
        stamp_ns = tap.stamp_ns(data)
        receive_ns = self.get_clock().now().nanoseconds
        if self._simulated and stamp_ns is not None:
            # /clock may come later than what was stamped by it.
            receive_ns = max(receive_ns, stamp_ns)
        return tap, receive_ns if stamp_ns is None else stamp_ns, receive_ns, data

    def _drain(self) -> list[_Stamped]:
        """Return the messages that have arrived but were not handled yet, in order per topic."""
        return [self._stamped(tap, data) for tap in self._taps for data in tap.drain()]

    def _keep(self, messages: Iterable[_Stamped]) -> None:
        """Put each message into the episode it belongs to."""
        for message in messages:
            tap, stamp_ns, receive_ns, data = message
            span = self._spans.owner(stamp_ns)
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

    def _keep_early(self, message: _Stamped) -> None:
        """Keep a message that belongs to no episode, until its episode begins."""
        tap, stamp_ns, receive_ns, data = message
        if self._before is not None:
            short = self._before.short
            self._before.add(receive_ns, len(data), message)
            if self._before.short and not short:
                self._complain(
                    f"pre_trigger_mib {self._settings['pre_trigger_mib']:g} does not hold "
                    f"pre_trigger {self._settings['pre_trigger']:g} s: the oldest messages go"
                )
        if self._events is None:
            return
        self._early.append(message)
        last = self._settled
        if last is not None and last.holds(stamp_ns) and tap.stamp_ns(data) is not None:
            self._complain(
                f"{tap.topic}: messages of episode {last.title} arrived after its file was "
                "closed: raise settle_time"
            )

    def _on_lost(self, tap: TopicTap, count: int) -> None:
        files = [span.file for span in self._spans if span.file is not None]
        if files and count > 0:
            files[-1].lost(tap.topic, count)
            self._complain(f"{tap.topic}: the middleware lost {count} messages")

    def _connect(self) -> None:
        for tap in self._taps:
            tap.connect()

    # Episodes.

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.message = "the recorder is not active: configure and activate it first"
            return response
        self._connect()
        if self._events is not None:
            # Whoever drives need not know how this recorder is set up.
            response.success, response.message = True, _FOLLOWS
            return response
        try:
            response.message = self._begin("service")
            response.success = True
        except (UserError, OSError) as error:
            response.message = " ".join(str(error).split())
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._events is not None:
            response.success, response.message = True, _FOLLOWS
            return response
        if not self._active or self._spans.on is None:
            response.message = "no episode is on: call start_episode first"
            return response
        # Everything that has reached this process belongs to it.
        self._receive()
        response.success, response.message = True, self._finish(self._spans.on, "service")
        return response

    def _on_label(
        self, request: LabelEpisode.Request, response: LabelEpisode.Response
    ) -> LabelEpisode.Response:
        try:
            response.message = self._label(request.episode, request.label)
            response.success = True
        except (UserError, OSError) as error:
            response.message = " ".join(str(error).split())
        return response

    def _label(self, name: str, label: str) -> str:
        """Label an episode and return which one it was.

        Raises:
            UserError: The label or the episode is not known.
            OSError: The disk refuses.
        """
        if label not in LABELS:
            raise UserError(f"label {label!r} is none of success, failure, discard")
        span = self._spans.find(name)
        if span is not None:
            if label == "discard":
                return self._finish(span, "label", discard=True)
            span.label = label
            return span.title
        folder = find_episode(self._out, name)
        if label == "discard":
            remove_episode(folder)
            self.get_logger().info(f"episode {folder.name} is discarded, as its label asks")
        else:
            label_folder(folder, label)
        return folder.name

    def _follow(self, event: EpisodeEvent) -> None:
        """Do what an event asks for."""
        stamp_ns = stamp_to_ns(event.header.stamp)
        begins = event.event == EpisodeEvent.START
        if begins:
            self._spans.settle("next episode", stamp_ns - 1, self._settings["settle_time"])
            self._spans.on = EpisodeSpan(event.episode, stamp_ns)
        span = self._spans.on
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
            self._finish(span, "event", discard=True)
        elif not begins:
            # What a person said goes before an event that says nothing.
            span.label = event.label or span.label
            self._spans.settle("event", stamp_ns, self._settings["settle_time"])

    def _close_settled(self) -> None:
        """Close the files of the episodes that have settled."""
        now = time.monotonic()
        if self._spans.settled(now):
            # If this process was kept waiting, so were its messages.
            self._receive()
        for span in self._spans.settled(now):
            self._finish(span)
            self._settled = span

    def _begin(self, reason: str) -> str:
        """Begin an episode without an event and return its name.

        Raises:
            UserError: If one is on, or the disk guard refuses.
            OSError: If its folder cannot be made.
        """
        if self._spans.on is not None:
            raise UserError(f"episode {self._spans.on.title} is on: call stop_episode first")
        # What arrived before this moment and still waits is not part of it, but for pre_trigger.
        self._keep(self._drain())
        span = EpisodeSpan()
        name = self._open(span, reason)
        self._spans.on = span
        if self._before is not None:
            before = self._before.take(self.get_clock().now().nanoseconds)
            self._keep(before)
            span.file.early = len(before)
        return name

    def _try_open(self, span: EpisodeSpan) -> bool:
        """Make the file of an episode that follows events; one that cannot be made is given up."""
        try:
            self._open(span, "event")
        except (UserError, OSError) as error:
            self._spans.remove(span)
            self._complain(str(error))
            return False
        return True

    def _open(self, span: EpisodeSpan, reason: str) -> str:
        """Make an episode's file and return its name.

        Raises:
            UserError: If the disk guard refuses.
            OSError: If its folder cannot be made.
        """
        guard = self._disk_complaint()
        if guard:
            raise BagError(guard)
        folder = free_folder(self._out, span.name, self._settings["episode_prefix"])
        queue_bytes = int(self._settings["queue_mib"] * _MIB)
        span.file = EpisodeFile(folder, queue_bytes, self._settings["storage"])
        self._complaint = self._disk_failure = ""
        span.file.events = span.events
        if span.reason:
            span.file.over()
        for tap in self._taps:
            if tap.connected:
                span.file.add_topic(tap.topic, str(tap.type_name), qos=tap.offered)
        missing = [tap.topic for tap in self._taps if not tap.connected]
        waiting = f"; no publisher yet of {', '.join(missing)}" if missing else ""
        self.get_logger().info(f"episode {folder.name} begins ({reason}){waiting}")
        return folder.name

    def _finish(self, span: EpisodeSpan, reason: str = "", discard: bool = False) -> str:
        """Close an episode's file, if it has one, and return its name.

        Args:
            span: The episode.
            reason: For the report; empty: why it has ended.
            discard: Whether to delete it.
        """
        self._spans.remove(span)
        name, file = span.title, span.file
        nothing = True
        if file is not None:
            report = file.close(reason or span.reason, span.label)
            self._recorded_bytes += file.size
            nothing = span.since_ns is not None and not file.received
            if file.failure is not None:
                self._disk_failure = report["error"]
                self.get_logger().error(f"{name}: {self._disk_failure}")
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
        self.get_logger().info(f"episode {name} {outcome}")
        return name

    def _remove(self, folder: Path) -> None:
        """Delete an episode's folder; if the disk refuses that, nothing else may stop."""
        try:
            remove_episode(folder)
        except OSError as error:
            self._complain(f"{folder} cannot be deleted: {error}")

    # The disk, and what operators see.

    def _disk_complaint(self) -> str:
        """Return why nothing may be recorded, or an empty text."""
        current = sum(span.file.size for span in self._spans if span.file is not None)
        return self._guard.complaint(self._recorded_bytes + current)

    def _watch(self) -> None:
        """Guard the disk and publish diagnostics."""
        if not self._active:
            self._publish_diagnostics("")
            return
        guard = self._disk_complaint()
        if guard and any(self._spans):
            self._receive()
            for span in list(self._spans):
                self._finish(span, "disk guard")
            self._complain(guard)
        for span in list(self._spans):
            if span.file is not None and span.file.failure is not None:
                self._finish(span, "disk failure")
        if self._spans.on is not None and self._spans.on.file is not None:
            for text in self._spans.on.file.complaints.values():
                self._complain(text)
        self._publish_diagnostics(guard)

    def _complain(self, text: str) -> None:
        self._complaint = " ".join(text.split())
        self.get_logger().error(self._complaint, throttle_duration_sec=1.0)

    def _publish_diagnostics(self, guard: str) -> None:
        if self._active:
            episode = self._spans.on.file if self._spans.on is not None else None
            failure = self._disk_failure or (episode.failure if episode is not None else None)
            message = diagnostics(self.get_name(), episode, guard or failure, self._complaint)
        else:
            message = idle_diagnostics(self.get_name(), self._idle_reason)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(RecordDatasetNode, argv)


if __name__ == "__main__":
    sys.exit(main())
