"""Writing rosbag2 bags without ROS, such that a killed process loses a second at most.

`lewm-collect` and the recorder node write through this one class. The bags are plain rosbag2
(``metadata.yaml`` version 8, which every distribution from Humble on reads), and the definitions
of all message types travel inside.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import TypesysError

from lewm_core.data.bag_storage import STORAGE_ERRORS, FlushingWriter
from lewm_core.data.messages import add_type, make_typestore, typestore
from lewm_core.errors import BagError

#: rosbag2's metadata version: 8 keeps QoS as a string of numbers, which Humble to Kilted read.
_METADATA_VERSION = 8
_FOREVER = QosTime(9223372036, 854775807)

StorageName = Literal["mcap", "sqlite3"]
CompressionName = Literal["zstd", "none"]


def make_qos(
    reliability: int | QosReliability = QosReliability.RELIABLE,
    durability: int | QosDurability = QosDurability.VOLATILE,
    history: int | QosHistory = QosHistory.KEEP_LAST,
    depth: int = 10,
) -> Qos:
    """Return a QoS profile for a bag; numbers are those of rmw and of rclpy's policies."""
    return Qos(
        history=QosHistory(int(getattr(history, "value", history))),
        depth=depth,
        reliability=QosReliability(int(getattr(reliability, "value", reliability))),
        durability=QosDurability(int(getattr(durability, "value", durability))),
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """Writes one rosbag2 bag: a folder with the storage file and ``metadata.yaml``.

    After ``kill -9`` everything up to the last finished chunk is readable (`BagReader` does, with
    a warning). A chunk ends at 1 MiB, and at the first write after ``flush_s``; a recorder whose
    topics may fall silent calls `flush_if_due` now and then. Not for several threads at once.

    A disk that is full costs no earlier chunk either. What is pending then stays pending: after
    room was made, `flush` or `close` bring it to disk. What `close` cannot write is lost, and
    `counts` and `sizes` are without it.

    Args:
        path: Folder of the bag; must not exist. Its name is the episode's name.
        storage: ``mcap`` (the default everywhere), or ``sqlite3`` for old tools.
        compression: Of MCAP chunks; sqlite3 has none.
        flush_s: s; a chunk is not kept in memory for longer.
        custom_data: Kept in ``metadata.yaml``, such as ``{"seed": "3"}``.

    Raises:
        BagError: The folder exists already, or the disk refuses a database.
        OSError: The disk refuses a file; nothing of the bag is left.
    """

    def __init__(
        self,
        path: str | Path,
        storage: StorageName = "mcap",
        compression: CompressionName = "zstd",
        flush_s: float = 1.0,
        custom_data: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.flush_s = flush_s
        #: Messages written, and their bytes, per topic.
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        #: Of these, what is pending.
        self._pending_counts: Counter[str] = Counter()
        self._pending_sizes: Counter[str] = Counter()
        plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
        try:
            self._writer = FlushingWriter(
                self.path, version=_METADATA_VERSION, storage_plugin=plugin
            )
            if storage == "mcap" and compression == "zstd":
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            # Never empty: some versions of rosbag2 refuse a null here.
            for key, value in {"recorded_by": "lewm_ros", **(custom_data or {})}.items():
                self._writer.set_custom_data(key, value)
            self._writer.open()
        except WriterError as error:
            raise BagError(f"{self.path}: {error} Give another name or remove it") from error
        except STORAGE_ERRORS as error:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise
            raise BagError(f"{self.path} cannot be made: {error}; make room") from error
        self._storage: Any = self._writer.storage
        self._connections: dict[str, Connection] = {}
        self._store = typestore()
        self._closed = False

    def add_topic(
        self,
        topic: str,
        type_name: str,
        message_definition: str | None = None,
        qos: Qos | Sequence[Qos] | None = None,
    ) -> None:
        """Announce a topic; may be called at any time before its first message.

        Args:
            topic: Absolute ROS topic.
            type_name: ``package/msg/Name``.
            message_definition: Text of the ``.msg`` file, for types that are neither in ROS 2
                Jazzy nor in ``lewm_ros`` nor in an installed package.
            qos: What the publisher offered, see `make_qos`; default: reliable, volatile.

        Raises:
            BagError: The topic is there with another type, or the type's definition is unknown.
        """
        known = self._connections.get(topic)
        if known is not None:
            if known.msgtype != type_name:
                raise BagError(f"{topic} is recorded as {known.msgtype}, so not as {type_name}")
            return
        profiles = [make_qos()] if qos is None else [qos] if isinstance(qos, Qos) else list(qos)
        if message_definition is not None or type_name not in self._store.fielddefs:
            # A store of its own: the shared one must not learn what only this bag has.
            if self._store is typestore():
                self._store = make_typestore()
            try:
                add_type(self._store, type_name, message_definition)
            except TypesysError as error:
                raise BagError(f"{topic}: definition of {type_name}: {error}") from error
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=self._store, offered_qos_profiles=profiles
        )
        self.counts[topic] = self.sizes[topic] = 0

    def write_raw(self, topic: str, stamp_ns: int, data: bytes | memoryview) -> None:
        """Write a message as it came (CDR).

        Args:
            topic: Announced by `add_topic`.
            stamp_ns: ns; when it was received.
            data: The serialised message with its 4 bytes of encapsulation.

        Raises:
            BagError: The topic was not announced.
            OSError, sqlite3.Error: The disk refuses; see `flush`.
        """
        connection = self._connections.get(topic)
        if connection is None:
            raise BagError(f"{self.path}: {topic} was not announced; call add_topic first")
        self._writer.write(connection, stamp_ns, data)
        for counter, number in (
            (self.counts, 1),
            (self.sizes, len(data)),
            (self._pending_counts, 1),
            (self._pending_sizes, len(data)),
        ):
            counter[topic] += number
        if self._storage.full:
            self.flush()
        else:
            self.flush_if_due()

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Serialise and write a rosbags message (see `lewm_core.data.messages.make_message`).

        Args:
            topic: Announced by `add_topic`.
            stamp_ns: ns; when it was received.
            message: Of the topic's type; numeric sequences are numpy arrays.

        Raises:
            BagError: The topic was not announced.
        """
        self.write_raw(
            topic, stamp_ns, self._store.serialize_cdr(message, message.__msgtype__)
        )

    def flush_if_due(self) -> None:
        """Hand pending messages to the operating system if the last time is ``flush_s`` ago."""
        if time.monotonic() - self._storage.last_flush_s > self.flush_s:
            self.flush()

    def flush(self) -> None:
        """Hand pending messages to the operating system now.

        Raises:
            OSError, sqlite3.Error: The disk refuses; the messages stay pending.
        """
        self._storage.flush()
        self._pending_counts.clear()
        self._pending_sizes.clear()

    def close(self) -> None:
        """Finish the bag and write ``metadata.yaml``. A second call does nothing.

        Raises:
            OSError, sqlite3.Error: The disk refuses. The bag is then one that was cut short: what
                had reached the disk before can be read.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            self._writer.close()
        except STORAGE_ERRORS:
            self.counts.subtract(self._pending_counts)
            self.sizes.subtract(self._pending_sizes)
            self._writer.abort()
            self.path.joinpath("metadata.yaml.tmp").unlink(missing_ok=True)
            raise

    def discard(self) -> None:
        """Close the bag and remove its folder: the episode is not wanted."""
        if not self._closed:
            self._closed = True
            self._writer.abort()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Also after an error: what was recorded until then is worth having.
        self.close()
