"""Scene, planner and, between them, relays that can spoil what passes: a bench for faults.

    scene  --camera-->  relay  -->  planner  --command-->  relay  -->  scene
           --clock--->  relay  -->

The relays are in this process, the nodes in processes of their own, DDS everywhere.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Float64
from std_srvs.srv import Trigger

from lewm_core.data.contract import Contract
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import UserError
from lewm_ros import qos
from lewm_ros.action import ReachGoal
from lewm_ros.codecs import encode_image, stamp_to_ns
from lewm_ros.command_messages import message_class
from lewm_ros.msg import PlanStatus
from lewm_ros.processes import NodeProcess
from lewm_ros.srv import ResetScene, SetGoal

#: Squared latent distance that no picture comes within.
NEVER = 1e-9
#: The planner whose callbacks can be made to hang.
PLANNER = Path(__file__).with_name("stuck_planner.py")
_READY_S, _ANSWER_S = 120.0, 20.0
_DEADMAN_S = 0.05
#: In the header of commands that are not the planner's.
STRANGER = "stranger"
#: m in a control period; less is standing still.
STANDING_M = 2e-4

#: What a relay does with a message: the seconds to wait, the message or its bytes, and the stamp
#: (ns) that it tells the truth about; None: it must not be acted on.
Passed = tuple[float, Any, int | None]


def stamp_in(data: bytes) -> int:
    """Return the stamp (ns) in the header of a serialised message, little endian as here."""
    seconds = int.from_bytes(data[4:8], "little", signed=True)
    return seconds * 1_000_000_000 + int.from_bytes(data[8:12], "little")


def with_stamp(data: bytes, stamp_ns: int) -> bytes:
    """Return the same message with another stamp."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    head = seconds.to_bytes(4, "little", signed=True) + nanoseconds.to_bytes(4, "little")
    return data[:4] + head + data[12:]


