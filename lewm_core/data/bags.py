"""Reading rosbag2 bags without ROS: MCAP and sqlite3, whole or cut short.

A bag is a rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file. Bags of plain ``ros2 bag record``
are read, compressed or split ones too. `BagWriter` (from `bag_writer`) and what finds bags (from
`bag_folders`) are handed on from here.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import apsw
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2.errors import ReaderError
from rosbags.serde import SerdeError
from ruamel.yaml import YAMLError

from lewm_core.data.bag_bounds import BoundedReader, require_message
from lewm_core.data.bag_folders import bag_notes, find_bags, read_metadata, storage_files
from lewm_core.data.bag_writer import BagWriter, make_qos
from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import IMAGE_TYPES
from lewm_core.data.decompression import DECOMPRESSION_ERRORS, unpack_file, unpack_zstd
from lewm_core.data.definitions import same_as_jazzy, store_for
from lewm_core.data.fields import FieldSelector
from lewm_core.data.mcap_salvage import SalvagedMcap, SalvageError, salvage
from lewm_core.data.messages import has_header
from lewm_core.errors import BagError, ContractError

__all__ = [
    "BagMessage",
    "BagReader",
    "BagWriter",
    "DamagedBagError",
    "RawMessage",
    "bag_notes",
    "find_bags",
    "make_qos",
    "peek_bag",
    "require_topics",
]

_LOGGER = logging.getLogger(__name__)
#: What rosbags raises for files that it can make nothing of; it promises nothing narrower.
_READER_ERRORS = (
    ReaderError, OSError, EOFError, struct.error, TypeError, ValueError, LookupError,
    AttributeError, AssertionError, ArithmeticError, RecursionError, YAMLError, apsw.Error,
    *DECOMPRESSION_ERRORS,
)  # fmt: skip
#: The same for messages.
_DECODE_ERRORS = (
    SerdeError, struct.error, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, RecursionError, ImportError, NameError, SyntaxError,
)  # fmt: skip


class DamagedBagError(BagError):
    """A bag is of no use: empty, cut before its first chunk, or overwritten in the middle."""


class RawMessage(NamedTuple):
    """A message as it lies in the bag.

    Attributes:
        topic: Absolute ROS topic.
        type_name: ``package/msg/Name``.
        receive_ns: ns; when it was received.
        data: CDR, with 4 bytes of encapsulation.
    """

    topic: str
    type_name: str
    receive_ns: int
    data: bytes | memoryview


class BagMessage(NamedTuple):
    """A decoded message.

    Attributes:
        topic: Absolute ROS topic.
        type_name: ``package/msg/Name``.
        receive_ns: ns; when it was received.
        header_ns: ns; the header's stamp, None for types without a header.
        message: A rosbags message; numeric sequences are numpy arrays, without a copy.
    """

    topic: str
    type_name: str
    receive_ns: int
    header_ns: int | None
    message: Any


def require_topics(
    path: Path, topics: Mapping[str, str], counts: Mapping[str, int], contract: Contract
) -> None:
    """Check that a bag has the contract's topics, with the contract's types.

    State topics may be missing: only probes read them. Of commanded and executed actions, the one
    that is not learned from may be missing.

    Args:
        path: Of the bag, for the message.
        topics: Message type of every topic.
        counts: Number of messages of every topic.
        contract: What is needed.

    Raises:
        BagError: Names the missing topics and those that are there.
    """
    needed = [*(camera.topic for camera in contract.cameras), contract.action.learned.topic]
    missing = [topic for topic in needed if not counts.get(topic)]
    if missing:
        there = ", ".join(f"{topic} ({count})" for topic, count in counts.items())
        raise BagError(
            f"{path}: no messages on {', '.join(missing)}, which contract {contract.name!r} names; "
            f"the bag has {there or 'no topics'}. Record these topics, or mend the contract"
        )
    for topic, type_name in contract.topic_types().items():
        found = topics.get(topic, type_name)
        if found != type_name:
            raise BagError(
                f"{path}: {topic} is {found} in the bag, but contract {contract.name!r} says "
                f"{type_name}; mend the contract"
            )


def peek_bag(path: str | Path) -> tuple[dict[str, str], dict[str, int]]:
    """Return message types and message counts by topic, from ``metadata.yaml`` where it is.

    Opening a bag costs 5 ms, this 0.3 ms; a dataset has thousands. What it says is checked when
    the bag is read.

    Raises:
        BagError: As `BagReader`.
    """
    information = read_metadata(Path(path))
    if information is not None:
        try:
            entries = information["topics_with_message_count"]
            topics = {
                entry["topic_metadata"]["name"]: entry["topic_metadata"]["type"]
                for entry in entries
            }
            counts = dict.fromkeys(topics, 0)
            for entry in entries:
                count = int(entry["message_count"])
                if count < 0:
                    raise ValueError("message_count is negative")
                counts[entry["topic_metadata"]["name"]] += count
            if not all(isinstance(text, str) for pair in topics.items() for text in pair):
                raise TypeError("a topic or its type is no text")
            # Room is made for as many pictures. None is so well packed that it takes no byte.
            if max(counts.values(), default=0) > _bytes_of(Path(path)):
                raise ValueError("more messages than bytes")
            return topics, counts
        except (KeyError, TypeError, ValueError, OverflowError):
            _LOGGER.info("%s: metadata.yaml says nothing of use about topics", path)
    with BagReader(path) as reader:
        return reader.topics, reader.message_counts


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


class BagReader:
    """Reads one bag.

    Args:
        path: A rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file.

    Attributes:
        path: As given.
        name: Of the episode: the folder's name, or the file's without its ending.
        topics: Message type of every topic.
        message_counts: Number of messages of every topic.
        truncated: Whether the bag was cut short and only its complete chunks are read.

    Raises:
        DamagedBagError: The bag is empty or nothing in it can be read.
        BagError: The bag does not exist, or is of an unknown kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"{self.path} does not exist; give a bag folder or an .mcap file")
        self.name = self.path.name if self.path.is_dir() else self.path.stem
        self.truncated = False
        self._parts: list[BoundedReader | SalvagedMcap] = []
        #: Whether each message is compressed by itself.
        self._packed_messages = False
        self._scratch = contextlib.ExitStack()
        self._most_messages = 0
        try:
            for part in self._part_paths():
                self._most_messages += part.stat().st_size
                self._parts.append(self._open_part(part))
            self.topics, self.message_counts, definitions = self._survey()
            self._store = store_for(definitions)
        except BaseException:
            self.close()
            raise
        self._with_header: dict[str, bool] = {}

    def raw(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Yield messages without decoding them, in the order in which they were received.

        Args:
            topics: Which ones; default: all.

        Raises:
            DamagedBagError: The bag is damaged in the middle.
        """
        wanted = set(self.topics if topics is None else topics)
        for part in self._parts:
            try:
                for message in _messages_of(part, wanted):
                    if self._packed_messages:
                        message = message._replace(data=unpack_zstd(message.data))
                    yield message
            except _READER_ERRORS as error:
                raise DamagedBagError(
                    f"{self.path} is damaged in the middle: {error}; record it again or delete it"
                ) from error

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Yield decoded messages in the order in which they were received.

        Args:
            topics: Which ones; default: all.

        Raises:
            DamagedBagError: The bag is damaged in the middle.
            BagError: A message cannot be decoded.
        """
        for topic, type_name, receive_ns, data in self.raw(topics):
            yield BagMessage(
                topic,
                type_name,
                receive_ns,
                self.header_stamp_ns(type_name, data),
                self.decode(type_name, data),
            )

    def __iter__(self) -> Iterator[BagMessage]:
        return self.messages()

    def decode(self, type_name: str, data: bytes | memoryview) -> Any:
        """Decode one message of this bag; numeric sequences point into ``data``.

        Raises:
            BagError: The definition is unknown, or the bytes do not fit it.
        """
        try:
            return self._store.deserialize_cdr(data, type_name)
        except KeyError:
            raise BagError(
                f"{self.path}: the definition of {type_name} is neither in the bag nor known"
            ) from None
        except _DECODE_ERRORS as error:
            raise BagError(f"{self.path}: a {type_name} cannot be decoded: {error}") from error

    def header_stamp_ns(self, type_name: str, data: bytes | memoryview) -> int | None:
        """Return the stamp of a serialised message's header in ns; None without a header."""
        with_header = self._with_header.get(type_name)
        if with_header is None:
            with_header = type_name in self._store.fielddefs and has_header(type_name, self._store)
            self._with_header[type_name] = with_header
        if not with_header or len(data) < 12:
            return None
        # CDR: 4 bytes of encapsulation (the second tells the byte order), then int32 s, uint32 ns.
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
        return seconds * 1_000_000_000 + nanoseconds

    def require(self, contract: Contract) -> None:
        """Check that the bag has the contract's topics, as the contract says they are.

        Raises:
            BagError: See `require_topics`; or the bag brings a definition of a type in which what
                the contract selects is not there.
        """
        require_topics(self.path, self.topics, self.message_counts, contract)
        for camera in contract.cameras:
            if camera.message in IMAGE_TYPES and not same_as_jazzy(self._store, camera.message):
                raise BagError(
                    f"{self.path}: its definition of {camera.message} is not that of ROS 2"
                )
        for entry in (contract.action, *contract.states):
            for field in entry.fields:
                try:
                    FieldSelector.parse(field.selector).check(entry.message, self._store)
                except ContractError as error:
                    raise BagError(
                        f"{self.path}: its definition of {entry.message} is another than the "
                        f"contract's: {error}"
                    ) from error

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            if isinstance(part, BoundedReader) and part.is_open:
                part.close()
        self._parts.clear()
        self._scratch.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _part_paths(self) -> list[Path]:
        """Return the storage files to open, one after the other; packed ones are unpacked."""
        if self.path.is_file():
            return [self.path]
        information = read_metadata(self.path)
        if information is not None:
            names = [Path(str(name)).name for name in information["relative_file_paths"]]
            files = [self.path / name for name in names]
            absent = [file.name for file in files if not file.exists()]
            if absent:
                raise BagError(f"{self.path}: {absent[0]} is missing, metadata.yaml names it")
            mode = str(information.get("compression_mode") or "none").lower()
            self._packed_messages = mode == "message"
            return [self._unpacked(file) for file in files] if mode == "file" else files
        files = storage_files(self.path)
        if not files:
            raise BagError(f"{self.path} is no bag: no metadata.yaml, no .mcap and no .db3 file")
        return files

    def _unpacked(self, file: Path) -> Path:
        """Unpack a storage file into a folder that goes with this reader."""
        folder = self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="lewm-bag-"))
        target = Path(folder) / file.stem
        try:
            unpack_file(file, target)
        except _READER_ERRORS as error:
            raise DamagedBagError(
                f"{file} cannot be unpacked: {error}; record it again or delete it"
            ) from error
        return target

    def _open_part(self, path: Path) -> BoundedReader | SalvagedMcap:
        if path.is_file() and path.stat().st_size == 0:
            raise DamagedBagError(f"{path} is empty (0 bytes); record it again or delete it")
        try:
            reader = BoundedReader(path)
            reader.open()
            return reader
        except _READER_ERRORS as error:
            if path.suffix != ".mcap":
                raise DamagedBagError(
                    f"{path} cannot be read: {error}; record it again or delete it"
                ) from error
        try:
            salvaged = salvage(path)
        except SalvageError as error:
            raise DamagedBagError(
                f"{path} cannot be read: {error}; record it again or delete it"
            ) from None
        self.truncated = True
        count = sum(channel.message_count for channel in salvaged.channels.values())
        _LOGGER.warning(
            "%s is cut short (its writer was killed, or still writes): %d messages up to the last "
            "complete chunk are read, %d bytes behind it are not",
            path, count, salvaged.lost_bytes,
        )
        return salvaged

    def _survey(self) -> tuple[dict[str, str], dict[str, int], tuple[tuple[str, str, str], ...]]:
        """Return types and counts by topic, and all definitions the bag carries."""
        types: dict[str, str] = {}
        counts: dict[str, int] = {}
        definitions: dict[str, tuple[str, str, str]] = {}
        for part in self._parts:
            for topic, type_name, kind, text, count in _channels(part):
                if not isinstance(topic, str) or not isinstance(type_name, str):
                    raise DamagedBagError(f"{self.path}: a topic or its type is no text")
                types[topic] = type_name
                counts[topic] = counts.get(topic, 0) + count
                if not isinstance(count, int) or not 0 <= counts[topic] <= self._most_messages:
                    raise DamagedBagError(
                        f"{self.path}: {topic} claims {count} messages, more than there are bytes; "
                        "record it again or delete it"
                    )
                if text and isinstance(text, str):
                    definitions[type_name] = (type_name, kind, text)
        return types, counts, tuple(definitions.values())


