"""Node ``record_dataset``: topics of a contract to bags, one per episode."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lewm_core.data import load_contract
from lewm_core.errors import UserError
from lewm_ros.record_dataset.dataset_folder import prepare_folder
from lewm_ros.runtime import ros_imports, run_node

with ros_imports("lewm_ros.record_dataset"):
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.clock import Clock, ClockType
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.lifecycle import ManagedNode
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.record_dataset.diagnostics import diagnostics, idle_diagnostics
    from lewm_ros.record_dataset.episodes import RecorderEpisodes, StampedMessage
    from lewm_ros.record_dataset.parameters import DECLARATIONS, check_parameters
    from lewm_ros.record_dataset.topic_taps import TopicTap
    from lewm_ros.srv import LabelEpisode

#: s between two looks at what has settled, or, at the very end, at what still arrives.
_SETTLE_PERIOD_S = 0.1
_CLOSE_PERIOD_S = 0.02

#: What the services answer when they have nothing to do.
_FOLLOWS = "follow_events is set: episodes begin and end by the events on /episode"


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
        self._simulated = self.get_parameter("use_sim_time").value
        types = dict(contract.topic_types())
        for topic in filter(None, settings["extra_topics"]):
            types.setdefault(self.resolve_topic_name(topic, only_expand=True), None)
        self._taps = [
            TopicTap(self, topic, type_name, self._on_message, self._on_lost)
            for topic, type_name in types.items()
        ]
        for tap in self._taps:
            self.free_later(tap.disconnect)
        self._episodes = RecorderEpisodes(self._out, settings, self._taps, self.get_logger())
        self._make_timer(0.2, self._connect)
        self._events: Any = None
        if settings["follow_events"]:
            self._events = self.make_subscription(
                EpisodeEvent, "/episode", self._on_event, qos.EPISODE
            )
            self._make_timer(_SETTLE_PERIOD_S, self._close_settled)
        self.make_service(Trigger, "~/start_episode", self._on_start)
        self.make_service(Trigger, "~/stop_episode", self._on_stop)
        self.make_service(LabelEpisode, "~/label_episode", self._on_label)
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
        episodes, spans = self._episodes, self._episodes.spans
        with contextlib.ExitStack() as stack:
            # Each of them even if one fails: its writer's thread keeps the process alive.
            for span in spans.settling:
                stack.callback(episodes.finish, span)
            closes_at = max((span.closes_at for span in spans.settling), default=0.0)
            if spans.on is not None:
                episodes.finish(spans.on, "shutdown")
            while time.monotonic() < closes_at:
                time.sleep(_CLOSE_PERIOD_S)
                episodes.keep(self._drain())

    def tell(self, reason: str) -> None:
        """Note, while not active, why, and publish it."""
        self._idle_reason = reason
        self._publish_diagnostics("")

    def apply_changes(self, names: set[str]) -> None:
        """Go on with other limits and names."""
        self._episodes.settings = self._settings

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
        self, messages: Iterable[StampedMessage] = (), events: Iterable[EpisodeEvent] = ()
    ) -> None:
        """Handle these and all that has reached this process."""
        in_hand = [*messages, *self._drain()]
        # After the messages were taken, so that no event that came before one of them is missed.
        self._episodes.receive(in_hand, [*events, *self._drain_events()])

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

    def _stamped(self, tap: TopicTap, data: bytes) -> StampedMessage:
        """Return the message with its header's stamp (or its receive time) and receive time."""
        stamp_ns = tap.stamp_ns(data)
        receive_ns = self.get_clock().now().nanoseconds
        if self._simulated and stamp_ns is not None:
            # /clock may come later than what was stamped by it.
            receive_ns = max(receive_ns, stamp_ns)
        return tap, receive_ns if stamp_ns is None else stamp_ns, receive_ns, data

    def _drain(self) -> list[StampedMessage]:
        """Return the messages that have arrived but were not handled yet, in order per topic."""
        return [self._stamped(tap, data) for tap in self._taps for data in tap.drain()]

    def _on_lost(self, tap: TopicTap, count: int) -> None:
        self._episodes.lost(tap.topic, count)

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
        span = self._episodes.spans.on
        if not self._active or span is None:
            response.message = "no episode is on: call start_episode first"
            return response
        # Everything that has reached this process belongs to it.
        self._receive()
        response.success, response.message = True, self._episodes.finish(span, "service")
        return response

    def _on_label(
        self, request: LabelEpisode.Request, response: LabelEpisode.Response
    ) -> LabelEpisode.Response:
        try:
            response.message = self._episodes.label(request.episode, request.label)
            response.success = True
        except (UserError, OSError) as error:
            response.message = " ".join(str(error).split())
        return response

    def _close_settled(self) -> None:
        """Close the files of the episodes that have settled."""
        now = time.monotonic()
        if self._episodes.spans.settled(now):
            # If this process was kept waiting, so were its messages.
            self._receive()
            self._episodes.finish_settled(now)

    def _begin(self, reason: str) -> str:
        self._episodes.require_none_on()
        # What arrived before this moment and still waits is not part of it, but for pre_trigger.
        self._episodes.keep(self._drain())
        return self._episodes.begin(reason, self.get_clock().now().nanoseconds)

    # What operators see.

    def _watch(self) -> None:
        """Guard the disk and publish diagnostics."""
        if not self._active:
            self._publish_diagnostics("")
            return
        if self._episodes.disk_complaint():
            # What has arrived by now is still taken.
            self._receive()
        self._publish_diagnostics(self._episodes.guard_disk())

    def _publish_diagnostics(self, guard: str) -> None:
        if self._active:
            episodes, episode = self._episodes, self._episodes.episode
            failure = episodes.disk_failure or (episode.failure if episode is not None else None)
            message = diagnostics(
                self.get_name(), episode, guard or failure, episodes.complaint
            )
        else:
            message = idle_diagnostics(self.get_name(), self._idle_reason)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(RecordDatasetNode, argv)
