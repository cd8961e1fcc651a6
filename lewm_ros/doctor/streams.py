"""Listens to a topic for a while and notes what came; the judging is elsewhere."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from lewm_core.errors import ImageError
from lewm_ros.codecs import decode_message, stamp_to_ns
from lewm_ros.command_messages import message_class

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

#: Asks for least, so that every publisher is heard whatever it offers; deeper than the planner's
#: own subscription, so that the publisher is measured and not this process.
LISTENING = QoSProfile(
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=50,
)

#: Every so many pixels, in both directions, are looked at for brightness.
_STRIDE = 4


@dataclass(frozen=True)
class Picture:
    """What is in one message of a camera.

    Attributes:
        width: px; 0 if it cannot be decoded.
        height: px.
        encoding: As the message says; the format of a compressed one.
        size: Bytes of the data.
        checksum: Of the data.
        darkest: Of 255.
        brightest: Of 255.
        error: Why it cannot be decoded; empty if it can.
    """

    width: int
    height: int
    encoding: str
    size: int
    checksum: int
    darkest: int = 0
    brightest: int = 0
    error: str = ""


@dataclass(frozen=True)
class Arrival:
    """One message.

    Attributes:
        at_s: When it came, by a steady clock.
        ros_ns: When it came, ROS time.
        stamp_ns: Its header's stamp; None if it has no header.
        picture: What is in it, if it is a camera's.
    """

    at_s: float
    ros_ns: int
    stamp_ns: int | None
    picture: Picture | None = None


@dataclass
class Stream:
    """What came on one topic while it was listened to.

    Attributes:
        arrivals: In order.
        lost: Messages that the middleware says it lost on the way.
    """

    arrivals: list[Arrival] = field(default_factory=list)
    lost: int = 0


class Listener:
    """Subscribes a topic; notes what comes between `begin` and `end`.

    Args:
        node: That subscribes.
        topic: Its name, before remapping.
        message: Its type.
        look: Makes a `Picture` of a message, for cameras.

    Raises:
        ContractError: The message type is not installed.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        message: str,
        look: Callable[[Any], Picture] | None = None,
    ) -> None:
        self._node = node
        self._look = look
        self._stream: Stream | None = None
        events = SubscriptionEventCallbacks(
            message_lost=self._on_lost,
            # A publisher that does not fit is judged from the graph; no line on stderr.
            incompatible_qos=lambda _: None,
            use_default_callbacks=False,
        )
        node.create_subscription(
            message_class(message), topic, self._on_message, LISTENING, event_callbacks=events
        )

    def begin(self) -> None:
        """Forget what came so far and take note from now on."""
        self._stream = Stream()

    def end(self) -> Stream:
        """Return what came since `begin`, and take no more note."""
        stream, self._stream = self._stream or Stream(), None
        return stream

    def _on_message(self, message: Any) -> None:
        stream, at_s = self._stream, time.monotonic()
        if stream is None:
            return
        header = getattr(message, "header", None)
        stream.arrivals.append(
            Arrival(
                at_s,
                self._node.get_clock().now().nanoseconds,
                None if header is None else stamp_to_ns(header.stamp),
                None if self._look is None else self._look(message),
            )
        )

    def _on_lost(self, event: Any) -> None:
        if self._stream is not None:
            self._stream.lost += max(0, event.total_count_change)


def look_at(message: Any) -> Picture:
    """Return what is in an Image or CompressedImage; one that cannot be decoded says why."""
    data = memoryview(message.data)
    encoding = getattr(message, "encoding", None) or getattr(message, "format", "")
    checksum = zlib.crc32(data)
    try:
        picture = decode_message(message)
    except ImageError as error:
        return Picture(0, 0, encoding, len(data), checksum, error=str(error))
    sample = picture[::_STRIDE, ::_STRIDE]
    return Picture(
        picture.shape[1], picture.shape[0], encoding, len(data), checksum,
        int(sample.min()), int(sample.max()),
    )  # fmt: skip
