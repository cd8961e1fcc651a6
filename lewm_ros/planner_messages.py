"""Between the planner's numbers and its messages."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from lewm_core.data.contract import Contract
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import ContractError
from lewm_ros.codecs import encode_image, ns_to_stamp
from lewm_ros.msg import ActionPlan
from lewm_ros.planner_status import as_float32

_NS_PER_S = 1_000_000_000


def message_class(type_name: str) -> type:
    """Return the class of a message type such as ``geometry_msgs/msg/TwistStamped``.

    Raises:
        ContractError: The package with this message is not installed.
    """
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"message type {type_name} is not installed: install ROS package {package!r}"
        ) from error


class CommandWriter:
    """Writes the action vector into the contract's command message."""

    def __init__(self, contract: Contract) -> None:
        """Check that every field can be written.

        Raises:
            ContractError: The message type is not installed or has no such field.
        """
        action = contract.action
        self.message_type = message_class(action.message)
        self._frame_id = action.frame_id
        self._selectors = [FieldSelector.parse(field.selector) for field in action.fields]
        self._has_header = hasattr(self.message_type(), "header")
        try:
            self.write(np.zeros(len(self._selectors)), 0)
        except (LookupError, TypeError, AssertionError) as error:
            raise ContractError(f"action fields of {action.message}: {error}") from error

    def write(self, values: NDArray[np.float64], now_ns: int) -> Any:
        """Return a new command message.

        Args:
            values: ``(A,)`` in the contract's units.
            now_ns: ROS time, for the header where there is one.
        """
        message = self.message_type()
        if self._has_header:
            message.header.stamp = ns_to_stamp(max(0, now_ns))
            message.header.frame_id = self._frame_id
        for selector, value in zip(self._selectors, values, strict=True):
            selector.set(message, float(value), lambda name: message_class(name)())
        return message


def action_plan(
    contract: Contract,
    actions: NDArray[np.floating],
    first_ns: int,
    image_ns: int,
    cost: float,
    distances: Sequence[float],
) -> ActionPlan:
    """Return a plan as a message.

    Args:
        contract: Names and units.
        actions: ``(steps, A)`` in the contract's units.
        first_ns: When the first action is due.
        image_ns: Stamp of the picture the plan was made from.
        cost: Of the plan.
        distances: Squared latent distance to the goal expected after each block.
    """
    message = ActionPlan()
    message.header.stamp = ns_to_stamp(max(0, first_ns))
    message.header.frame_id = contract.action.frame_id
    message.control_period = contract.control_period
    message.names = contract.action_names
    message.units = [field.unit for field in contract.action.fields]
    message.steps = len(actions)
    message.actions = np.asarray(actions, dtype=np.float64).ravel().tolist()
    message.cost = as_float32(cost)
    message.predicted_goal_distance = [as_float32(distance) for distance in distances]
    message.image_stamp = ns_to_stamp(max(0, image_ns))
    return message


def imagination(
    newest: NDArray[np.uint8], goal: NDArray[np.uint8] | None, caption: str, now_ns: int
) -> Image:
    """Return what the planner looks at: newest picture left, goal right, a line of text below.

    Args:
        newest: ``(3, S, S)`` uint8 RGB, as the model sees it.
        goal: ``(3, S, S)``, or None: left black.
        caption: One line.
        now_ns: ROS time.
    """
    size = 224
    panels = [
        np.zeros((size, size, 3), np.uint8) if picture is None else cv2.resize(
            np.ascontiguousarray(picture.transpose(1, 2, 0)), (size, size),
            interpolation=cv2.INTER_NEAREST,
        )
        for picture in (newest, goal)
    ]
    strip = np.zeros((24, 2 * size, 3), np.uint8)
    cv2.putText(
        strip, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA
    )
    return encode_image(np.concatenate([np.concatenate(panels, axis=1), strip]), max(0, now_ns))
