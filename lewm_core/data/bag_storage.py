"""rosbags' storages, such that a killed process or a full disk costs the last chunk at most.

What is pending (an MCAP chunk, an sqlite3 transaction) is handed to the operating system as a
whole by `flush`. A flush that fails leaves the file as it was before, and what is pending stays
pending: another `flush` may have more luck.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: What a flush raises when the disk is full, gone or at its quota.
STORAGE_ERRORS = (OSError, sqlite3.Error)


class _WholeFile:
    """Grows by whole commits: one that fails leaves no trace.

    A full disk takes the first half of a chunk and refuses the second. What is written behind such
    a half is not found by whoever reads from record to record.
    """

    def __init__(self, path: Path) -> None:
        """Continue a file that exists."""
        self._file = path.open("r+b", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)
        self._pending = BytesIO()

    def write(self, data: bytes | memoryview) -> int:
        """Keep some bytes for the next commit."""
        return self._pending.write(data)

    def tell(self) -> int:
        """Return where the next byte will be."""
        return self._size + self._pending.tell()

    def commit(self) -> None:
        """Hand what is pending to the operating system.

        Raises:
            OSError: Not all of it was taken, so none of it is in the file; it is forgotten.
        """
        data, self._pending = self._pending.getvalue(), BytesIO()
        done = 0
        try:
            while done < len(data):
                done += self._file.write(memoryview(data)[done:])
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        """Commit and close."""
        if not self._file.closed:
            self.commit()
            self._file.close()


class _McapStorage(McapWriter):
    """rosbags' MCAP writer; chunks are written by `flush` alone, each of them as a whole.

    Attributes:
        full: Whether the pending chunk is large enough to be written.
        last_flush_s: When a chunk was written, by `time.monotonic`.
    """

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.bio.close()
        self.bio: Any = _WholeFile(self.path)
        self.full = False
        self.last_flush_s = time.monotonic()
        if compression == CompressionMode.STORAGE:
            # rosbags writes no checksums; without one, damage decodes to wrong numbers in silence.
            options = {zstd.CompressionParameter.checksum_flag: 1}
            self.compressor = partial(zstd.compress, options=options)

    def close_chunk(self) -> None:
        """Note that the chunk is full: rosbags says so in the middle of a write."""
        self.full = True

    def flush(self) -> None:
        """Write the pending chunk, if there is a message in it."""
        if self.chunk.msgs:
            self._write_chunk()
        self.last_flush_s = time.monotonic()

    def close(self, version: int, metadata: str) -> None:
        """Write the pending chunk and the index."""
        if self.chunk.bio.tell():
            self._write_chunk()
        super().close(version, metadata)

    def _write_chunk(self) -> None:
        chunk, known = self.chunk, len(self.chunks)
        try:
            super().close_chunk()
            self.bio.commit()
        except OSError:
            self.chunk = chunk
            del self.chunks[known:]
            raise
        self.full = False


class _Sqlite3Storage(Sqlite3Writer):
    """rosbags' sqlite3 writer, with transactions that end now and then.

    Attributes:
        full: Never: a transaction has no size at which it must end.
        last_flush_s: When a transaction ended, by `time.monotonic`.
    """

    full = False

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.last_flush_s = time.monotonic()
        self._pending = False

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        """Write a message."""
        super().write(connection, timestamp, data)
        self._pending = True

    def flush(self) -> None:
        """Commit what has been written."""
        if self._pending and not self.conn.in_transaction:
            # Some errors undo all of it, and a commit would have nothing to complain about.
            raise sqlite3.OperationalError("the disk refused a transaction, which is undone")
        self.conn.commit()
        self._pending = False
        self.last_flush_s = time.monotonic()

    def close(self, version: int, metadata: str) -> None:
        """Commit and close."""
        self.flush()
        super().close(version, metadata)


class FlushingWriter(Writer):
    """rosbags' writer on the two storages above."""

    STORAGE_PLUGINS = {
        StoragePlugin.MCAP: _McapStorage,
        StoragePlugin.SQLITE3: _Sqlite3Storage,
    }
