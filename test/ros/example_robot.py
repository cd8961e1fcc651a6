"""A robot as a process: takes the commands of an example contract, as its controller would.

    python -m test.ros.example_robot base_velocity

What it accepts, refuses and does when nothing comes is written after the sources of the controllers
(branch jazzy of ros2_controllers, moveit2): `diff_drive_controller.cpp`, `on_update` and the
subscription; `joint_trajectory_controller.cpp`, `validate_trajectory_msg`, with
`trajectory.cpp`, `deduce_from_derivatives`; `servo_node.cpp`, `processTwistCommand`. It integrates
what it is commanded, publishes its camera, and on ``/NAME/report`` what it did, as JSON.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from typing import Protocol

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lewm_core.data import load_contract
from lewm_ros import qos
from lewm_ros.codecs import encode_compressed, encode_image, ns_to_stamp, stamp_to_ns
from lewm_ros.dds import apply_profile

STEP_S = 0.02
NS = 1_000_000_000

#: The parameters of the controllers that docs/first-robot.md names.
CMD_VEL_TIMEOUT_S = 0.3
INCOMING_COMMAND_TIMEOUT_S = 0.1
SERVO_FRAMES = ("base_link", "tool0")
UR_JOINTS = (
    "elbow_joint", "shoulder_lift_joint", "shoulder_pan_joint", "wrist_1_joint", "wrist_2_joint",
    "wrist_3_joint",
)  # fmt: skip


class Controller(Protocol):
    """Takes commands and moves.

    Attributes:
        message: Type of its commands.
        position: Of its axes, m or rad.
        velocity: Of its axes, per second.
    """

    message: type
    position: np.ndarray
    velocity: np.ndarray

    def take(self, command, now_ns: int) -> str:
        """Take a command; returns why it is refused, or an empty text."""
        ...

    def step(self, now_ns: int) -> None:
        """Move on by `STEP_S`."""
        ...


class DiffDrive:
    """A differential drive: x, y and heading; forward speed and turning rate."""

    message = TwistStamped

    def __init__(self) -> None:
        self.position, self.velocity = np.zeros(3), np.zeros(2)
        self._wanted, self._stamp_ns = np.zeros(2), 0

    def take(self, command: TwistStamped, now_ns: int) -> str:
        stamp_ns = stamp_to_ns(command.header.stamp)
        if (now_ns - stamp_ns) / NS >= CMD_VEL_TIMEOUT_S:
            return "late"
        # Velocities on other components are ignored.
        wanted = np.array([command.twist.linear.x, command.twist.angular.z])
        if not np.all(np.isfinite(wanted)):
            return "not finite"
        self._wanted, self._stamp_ns = wanted, stamp_ns
        return ""

    def step(self, now_ns: int) -> None:
        stale = (now_ns - self._stamp_ns) / NS > CMD_VEL_TIMEOUT_S
        wanted = np.zeros(2) if stale else self._wanted
        # Its own acceleration limits: 1 m/s^2, 3 rad/s^2.
        reach = np.array([1.0, 3.0]) * STEP_S
        self.velocity = np.clip(wanted, self.velocity - reach, self.velocity + reach)
        forward, turning = self.velocity * STEP_S
        heading = self.position[2]
        self.position += [forward * math.cos(heading), forward * math.sin(heading), turning]


class JointTrajectoryDrive:
    """Six joints behind a trajectory controller that integrates velocities."""

    message = JointTrajectory

    def __init__(self) -> None:
        self.position, self.velocity = np.zeros(6), np.zeros(6)
        self._target, self._due_ns = np.zeros(6), 0

    def take(self, command: JointTrajectory, now_ns: int) -> str:
        if len(command.joint_names) != len(UR_JOINTS):
            return "joints on incoming trajectory don't match the controller joints"
        for name in command.joint_names:
            if name not in UR_JOINTS:
                return f"incoming joint {name} doesn't match the controller's joints"
        if not command.points:
            return "empty trajectory"
        point = command.points[-1]
        due_ns = stamp_to_ns(command.header.stamp) + stamp_to_ns(point.time_from_start)
        if due_ns < now_ns:
            return "late"
        if len(command.points) != 1 or point.positions or len(point.velocities) != 6:
            return f"{len(command.points)} points, {len(point.velocities)} velocities"
        order = [command.joint_names.index(name) for name in UR_JOINTS]
        target = np.array(point.velocities)[order]
        if not np.all(np.isfinite(target)):
            return "not finite"
        self._target, self._due_ns = target, due_ns
        return ""

    def step(self, now_ns: int) -> None:
        left_s = (self._due_ns - now_ns) / NS
        if left_s <= 0.0:
            # The trajectory is over: its last position is kept.
            self.velocity = np.zeros(6)
            return
        share = min(1.0, STEP_S / left_s)
        faster = self.velocity + (self._target - self.velocity) * share
        self.position += 0.5 * (self.velocity + faster) * STEP_S
        self.velocity = faster


class CartesianServo:
    """A tool: x, y, z and a turn about z."""

    message = TwistStamped

    def __init__(self) -> None:
        self.position, self.velocity = np.zeros(4), np.zeros(4)
        self._wanted, self._stamp_ns = np.zeros(4), 0

    def take(self, command: TwistStamped, now_ns: int) -> str:
        if command.header.frame_id not in SERVO_FRAMES:
            return f"no transform from {command.header.frame_id!r}"
        linear, angular = command.twist.linear, command.twist.angular
        wanted = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if not np.all(np.isfinite(wanted)):
            return "not finite"
        if angular.x or angular.y:
            return "a turn that is not in the contract"
        self._wanted, self._stamp_ns = wanted[[0, 1, 2, 5]], stamp_to_ns(command.header.stamp)
        return ""

    def step(self, now_ns: int) -> None:
        stale = (now_ns - self._stamp_ns) / NS >= INCOMING_COMMAND_TIMEOUT_S
        wanted = np.zeros(4) if stale else self._wanted
        # The smoothing of Servo, about: a few of its periods.
        self.velocity = self.velocity + 0.3 * (wanted - self.velocity)
        if not np.any(wanted) and np.all(np.abs(self.velocity) < 1e-4):
            self.velocity = np.zeros(4)
        self.position += self.velocity * STEP_S


CONTROLLERS = {
    "base_velocity": DiffDrive,
    "arm_trajectory": JointTrajectoryDrive,
    "cartesian_servo": CartesianServo,
}


class ExampleRobot(Node):
    """Camera and controller of one of the example contracts."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}_robot")
        self._contract = load_contract(name)
        self._controller: Controller = CONTROLLERS[name]()
        self._accepted, self._late, self._refused = 0, 0, []
        self._pictures = 0
        action, camera = self._contract.action, self._contract.camera
        # SystemDefaultsQoS, as the controllers ask for it.
        self.create_subscription(self._controller.message, action.topic, self._on_command, 10)
        self._compressed = camera.message.endswith("CompressedImage")
        self._camera = self.create_publisher(
            CompressedImage if self._compressed else Image, camera.topic, qos.CAMERA_SENSOR_DATA
        )
        self._joints = None
        if name == "arm_trajectory":
            self._joints = self.create_publisher(JointState, "/joint_states", 10)
        self._reports = self.create_publisher(String, f"/{name}/report", 10)
        self._noise = np.random.default_rng(0).integers(0, 8, (480, 640, 3), np.uint8)
        self.create_timer(STEP_S, self._on_step)
        self.create_timer(self._contract.control_period, self._on_picture)

    def _picture(self) -> np.ndarray:
        """A disc that stands where the first two axes do, and the noise of a real camera."""
        self._pictures += 1
        picture = 220 + np.roll(self._noise, self._pictures, axis=1)
        x, y = (np.clip(0.5 + self._controller.position[:2], 0.1, 0.9) * 480).astype(int)
        cv2.circle(picture, (int(x), int(y)), 60, (30, 60, 90), cv2.FILLED)
        return picture

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _on_command(self, command) -> None:
        reason = self._controller.take(command, self._now_ns())
        if reason == "late":
            self._late += 1
        elif reason:
            self._refused.append(reason)
        else:
            self._accepted += 1

    def _on_step(self) -> None:
        self._controller.step(self._now_ns())

    def _on_picture(self) -> None:
        now_ns = self._now_ns()
        encode = encode_compressed if self._compressed else encode_image
        self._camera.publish(encode(self._picture(), now_ns))
        if self._joints is not None:
            message = JointState(name=list(UR_JOINTS), position=self._controller.position.tolist())
            message.header.stamp = ns_to_stamp(now_ns)
            self._joints.publish(message)
        report = {
            "position": self._controller.position.tolist(),
            "velocity": self._controller.velocity.tolist(),
            "accepted": self._accepted,
            "late": self._late,
            "refused": self._refused,
        }
        self._reports.publish(String(data=json.dumps(report)))


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    apply_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    node = ExampleRobot(sys.argv[1])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
