"""Node ``expert``: drives a scene by its scripted expert, episode after episode."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lewm_core.data import load_contract
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import UserError
from lewm_core.scenes import make_expert
from lewm_ros.runtime import end_node, ros_imports, run_node

with ros_imports("lewm_ros.expert"):
    from rclpy.duration import Duration
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.codecs import ns_to_stamp, stamp_to_ns
    from lewm_ros.command_messages import CommandWriter, message_class
    from lewm_ros.lifecycle import ManagedNode, autostart
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.parameters import Change, Declaration
    from lewm_ros.srv import ResetScene

#: s that a node which falls silent waits for its thread.
_JOIN_S = 5.0

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("scene", "push_t", "Name of the scene, whose expert drives."),
    Declaration(
        "contract", "",
        "Contract: a YAML file, or the name of one that ships; empty: that of the scene.",
    ),
    Declaration("episodes", 10, "Number of episodes.", lowest=1),
    Declaration("steps", 250, "Control steps of each.", lowest=1),
    Declaration("seed", 0, "Of the first episode; the next ones count up.", lowest=0),
    Declaration("episode_prefix", "expert_", "Episodes are called this and their seed."),
    Declaration(
        "recorder", "",
        "Name of the recorder node that is asked to begin and end each episode; empty: none.",
    ),
    Declaration("scene_node", "scene", "Name of the scene's node."),
    Declaration(
        "partner_timeout", 30.0, "s to wait for scene and recorder.", Change.LIVE, lowest=0.1
    ),
    Declaration(
        "episode_timeout", 600.0, "s of real time for one episode.", Change.LIVE, lowest=0.1
    ),
    autostart(True),
)


class ExpertNode(ManagedNode):
    """Node ``expert``: drives a scene by its scripted expert, through topics only (lifecycle node).

    For each episode: asks the recorder to start (``recorder``, unless empty), resets the scene
    with a seed of its own, answers each state message by one command stamped with the state's
    time, announces the end on ``/episode``, and asks the recorder to stop. Ends when the episodes
    are done. Deactivated within an episode, it ends that one early; activated again, it drives
    the same episode anew.

    example: python -m lewm_ros.expert --ros-args -p episodes:=100 -p recorder:=record_dataset
    """

    label = "the expert"
    declarations = DECLARATIONS

    def __init__(self) -> None:
        """Declare the parameters; nothing is made before configure.

        Raises:
            ConfigError: A parameter given at start cannot be used.
        """
        super().__init__("expert")

    def configure(self) -> None:
        """Make the expert and the topics.

        Raises:
            UserError: The contract cannot be used, or the scene has no expert.
        """
        settings = self._settings
        self._contract = load_contract(settings["contract"] or settings["scene"])
        if not self._contract.states:
            raise UserError(f"contract {self._contract.name} has no state topic: experts need one")
        self._expert = make_expert(settings["scene"], settings["seed"])
        state, action = self._contract.states[0], self._contract.action
        self._selectors = [FieldSelector.parse(field.selector) for field in state.fields]
        self._writer = CommandWriter(self._contract)
        self._lock = threading.Lock()
        self._newest: tuple[int, np.ndarray] | None = None
        self._begins: dict[str, int] = {}
        self._since_ns: int | None = None
        self._ended_ns = 0
        self._sent = 0
        #: Episodes that are done, and the name of the one that is on.
        self._done, self._episode = 0, ""
        self._recording = False
        self._episode_done = threading.Event()
        self._closing = threading.Event()
        self._commands = self.make_publisher(
            message_class(action.message), action.topic, qos.COMMAND
        )
        self._events = self.make_publisher(EpisodeEvent, "/episode", qos.EPISODE_PUBLISHER)
        self.make_subscription(
            message_class(state.message), state.topic, self._on_state, qos.STATE
        )
        self.make_subscription(EpisodeEvent, "/episode", self._on_event, qos.EPISODE)
        recorder = _full_name(settings["recorder"] or "none")
        self._reset = self.make_client(ResetScene, f"{_full_name(settings['scene_node'])}/reset")
        self._recorder_start = self.make_client(Trigger, f"{recorder}/start_episode")
        self._recorder_stop = self.make_client(Trigger, f"{recorder}/stop_episode")

    def activate(self) -> None:
        """Begin to drive, where it was ended."""
        self._closing.clear()
        self._thread = threading.Thread(target=self._drive, name="episodes", daemon=True)
        self._thread.start()

    def deactivate(self, reason: str) -> None:
        """End the episodes' thread, and the episode that is on."""
        self._closing.set()
        self._episode_done.set()
        self._thread.join(_JOIN_S)
        if self._episode:
            self._since_ns = None
            self._announce_end()
        if self._recording:
            # Without waiting for an answer: it would come through the executor, which is here.
            self._recorder_stop.call_async(Trigger.Request())
            self._recording = False

    # In the executor's thread.

    def _on_event(self, event: EpisodeEvent) -> None:
        if event.event == EpisodeEvent.START:
            with self._lock:
                self._begins = {event.episode: stamp_to_ns(event.header.stamp)}

    def _on_state(self, message: Any) -> None:
        truth = np.array([selector.get(message) for selector in self._selectors])
        with self._lock:
            self._newest = (stamp_to_ns(message.header.stamp), truth)
            self._act()

    def _act(self) -> None:
        """Answer the newest state, if it belongs to the episode. Call it with the lock."""
        if self._since_ns is None or self._newest is None or self._newest[0] < self._since_ns:
            return
        stamp_ns, truth = self._newest
        self._newest, self._ended_ns = None, stamp_ns
        if self._sent == self._settings["steps"]:
            # The state after the last command is part of the episode.
            self._since_ns = None
            self._episode_done.set()
            return
        self._commands.publish(self._writer.write(self._expert.act(truth), stamp_ns))
        self._sent += 1

    # In the episodes' thread.

    def _drive(self) -> None:
        try:
            self._wait_for_partners()
            began, first = time.monotonic(), self._done
            while self._done < self._settings["episodes"]:
                self._drive_episode(self._done)
                if self._closing.is_set():
                    return
                self._done += 1
            seconds = time.monotonic() - began
            episodes, steps = self._done - first, self._settings["steps"]
            self.get_logger().info(
                f"{episodes} episodes of {steps} steps in {seconds:.1f} s: "
                f"{episodes * steps / seconds:.0f} control steps per second"
            )
            end_node()
        except Exception as error:
            if not self._closing.is_set():
                end_node(1, error)

    def _drive_episode(self, number: int) -> None:
        seed = self._settings["seed"] + number
        self._episode_done.clear()
        if self._settings["recorder"]:
            self._trigger(self._recorder_start)
            self._recording = True
        name = f"{self._settings['episode_prefix']}{seed:06d}"
        recorder = self._settings["recorder"]
        request = ResetScene.Request(
            seed=seed, episode=name, listeners=[recorder] if recorder else []
        )
        # From here on it may begin at any moment, and whoever begins it ends it.
        self._episode, self._seed, self._ended_ns = name, seed, 0
        reply = self._call(self._reset, request)
        if not reply.success:
            raise UserError(f"the scene refuses to reset: {reply.message}")
        # The event tells the time at which the episode begins; states before it are of the past.
        self._wait(lambda: reply.episode in self._begins, "the scene's episode event")
        with self._lock:
            self._expert.reset(seed)
            self._sent = 0
            self._since_ns = self._begins[reply.episode]
            self._act()
        if not self._episode_done.wait(self._settings["episode_timeout"]):
            raise UserError(
                f"episode {reply.episode} stands still after {self._sent} commands: "
                f"is the scene running and {self._contract.states[0].topic} published?"
            )
        if self._closing.is_set():
            return
        # The recorder has every command before it hears of the end.
        self._commands.wait_for_all_acked(Duration(seconds=5.0))
        self._announce_end()
        if self._recording:
            self._trigger(self._recorder_stop)
            self._recording = False
        self.get_logger().debug(f"episode {reply.episode} is done")

    def _announce_end(self) -> None:
        event = EpisodeEvent(event=EpisodeEvent.END, episode=self._episode, seed=self._seed)
        # Before the first command, the episode's begin, if that has been heard of.
        event.header.stamp = ns_to_stamp(max(self._ended_ns, self._begins.get(self._episode, 0)))
        self._events.publish(event)
        self._episode = ""

    def _wait_for_partners(self) -> None:
        """Wait until nothing that is sent can miss its receiver.

        Raises:
            UserError: If a partner does not appear.
        """
        self._wait(self._reset.service_is_ready, "the scene's reset service")
        recorder = self._settings["recorder"]
        listeners = 1
        if recorder:
            listeners = 2
            self._wait(self._recorder_start.service_is_ready, f"{recorder}'s services")
            for topic in self._contract.topics():
                self._wait(lambda topic=topic: self._listens(recorder, topic),
                           f"{recorder} to subscribe {topic}")  # fmt: skip
        self._wait(
            lambda: self._commands.get_subscription_count() >= listeners,
            f"{listeners} subscribers of {self._contract.action.topic}",
        )

    def _listens(self, node_name: str, topic: str) -> bool:
        entries = self.get_subscriptions_info_by_topic(topic)
        names = [f"{entry.node_namespace}/{entry.node_name}" for entry in entries]
        # A recorder in a namespace is given as "lab/record_dataset".
        return any(name.strip("/") == node_name.strip("/") for name in names)

    def _trigger(self, client: Any) -> None:
        reply = self._call(client, Trigger.Request())
        if not reply.success:
            raise UserError(f"the recorder refuses: {reply.message}")

    def _call(self, client: Any, request: Any) -> Any:
        """Call a service and wait for its answer."""
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        self._wait(answered.is_set, f"an answer of {client.srv_name}", answered)
        return future.result()

    def _wait(
        self, condition: Callable[[], bool], what: str, event: threading.Event | None = None
    ) -> None:
        """Wait for a condition.

        Raises:
            UserError: If it does not come true within ``partner_timeout``, or the node closes.
        """
        deadline = time.monotonic() + self._settings["partner_timeout"]
        while not condition():
            if self._closing.is_set():
                raise UserError("closing")
            if time.monotonic() > deadline:
                raise UserError(
                    f"no sign of {what} within {self._settings['partner_timeout']:g} s: "
                    "start it, or mend its name, the ROS_DOMAIN_ID or the contract"
                )
            if event is not None:
                event.wait(0.1)
            else:
                self._closing.wait(0.002)


def _full_name(name: str) -> str:
    """Return a node's absolute name; ``lab/scene`` is node ``scene`` in namespace ``lab``."""
    return "/" + name.strip("/")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(ExpertNode, argv)


if __name__ == "__main__":
    sys.exit(main())
