"""Node ``scene``: a MuJoCo scene as a camera and a robot."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lewm_core.data import Contract, load_contract
from lewm_core.data.contract_parts import Camera
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import ConfigError, UserError
from lewm_ros.runtime import end_node, ros_imports, run_node

with ros_imports("lewm_ros.scene"):
    from rclpy.duration import Duration
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CompressedImage

    from lewm_ros import qos
    from lewm_ros.codecs import ImageFiller, encode_compressed, ns_to_stamp, stamp_to_ns
    from lewm_ros.command_messages import message_class
    from lewm_ros.lifecycle import ManagedNode
    from lewm_ros.msg import EpisodeEvent
    from lewm_ros.scene.loop import NS_PER_S, ResetRequest, SceneLoop
    from lewm_ros.scene.parameters import DECLARATIONS, scene_timing
    from lewm_ros.srv import ResetScene

#: A subscriber that is stopped or stuck must not stop the scene.
_SETTLE_TIMEOUT = Duration(seconds=2.0)

#: A reset waits this long (s of real time) for the subscriptions of those who must hear it all.
_LISTENERS_TIMEOUT_S = 10.0


class SceneNode(ManagedNode):
    """Node ``scene``: a MuJoCo scene as a camera and a robot (lifecycle node).

    Publishes the contract's camera topics, its state topic at the control rate, ``/clock`` and
    ``/episode``; subscribes the contract's action topic and holds when commands are older than
    the contract's timeout; service ``~/reset``.

    Time is simulated and begins at 1 s (``publish_clock:=false``: the system's time). A command
    without a stamp (zero) counts as sent when it came. A reset skips 1.5 times the contract's
    ``max_gap``, so that bags recorded across it fall into two episodes. Deactivated, time stands
    still; activated again, it goes on with a new episode.

    example: python -m lewm_ros.scene --ros-args -p camera_rate:=30.0
    """

    label = "the scene"
    declarations = DECLARATIONS

    def __init__(self) -> None:
        """Declare the parameters; nothing is made before configure.

        Raises:
            ConfigError: A parameter given at start cannot be used.
        """
        super().__init__("scene")

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse what would stamp a scene with two times.

        Raises:
            ConfigError: Naming the parameters.
        """
        if not settings["publish_clock"] and (
            settings["lock_step"] or settings["real_time_factor"] != 1.0
        ):
            raise ConfigError(
                "publish_clock:=false needs lock_step:=false and real_time_factor:=1.0, since the "
                "system's time goes on at its own speed"
            )

    def configure(self) -> None:
        """Make the scene and the topics.

        Raises:
            UserError: The contract or the scene cannot be used.
        """
        settings = self._settings
        if self.get_parameter("use_sim_time").value and settings["publish_clock"]:
            # Harmless (launch files set it for every node), but the scene is the clock.
            self.get_logger().debug("use_sim_time is ignored: this node publishes the clock")
        self._contract = load_contract(settings["contract"] or settings["scene"])
        self._timing = scene_timing(settings, self._contract)
        self._write_state = _state_writer(self._contract)
        self._make_publishers(settings)
        action = self._contract.action
        self._selectors = [FieldSelector.parse(field.selector) for field in action.fields]
        lower, upper, _, hold = self._contract.action_limits()
        cameras = [_resized(camera, settings) for camera in self._contract.cameras]
        seed = settings["seed"]
        self._loop = SceneLoop(
            lambda: _make_physics(settings["scene"]),
            self._timing,
            self,
            cameras,
            (lower, upper, hold),
            None if seed < 0 else seed,
            lambda error: end_node(1, error),
        )
        self._loop.start()
        self.free_later(self._loop.stop)
        self.make_subscription(
            message_class(action.message), action.topic, self._on_command, qos.COMMAND
        )
        self.make_service(ResetScene, "~/reset", self._on_reset)
        self._pictures = ", ".join(
            f"{camera.topic} {camera.size[0]}x{camera.size[1]}" for camera in cameras
        )
        if cameras != list(self._contract.cameras):
            width, height = self._contract.camera.size
            self.get_logger().warning(
                f"pictures are {self._pictures}, the contract says {width}x{height}"
            )

    def activate(self) -> None:
        """Begin an episode.

        Raises:
            UserError: The scene cannot be reset.
        """
        self._loop.resume()
        self.get_logger().info(
            f"scene {self._settings['scene']} is running: {self._pictures}, commands on "
            f"{self._contract.action.topic}"
        )

    def deactivate(self, reason: str) -> None:
        """End the episode, and let time stand still."""
        if not self._loop.pause():
            self.get_logger().warning("the scene's thread does not answer: is a subscriber stuck?")

    def apply_changes(self, names: set[str]) -> None:
        """Go on with another timing."""
        self._timing = scene_timing(self._settings, self._contract)
        self._loop.change_timing(self._timing)

    # What the loop tells (`lewm_ros.scene.loop.SceneOutput`), in the loop's thread.

    def state(self, time_ns: int, truth: np.ndarray) -> None:
        """Publish the ground truth (N,)."""
        if self._state_publisher is not None:
            self._state_publisher.publish(self._write_state(time_ns, truth))

    def picture(self, time_ns: int, camera: Camera, picture: np.ndarray) -> None:
        """Publish a picture (H, W, 3) uint8 RGB of a camera."""
        filler = self._fillers[camera.name]
        if filler is None:
            message = encode_compressed(picture, time_ns, camera.name)
        else:
            message = filler.fill(picture, time_ns)
        self._camera_publishers[camera.name].publish(message)

    def clock(self, time_ns: int) -> None:
        """Publish the simulated time."""
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=ns_to_stamp(time_ns)))

    def episode(self, time_ns: int, begins: bool, name: str, seed: int) -> None:
        """Publish that an episode begins or ends."""
        event = EpisodeEvent(episode=name, seed=seed)
        event.event = EpisodeEvent.START if begins else EpisodeEvent.END
        event.header.stamp = ns_to_stamp(time_ns)
        self._episode_publisher.publish(event)

    def settle(self) -> None:
        """Wait until every reliable subscriber has what was published."""
        for publisher in (*self._camera_publishers.values(), self._state_publisher):
            if publisher is not None and not publisher.wait_for_all_acked(_SETTLE_TIMEOUT):
                self.get_logger().warning(
                    f"a subscriber of {publisher.topic_name} is too slow: it may lose messages",
                    throttle_duration_sec=5.0,
                )

    def warning(self, text: str) -> None:
        """Log a sentence for the operator."""
        self.get_logger().warning(text)

    # What comes in, in the executor's thread.

    def _make_publishers(self, parameters: dict[str, Any]) -> None:
        profiles = {"reliable": qos.CAMERA_PUBLISHER, "sensor_data": qos.CAMERA_SENSOR_DATA}
        self._camera_publishers, self._fillers = {}, {}
        for camera in self._contract.cameras:
            camera_class = message_class(camera.message)
            self._camera_publishers[camera.name] = self.make_publisher(
                camera_class, camera.topic, profiles[parameters["camera_qos"]]
            )
            # None: compressed.
            self._fillers[camera.name] = (
                None
                if camera_class is CompressedImage
                else ImageFiller(camera.name, parameters["encoding"])
            )
        states = self._contract.states
        self._state_publisher = (
            self.make_publisher(message_class(states[0].message), states[0].topic, qos.STATE)
            if states
            else None
        )
        self._clock_publisher = (
            self.make_publisher(Clock, "/clock", qos.CLOCK_PUBLISHER)
            if parameters["publish_clock"]
            else None
        )
        self._episode_publisher = self.make_publisher(
            EpisodeEvent, "/episode", qos.EPISODE_PUBLISHER
        )

    def _on_command(self, message: Any) -> None:
        if not self._active:
            return
        now_ns = self._loop.time_ns
        stamp_ns = now_ns
        if self._contract.action.clock == "header":
            stamp_ns = stamp_to_ns(message.header.stamp) or now_ns
        if stamp_ns > now_ns + self._timing.command_timeout_ns:
            # Held for ever, it would keep the robot moving after its sender has died.
            self._refuse(
                f"it is stamped {(stamp_ns - now_ns) / NS_PER_S:.1f} s in the future: start its "
                "sender with use_sim_time:=true"
            )
            return
        try:
            values = np.array([selector.get(message) for selector in self._selectors])
        except LookupError as error:
            self._refuse(str(error))
            return
        if not np.isfinite(values).all():
            self._refuse("it is not finite")
            return
        self._loop.inbox.put(stamp_ns, values)

    def _refuse(self, reason: str) -> None:
        self.get_logger().warning(f"command refused: {reason}", throttle_duration_sec=2.0)

    def _on_reset(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        if not self._active:
            response.message = "the scene is not active: configure and activate it first"
            return response
        deaf = self._wait_for_listeners(request.listeners)
        if deaf:
            response.message = deaf
            return response
        state = np.array(request.state, dtype=float) if len(request.state) else None
        seed = None if request.seed < 0 else int(request.seed)
        result = self._loop.reset(ResetRequest(seed, state, request.episode))
        response.success = result.error is None
        if result.error is not None:
            response.message = " ".join(str(result.error).split())
        else:
            response.state = [float(value) for value in result.truth]
            response.episode = result.episode
        return response

    def _wait_for_listeners(self, names: Sequence[str]) -> str:
        """Wait until nodes will receive what is published from now on; return who does not."""
        waiting = [
            (name, publisher)
            for name in names
            for publisher in (*self._camera_publishers.values(), self._state_publisher)
            if publisher is not None
        ]
        deadline = time.monotonic() + _LISTENERS_TIMEOUT_S
        while waiting := [entry for entry in waiting if not self._reaches(*entry)]:
            if time.monotonic() > deadline:
                name, publisher = waiting[0]
                return f"{name} does not subscribe {publisher.topic_name}: is it running?"
            time.sleep(0.002)
        return ""

    def _reaches(self, name: str, publisher: Any) -> bool:
        """Whether a node has a subscription of a topic, and the publisher sends to it."""
        # Others may know of the subscription before this process does, and the graph of the
        # names before the publisher is matched: each costs an episode its first messages.
        entries = self.get_subscriptions_info_by_topic(publisher.topic_name)
        known = {f"{entry.node_namespace}/{entry.node_name}".strip("/") for entry in entries}
        return name.strip("/") in known and publisher.get_subscription_count() >= len(entries)


def _resized(camera: Camera, parameters: dict[str, Any]) -> Camera:
    """Return a camera with the size that the parameters ask for."""
    width, height = camera.size
    size = (parameters["image_width"] or width, parameters["image_height"] or height)
    # The crop is for whoever reads the pictures.
    return camera.model_copy(update={"size": size})


def _make_physics(name: str) -> Any:
    """Make the scene, in the thread that will render it."""
    # Here, so that a wrong parameter is told before MuJoCo is loaded.
    from lewm_core.scenes import make_scene

    return make_scene(name)


def _state_writer(contract: Contract) -> Any:
    """Return a function that makes the contract's first state message.

    Raises:
        UserError: If its fields cannot be written.
    """
    if not contract.states:
        return None
    state = contract.states[0]
    state_class = message_class(state.message)
    selectors = [FieldSelector.parse(field.selector) for field in state.fields]
    names = [field.name for field in state.fields]
    has_names = state.message == "sensor_msgs/msg/JointState"

    def write(time_ns: int, truth: np.ndarray) -> Any:
        message = state_class()
        if hasattr(message, "header"):
            message.header.stamp = ns_to_stamp(time_ns)
        if has_names:
            message.name = names
        for selector, value in zip(selectors, truth, strict=True):
            selector.set(message, float(value), lambda name: message_class(name)())
        return message

    try:
        write(0, np.zeros(len(selectors)))
    except (LookupError, TypeError, AssertionError) as error:
        raise UserError(f"contract {contract.name}: state {state.name}: {error}") from error
    return write


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    return run_node(SceneNode, argv)
