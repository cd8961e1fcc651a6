"""Node ``record_dataset``: topics of a contract to bags, one per episode."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lewm_core.data import load_contract
from lewm_core.errors import BagError, UserError
from lewm_ros.dataset_folder import free_folder, prepare_folder
from lewm_ros.runtime import declare, log_parameters, ros_imports, run_node

with ros_imports("lewm_ros.record_dataset"):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.episode_file import EpisodeFile
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.topic_taps import TopicTap

_GIB = 2**30
_MIB = 2**20

#: Messages kept while no episode is on: those of an episode's first moment may arrive before the
#: event that begins it.
_EARLY_MESSAGES = 256


#: What the services answer when they have nothing to do.
_FOLLOWS = "follow_events is set: episodes begin and end by the events on /episode"

#: A message: its topic, its header's stamp and its receive time in ns, its bytes.
_Stamped = tuple[TopicTap, int, int, bytes]


class RecordDatasetNode(Node):
    """Node ``record_dataset``: topics of a contract to MCAP bags, one per episode.

    Messages are copied as they came, never decoded; each topic is subscribed with the QoS that
    its publishers offer, also when they appear late. An episode begins and ends by the services
    ``~/start_episode`` and ``~/stop_episode``, by the events of a scene or a teleoperation node
    (``follow_events``), or at once (``autostart``). Counters per topic (received, written,
    dropped, lost, gaps) are logged, written to ``recorder.json`` beside the bag, and published
    on ``/diagnostics``.

    example: python -m lewm_ros.record_dataset --ros-args -p out:=data/mine -p autostart:=true
    """

    def __init__(self) -> None:
        """Declare the parameters, check the folder and look for the topics.

        Raises:
            UserError: If a parameter, the contract or the folder cannot be used.
        """
        super().__init__("record_dataset")
        self._settings = _declare_parameters(self)
        if not self._settings["out"]:
            raise UserError("parameter out is empty: give a folder, as in -p out:=data/mine")
        contract = load_contract(self._settings["contract"])
        self._out = Path(self._settings["out"]).expanduser()
        prepare_folder(self._out, contract)
        log_parameters(self)
        self._episode: EpisodeFile | None = None
        self._since_ns: int | None = None
        self._announced = ""
        self._simulated = self.get_parameter("use_sim_time").value
        self._recorded_bytes = 0
        self._complaint = ""
        self._in_hand: list[_Stamped] = []
        self._arrived_events: deque[EpisodeEvent] = deque()
        self._early: deque[_Stamped] = deque(maxlen=_EARLY_MESSAGES)
        types = dict(contract.topic_types())
        for topic in filter(None, self._settings["extra_topics"]):
            types.setdefault(self.resolve_topic_name(topic, only_expand=True), None)
        self._taps = [
            TopicTap(self, topic, type_name, self._on_message, self._on_lost)
            for topic, type_name in types.items()
        ]
        self._events: Any = None
        if self._settings["follow_events"]:
            self._events = self.create_subscription(
                EpisodeEvent, "/episode", self._on_event, qos.EPISODE
            )
        self.create_service(Trigger, "~/start_episode", self._on_start)
        self.create_service(Trigger, "~/stop_episode", self._on_stop)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS
        )
        # Not on simulated time, which stands still while nothing happens.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.2, self._connect, clock=steady)
        self.create_timer(1.0, self._watch, clock=steady)
        self._connect()
        if self._settings["autostart"]:
            self._begin("autostart")
        self.get_logger().info(f"recorder is ready: {', '.join(types)} -> {self._out}")

    def close(self) -> None:
        """Finish the episode that is on."""
        self._end("shutdown")

    # Messages.

    def _on_message(self, tap: TopicTap, data: bytes) -> None:
        # Everything that has arrived at once: going back to the executor for each message costs
        # more than the message.
        self._in_hand = [self._stamped(tap, data), *self._drain()]
        if self._events is not None:
            # An event that has arrived comes first: it was sent before what it is about.
            self._take_events()
        in_hand, self._in_hand = self._in_hand, []
        for entry in in_hand:
            self._keep(*entry)

    def _take_events(self) -> None:
        """Handle every event that has arrived, in order."""
        handle, arrived = self._events.handle, self._arrived_events
        while True:
            with handle:
                entry = handle.take_message(EpisodeEvent, False)
            if entry is None:
                break
            arrived.append(entry[0])
        while arrived:
            self._follow(arrived.popleft())

    def _stamped(self, tap: TopicTap, data: bytes) -> _Stamped:
        """Return the message with its header's stamp (or its receive time) and receive time."""
        stamp_ns = tap.stamp_ns(data)
        receive_ns = self.get_clock().now().nanoseconds
        if self._simulated and stamp_ns is not None:
            # /clock may come later than what was stamped by it.
            receive_ns = max(receive_ns, stamp_ns)
        return tap, receive_ns if stamp_ns is None else stamp_ns, receive_ns, data

    def _drain(self) -> list[_Stamped]:
        """Return what has reached this process but is not yet in an episode, in order."""
        in_hand, self._in_hand = self._in_hand, []
        for tap in self._taps:
            in_hand += [self._stamped(tap, data) for data in tap.drain()]
        return in_hand

    def _keep(self, tap: TopicTap, stamp_ns: int, receive_ns: int, data: bytes) -> None:
        """Put a message into the episode it belongs to."""
        episode = self._episode
        if episode is None or (self._since_ns is not None and stamp_ns < self._since_ns):
            if self._events is not None:
                self._early.append((tap, stamp_ns, receive_ns, data))
            return
        if tap.topic not in episode.counters:
            episode.add_topic(tap.topic, str(tap.type_name), qos=tap.offered)
        if not episode.put(tap.topic, receive_ns, data):
            reason = episode.failure or "the queue is full: the disk is too slow"
            self._complain(f"{episode.name}: messages are dropped, {reason}")

    def _on_lost(self, tap: TopicTap, count: int) -> None:
        if self._episode is not None and count > 0:
            self._episode.lost(tap.topic, count)
            self._complain(f"{tap.topic}: the middleware lost {count} messages")

    def _connect(self) -> None:
        for tap in self._taps:
            tap.connect()

    # Episodes.

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
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
        name = self._end("service")
        response.success = name is not None
        response.message = name or "no episode is on: call start_episode first"
        return response

    def _on_event(self, event: EpisodeEvent) -> None:
        self._arrived_events.append(event)
        self._take_events()

    def _known_end_ns(self, name: str) -> int | None:
        """Return when an episode ends, if the event has arrived but was not handled yet."""
        for event in self._arrived_events:
            stamp_ns = stamp_to_ns(event.header.stamp)
            if event.event == EpisodeEvent.START:
                return stamp_ns - 1
            if event.episode == name:
                return stamp_ns
        return None

    def _follow(self, event: EpisodeEvent) -> None:
        """Do what an event asks for."""
        stamp_ns = stamp_to_ns(event.header.stamp)
        begins = event.event == EpisodeEvent.START
        if begins:
            self._end("next episode", until_ns=stamp_ns - 1)
            try:
                self._begin("event", event.episode, stamp_ns, self._known_end_ns(event.episode))
            except (UserError, OSError) as error:
                self._complain(str(error))
                return
            self._announced = event.episode
        if self._episode is None or event.episode != self._announced:
            # Ended already, by its teleoperation node or expert, or not ours.
            return
        self._episode.events.append(
            {
                "event": "start" if begins else "end",
                "episode": event.episode,
                "seed": event.seed,
                "label": event.label,
                "stamp_ns": stamp_ns,
            }
        )
        if not begins:
            self._end("event", discard=event.label == "discard", until_ns=stamp_ns)

    def _begin(
        self,
        reason: str,
        name: str = "",
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> str:
        """Begin an episode and return its name.

        Args:
            reason: For the log.
            name: Of the episode; empty: the next number.
            since_ns: Messages stamped earlier do not belong to it.
            until_ns: Messages stamped later do not either, if its end is known already.

        Raises:
            UserError: If one is on, or the disk guard refuses.
        """
        if self._episode is not None:
            raise UserError(f"episode {self._episode.name} is on: call stop_episode first")
        guard = self._disk_complaint()
        if guard:
            raise BagError(guard)
        folder = free_folder(self._out, name, self._settings["episode_prefix"])
        if since_ns is None:
            # What arrived before this moment and still waits is not part of the episode.
            self._drain()
        self._complaint = ""
        queue_bytes = int(self._settings["queue_mib"] * _MIB)
        self._episode = EpisodeFile(folder, queue_bytes, self._settings["storage"])
        self._since_ns = since_ns
        for tap in self._taps:
            if tap.connected:
                self._episode.add_topic(tap.topic, str(tap.type_name), qos=tap.offered)
        early, self._early = self._early, deque(maxlen=_EARLY_MESSAGES)
        if since_ns is not None:
            for entry in early:
                if until_ns is None or entry[1] <= until_ns:
                    self._keep(*entry)
                else:
                    self._early.append(entry)
        missing = [tap.topic for tap in self._taps if not tap.connected]
        waiting = f"; no publisher yet of {', '.join(missing)}" if missing else ""
        self.get_logger().info(f"episode {folder.name} begins ({reason}){waiting}")
        return folder.name

    def _end(
        self, reason: str, discard: bool = False, until_ns: int | None = None
    ) -> str | None:
        """End the episode that is on, if any, and return its name."""
        if self._episode is None:
            return None
        # Everything that has reached this process belongs to the episode, except what its event
        # says is later.
        for entry in self._drain():
            if until_ns is None or entry[1] <= until_ns:
                self._keep(*entry)
            else:
                self._early.append(entry)
        episode, self._episode = self._episode, None
        report = episode.close(reason)
        self._recorded_bytes += episode.size
        if discard:
            shutil.rmtree(episode.folder)
            self.get_logger().info(f"episode {episode.name} is discarded, as its event asks")
            return episode.name
        if self._since_ns is not None and not any(
            counters.received for counters in episode.counters.values()
        ):
            # A late joiner hears of episodes that are over (see qos.EPISODE_PUBLISHER).
            shutil.rmtree(episode.folder)
            self.get_logger().info(f"episode {episode.name} was over already: nothing recorded")
            return episode.name
        if report["error"]:
            self._complain(f"{episode.name}: {report['error']}")
        counters = ", ".join(
            f"{topic} {c['received']} received {c['written']} written {c['dropped']} dropped "
            f"{c['lost']} lost {c['gaps']} gaps"
            for topic, c in report["topics"].items()
        )
        self.get_logger().info(f"episode {episode.name} ended ({reason}): {counters}")
        return episode.name

    # The disk, and what operators see.

    def _disk_complaint(self) -> str:
        """Return why nothing may be recorded, or an empty text."""
        free = shutil.disk_usage(self._out).free / _GIB
        least = self._settings["minimum_free_gib"]
        if free < least:
            return (
                f"disk of {self._out} has {free:.1f} GiB free, minimum_free_gib is {least:g}: "
                "free some space or choose another out"
            )
        quota = self._settings["quota_gib"]
        current = self._episode.size if self._episode is not None else 0
        used = (self._recorded_bytes + current) / _GIB
        if quota and used > quota:
            return f"{used:.3g} GiB are recorded, quota_gib is {quota:g}: raise it or start anew"
        return ""

    def _watch(self) -> None:
        """Guard the disk and publish diagnostics."""
        guard = self._disk_complaint()
        if guard and self._episode is not None:
            self._end("disk guard")
            self._complain(guard)
        if self._episode is not None:
            for text in self._episode.complaints.values():
                self._complain(text)
        self._publish_diagnostics(guard)

    def _complain(self, text: str) -> None:
        self._complaint = " ".join(text.split())
        self.get_logger().error(self._complaint, throttle_duration_sec=1.0)

    def _publish_diagnostics(self, guard: str) -> None:
        episode = self._episode
        status = DiagnosticStatus(name=f"{self.get_name()}: recording", hardware_id="")
        counters = episode.counters if episode is not None else {}
        if guard or (episode is not None and episode.failure):
            status.level = DiagnosticStatus.ERROR
            status.message = guard or str(episode.failure)
        elif self._complaint:
            status.level, status.message = DiagnosticStatus.WARN, self._complaint
        else:
            status.level = DiagnosticStatus.OK
            status.message = f"recording {episode.name}" if episode is not None else "idle"
        values = {"episode": episode.name if episode is not None else ""}
        for topic, c in counters.items():
            for key in ("received", "written", "dropped", "lost"):
                values[f"{topic} {key}"] = str(getattr(c, key))
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _declare_parameters(node: Node) -> dict[str, Any]:
    """Declare all parameters and return their values."""
    entries = [
        ("out", "", "Folder of the dataset; made if missing, continued if its contract is the "
         "same.", {}),
        ("contract", "push_t", "Contract: a YAML file, or the name of one that ships.", {}),
        ("extra_topics", [""], "Topics recorded besides the contract's, of any type.", {}),
        ("autostart", False, "Begin an episode at once.", {}),
        ("follow_events", False, "Begin and end episodes by the events on /episode; an episode "
         "that ends with the label 'discard' is deleted.", {}),
        ("episode_prefix", "episode_", "Episodes without a name of their own are called this and "
         "a number.", {}),
        ("storage", "mcap", "Of the bags.", {"choices": ("mcap", "sqlite3")}),
        ("queue_mib", 1024.0, "MiB that may wait for a disk that stalls; beyond it messages are "
         "dropped and counted.", {"minimum": 0.001, "maximum": 65536.0}),
        ("minimum_free_gib", 2.0, "GiB of disk that stay free: the recorder stops before.",
         {"minimum": 0.0, "maximum": 1e6}),
        ("quota_gib", 0.0, "GiB this node may record in all; 0: no limit.",
         {"minimum": 0.0, "maximum": 1e6}),
    ]  # fmt: skip
    return {
        name: declare(node, name, default, description, **limits)
        for name, default, description, limits in entries
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(RecordDatasetNode, argv)


if __name__ == "__main__":
    sys.exit(main())
