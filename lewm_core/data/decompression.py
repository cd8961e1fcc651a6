"""Decompressing what a stranger packed: never more than was announced, nor than is allowed.

Some kilobytes of zstd or lz4 unpack to terabytes. Chunks say how large they are, and are unpacked
up to one byte more; where nothing is said, up to the limit.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lz4.frame import LZ4FrameDecompressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes of an MCAP chunk, or of a message: the largest picture that is decoded has 192 MB.
LARGEST_CHUNK = 256 * 2**20
#: Times its own bytes that a compressed storage file may unpack to, and bytes that every one may.
LARGEST_RATIO, SMALLEST_FILE = 1000, 64 * 2**20
#: Bytes of the disk that stay free.
_SPARE_BYTES = 256 * 2**20
#: Bytes of a file that are unpacked at once.
_PIECE = 4 * 2**20

#: What zstd and lz4 raise on damaged data, and what is raised here.
DECOMPRESSION_ERRORS = (zstd.ZstdError, RuntimeError, EOFError)


class TooLargeError(RuntimeError):
    """More comes out than was announced or than is allowed."""


def unpack_zstd(packed: bytes | memoryview, largest: int = LARGEST_CHUNK) -> bytes:
    """Return what zstd packed, one frame or several.

    Args:
        packed: Whole frames.
        largest: Bytes that may come out.

    Raises:
        TooLargeError: More comes out.
        zstd.ZstdError, EOFError: It is damaged, or ends in the middle of a frame.
    """
    found: list[bytes] = []
    left = largest
    rest: bytes | memoryview = packed
    while len(rest):
        frame = zstd.ZstdDecompressor()
        piece = frame.decompress(rest, left + 1)
        _require_room(len(piece), left, largest)
        if not frame.eof:
            raise EOFError("compressed data end in the middle")
        found.append(piece)
        left -= len(piece)
        rest = frame.unused_data
    return found[0] if len(found) == 1 else b"".join(found)


def unpack_lz4(packed: bytes | memoryview, largest: int = LARGEST_CHUNK) -> bytes:
    """Return what lz4 packed in one frame; arguments and errors as `unpack_zstd`."""
    frame = LZ4FrameDecompressor()
    piece = frame.decompress(packed, largest + 1)
    _require_room(len(piece), largest, largest)
    if not frame.eof:
        raise EOFError("compressed data end in the middle")
    return piece


def unpack_file(packed: Path, target: Path) -> None:
    """Unpack a zstd file to another file.

    Raises:
        TooLargeError: It would be more than `LARGEST_RATIO` times as large, or fill the disk.
        zstd.ZstdError, EOFError: It is damaged.
    """
    free = shutil.disk_usage(target.parent).free - _SPARE_BYTES
    largest = min(max(SMALLEST_FILE, LARGEST_RATIO * packed.stat().st_size), free)
    left = largest
    with zstd.open(packed, "rb") as source, target.open("wb") as sink:
        while piece := source.read(_PIECE):
            _require_room(len(piece), left, largest)
            left -= len(piece)
            sink.write(piece)


def require_chunk_size(size: int) -> None:
    """Refuse a chunk by the size that it claims.

    Raises:
        TooLargeError: More than `LARGEST_CHUNK`.
    """
    if size > LARGEST_CHUNK:
        raise TooLargeError(f"a chunk claims {size} bytes, {LARGEST_CHUNK} are allowed")


def _require_room(size: int, left: int, largest: int) -> None:
    if size > left:
        raise TooLargeError(f"compressed data unpack to more than {largest} bytes")
