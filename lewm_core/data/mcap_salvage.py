"""Reading an MCAP file that ends in the middle: its writer was killed, or still writes.

Such a file has no index and no footer, but chunks stand one after the other and each is complete
in itself. The file is read in order up to the last complete record. Format:
https://mcap.dev/spec.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lewm_core.data.decompression import (
    DECOMPRESSION_ERRORS,
    LARGEST_CHUNK,
    TooLargeError,
    require_chunk_size,
    unpack_lz4,
    unpack_zstd,
)

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_MESSAGE_HEADER = struct.Struct("<HIQQ")
#: What a record that is shorter than its kind makes of the code below.
_RECORD_ERRORS = (struct.error, UnicodeDecodeError, IndexError)


class SalvageError(Exception):
    """Nothing in the file can be read."""


@dataclass
class SalvagedChannel:
    """One topic of a salvaged file."""

    topic: str
    type_name: str
    definition: str
    definition_format: str
    message_count: int = 0


@dataclass
class SalvagedMcap:
    """What a scan of a damaged file found.

    Attributes:
        path: The file.
        channels: Topics by channel number.
        end: Where the last complete record ends; what a writer adds behind it is not read.
        lost_bytes: How many bytes at the end belong to no complete record.
    """

    path: Path
    channels: dict[int, SalvagedChannel] = field(default_factory=dict)
    end: int = 0
    lost_bytes: int = 0

    def messages(self, topics: Collection[str]) -> Iterator[tuple[int, int, memoryview]]:
        """Yield (channel number, stamp in ns, data) in the order of the stamps in each chunk."""
        wanted = {number for number, entry in self.channels.items() if entry.topic in topics}
        with self.path.open("rb") as stream:
            for records, end in _blocks(stream):
                if end > self.end:
                    return
                found = []
                for operation, content in _records(records):
                    if operation == _MESSAGE and len(content) >= _MESSAGE_HEADER.size:
                        number, _, stamp, _ = _MESSAGE_HEADER.unpack_from(content)
                        if number in wanted:
                            found.append((number, stamp, content[_MESSAGE_HEADER.size :]))
                yield from sorted(found, key=lambda entry: entry[1])


def salvage(path: Path) -> SalvagedMcap:
    """Scan a damaged MCAP file.

    Raises:
        SalvageError: It is not MCAP at all, ends before its first complete chunk, or has a chunk
            that is larger than is allowed.
    """
    result = SalvagedMcap(path)
    schemas: dict[int, tuple[str, str, str]] = {}
    result.end = len(_MAGIC)
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise SalvageError("it is not an MCAP file")
        stream.seek(0)
        try:
            # A record that is no record is damage, and nothing behind it can be trusted.
            with contextlib.suppress(*_RECORD_ERRORS):
                for records, block_end in _blocks(stream):
                    for operation, content in _records(records):
                        _take(operation, content, schemas, result.channels)
                    result.end = block_end
        except TooLargeError as error:
            raise SalvageError(str(error)) from error
    result.lost_bytes = path.stat().st_size - result.end
    if not any(entry.message_count for entry in result.channels.values()):
        raise SalvageError(
            "it ends before its first complete chunk (which takes a writer that runs a second)"
        )
    return result


def _take(
    operation: int,
    content: memoryview,
    schemas: dict[int, tuple[str, str, str]],
    channels: dict[int, SalvagedChannel],
) -> None:
    """Keep what a record says of topics, and count it if it is a message.

    Raises:
        struct.error, UnicodeDecodeError: It is shorter than it should be, or not text.
    """
    if operation == _SCHEMA:
        (number,) = struct.unpack_from("<H", content)
        name, offset = _string(content, 2)
        encoding, offset = _string(content, offset)
        text, _ = _string(content, offset)
        schemas[number] = (name, encoding, text)
    elif operation == _CHANNEL:
        number, schema = struct.unpack_from("<HH", content)
        topic, _ = _string(content, 4)
        name, encoding, text = schemas.get(schema, ("", "", ""))
        known = channels.get(number)
        count = known.message_count if known else 0
        channels[number] = SalvagedChannel(topic, name, text, encoding, count)
    elif operation == _MESSAGE:
        (number,) = struct.unpack_from("<H", content)
        if number in channels and len(content) >= _MESSAGE_HEADER.size:
            channels[number].message_count += 1


def _blocks(stream: BinaryIO) -> Iterator[tuple[memoryview, int]]:
    """Yield the records of each chunk, and each record outside of chunks, with the end offset.

    Stops at the first thing that is incomplete or does not decompress.

    Raises:
        TooLargeError: A chunk is larger than is allowed.
    """
    end = stream.seek(0, os.SEEK_END)
    position = stream.seek(len(_MAGIC))
    while True:
        head = stream.read(9)
        if len(head) < 9:
            return
        operation = head[0]
        (size,) = struct.unpack_from("<Q", head, 1)
        if operation == 0 or operation == _DATA_END or position + 9 + size > end:
            return
        if size > LARGEST_CHUNK:
            raise TooLargeError(f"a record has {size} bytes, {LARGEST_CHUNK} are allowed")
        content = stream.read(size)
        if len(content) < size:
            return
        position += 9 + size
        if operation == _CHUNK:
            records = _decompressed(memoryview(content))
            if records is None:
                return
            yield records, position
        else:
            yield memoryview(head + content), position


def _decompressed(chunk: memoryview) -> memoryview | None:
    """Return the records inside a chunk; None if it is damaged.

    Raises:
        TooLargeError: It is larger than is allowed, or than it claims.
    """
    try:
        (expected,) = struct.unpack_from("<Q", chunk, 16)
        name, offset = _string(chunk, 28)
        (size,) = struct.unpack_from("<Q", chunk, offset)
        packed = chunk[offset + 8 : offset + 8 + size]
        require_chunk_size(expected)
        if len(packed) != size:
            return None
        if name == "zstd":
            raw = unpack_zstd(packed, expected)
        elif name == "lz4":
            raw = unpack_lz4(packed, expected)
        else:
            raw = packed
    except TooLargeError:
        raise
    except (struct.error, UnicodeDecodeError, *DECOMPRESSION_ERRORS):
        return None
    return memoryview(raw) if len(raw) == expected else None


def _records(block: memoryview) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position + 9 <= len(block):
        (size,) = struct.unpack_from("<Q", block, position + 1)
        # MCAP has no record without content; millions of them unpack from nothing.
        if not size or position + 9 + size > len(block):
            return
        yield block[position], block[position + 9 : position + 9 + size]
        position += 9 + size


def _string(data: memoryview, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", data, offset)
    end = offset + 4 + length
    return bytes(data[offset + 4 : end]).decode("utf-8"), end
