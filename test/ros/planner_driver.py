"""A camera, a robot and an operator for tests of the planner: real DDS, in the test's process."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lewm_core.data import Contract, load_contract
from lewm_core.model import (
    ActionEncoderConfig,
    KeypointEncoderConfig,
    ModelConfig,
    PredictorConfig,
    ProjectorConfig,
    WorldModel,
    save_checkpoint,
)
from lewm_ros import qos
from lewm_ros.action import ReachGoal
from lewm_ros.codecs import encode_image, ns_to_stamp, stamp_to_ns
from lewm_ros.msg import PlanStatus
from lewm_ros.processes import NodeProcess, isolated_environment
from lewm_ros.srv import SetGoal
from test.helpers import wait_until

WIDTH = HEIGHT = 224
LIMIT = 0.15
CAMERA_TIMEOUT_S = 0.5
CONTROL_PERIOD_S = 0.1
_CLOCK_STEP_S = 0.02

#: A search that takes a few milliseconds; the tests are about the node.
QUICK_PLANNER = """
solver: {kind: cem, candidates: 16, rounds: 2, elites: 4, horizon: 5}
controller: {execute_blocks: 2}
"""


#: Some thousand parameters: the tests are about the node.
SMALL = ModelConfig(
    encoder=KeypointEncoderConfig(image_size=64, channels=(8, 8), keypoints=8),
    embedding_dim=16,
    projector=ProjectorConfig(hidden=32),
    action_encoder=ActionEncoderConfig(hidden=32),
    predictor=PredictorConfig(width=32, depth=1, heads=2, head_dim=16, mlp_dim=64, projector=None),
    action_dim=2,
)


def make_checkpoint(
    folder: Path,
    broken: bool = False,
    config: ModelConfig = SMALL,
    contract: Contract | None = None,
) -> Path:
    """Write an untrained but complete checkpoint of Push-T.

    Args:
        folder: Where to.
        broken: Whether its predictions are NaN.
        config: Of the model; its number of actions is the contract's.
        contract: In the place of Push-T's.
    """
    torch.manual_seed(0)
    contract = contract or load_contract("push_t")
    lower, upper, _, _ = contract.action_limits()
    model = WorldModel(config.model_copy(update={"action_dim": len(lower)})).eval()
    model.set_action_statistics(0.5 * (lower + upper), 0.27 * (upper - lower))
    with torch.no_grad():
        # Untrained, all pictures look alike; spread them so that distances mean something.
        list(model.projector.parameters())[-2].mul_(1000.0)
    if broken:
        with torch.no_grad():
            next(iter(model.predictor.parameters())).fill_(math.nan)
    values = contract.to_dict()
    metadata = {"steps": 0, "latent": {"one_block_distance": 1.0}}
    return save_checkpoint(folder, model, values, metadata, "Untrained, for tests.")


def picture_of(x: float, y: float) -> np.ndarray:
    """Return a picture (224, 224, 3) with a dark disc at (x, y) in 0..1."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    inside = (columns - x) ** 2 + (rows - y) ** 2 < 0.01
    return np.where(inside[..., None], np.uint8(30), np.uint8(230)).repeat(3, axis=2)


@dataclass
class Seen:
    """A command as it arrived: wall time of receipt, its stamp (ns), its two values (m/s)."""

    at_s: float
    stamp_ns: int
    values: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether this is the contract's hold command."""
        return self.values == (0.0, 0.0)


