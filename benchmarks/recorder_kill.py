"""What a recorder that is killed again and again loses.

    python benchmarks/recorder_kill.py --hours 1 --kills 20 --seed 0 --json recorder_kill.json

One process publishes the messages of the Push-T contract (pictures, commands, states) at many times
their rate, over DDS, each stamped with the time it would have; the recorder node writes them. At
random moments the recorder gets SIGKILL, and another one goes on in the same folder. Then every
episode is read, and every picture in it is compared with the one that was published.

A message counts as lost if the recorder's process had acknowledged it (its middleware confirms a
message when it has reached the process) before the kill, and the bag does not have it: what waited
in the middleware and in the recorder's queue counts, not only what the writer held. Status 1 if
more was lost than one chunk of the bag, anything in the middle of an episode, or any earlier
episode.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data import load_contract
from lewm_core.data.bags import BagReader, DamagedBagError
from lewm_core.errors import UserError
from lewm_ros.dds import apply_profile, clean_shared_memory
from lewm_ros.missing import require_ros
from lewm_ros.processes import NodeProcess, isolated_environment

_NS_PER_S = 1_000_000_000
#: Stamp of tick 0, ns.
_EPOCH_NS = _NS_PER_S
_READY_S = 60.0
#: Ticks after which the publisher waits for the acknowledgements, which come every 20 ms (the
#: heartbeat of config/fastdds): what is acknowledged is known to so many ticks.
_BATCH = 4
_CHUNK = 0x06
#: A kill comes up to this much later than the publisher's tick, s.
_LATER_S = 0.05


@dataclass
class Span:
    """One life of a recorder.

    Attributes:
        first: Tick with which it begins.
        published: Ticks published until it ended.
        acknowledged: Of these, before it ended.
        killed: Whether it ended by SIGKILL.
        bag: What it wrote.
        digest: Of the bag's file, after its end.
        found: Messages in the bag.
        lost: Acknowledged messages that are not in it, by topic.
        inside: Of these, those before the end of what was found.
        wrong: Messages that are there twice, or were not published so.
        changed: Whether the file is another one than when its recorder ended.
    """

    first: int
    published: int
    acknowledged: int
    killed: bool
    bag: Path
    digest: str
    found: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    wrong: int = 0
    changed: bool = False


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "benchmarks/recorder_kill.py",
        "Kill the recorder again and again while it records, and count what is lost.",
        "python benchmarks/recorder_kill.py --hours 1 --kills 20 --seed 0 --json kills.json",
    )
    parser.add_argument("--hours", type=float, default=1.0,
                        help="of messages at the contract's rate (default 1)")  # fmt: skip
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default 20)")
    parser.add_argument("--speed", type=float, default=20.0,
                        help="times the contract's rate (default 20)")  # fmt: skip
    parser.add_argument("--chunks", type=float, default=1.0,
                        help="that one kill may cost: more on a machine so busy that messages wait "
                        "for the recorder (default 1)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--keep", type=Path, help="folder to keep the bags in (default: none)")
    parser.add_argument("--source", nargs=4, metavar="", help=argparse.SUPPRESS)
    return run_command(parser, _benchmark)


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    require_ros("benchmarks/recorder_kill.py")
    if options.source:
        _publish(*options.source)
        return {}
    rate = load_contract("push_t").control_rate
    ticks = round(options.hours * 3600.0 * rate)
    random = np.random.default_rng(options.seed)
    moments = np.sort(random.choice(ticks, options.kills, replace=False))
    spans: list[Span] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "data"
        for moment in [*moments.tolist(), None]:
            first = spans[-1].first + spans[-1].published if spans else 0
            later_s = float(random.uniform(0.0, _LATER_S))
            spans.append(_live(options.speed, folder, Path(scratch), first, ticks, moment, later_s))
            print(f"{spans[-1].bag.name}: {spans[-1].published} ticks", file=sys.stderr)
        recording_s = time.monotonic() - began
        sizes: dict[str, int] = {}
        for span in spans:
            _judge(span, sizes)
        chunk = max(size for span in spans for size in _chunk_sizes(_file(span.bag)))
    result = _report(spans, sizes, chunk, options.chunks)
    print(f"{'recording_s':24} {recording_s:.0f}")
    result |= {"recording_s": recording_s, "seed": options.seed, "speed": options.speed}
    if not result["passed"]:
        raise UserError("more was lost than a chunk, or an earlier episode; the table says where")
    return result


def _live(
    speed: float,
    folder: Path,
    scratch: Path,
    first: int,
    ticks: int,
    moment: int | None,
    later_s: float,
) -> Span:
    """Run a recorder from a tick on, until a moment (a tick) or until all is published."""
    # A graph of its own: a dead recorder is waited for until its lease ends.
    environment = isolated_environment()
    known = {path.name for path in folder.iterdir()} if folder.exists() else set()
    progress = scratch / "progress"
    progress.write_bytes(bytes(16))
    parameters = {"out": folder, "record_at_start": True}
    command = [sys.executable, __file__, "--source", str(first), str(ticks), str(speed)]
    with NodeProcess("record_dataset", parameters, environment, scratch / "log") as recorder:
        source = subprocess.Popen([*command, str(progress)], env=environment)
        try:
            seen = np.memmap(progress, np.int64, "r")
            while seen[0] < (ticks if moment is None else moment + 1) - first:
                recorder.require_running()
                if source.poll():
                    raise UserError("the source of the benchmark failed; its message is above")
                time.sleep(0.0005)
            if moment is None:
                if source.wait(_READY_S):
                    raise UserError("the source of the benchmark failed; its message is above")
                acknowledged = int(seen[1])
                recorder.stop(_READY_S)
            else:
                time.sleep(later_s)
                acknowledged = int(seen[1])
                os.kill(recorder.pid, signal.SIGKILL)
                recorder.wait(_READY_S)
        finally:
            source.kill()
            source.wait()
        published = int(seen[0])
    clean_shared_memory()
    (name,) = {path.name for path in folder.iterdir() if path.is_dir()} - known
    bag = folder / name
    return Span(first, published, acknowledged, moment is not None, bag, _digest(bag))


def _publish(first: str, ticks: str, speed: str, progress: str) -> None:
    """Publish the ticks from the first one on, and tell how many are published, acknowledged."""
    apply_profile()
    import rclpy
    from geometry_msgs.msg import TwistStamped
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image, JointState

    from lewm_ros import qos
    from lewm_ros.codecs import ImageFiller
    from lewm_ros.stamps import ns_to_stamp

    rclpy.init()
    node = rclpy.create_node("source")
    contract = load_contract("push_t")
    camera = node.create_publisher(Image, contract.camera.topic, qos.CAMERA_PUBLISHER)
    commands = node.create_publisher(TwistStamped, contract.action.topic, qos.COMMAND)
    states = node.create_publisher(JointState, contract.states[0].topic, qos.STATE)
    publishers = (camera, commands, states)
    deadline = time.monotonic() + _READY_S
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        if time.monotonic() > deadline:
            raise UserError(f"the recorder does not subscribe within {_READY_S:g} s")
        time.sleep(0.02)
    told = np.memmap(progress, np.int64, "r+")
    filler, command, state = ImageFiller("top"), TwistStamped(), JointState(position=[0.0] * 5)
    period = 1.0 / (contract.control_rate * float(speed))
    began = time.monotonic()
    for tick in range(int(first), int(ticks)):
        done = tick - int(first)
        time.sleep(max(began + done * period - time.monotonic(), 0.0))
        stamp_ns = _EPOCH_NS + round(tick * _NS_PER_S / contract.control_rate)
        camera.publish(filler.fill(_picture(tick), stamp_ns))
        command.header.stamp = state.header.stamp = ns_to_stamp(stamp_ns)
        commands.publish(command)
        states.publish(state)
        told[0] = done + 1
        if (done + 1) % _BATCH == 0 or tick + 1 == int(ticks):
            for publisher in publishers:
                if not publisher.wait_for_all_acked(Duration(seconds=_READY_S)):
                    raise UserError(f"the recorder acknowledges nothing for {_READY_S:g} s")
            told[1] = done + 1


def _picture(tick: int) -> np.ndarray:
    """Return the picture of a tick, ``(224, 224, 3)`` uint8: a block somewhere, and its number."""
    picture = np.full((224, 224, 3), 230, np.uint8)
    x, y = 37 * tick % 180, 11 * tick % 180
    picture[y : y + 40, x : x + 40] = (90, 120, 200)
    picture[0, :8, 0] = np.frombuffer(struct.pack("<q", tick), np.uint8)
    return picture


def _judge(span: Span, sizes: dict[str, int]) -> None:
    """Read what a recorder wrote, and compare it with what was published.

    Args:
        span: Gets the figures.
        sizes: Gets the bytes of a message of every topic.
    """
    span.changed = _digest(span.bag) != span.digest
    contract = load_contract("push_t")
    found: dict[str, list[int]] = {topic: [] for topic in contract.topics()}
    try:
        with BagReader(span.bag) as reader:
            for entry in reader.raw():
                stamp_ns = reader.header_stamp_ns(entry.type_name, entry.data) or 0
                tick = round((stamp_ns - _EPOCH_NS) * contract.control_rate / _NS_PER_S)
                found[entry.topic].append(tick)
                sizes[entry.topic] = len(entry.data)
                if entry.topic == contract.camera.topic:
                    picture = _picture(tick).tobytes()
                    span.wrong += bytes(entry.data[-len(picture) :]) != picture
    except DamagedBagError as error:
        # Right for a recorder that was killed within its first chunk; what is lost is counted.
        print(error, file=sys.stderr)
    for topic, ticks in found.items():
        there = set(ticks)
        span.found += len(ticks)
        span.wrong += len(ticks) - len(there)
        span.wrong += sum(not 0 <= tick - span.first < span.published for tick in there)
        missing = set(range(span.first, span.first + span.acknowledged)) - there
        span.lost[topic] = len(missing)
        span.inside += sum(tick < max(there, default=span.first) for tick in missing)


def _report(
    spans: list[Span], sizes: dict[str, int], chunk: int, allowed: float
) -> dict[str, Any]:
    """Print the table and return it with the sums.

    Args:
        spans: The rows.
        sizes: Bytes of a message of every topic.
        chunk: Bytes of the largest chunk.
        allowed: Chunks that one kill may cost.
    """
    rows = []
    for span in spans:
        size = sum(count * sizes[topic] for topic, count in span.lost.items())
        rows.append(
            {
                "episode": span.bag.name,
                "ended_by": "SIGKILL" if span.killed else "SIGINT",
                "published": 3 * span.published,
                "acknowledged": 3 * span.acknowledged,
                "found": span.found,
                "lost": span.lost.total(),
                "lost_kib": round(size / 1024.0, 1),
                "lost_inside": span.inside,
                "wrong": span.wrong,
                "unchanged": not span.changed,
            }
        )
    widths = [max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]]
    for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        print("  ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    killed = [row for row in rows if row["ended_by"] == "SIGKILL"]
    totals = {
        "kills": len(killed),
        **{key: sum(row[key] for row in rows)
           for key in ("published", "acknowledged", "found", "lost", "lost_inside", "wrong")},
        "largest_loss_kib": max(row["lost_kib"] for row in rows),
        "largest_chunk_kib": round(chunk / 1024.0, 1),
        "lost_without_kill": sum(row["lost"] for row in rows if row not in killed),
        "episodes_changed_later": sum(not row["unchanged"] for row in rows),
    }  # fmt: skip
    for key, value in totals.items():
        print(f"{key:24} {value}")
    passed = totals["largest_loss_kib"] <= allowed * totals["largest_chunk_kib"] and not any(
        totals[key]
        for key in ("lost_inside", "wrong", "lost_without_kill", "episodes_changed_later")
    )
    return {**totals, "passed": passed, "episodes": rows}


def _file(bag: Path) -> Path:
    return bag / f"{bag.name}.mcap"


def _digest(bag: Path) -> str:
    return hashlib.sha256(_file(bag).read_bytes()).hexdigest()


def _chunk_sizes(path: Path) -> list[int]:
    """Return the bytes of every chunk of an MCAP file as they were in memory."""
    sizes, data = [], path.read_bytes()
    position = 8  # behind the magic bytes; then: 1 byte of kind, 8 of length, the record
    while position + 9 <= len(data) and data[position]:
        (length,) = struct.unpack_from("<Q", data, position + 1)
        if data[position] == _CHUNK and position + 9 + length <= len(data):
            sizes += struct.unpack_from("<Q", data, position + 9 + 16)
        position += 9 + length
    return sizes


if __name__ == "__main__":
    sys.exit(main())