class Relay:
    """Passes on the messages of a topic, as bytes; a fault may be put into it.

    Attributes:
        fault: Gets each message's bytes and yields what is passed on in its place; None: the same.
        noisy: Whether the last bit of every second message is turned over.
        ear: Hears every message's bytes before the fault does.
        given: When (wall time, ns) a message was passed on that may be acted on, and its stamp.
    """

    def __init__(
        self, node: Node, source: str, target: str, message_type: Any,
        asked: QoSProfile, offered: QoSProfile,
    ) -> None:
        self.node, self.source, self.target = node, source, target
        self.message_type, self.asked, self.offered = message_type, asked, offered
        self.fault: Callable[[bytes], Iterable[Passed]] | None = None
        self.noisy = False
        self.ear: Callable[[bytes], None] | None = None
        self.given: list[tuple[int, int]] = []
        self._order, self._count = itertools.count(), itertools.count()
        self._waiting: list[tuple[float, int, Any, int | None]] = []
        self._wake = threading.Condition()
        self._ended = False
        self.publisher = node.create_publisher(message_type, target, offered)
        self.subscription: Any = None
        self.listen(True)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def listen(self, listen: bool, asked: QoSProfile | None = None) -> None:
        """Subscribe the source, or stop doing so."""
        if self.subscription is not None:
            self.node.destroy_subscription(self.subscription)
            self.subscription = None
        if listen:
            self.subscription = self.node.create_subscription(
                self.message_type, self.source, self._on_message, asked or self.asked, raw=True
            )

    def publish_as(self, message_type: Any | None, offered: QoSProfile | None = None) -> None:
        """Publish anew, as another type perhaps; None: do not publish at all."""
        if self.publisher is not None:
            self.node.destroy_publisher(self.publisher)
            self.publisher = None
        if message_type is not None:
            self.publisher = self.node.create_publisher(
                message_type, self.target, offered or self.offered
            )

    def send(self, delay_s: float, message: Any, true_stamp_ns: int | None) -> None:
        """Publish a message, or its bytes, after some time."""
        with self._wake:
            entry = (time.monotonic() + delay_s, next(self._order), message, true_stamp_ns)
            heapq.heappush(self._waiting, entry)
            self._wake.notify()

    def forget(self) -> None:
        """Forget what waits."""
        with self._wake:
            self._waiting.clear()

    def end(self) -> None:
        """Pass nothing on any more."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join(5.0)

    def _on_message(self, data: bytes) -> None:
        if self.ear is not None:
            self.ear(data)
        if self.noisy:
            # A camera's pictures are never the same twice; a simulated one's are.
            data = data[:-1] + bytes([data[-1] ^ (next(self._count) & 1)])
        fault = self.fault
        if fault is None:
            self.send(0.0, data, stamp_in(data))
            return
        for passed in fault(data):
            self.send(*passed)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._ended and (
                    not self._waiting or self._waiting[0][0] > time.monotonic()
                ):
                    due = self._waiting[0][0] - time.monotonic() if self._waiting else None
                    self._wake.wait(due)
                if self._ended:
                    return
                _, _, message, true_stamp_ns = heapq.heappop(self._waiting)
            publisher = self.publisher
            if publisher is None:
                continue
            if true_stamp_ns is not None:
                self.given.append((time.time_ns(), true_stamp_ns))
            publisher.publish(message)


@dataclass
class Seen:
    """A command of the planner: when it came here, its stamp (ns), its values ``(A,)``."""

    at_ns: int
    stamp_ns: int
    values: NDArray[np.float64]
    holds: bool


@dataclass
class Observed:
    """All that was seen since the bench was made, in order of arrival; times in ns of wall time."""

    commands: list[Seen] = field(default_factory=list)
    statuses: list[tuple[int, PlanStatus]] = field(default_factory=list)
    positions: list[tuple[int, tuple[float, float]]] = field(default_factory=list)


class FaultBench:
    """The running system with relays, and an operator's hands.

    Args:
        contract: Of the scene and the planner.
        checkpoint: For the planner.
        environment: Of the processes.
        domain: ``ROS_DOMAIN_ID``.
        folder: For logs.
        camera_rate: Hz.
        simulated: Whether the scene is the clock; else everything has the system's time.

    Attributes:
        goal_picture: That is pursued, (H, W, 3).
        began_ns: Wall time at which the fault really began, if making it took a while.
        note: What another node said of the fault.
        strangers_commands: How many commands of somebody else came.
    """

    def __init__(
        self, contract: Contract, checkpoint: Path, environment: Mapping[str, str], domain: int,
        folder: Path, camera_rate: float, simulated: bool,
    ) -> None:
        self.contract, self.simulated = contract, simulated
        self.seen = Observed()
        self.environment, self.folder, self._domain = environment, folder, domain
        self.forget_fault()
        self._context = Context()
        self._context.init(domain_id=domain)
        self.node = node = Node("faults", context=self._context)
        camera, action = contract.camera, contract.action
        self.camera = Relay(
            node, "/scene" + camera.topic, camera.topic, message_class(camera.message),
            qos.CAMERA_PUBLISHER, qos.CAMERA_SENSOR_DATA,
        )
        self.robot = Relay(
            node, action.topic, "/robot" + action.topic, message_class(action.message),
            qos.COMMAND, qos.COMMAND,
        )
        self.clock = Relay(
            node, "/scene/clock", "/clock", Clock, qos.CLOCK_PUBLISHER, qos.CLOCK_PUBLISHER
        ) if simulated else None  # fmt: skip
        self._selectors = [FieldSelector.parse(item.selector) for item in action.fields]
        self._hold = np.array([float(item.hold) for item in action.fields])
        self.robot.ear = self._on_command
        self.camera.noisy = True
        node.create_subscription(PlanStatus, "/planner/status", self._on_status, 50)
        state = contract.states[0]
        self._position = [FieldSelector.parse(item.selector) for item in state.fields[:2]]
        node.create_subscription(
            message_class(state.message), state.topic, self._on_state, qos.STATE
        )
        self.deadman_says: bool | None = True
        self._deadman = node.create_publisher(Bool, "/deadman", qos.DEADMAN)
        node.create_timer(_DEADMAN_S, self._on_deadman_timer)
        self.block = node.create_publisher(Float64, "/planner/block", 1)
        self.shift = node.create_publisher(Float64, "/planner/shift_clock", 1)
        self.reset_scene = node.create_client(ResetScene, "/scene/reset")
        self.set_goal = node.create_client(SetGoal, "/planner/set_goal")
        self.stop = node.create_client(Trigger, "/planner/stop")
        self.resume = node.create_client(Trigger, "/planner/resume")
        self.parameters = node.create_client(SetParameters, "/planner/set_parameters")
        self.change_state = node.create_client(ChangeState, "/planner/change_state")
        self.reach = ActionClient(node, ReachGoal, "/planner/reach_goal")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        renamed = {camera.topic: "/scene" + camera.topic, action.topic: "/robot" + action.topic}
        self.scene = NodeProcess(
            "scene",
            {"scene": contract.name, "seed": 1, "camera_rate": camera_rate,
             "publish_clock": simulated},
            environment, folder / "scene.log",
            renamed | ({"/clock": "/scene/clock"} if simulated else {}),
        )  # fmt: skip
        self._parameters = {
            "checkpoint": checkpoint, "autostart": True, "replan_rate": 10.0, "threads": 1,
            "deadman_topic": "/deadman", "use_sim_time": simulated,
        }
        self._starts = itertools.count()
        self.start_planner()

    def start_planner(self) -> None:
        """Start the planner's process."""
        log = self.folder / f"planner{next(self._starts)}.log"
        self.planner = NodeProcess(
            "planner", self._parameters, self.environment, log, program=[str(PLANNER)]
        )

    def restart_planner(self) -> None:
        """Wait until the planner's process has ended, start it again, and wait until it is active.

        Raises:
            UserError: One of them does not come.
        """
        self.planner.wait(_READY_S)
        since = len(self.seen.statuses)
        self.start_planner()
        self.wait(
            lambda: any(
                status.state == PlanStatus.WAITING for _, status in self.seen.statuses[since:]
            ),
            "the planner does not come back", _READY_S,
        )

    def close(self) -> None:
        """End everything."""
        for process in (self.planner, self.scene):
            process.stop()
        for relay in filter(None, (self.camera, self.robot, self.clock)):
            relay.end()
        self._executor.shutdown()
        self._thread.join(5.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    @contextlib.contextmanager
    def stranger(self) -> Iterator[Node]:
        """A node that joins the graph from elsewhere, for as long as this lasts."""
        context = Context()
        context.init(domain_id=self._domain)
        node = Node("stranger", context=context)
        try:
            yield node
        finally:
            node.destroy_node()
            context.try_shutdown()

    # --- an operator's hands --------------------------------------------------------------------

    def call(self, client: Any, request: Any) -> Any:
        """Call a service and return its answer.

        Raises:
            UserError: It is not there or does not answer.
        """
        self.wait(client.service_is_ready, f"{client.srv_name} is not there", _READY_S)
        future = client.call_async(request)
        self.wait(future.done, f"{client.srv_name} does not answer", _ANSWER_S)
        return future.result()

    def wait(self, condition: Callable[[], bool], message: str, timeout_s: float) -> None:
        """Wait for a condition.

        Raises:
            UserError: It does not come true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                newest = self.seen.statuses[-1][1] if self.seen.statuses else None
                said = "nothing" if newest is None else newest.reason or "that it is planning"
                raise UserError(f"after {timeout_s:g} s: {message}; the planner says {said}")
            time.sleep(0.005)

    def begin(self, seed: int, state: Sequence[float], goal: NDArray[np.uint8]) -> None:
        """Reset the scene and pursue a goal picture (H, W, 3) that is never reached."""
        self.call(self.reset_scene, ResetScene.Request(seed=seed, state=list(map(float, state))))
        self.goal_picture: NDArray[np.uint8] = goal
        self.pursue()

    def pursue(self) -> None:
        """Pursue the goal, again."""
        since = len(self.seen.commands)
        self.wait(lambda: len(self.seen.statuses) > 0, "no status", _READY_S)
        self._give_goal(SetGoal.Request(image=encode_image(self.goal_picture), tolerance=NEVER))
        self.wait(
            lambda: any(not command.holds for command in self.seen.commands[since:]),
            "the robot is not commanded to move", _ANSWER_S,
        )

    def _give_goal(self, request: SetGoal.Request) -> None:
        # Again and again: a planner that was just activated refuses, and where one was killed, the
        # middleware asks the dead one for a while.
        deadline, told = time.monotonic() + 2 * _ANSWER_S, "no answer"
        while time.monotonic() < deadline:
            future = self.set_goal.call_async(request)
            with contextlib.suppress(UserError):
                self.wait(future.done, "no answer", 3.0)
            if future.done() and future.result().success:
                return
            told = future.result().message if future.done() else "no answer"
            time.sleep(0.1)
        raise UserError(f"the goal is refused: {told}")

    def mark(self) -> None:
        """The fault begins now: what went before was to prepare it."""
        self.began_ns = time.time_ns()

    def forget_fault(self) -> None:
        """Another fault is next."""
        self.began_ns: int | None = None
        self.note = ""
        self.strangers_commands = 0

    def command_something(self, message: Any) -> None:
        """Make a command of a message: a third of the way from hold to the upper limits."""
        _, upper, *_ = self.contract.action_limits()
        for selector, hold, limit in zip(self._selectors, self._hold, upper, strict=True):
            selector.set(message, float(hold + (limit - hold) / 3))

    def set_parameter(self, name: str, value: Any) -> str:
        """Set a parameter of the planner; return why it was refused."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        result = self.call(self.parameters, request).results[0]
        return "" if result.successful else result.reason

    def transition(self, number: int) -> bool:
        """Trigger a lifecycle transition of the planner."""
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(self.change_state, request).success

    # --- what is seen ---------------------------------------------------------------------------

    def _on_command(self, data: bytes) -> None:
        message = deserialize_message(data, self.robot.message_type)
        if message.header.frame_id == STRANGER:
            self.strangers_commands += 1
            return
        values = np.array([selector.get(message) for selector in self._selectors])
        self.seen.commands.append(
            Seen(
                time.time_ns(), stamp_to_ns(message.header.stamp), values,
                bool(np.array_equal(values, self._hold)),
            )
        )

    def _on_status(self, message: PlanStatus) -> None:
        self.seen.statuses.append((time.time_ns(), message))

    def _on_state(self, message: Any) -> None:
        x, y = (float(selector.get(message)) for selector in self._position)
        self.seen.positions.append((time.time_ns(), (x, y)))

    def _on_deadman_timer(self) -> None:
        if self.deadman_says is not None:
            self._deadman.publish(Bool(data=self.deadman_says))

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            # The context was shut down by `close`.
            return
