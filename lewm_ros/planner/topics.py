"""The topics that the planner has from configure to cleanup."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import Image

from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import Camera, State
from lewm_core.data.fields import FieldSelector
from lewm_core.data.observation import ObservationLayout
from lewm_ros import qos
from lewm_ros.command_messages import CommandWriter, message_class
from lewm_ros.endpoints import others_than, owners, why_nobody_hears, why_nothing_comes
from lewm_ros.msg import ActionPlan, EpisodeEvent
from lewm_ros.planner.messages import action_plan, imagination
from lewm_ros.planner.thread import PlanMade

#: A plan is for whoever watches; the newest few are enough.
_PLAN_DEPTH, _IMAGINATION_DEPTH = 5, 1


class PlannerTopics:
    """Subscriptions to all that the model is given and to episodes; what the planner publishes.

    Args:
        node: They are made on this node.
        contract: Names and types.
        layout: Which cameras and state fields the model is given.
        positions: State topics that tell where the robot stands, with the names of these fields.
        on_image: Gets a camera and its messages.
        on_state: Gets a state topic, where the fields that are needed are in its messages, and the
            messages.
        on_episode: Gets the events of a scene.

    Raises:
        ContractError: A message type is not installed or lacks a field.
    """

    def __init__(
        self,
        node: LifecycleNode,
        contract: Contract,
        layout: ObservationLayout,
        positions: Mapping[str, tuple[str, ...]],
        on_image: Callable[[Camera, Any], None],
        on_state: Callable[[State, dict[str, FieldSelector], Any], None],
        on_episode: Callable[[EpisodeEvent], None],
    ) -> None:
        self._node = node
        self._contract = contract
        self._writer = CommandWriter(contract)
        self._commands = node.create_lifecycle_publisher(
            self._writer.message_type, contract.action.topic, _command_profile(node, contract)
        )
        self._plans = node.create_lifecycle_publisher(ActionPlan, "~/plan", _PLAN_DEPTH)
        self._imagination = node.create_lifecycle_publisher(
            Image, "~/imagination", _IMAGINATION_DEPTH
        )
        self._cameras = layout.cameras
        self._images = [
            node.create_subscription(
                message_class(camera.message),
                camera.topic,
                functools.partial(on_image, camera),
                qos.CAMERA_NEWEST,
            )
            for camera in layout.cameras
        ]
        self._states = {
            state: node.create_subscription(
                message_class(state.message),
                state.topic,
                functools.partial(on_state, state, fields),
                qos.STATE,
            )
            for state in contract.states
            if (fields := _fields(state, (*layout.state_names, *positions.get(state.topic, ()))))
        }
        self._episodes = node.create_subscription(
            EpisodeEvent, "episode", on_episode, qos.EPISODE
        )
        self.command_topic: str = self._commands.topic_name

    def destroy(self) -> None:
        """Free them all."""
        for subscription in (*self._images, *self._states.values(), self._episodes):
            self._node.destroy_subscription(subscription)
        for publisher in (self._commands, self._plans, self._imagination):
            self._node.destroy_lifecycle_publisher(publisher)

    def why_no_pictures(self) -> str:
        """Why a camera's pictures do not come, as far as the graph says; empty if it does not."""
        problems = (
            why_nothing_comes(self._node, image.topic_name, camera.message, qos.CAMERA_NEWEST)
            for image, camera in zip(self._images, self._cameras, strict=True)
        )
        return next(filter(None, problems), "")

    def why_no_state(self, topic: str) -> str:
        """Why a state topic's messages do not come, as far as the graph says, or empty.

        Args:
            topic: As the contract calls it.
        """
        for state, subscription in self._states.items():
            if state.topic == topic:
                name = subscription.topic_name
                return why_nothing_comes(self._node, name, state.message, qos.STATE)
        return ""

    def why_nobody_listens(self) -> str:
        """Why the command topic has no subscriber."""
        message = self._contract.action.message
        return why_nobody_hears(self._node, self.command_topic, message, qos.COMMAND)

    def command_listeners(self) -> int:
        """Number of subscribers of the command topic."""
        return self._commands.get_subscription_count()

    def other_drivers(self) -> str:
        """Name the nodes that publish the command topic besides this one; empty if none does."""
        publishers = self._node.get_publishers_info_by_topic(self.command_topic)
        return owners(others_than(publishers, self._node.get_fully_qualified_name()))

    def send_command(self, values: NDArray[np.float64], now_ns: int) -> None:
        """Publish a command ``(A,)``."""
        self._commands.publish(self._writer.write(values, now_ns))

    def wait_commands_received(self, timeout_s: float) -> None:
        """Wait until reliable subscribers have the last command, at most ``timeout_s``."""
        self._commands.wait_for_all_acked(Duration(nanoseconds=round(timeout_s * 1e9)))

    def send_plan(self, made: PlanMade) -> None:
        """Publish a plan that was made."""
        result = made.result
        message = action_plan(
            self._contract,
            result.plan.actions[0].numpy(),
            result.start_ns,
            result.image_stamp_ns,
            float(result.plan.cost[0]),
            result.predicted_distances,
        )
        self._plans.publish(message)

    def send_imagination(
        self,
        newest: NDArray[np.uint8] | None,
        goal: NDArray[np.uint8] | None,
        distance: float,
        now_ns: int,
    ) -> None:
        """Publish what the planner looks at, if anybody wants to see it.

        Args:
            newest: ``(3 C, S, S)`` uint8 RGB, or None: nothing is published.
            goal: ``(3 C, S, S)``, or None.
            distance: Squared latent distance between them.
            now_ns: ROS time.
        """
        if newest is not None and self._imagination.get_subscription_count() > 0:
            caption = f"camera | goal   squared latent distance {distance:.3g}"
            self._imagination.publish(imagination(newest, goal, caption, now_ns))


def _command_profile(node: LifecycleNode, contract: Contract) -> QoSProfile:
    # A lifespan is one of system time. And only of Fast DDS it is known that a busy recorder keeps
    # what it has (docs/safety.md): others drop that as well.
    fast_dds = get_rmw_implementation_identifier().startswith("rmw_fastrtps")
    if node.get_parameter("use_sim_time").value or not fast_dds:
        return qos.COMMAND
    return qos.command_with_lifespan(contract.action.timeout)


def _fields(state: State, names: tuple[str, ...]) -> dict[str, FieldSelector]:
    """Which fields of a state topic are needed, and where they are in its messages."""
    return {
        field.name: FieldSelector.parse(field.selector)
        for field in state.fields
        if field.name in names
    }

