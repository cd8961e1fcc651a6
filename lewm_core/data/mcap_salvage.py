"""Reading an MCAP file that ends in the middle: its writer was killed, or still writes.

Such a file has no index and no footer, but chunks stand one after the other and each is complete
in itself. The file is read in order up to the last complete record. Format:
https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lz4.frame import decompress as decompress_lz4

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
#: What zstd and lz4 raise on damaged data.
DECOMPRESSION_ERRORS = (zstd.ZstdError, RuntimeError)
_MESSAGE_HEADER = struct.Struct("<HIQQ")
#: A chunk that claims to be larger is damage, not data.
_LARGEST_CHUNK = 2**31


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
                    if operation == _MESSAGE:
                        number, _, stamp, _ = _MESSAGE_HEADER.unpack_from(content)
                        if number in wanted:
                            found.append((number, stamp, content[_MESSAGE_HEADER.size :]))
                yield from sorted(found, key=lambda entry: entry[1])


def salvage(path: Path) -> SalvagedMcap:
    """Scan a damaged MCAP file.

    Raises:
        SalvageError: It is not MCAP at all, or ends before its first complete chunk.
    """
    result = SalvagedMcap(path)
    schemas: dict[int, tuple[str, str, str]] = {}
    result.end = len(_MAGIC)
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise SalvageError("it is not an MCAP file")
        stream.seek(0)
        for records, result.end in _blocks(stream):
            for operation, content in _records(records):
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
                    known = result.channels.get(number)
                    count = known.message_count if known else 0
                    result.channels[number] = SalvagedChannel(topic, name, text, encoding, count)
                elif operation == _MESSAGE:
                    (number,) = struct.unpack_from("<H", content)
                    if number in result.channels:
                        result.channels[number].message_count += 1
    result.lost_bytes = path.stat().st_size - result.end
    if not any(entry.message_count for entry in result.channels.values()):
        raise SalvageError(
            "it ends before its first complete chunk (which takes a writer that runs a second)"
        )
    return result


def _blocks(stream: BinaryIO) -> Iterator[tuple[memoryview, int]]:
    """Yield the records of each chunk, and each record outside of chunks, with the end offset.

    Stops at the first thing that is incomplete or does not decompress.
    """
    position = stream.seek(len(_MAGIC))
    while True:
        head = stream.read(9)
        if len(head) < 9:
            return
        operation = head[0]
        (size,) = struct.unpack_from("<Q", head, 1)
        if operation == 0 or operation == _DATA_END or size > _LARGEST_CHUNK:
            return
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
    """Return the records inside a chunk; None if it is damaged."""
    try:
        (expected,) = struct.unpack_from("<Q", chunk, 16)
        name, offset = _string(chunk, 28)
        (size,) = struct.unpack_from("<Q", chunk, offset)
        packed = chunk[offset + 8 : offset + 8 + size]
        if expected > _LARGEST_CHUNK or len(packed) != size:
            return None
        if name == "zstd":
            raw = zstd.decompress(packed)
        elif name == "lz4":
            raw = decompress_lz4(packed)
        else:
            raw = packed
    except (struct.error, UnicodeDecodeError, *DECOMPRESSION_ERRORS):
        return None
    return memoryview(raw) if len(raw) == expected else None


def _records(block: memoryview) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position + 9 <= len(block):
        (size,) = struct.unpack_from("<Q", block, position + 1)
        yield block[position], block[position + 9 : position + 9 + size]
        position += 9 + size


def _string(data: memoryview, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", data, offset)
    end = offset + 4 + length
    return bytes(data[offset + 4 : end]).decode("utf-8"), end
