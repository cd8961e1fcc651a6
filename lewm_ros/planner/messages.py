"""Between the planner's numbers and its messages."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from lewm_core.data.contract import Contract
from lewm_ros.codecs import encode_image, ns_to_stamp
from lewm_ros.msg import ActionPlan
from lewm_ros.planner.status import as_float32


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

    Several cameras are shown one below the other.

    Args:
        newest: ``(3 C, S, S)`` uint8 RGB, as the model sees it.
        goal: ``(3 C, S, S)``, or None: left black.
        caption: One line.
        now_ns: ROS time.
    """
    size = 224
    cameras = len(newest) // 3
    panels = [
        np.zeros((size * cameras, size, 3), np.uint8)
        if picture is None
        else np.concatenate(
            [
                cv2.resize(
                    np.ascontiguousarray(view.transpose(1, 2, 0)),
                    (size, size),
                    interpolation=cv2.INTER_NEAREST,
                )
                for view in np.split(picture, cameras)
            ]
        )
        for picture in (newest, goal)
    ]
    strip = np.zeros((24, 2 * size, 3), np.uint8)
    cv2.putText(
        strip, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA
    )
    return encode_image(np.concatenate([np.concatenate(panels, axis=1), strip]), max(0, now_ns))
