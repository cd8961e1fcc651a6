"""Writing rosbag2 bags without ROS, such that a killed process loses a second at most.

`lewm-collect` and the recorder node write through this one class. The bags are plain rosbag2
(``metadata.yaml`` version 8, which every distribution from Humble on reads), and the definitions
of all message types travel inside.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
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
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import TypesysError

from lewm_core.data.messages import add_type, make_typestore, typestore
from lewm_core.errors import BagError

#: rosbag2's metadata version: 8 keeps QoS as a string of numbers, which Humble to Kilted read.
_METADATA_VERSION = 8
_FOREVER = QosTime(9223372036, 854775807)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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


class _McapStorage(McapWriter):
    """rosbags' MCAP writer, with every finished chunk handed to the operating system at once."""

    last_flush_s = 0.0

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        if compression == CompressionMode.STORAGE:
            # rosbags writes no checksums; without one, damage decodes to wrong numbers in silence.
            options = {zstd.CompressionParameter.checksum_flag: 1}
            self.compressor = partial(zstd.compress, options=options)

    def close_chunk(self) -> None:
        super().close_chunk()
        self.bio.flush()
        self.last_flush_s = time.monotonic()

    def flush(self) -> None:
        """Finish the pending chunk, if there is a message in it."""
        if self.chunk.msgs:
            self.close_chunk()
        self.last_flush_s = time.monotonic()


class _Sqlite3Storage(Sqlite3Writer):
    """rosbags' sqlite3 writer, with transactions that end now and then."""

    last_flush_s = 0.0

    def flush(self) -> None:
        """Commit what has been written."""
        self.conn.commit()
        self.last_flush_s = time.monotonic()


class _FlushingWriter(Writer):
    """rosbags' writer on the two storages above."""

    STORAGE_PLUGINS = {
        StoragePlugin.MCAP: _McapStorage,
        StoragePlugin.SQLITE3: _Sqlite3Storage,
    }


class BagWriter:
    """Writes one rosbag2 bag: a folder with the storage file and ``metadata.yaml``.

    After ``kill -9`` everything up to the last finished chunk is readable (`BagReader` does, with
    a warning). A chunk ends at 1 MiB, and at the first write after ``flush_s``; a recorder whose
    topics may fall silent calls `flush_if_due` now and then. Not for several threads at once.

    Args:
        path: Folder of the bag; must not exist. Its name is the episode's name.
        storage: ``mcap`` (the default everywhere), or ``sqlite3`` for old tools.
        compression: Of MCAP chunks; sqlite3 has none.
        flush_s: s; a chunk is not kept in memory for longer.
        custom_data: Kept in ``metadata.yaml``, such as ``{"seed": "3"}``.

    Raises:
        BagError: The folder exists already.
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
        #: Messages written, per topic.
        self.counts: dict[str, int] = {}
        plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
        try:
            self._writer = _FlushingWriter(
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
        self._storage: Any = self._writer.storage
        self._storage.last_flush_s = time.monotonic()
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
        self.counts[topic] = 0

    def write_raw(self, topic: str, stamp_ns: int, data: bytes | memoryview) -> None:
        """Write a message as it came (CDR).

        Args:
            topic: Announced by `add_topic`.
            stamp_ns: ns; when it was received.
            data: The serialised message with its 4 bytes of encapsulation.

        Raises:
            BagError: The topic was not announced.
        """
        connection = self._connections.get(topic)
        if connection is None:
            raise BagError(f"{self.path}: {topic} was not announced; call add_topic first")
        self._writer.write(connection, stamp_ns, data)
        self.counts[topic] += 1
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
            self._storage.flush()

    def flush(self) -> None:
        """Hand pending messages to the operating system now."""
        self._storage.flush()

    def close(self) -> None:
        """Finish the bag and write ``metadata.yaml``. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._writer.close()

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
