"""One episode on its way to disk: a bounded queue, a writer thread, counters. Knows no ROS.

The thread that receives messages must never wait for a disk: it puts the bytes into the queue,
and a message that finds the queue full is dropped and counted.
"""

from __future__ import annotations

import json
import os
import queue
import tempfile
import threading
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.data.bag_storage import STORAGE_ERRORS
from lewm_core.data.bag_writer import BagWriter
from lewm_core.errors import BagError

#: Name of the counters' file in the episode's folder.
REPORT_FILE = "recorder.json"

#: An interval longer than this many medians counts as a gap.
GAP_MEDIANS = 2.5

_NS_PER_S = 1_000_000_000
_CLOSE_TIMEOUT_S = 60.0
_IDLE_FLUSH_S = 0.5

#: Bytes of disk that an episode keeps free for its end: all of them for the last chunk (a MiB, and
#: the message that made it full) and the index, the last ones for the report.
_RESERVE_BYTES = 8 * 2**20
_REPORT_RESERVE_BYTES = 256 * 2**10


@dataclass
class TopicCounters:
    """What happened to one topic during one episode.

    Attributes:
        type_name: Of its messages.
        received: Messages that reached this process.
        written: Messages in the bag.
        dropped: Messages that found the queue full.
        refused: Messages that were not written any more, because the disk had refused others.
        lost: Messages that the middleware reported as lost before they reached this process.
        size: Bytes written.
        stamps_ns: Receive time of every message.
    """

    type_name: str
    received: int = 0
    written: int = 0
    dropped: int = 0
    refused: int = 0
    lost: int = 0
    size: int = 0
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))

    def report(self) -> dict[str, Any]:
        """Return counters, gaps and intervals for `REPORT_FILE`."""
        intervals = np.diff(np.frombuffer(self.stamps_ns, np.int64)) / _NS_PER_S
        median = float(np.median(intervals)) if len(intervals) else 0.0
        gaps = intervals > GAP_MEDIANS * median if median > 0.0 else intervals > np.inf
        return {
            "type": self.type_name,
            "received": self.received,
            "written": self.written,
            "dropped": self.dropped + self.refused,
            "lost": self.lost,
            "gaps": int(np.count_nonzero(gaps)),
            "largest_gap_s": round(float(intervals.max()), 6) if len(intervals) else 0.0,
            "median_interval_s": round(median, 6),
            "bytes": self.size,
        }