def _messages_of(
    part: BoundedReader | SalvagedMcap, topics: Collection[str]
) -> Iterator[RawMessage]:
    """Yield the messages of a storage file.

    Raises:
        ReaderError: And much else, see `_READER_ERRORS`.
    """
    if isinstance(part, SalvagedMcap):
        for number, stamp, data in part.messages(topics):
            require_message(stamp, data)
            channel = part.channels[number]
            yield RawMessage(channel.topic, channel.type_name, stamp, data)
        return
    connections = [entry for entry in part.connections if entry.topic in topics]
    if not connections:
        return
    for connection, stamp, data in part.messages(connections):
        require_message(stamp, data)
        yield RawMessage(connection.topic, connection.msgtype, stamp, data)


def _channels(part: BoundedReader | SalvagedMcap) -> Iterator[tuple[str, str, str, str, int]]:
    """Yield (topic, type, definition format, definition, number of messages)."""
    if isinstance(part, SalvagedMcap):
        for channel in part.channels.values():
            yield (
                channel.topic,
                channel.type_name,
                "idl" if channel.definition_format.endswith("idl") else "msg",
                channel.definition,
                channel.message_count,
            )
        return
    connection: Connection
    for connection in part.connections:
        definition = connection.msgdef
        kind = "idl" if definition.format == MessageDefinitionFormat.IDL else "msg"
        yield connection.topic, connection.msgtype, kind, definition.data, connection.msgcount