class Driver:
    """Publishes pictures, takes commands and reports, asks for things.

    Attributes:
        streaming: Whether pictures are published, at 10 Hz, of a disc that moves.
        picture: What is shown; None: the disc moves.
        noise: Whether the pictures differ a little even if the scene does not, as a camera's do.
        stamp_offset_s: Added to the pictures' stamps.
        companions: Called with every picture and its stamp (ns), after it was published.
        encoding: Overrides the encoding that the pictures state, if it is not empty.
        now_ns: Time for stamps; the system's unless replaced.
        clock_ns: Simulated time, published on ``/clock``; None: none.
        clock_runs: Whether it goes on.
    """

    def __init__(self, domain: int, discovery: str = "LOCALHOST") -> None:
        """Join the ROS graph of this domain."""
        # As the planner's process has it, or the two do not find each other.
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = discovery
        self._context = Context()
        self._context.init(domain_id=domain)
        self.node = Node("driver", context=self._context)
        self.streaming = False
        self.picture: np.ndarray | None = None
        self.noise = True
        self.stamp_offset_s = 0.0
        self.companions: list[Callable[[np.ndarray, int], None]] = []
        self.encoding = ""
        self.now_ns = time.time_ns
        self.clock_ns: int | None = None
        self.clock_runs = True
        self.last_picture_ns = 0
        self.process: NodeProcess | None = None
        self.commands: list[Seen] = []
        self.statuses: list[PlanStatus] = []
        self._images = self.node.create_publisher(
            Image, "/camera/image_raw", qos.CAMERA_SENSOR_DATA
        )
        self._clock = self.node.create_publisher(Clock, "/clock", qos.CLOCK_PUBLISHER)
        self._subscription = self._listen()
        self.node.create_subscription(
            PlanStatus, "/planner/status", self.statuses.append, qos.STATUS
        )
        self.change_state_client = self.node.create_client(ChangeState, "/planner/change_state")
        self.get_state_client = self.node.create_client(GetState, "/planner/get_state")
        self.set_goal_client = self.node.create_client(SetGoal, "/planner/set_goal")
        self.stop_client = self.node.create_client(Trigger, "/planner/stop")
        self.resume_client = self.node.create_client(Trigger, "/planner/resume")
        self.parameters_client = self.node.create_client(
            SetParameters, "/planner/set_parameters"
        )
        self.reach = ActionClient(self.node, ReachGoal, "/planner/reach_goal")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._spin, self._stream)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Leave the graph."""
        self._ended.set()
        self._executor.shutdown()
        for thread in self._threads:
            thread.join(5.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    # --- what a robot does ----------------------------------------------------------------------

    def listen_to_commands(self, listen: bool) -> None:
        """Subscribe the command topic, or stop doing so."""
        if listen and self._subscription is None:
            self._subscription = self._listen()
        elif not listen and self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
            self._subscription = None

    def publish_picture(self, picture: np.ndarray, stamp_ns: int) -> None:
        """Publish one picture."""
        message = encode_image(picture, stamp_ns)
        if self.encoding:
            message.encoding = self.encoding
        self._images.publish(message)
        for companion in self.companions:
            companion(picture, stamp_ns)
        self.last_picture_ns = stamp_ns

    # --- what an operator does ------------------------------------------------------------------

    def call(self, client, request, timeout_s: float = 30.0):
        """Call a service and return its answer."""
        wait_until(client.service_is_ready, timeout_s, f"{client.srv_name} is not there")
        future = client.call_async(request)
        wait_until(future.done, timeout_s, f"{client.srv_name} did not answer")
        return future.result()

    def change_state(self, transition: int) -> bool:
        """Trigger a lifecycle transition; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(self.change_state_client, request).success

    def state(self) -> str:
        """Return the label of the planner's lifecycle state."""
        return self.call(self.get_state_client, GetState.Request()).current_state.label

    def set_parameter(self, name: str, value) -> str:
        """Set a parameter of the planner; returns the reason if it was refused."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        result = self.call(self.parameters_client, request).results[0]
        return "" if result.successful else result.reason

    def set_goal(self, picture: np.ndarray | None = None, path: str = "", tolerance: float = 0.0):
        """Call ``~/set_goal``."""
        request = SetGoal.Request(path=path, tolerance=tolerance)
        if picture is not None:
            request.image = encode_image(picture)
        return self.call(self.set_goal_client, request)

    def send_goal(
        self, pictures: list[np.ndarray], timeout_s: int = 0, tolerance: float = 0.0, feedback=None
    ):
        """Send a ``~/reach_goal``; returns the goal's handle."""
        goal = ReachGoal.Goal(
            goals=[encode_image(picture) for picture in pictures], tolerance=tolerance
        )
        goal.timeout.sec = timeout_s
        return self.send(goal, feedback)

    def send(self, goal: ReachGoal.Goal, feedback=None):
        """Send a ``~/reach_goal`` as it is; returns the goal's handle."""
        wait_until(self.reach.server_is_ready, 30.0, "the action server is not there")
        future = self.reach.send_goal_async(goal, feedback_callback=feedback)
        wait_until(future.done, 30.0, "the goal was not answered")
        return future.result()

    def result_of(self, handle, timeout_s: float = 20.0):
        """Wait for the result of a ``~/reach_goal``."""
        future = handle.get_result_async()
        wait_until(future.done, timeout_s, "the goal did not end")
        return future.result().result

    # --- what was seen --------------------------------------------------------------------------

    @property
    def status(self) -> PlanStatus:
        """The newest report."""
        return self.statuses[-1]

    def shown(self) -> str:
        """Say what the newest report says."""
        if not self.statuses:
            return "there is no report"
        return f"the newest report is {self.status}"

    def wait_status(
        self, state: int, words: str = "", timeout_s: float = 40.0
    ) -> PlanStatus:
        """Wait until the newest report has this state and these words in its reason."""

        def there() -> bool:
            newest = self.statuses[-1] if self.statuses else None
            return newest is not None and newest.state == state and words in newest.reason

        try:
            wait_until(there, timeout_s, "")
        except AssertionError as error:
            raise AssertionError(
                f"wanted state {state} with {words!r}; {self.shown()}"
            ) from error
        return self.status

    def wait_commands(self, number: int, timeout_s: float = 10.0) -> list[Seen]:
        """Wait for this many further commands and return them."""
        start = len(self.commands)
        wait_until(
            lambda: len(self.commands) >= start + number, timeout_s, "commands do not arrive"
        )
        return self.commands[start : start + number]

    def wait_motion(self, timeout_s: float = 40.0) -> Seen:
        """Wait for a command that moves the robot."""
        start = len(self.commands)
        try:
            wait_until(
                lambda: any(not seen.holds for seen in self.commands[start:]), timeout_s, ""
            )
        except AssertionError as error:
            raise AssertionError(f"no command moves the robot; {self.shown()}") from error
        return next(seen for seen in self.commands[start:] if not seen.holds)

    def _listen(self):
        return self.node.create_subscription(
            TwistStamped, "/command", self._on_command, qos.COMMAND
        )

    def _on_command(self, message: TwistStamped) -> None:
        linear = message.twist.linear
        self.commands.append(
            Seen(time.monotonic(), stamp_to_ns(message.header.stamp), (linear.x, linear.y))
        )

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _stream(self) -> None:
        iteration = 0
        while not self._ended.wait(_CLOCK_STEP_S):
            if self.clock_ns is not None and self.clock_runs:
                self.clock_ns += round(_CLOCK_STEP_S * 1e9)
                self._clock.publish(Clock(clock=ns_to_stamp(self.clock_ns)))
            iteration += 1
            if not self.streaming or iteration % 5:
                continue
            phase = 0.01 * iteration
            shown = self.picture
            if shown is None:
                shown = picture_of(0.5 + 0.3 * math.cos(phase), 0.5 + 0.3 * math.sin(phase))
            if self.noise:
                shown = shown.copy()
                shown[-1, -1] ^= iteration // 5 & 1
            now_ns = self.now_ns() if self.clock_ns is None else self.clock_ns
            self.publish_picture(shown, now_ns + round(self.stamp_offset_s * 1e9))


@contextmanager
def running_planner(
    folder: Path, program: Sequence[str] | None = None, **parameters
) -> Iterator[Driver]:
    """Run a planner in a process of its own, with a driver beside it, in a graph of their own.

    The checkpoint is at ``folder/checkpoint``; ``program`` goes in the place of the module (see
    `NodeProcess`); ``parameters`` go before the defaults. The process
    is ``driver.process``. With ``autostart`` (the default) it is active when this returns.
    """
    (folder / "quick.yaml").write_text(QUICK_PLANNER)
    environment = isolated_environment()
    given = {
        "checkpoint": make_checkpoint(folder / "checkpoint"),
        "planner": folder / "quick.yaml",
        "threads": 1,
        "autostart": True,
        **parameters,
    }
    driver = Driver(int(environment["ROS_DOMAIN_ID"]))
    try:
        with NodeProcess(
            "planner", given, environment, folder / "planner.log", program=program
        ) as process:
            driver.process = process
            state = PlanStatus.WAITING if given["autostart"] else PlanStatus.INACTIVE
            driver.wait_status(state, timeout_s=60.0)
            yield driver
    finally:
        driver.close()
