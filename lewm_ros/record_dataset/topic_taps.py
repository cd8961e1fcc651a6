"""Subscriptions that take a topic's messages as bytes, with the QoS its publishers offer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.interfaces import Qos

from lewm_core.data.bag_writer import make_qos
from lewm_core.data.messages import has_header, typestore
from lewm_core.errors import ContractError
from lewm_ros import qos
from lewm_ros.command_messages import message_class

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

#: Messages that may wait in the middleware: pictures (large) and everything else.
_PICTURE_DEPTH = 256
_DEPTH = 2000

_NS_PER_S = 1_000_000_000


class TopicTap:
    """One topic: waits for a publisher, then hands on every message as bytes.

    Attributes:
        topic: Its name in the contract and in the bag.
        type_name: Of its messages; None until a publisher is there, if it was not given.
        offered: What the first publisher offers, for the bag's metadata.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        type_name: str | None,
        on_message: Callable[[TopicTap, bytes], None],
        on_lost: Callable[[TopicTap, int], None],
    ) -> None:
        """Prepare; `connect` subscribes.

        Args:
            node: That subscribes.
            topic: Its name, before remapping; the bag has it under this name.
            type_name: Of its messages; None: whatever the publishers say.
            on_message: Gets each message's bytes.
            on_lost: Gets the number of messages that the middleware says it lost.
        """
        self.topic = topic
        self.type_name = type_name
        self.offered: Qos | None = None
        self._node = node
        self._on_message = on_message
        self._on_lost = on_lost
        self._subscription: Any = None
        self._asked: QoSProfile | None = None
        self._mistyped = False
        self._stamped = False

    @property
    def connected(self) -> bool:
        """Whether it has found a publisher and subscribed."""
        return self._subscription is not None

    def connect(self) -> None:
        """Subscribe if there is a publisher; again, if what the publishers offer has changed."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if self.type_name is None and publishers:
            self.type_name = publishers[0].topic_type
        fitting = [info for info in publishers if info.topic_type == self.type_name]
        if len(fitting) < len(publishers) and not self._mistyped:
            self._mistyped = True
            other = next(i.topic_type for i in publishers if i.topic_type != self.type_name)
            self._node.get_logger().error(
                f"{self.topic} is published as {other}, not as {self.type_name}: not recorded; "
                "mend the contract's message or the publisher"
            )
        if not fitting:
            return
        depth = _PICTURE_DEPTH if "Image" in str(self.type_name) else _DEPTH
        wanted = qos.matching([info.qos_profile for info in fitting], depth)
        asked = self._asked
        if asked is not None and (asked.reliability, asked.durability) == (
            wanted.reliability,
            wanted.durability,
        ):
            return
        self._subscribe(wanted)
        offered = fitting[0].qos_profile
        self.offered = make_qos(offered.reliability, offered.durability)

    def disconnect(self) -> None:
        """Subscribe no more."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._asked = None

    def drain(self) -> list[bytes]:
        """Return the messages that have arrived but were not handed on yet, oldest first."""
        taken: list[bytes] = []
        while self._subscription is not None:
            handle = self._subscription.handle
            with handle:
                entry = handle.take_message(self._subscription.msg_type, True)
            if entry is None:
                break
            taken.append(entry[0])
        return taken

    def stamp_ns(self, data: bytes) -> int | None:
        """Return the header's stamp, without decoding the message; None if it has no header."""
        if not self._stamped:
            return None
        # CDR: four bytes of encapsulation, the lowest bit of the second is the byte order.
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
        return seconds * _NS_PER_S + nanoseconds

    def _subscribe(self, profile: QoSProfile) -> None:
        try:
            message_type = message_class(str(self.type_name))
        except ContractError as error:
            if not self._mistyped:
                self._mistyped = True
                self._node.get_logger().error(f"{self.topic} is not recorded: {error}")
            return
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        fields = message_type.get_fields_and_field_types()
        known = self.type_name in typestore().fielddefs
        self._stamped = (
            has_header(str(self.type_name))
            if known
            else next(iter(fields.items()), None) == ("header", "std_msgs/Header")
        )
        events = SubscriptionEventCallbacks(
            message_lost=lambda event: self._on_lost(self, event.total_count_change)
        )
        self._subscription = self._node.create_subscription(
            message_type,
            self.topic,
            lambda data: self._on_message(self, data),
            profile,
            event_callbacks=events,
            raw=True,
        )
        self._asked = profile