class EpisodeFile:
    """One episode's bag, written by a thread of its own.

    When the disk refuses, the bag is finished there and then, in space that was kept for it: what
    had been written until then stays readable, and `failure` says why no more is written.
    """

    def __init__(self, folder: Path, queue_bytes: int, storage: str = "mcap") -> None:
        """Create the folder and the bag.

        Args:
            folder: Must not exist yet; its name is the episode's.
            queue_bytes: Bytes that may wait for the disk.
            storage: ``"mcap"`` or ``"sqlite3"``.

        Raises:
            BagError: If the folder exists or the bag cannot be made.
            OSError: If the disk refuses.
        """
        self.folder = folder
        self.counters: dict[str, TopicCounters] = {}
        self.size = 0
        self.events: list[dict[str, Any]] = []
        #: Messages that came before the episode was asked for.
        self.early = 0
        #: Why single topics are not recorded.
        self.complaints: dict[str, str] = {}
        if folder.exists():
            raise BagError(f"{folder} is there already: nothing is overwritten, choose another")
        self._storage = storage
        self._queue_bytes = queue_bytes
        # Each is written by one thread only, so their difference needs no lock.
        self._bytes_put = 0
        self._bytes_done = 0
        # A topic to announce comes with its type and options instead of a stamp and bytes.
        self._queue: queue.SimpleQueue[tuple[str, Any, Any] | None] = queue.SimpleQueue()
        self._open = threading.Event()
        self._failure: Exception | None = None
        self._began = time.time()
        self._ended: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"writer {folder.name}")
        self._thread.start()
        self._open.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def name(self) -> str:
        """The episode's name."""
        return self.folder.name

    @property
    def failure(self) -> Exception | None:
        """Why writing has stopped, or None."""
        return self._failure

    @property
    def received(self) -> int:
        """Messages that reached it, of all topics."""
        return sum(counters.received for counters in self.counters.values())

    def summary(self) -> str:
        """Return the counters of every topic in one line."""
        reports = {topic: counters.report() for topic, counters in sorted(self.counters.items())}
        keys = ("received", "written", "dropped", "lost", "gaps")
        return ", ".join(
            f"{topic} " + " ".join(f"{report[key]} {key}" for key in keys)
            for topic, report in reports.items()
        )

    def add_topic(self, topic: str, type_name: str, **options: Any) -> None:
        """Make a topic known to the bag; a second time does nothing.

        If the definition of its type cannot be found, the topic's messages are dropped and
        `complaints` says why.

        Args:
            topic: Its name.
            type_name: Of its messages.
            **options: Of `BagWriter.add_topic`.
        """
        if topic not in self.counters:
            self.counters[topic] = TopicCounters(type_name)
            self._queue.put((topic, type_name, options))

    def put(self, topic: str, stamp_ns: int, data: bytes) -> bool:
        """Queue one serialised message; never waits.

        Returns:
            Whether it was taken; False: dropped and counted.
        """
        counters = self.counters[topic]
        counters.received += 1
        counters.stamps_ns.append(stamp_ns)
        waiting = self._bytes_put - self._bytes_done
        if self._failure is not None or waiting + len(data) > self._queue_bytes:
            counters.dropped += 1
            return False
        self._bytes_put += len(data)
        self._queue.put((topic, stamp_ns, data))
        return True

    def lost(self, topic: str, count: int) -> None:
        """Count messages that the middleware reported as lost."""
        if topic in self.counters:
            self.counters[topic].lost += count

    def over(self) -> None:
        """Note that the episode has ended: what still comes was on its way."""
        self._ended = time.time()

    def close(self, reason: str, label: str = "") -> dict[str, Any]:
        """Write what is queued, finish the bag and its report.

        Args:
            reason: Why the episode ended; goes into the report.
            label: Of the episode; goes into the report.

        Returns:
            The report, as written to `REPORT_FILE`.
        """
        self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._failure = BagError(f"{self.folder}: the disk did not take the queue")
        report = {
            "episode": self.name,
            "label": label,
            "ended_by": reason,
            "wall_seconds": round((self._ended or time.time()) - self._began, 3),
            "error": str(self._failure or "; ".join(self.complaints.values())),
            "pre_trigger_messages": self.early,
            "events": self.events,
            "topics": {topic: c.report() for topic, c in sorted(self.counters.items())},
        }
        self._reserve.close()
        try:
            write_report(self.folder, report)
        except OSError as error:
            report["error"] = f"{report['error']}; {REPORT_FILE} is missing: {error}".lstrip("; ")
        return report

    def _run(self) -> None:
        """Own the bag, from its making to its end: sqlite3 insists on one thread."""
        try:
            writer = self._make()
        except Exception as error:
            self._failure = error
            return
        finally:
            self._open.set()
        while True:
            try:
                entry = self._queue.get(timeout=_IDLE_FLUSH_S)
            except queue.Empty:
                self._guarded(writer, writer.flush_if_due)
                continue
            if entry is None:
                break
            if isinstance(entry[1], str):
                self._announce(writer, *entry)
            else:
                self._write(writer, *entry)
        self._guarded(writer, writer.flush)
        if self._failure is None:
            os.truncate(self._reserve.fileno(), _REPORT_RESERVE_BYTES)
            self._guarded(writer, writer.close)
        for topic, counters in self.counters.items():
            # What the disk refused at the end was counted as written before.
            counters.refused += counters.written - writer.counts[topic]
            counters.written, counters.size = writer.counts[topic], writer.sizes[topic]
        self.size = sum(counters.size for counters in self.counters.values())

    def _make(self) -> BagWriter:
        """Return the bag's writer, with some disk kept free for its end."""
        writer = BagWriter(self.folder, storage=self._storage)
        try:
            # It has no name, so that it is gone with the process, however that ends.
            self._reserve = tempfile.TemporaryFile(dir=self.folder)
            os.posix_fallocate(self._reserve.fileno(), 0, _RESERVE_BYTES)
        except OSError as error:
            writer.discard()
            raise BagError(
                f"{self.folder}: the disk does not even take the {_RESERVE_BYTES >> 20} MiB that "
                f"an episode keeps free for its end ({error}): make room"
            ) from error
        return writer

    def _announce(
        self, writer: BagWriter, topic: str, type_name: str, options: dict[str, Any]
    ) -> None:
        if self._failure is not None:
            return
        try:
            writer.add_topic(topic, type_name, **options)
        except BagError as error:
            self.complaints[topic] = str(error)
        except STORAGE_ERRORS as error:
            self._fail(writer, error)

    def _write(self, writer: BagWriter, topic: str, stamp_ns: int, data: bytes) -> None:
        usable = self._failure is None and topic not in self.complaints
        counters = self.counters[topic]
        before = writer.counts[topic]
        if usable:
            self._guarded(writer, writer.write_raw, topic, stamp_ns, data)
        self._bytes_done += len(data)
        # Also one that made a chunk full which was refused, and then found its place after all.
        if writer.counts[topic] > before:
            counters.written += 1
            counters.size += len(data)
            self.size += len(data)
        else:
            counters.refused += 1

    def _guarded(self, writer: BagWriter, action: Any, *arguments: Any) -> None:
        """Do something with the bag; a failure is kept and ends the writing, not the process."""
        if self._failure is not None:
            return
        try:
            action(*arguments)
        except Exception as error:  # a full or vanished disk: whatever the storage raises
            self._fail(writer, error)

    def _fail(self, writer: BagWriter, error: Exception) -> None:
        """End the writing: finish the bag at once, in the space kept for that."""
        pending = writer.counts.total()
        os.truncate(self._reserve.fileno(), _REPORT_RESERVE_BYTES)
        outcome = "what came before is in the bag"
        try:
            writer.close()
        except Exception:  # again whatever the storage raises
            lost = pending - writer.counts.total()
            outcome = f"{outcome}, except {lost} messages of its last chunk"
        self._failure = BagError(f"the disk refuses ({error}): recording has stopped, {outcome}")


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write an episode's report; whoever sees it sees all of it.

    Raises:
        OSError: The disk refuses; a report that was there before is as it was.
    """
    unfinished = folder / f".{REPORT_FILE}"
    try:
        unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / REPORT_FILE)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
