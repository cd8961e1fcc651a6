"""Small bags with exactly known stamps and values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lewm_core.data.bags import BagWriter
from lewm_core.data.contract import Contract
from lewm_core.data.messages import make_message

MS = 1_000_000
SECOND = 1_000_000_000


def small_contract(**changes: Any) -> Contract:
    """Return a contract of an 8 x 6 px camera, two velocities and one state topic.

    Args:
        changes: Dotted keys with ``__`` for the dots, such as ``action__resample="mean"``.
    """
    values: dict[str, Any] = {
        "name": "small",
        "control_rate": 10.0,
        "max_gap": 1.0,
        "cameras": [
            {
                "name": "top",
                "topic": "/camera",
                "message": "sensor_msgs/msg/Image",
                "size": [8, 6],
                "clock": "header",
                "timeout": 0.5,
            }
        ],
        "action": {
            "topic": "/command",
            "message": "geometry_msgs/msg/TwistStamped",
            "clock": "header",
            "timeout": 0.3,
            "resample": "latest",
            "fields": [
                _field("x", "twist.linear.x"),
                _field("y", "twist.linear.y"),
            ],
        },
        "states": [
            {
                "name": "scene",
                "topic": "/state",
                "message": "sensor_msgs/msg/JointState",
                "clock": "header",
                "fields": [
                    {"name": "a", "selector": "position[0]", "unit": "m"},
                    {"name": "b", "selector": "position[1]", "unit": "rad"},
                ],
            }
        ],
    }
    for key, value in changes.items():
        *owners, last = key.split("__")
        target: Any = values
        for owner in owners:
            target = target[int(owner)] if owner.isdigit() else target[owner]
        target[last] = value
    return Contract.from_dict(values)


def _field(name: str, selector: str) -> dict[str, Any]:
    return {
        "name": name,
        "selector": selector,
        "unit": "m/s",
        "lower": -1.0,
        "upper": 1.0,
        "rate_limit": 10.0,
        "hold": 0.0,
    }


def picture(number: int, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    """Return a picture ``(H, W, 3)`` uint8 that tells its number: red is it, green grows in x."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = number % 256
    pixels[..., 1] = np.arange(width)
    pixels[..., 2] = 255
    return pixels


def image_message(pixels: np.ndarray, stamp_ns: int) -> Any:
    """Return a rosbags ``sensor_msgs/Image`` in rgb8."""
    message = stamped("sensor_msgs/msg/Image", stamp_ns)
    message.height, message.width = pixels.shape[:2]
    message.step = 3 * message.width
    message.encoding = "rgb8"
    message.data = np.ascontiguousarray(pixels).reshape(-1)
    return message


def compressed_message(pixels: np.ndarray, stamp_ns: int, kind: str = "png") -> Any:
    """Return a rosbags ``sensor_msgs/CompressedImage``."""
    message = stamped("sensor_msgs/msg/CompressedImage", stamp_ns)
    message.format = kind
    message.data = cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].reshape(-1)
    return message


def stamped(type_name: str, stamp_ns: int) -> Any:
    """Return an empty message with a header stamp."""
    message = make_message(type_name)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    return message


def write_bag(
    path: Path,
    contract: Contract,
    pictures_ns: Sequence[int] = (),
    commands: Sequence[tuple[int, float, float]] = (),
    states: Sequence[tuple[int, float, float]] = (),
    receive_delay_ns: int = 0,
    storage: str = "mcap",
) -> Path:
    """Write a bag; picture i is ``picture(i)``.

    Args:
        path: Of the new bag.
        contract: A `small_contract`.
        pictures_ns: Header stamps.
        commands: (header stamp, x, y).
        states: (header stamp, a, b).
        receive_delay_ns: Receive stamp minus header stamp, of all messages.
        storage: ``mcap`` or ``sqlite3``.
    """
    camera = contract.camera
    compressed = camera.message.endswith("CompressedImage")
    entries: list[tuple[int, str, Any]] = []
    for number, stamp_ns in enumerate(pictures_ns):
        make = compressed_message if compressed else image_message
        pixels = picture(number, camera.size)
        entries.append((stamp_ns, camera.topic, make(pixels, stamp_ns)))
    for stamp_ns, x, y in commands:
        command = stamped(contract.action.message, stamp_ns)
        command.twist.linear.x, command.twist.linear.y = x, y
        entries.append((stamp_ns, contract.action.topic, command))
    for stamp_ns, a, b in states:
        state = stamped("sensor_msgs/msg/JointState", stamp_ns)
        state.position = np.array([a, b])
        entries.append((stamp_ns, "/state", state))
    with BagWriter(path, storage=storage) as writer:  # type: ignore[arg-type]
        for topic, type_name in contract.topic_types().items():
            if topic != "/state" or states:
                writer.add_topic(topic, type_name)
        for stamp_ns, topic, message in sorted(entries, key=lambda entry: entry[0]):
            writer.write(topic, stamp_ns + receive_delay_ns, message)
    return path


def write_episode(path: Path, contract: Contract, ticks: int = 41, every: int = 5) -> Path:
    """Write a bag with a picture every few ticks; command and state k are (k/1000, -k/1000)."""
    period_ns = round(SECOND / contract.control_rate)
    return write_bag(
        path,
        contract,
        [tick * period_ns for tick in range(0, ticks, every)],
        [(tick * period_ns, tick / 1000, -tick / 1000) for tick in range(ticks)],
        [(tick * period_ns, tick / 1000, -tick / 1000) for tick in range(ticks)],
    )
