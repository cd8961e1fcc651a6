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
from lewm_ros.runtime import declare, end_node, log_parameters, ros_imports, run_node

with ros_imports("lewm_ros.expert"):
    from rclpy.duration import Duration
    from rclpy.node import Node
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.codecs import ns_to_stamp, stamp_to_ns
    from lewm_ros.command_messages import CommandWriter, message_class
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.srv import ResetScene


class ExpertNode(Node):
    """Node ``expert``: drives a scene by its scripted expert, through topics only.

    For each episode: asks the recorder to start (``recorder``, unless empty), resets the scene
    with a seed of its own, answers each state message by one command stamped with the state's
    time, announces the end on ``/episode``, and asks the recorder to stop. Ends when the episodes
    are done.

    example: python -m lewm_ros.expert --ros-args -p episodes:=100 -p recorder:=record_dataset
    """

    def __init__(self) -> None:
        """Declare the parameters and begin.

        Raises:
            UserError: If a parameter or the contract cannot be used.
        """
        super().__init__("expert")
        self._settings = _declare_parameters(self)
        self._contract = load_contract(self._settings["contract"] or self._settings["scene"])
        if not self._contract.states:
            raise UserError(f"contract {self._contract.name} has no state topic: experts need one")
        self._expert = make_expert(self._settings["scene"], self._settings["seed"])
        log_parameters(self)
        state = self._contract.states[0]
        self._selectors = [FieldSelector.parse(field.selector) for field in state.fields]
        self._writer = CommandWriter(self._contract)
        self._lock = threading.Lock()
        self._newest: tuple[int, np.ndarray] | None = None
        self._begins: dict[str, int] = {}
        self._since_ns: int | None = None
        self._ended_ns = 0
        self._sent = 0
        self._episode_done = threading.Event()
        self._closing = threading.Event()
        action = self._contract.action
        self._commands = self.create_publisher(
            message_class(action.message), action.topic, qos.COMMAND
        )
        self.create_subscription(
            message_class(state.message), state.topic, self._on_state, qos.STATE
        )
        self.create_subscription(EpisodeEvent, "/episode", self._on_event, qos.EPISODE)
        self._events = self.create_publisher(EpisodeEvent, "/episode", qos.EPISODE_PUBLISHER)
        self._reset = self.create_client(
            ResetScene, f"{_full_name(self._settings['scene_node'])}/reset"
        )
        recorder = _full_name(self._settings["recorder"] or "none")
        self._recorder_start = self.create_client(Trigger, f"{recorder}/start_episode")
        self._recorder_stop = self.create_client(Trigger, f"{recorder}/stop_episode")
        self._thread = threading.Thread(target=self._drive, name="episodes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the episodes' thread."""
        self._closing.set()
        self._episode_done.set()
        self._thread.join(5.0)

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
        self._newest = None
        if self._sent == self._settings["steps"]:
            # The state after the last command is part of the episode.
            self._since_ns = None
            self._ended_ns = stamp_ns
            self._episode_done.set()
            return
        self._commands.publish(self._writer.write(self._expert.act(truth), stamp_ns))
        self._sent += 1

    # In the episodes' thread.

    def _drive(self) -> None:
        try:
            self._wait_for_partners()
            began = time.monotonic()
            for number in range(self._settings["episodes"]):
                self._drive_episode(number)
                if self._closing.is_set():
                    return
            seconds = time.monotonic() - began
            episodes, steps = self._settings["episodes"], self._settings["steps"]
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
        if self._settings["recorder"]:
            self._trigger(self._recorder_start)
        name = f"{self._settings['episode_prefix']}{seed:06d}"
        recorder = self._settings["recorder"]
        request = ResetScene.Request(
            seed=seed, episode=name, listeners=[recorder] if recorder else []
        )
        reply = self._call(self._reset, request)
        if not reply.success:
            raise UserError(f"the scene refuses to reset: {reply.message}")
        # The event tells the time at which the episode begins; states before it are of the past.
        self._wait(lambda: reply.episode in self._begins, "the scene's episode event")
        with self._lock:
            self._expert.reset(seed)
            self._sent = 0
            self._episode_done.clear()
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
        event = EpisodeEvent(event=EpisodeEvent.END, episode=reply.episode, seed=seed)
        event.header.stamp = ns_to_stamp(self._ended_ns)
        self._events.publish(event)
        if self._settings["recorder"]:
            self._trigger(self._recorder_stop)
        self.get_logger().debug(f"episode {reply.episode} is done")

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


def _declare_parameters(node: Node) -> dict[str, Any]:
    """Declare all parameters and return their values."""
    entries = [
        ("scene", "push_t", "Name of the scene, whose expert drives.", {}),
        ("contract", "", "Contract: a YAML file, or the name of one that ships; empty: that of the "
         "scene.", {}),
        ("episodes", 10, "Number of episodes.", {"minimum": 1}),
        ("steps", 250, "Control steps of each.", {"minimum": 1}),
        ("seed", 0, "Of the first episode; the next ones count up.", {"minimum": 0}),
        ("episode_prefix", "expert_", "Episodes are called this and their seed.", {}),
        ("recorder", "", "Name of the recorder node that is asked to begin and end each episode; "
         "empty: none.", {}),
        ("scene_node", "scene", "Name of the scene's node.", {}),
        ("partner_timeout", 30.0, "s to wait for scene and recorder.", {"minimum": 0.1}),
        ("episode_timeout", 600.0, "s of real time for one episode.", {"minimum": 0.1}),
    ]  # fmt: skip
    return {
        name: declare(node, name, default, description, **limits)
        for name, default, description, limits in entries
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(ExpertNode, argv)


if __name__ == "__main__":
    sys.exit(main())
