"""rosbags' readers of MCAP and sqlite3 files, with bounds on what a stranger's file can ask for.

rosbags reads as many bytes as a length in the file says, unpacks whatever a chunk unpacks to, and
lets a database compute its columns. Here a length is bounded by the file, a chunk by
`lewm_core.data.decompression.LARGEST_CHUNK`, and a database holds plain tables only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw
from rosbags.rosbag2 import Reader, storage_mcap
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from lewm_core.data.decompression import (
    LARGEST_CHUNK,
    TooLargeError,
    require_chunk_size,
    unpack_lz4,
    unpack_zstd,
)

#: Bytes of the chunks that lie at the same time: they are in memory together, to be sorted.
LARGEST_OVERLAP = 2**30
#: Topics of a bag.
MOST_TOPICS = 10_000

#: Tables of rosbag2, of which all that is read.
_TABLES = ("topics", "messages", "schema", "metadata", "message_definitions")


def _packed_by(unpack: Any) -> Any:
    def decompress(packed: bytes, size: int) -> bytes:
        require_chunk_size(size)
        return unpack(packed, size)

    return decompress


def _plain(data: bytes, size: int) -> bytes:
    require_chunk_size(size)
    return data


# rosbags looks a chunk's decompressor up here, and offers it the size that the chunk claims.
storage_mcap.DECOMPRESSORS.update(
    {"": _plain, "lz4": _packed_by(unpack_lz4), "zstd": _packed_by(unpack_zstd)}
)


class _BoundedFile:
    """A file of which no more is asked for than it has: `read` sets aside what it is told."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._size = os.fstat(self._stream.fileno()).st_size
        self.tell = self._stream.tell
        self.close = self._stream.close

    def read(self, size: int = -1) -> bytes:
        if 0 <= size < 4096:
            return self._stream.read(size)
        left = max(0, self._size - self._stream.tell())
        size = left if size < 0 else min(size, left)
        if size > LARGEST_CHUNK:
            raise TooLargeError(f"a record claims {size} bytes, {LARGEST_CHUNK} are allowed")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > self._size:
            raise ReaderError(f"an offset of {offset} is beyond the end of the file")
        return self._stream.seek(offset, whence)


class BoundedMcapReader(McapReader):
    """rosbags' reader of an MCAP file, with bounds."""

    def open(self) -> None:
        """Open the file and read its index.

        Raises:
            ReaderError: It is damaged, or asks for more than is allowed.
        """
        self.bio = _BoundedFile(self.path)
        try:
            self._open()
            self._check_chunks()
            if len(self.channels) > MOST_TOPICS:
                raise ReaderError(f"it has {len(self.channels)} topics, {MOST_TOPICS} are allowed")
        except BaseException:
            self.close()
            raise

    def _check_chunks(self) -> None:
        """Refuse an index by which more would be unpacked at once than fits into memory.

        Raises:
            ReaderError: Chunks are too large, share bytes of the file, or overlap in time.
        """
        end = 0
        for chunk in sorted(self.chunks, key=lambda entry: entry.chunk_start_offset):
            require_chunk_size(chunk.uncompressed_size)
            if chunk.chunk_start_offset < end or chunk.compressed_size > chunk.chunk_length:
                raise ReaderError("chunks of the index share bytes of the file")
            end = chunk.chunk_start_offset + chunk.chunk_length
        # Chunks are held from their first stamp on, and until their last.
        edges = [(chunk.message_start_time, chunk.uncompressed_size) for chunk in self.chunks]
        edges += [(chunk.message_end_time, -chunk.uncompressed_size) for chunk in self.chunks]
        held = 0
        for _, size in sorted(edges, key=lambda edge: (edge[0], -edge[1])):
            held += size
            if held > LARGEST_OVERLAP:
                raise ReaderError(
                    f"chunks of more than {LARGEST_OVERLAP} bytes are of the same time"
                )


class BoundedSqlite3Reader(Sqlite3Reader):
    """rosbags' reader of an sqlite3 file, with bounds."""

    def open(self) -> None:
        """Open the database.

        Raises:
            ReaderError: It is damaged, or more than plain tables.
        """
        if any(letter in str(self.path) for letter in "?#%"):
            raise ReaderError("its path has one of ?, # and %, which sqlite3 interprets; rename it")
        _check_tables(self.path)
        super().open()
        self.dbconn.limit(apsw.SQLITE_LIMIT_LENGTH, LARGEST_CHUNK)
        if len(self.connections) > MOST_TOPICS:
            raise ReaderError(f"it has {len(self.connections)} topics, {MOST_TOPICS} are allowed")


def _check_tables(path: Path) -> None:
    """Refuse what computes while it is read: views, virtual tables, generated columns.

    Raises:
        ReaderError: There is such a thing, or the file is no database.
    """
    connection = None
    try:
        connection = apsw.Connection(f"file:{path}?immutable=1",
                                     flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, LARGEST_CHUNK)
        entries = connection.execute("SELECT type, name, rootpage FROM sqlite_master")
        for kind, name, root in entries:
            if kind == "view" or (kind == "table" and not root):
                raise ReaderError(f"{name!r} is computed, not a plain table")
        for table in _TABLES:
            for column in connection.execute(f"PRAGMA table_xinfo({table})"):
                if column[6]:
                    raise ReaderError(f"column {column[1]!r} of table {table} is computed")
    except apsw.Error as error:
        raise ReaderError(f"it is no rosbag2 database: {error}") from error
    finally:
        if connection is not None:
            connection.close()


class BoundedReader(Reader):
    """rosbags' reader of one storage file, on the two above. It reads no folders."""

    STORAGE_PLUGINS = {".mcap": BoundedMcapReader, ".db3": BoundedSqlite3Reader}


def require_message(stamp: Any, data: Any) -> None:
    """Refuse a message that cannot be one.

    Raises:
        ReaderError: The stamp is not in the range of int64, or the data are no bytes.
    """
    if not isinstance(stamp, int) or not 0 <= stamp < 2**62:
        raise ReaderError(f"a message has the stamp {stamp!r}")
    if not isinstance(data, bytes | memoryview):
        raise ReaderError(f"a message has {type(data).__name__} for data")
