"""kill -9 in the middle of a recording: everything up to the last chunk is readable."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lewm_core.data.bags import BagReader, BagWriter, DamagedBagError, find_bags
from lewm_core.data.mcap_salvage import SalvageError, salvage
from test.data.synthetic import small_contract, stamped, write_bag
from test.helpers import wait_until

ROOT = Path(__file__).parents[2]


def start_writer(bag: Path, flush_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "test.data.crashing_writer", str(bag), str(flush_s)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def commands_in(reader: BagReader) -> list[float]:
    return [entry.message.twist.linear.x for entry in reader.messages(["/command"])]


def test_a_killed_recording_is_readable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = tmp_path / "episode_7"
    process = start_writer(bag, flush_s=1.0)
    assert process.stdout is not None
    flushed = [int(process.stdout.readline()) for _ in range(4)][-1]
    process.send_signal(signal.SIGKILL)
    flushed = max([flushed, *(int(line) for line in process.stdout if line.strip().isdigit())])
    assert process.wait(timeout=20) == -signal.SIGKILL
    assert not (bag / "metadata.yaml").exists()

    assert find_bags(tmp_path) == [bag]
    with caplog.at_level(logging.WARNING), BagReader(bag) as reader:
        assert reader.truncated
        assert reader.name == "episode_7"
        assert reader.topics == {
            "/camera": "sensor_msgs/msg/Image",
            "/command": "geometry_msgs/msg/TwistStamped",
        }
        commands = commands_in(reader)
        assert commands == [float(number) for number in range(len(commands))], "none is missing"
        assert len(commands) >= flushed + 1
        pictures = list(reader.messages(["/camera"]))
        assert len(pictures) == reader.message_counts["/camera"] >= (flushed + 1) // 3
        assert pictures[-1].message.data.size == 60 * 80 * 3
    assert "cut short" in caplog.text


def test_without_an_explicit_flush_a_second_is_lost_at_most(tmp_path: Path) -> None:
    """Slow topics fill no chunk; time alone must bring them to disk."""
    with BagWriter(tmp_path / "slow", flush_s=0.05) as writer:
        writer.add_topic("/command", "geometry_msgs/msg/TwistStamped")
        written = []

        def on_disk() -> int:
            number = len(written)
            writer.write(
                "/command", number, stamped("geometry_msgs/msg/TwistStamped", number)
            )
            written.append(time.monotonic())
            try:
                found = salvage(tmp_path / "slow" / "slow.mcap")
            except SalvageError:
                return 0
            return found.channels[1].message_count

        wait_until(lambda: on_disk() >= 3, 20.0, "messages reach the disk before close()")
        assert writer.counts["/command"] == len(written)


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_file_cut_anywhere_is_read_or_refused_in_one_line(
    tmp_path: Path, compression: str
) -> None:
    bag = tmp_path / "whole"
    with BagWriter(bag, compression=compression) as writer:  # type: ignore[arg-type]
        writer.add_topic("/command", "geometry_msgs/msg/TwistStamped")
        for number in range(60):
            writer.write("/command", number, stamped("geometry_msgs/msg/TwistStamped", number))
            if number % 20 == 19:
                writer.flush()
    data = (bag / "whole.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    seen = set()
    for length in np.linspace(1, len(data) - 1, 60).astype(int):
        cut.write_bytes(data[:length])
        try:
            with BagReader(cut) as reader:
                count = sum(1 for _ in reader)
                assert reader.truncated
                assert count == reader.message_counts["/command"]
                seen.add(count)
        except DamagedBagError as error:
            assert str(error).startswith(f"{cut} cannot be read: ")
            assert "\n" not in str(error)
            seen.add(0)
    assert seen == {0, 20, 40, 60}


def test_a_chunk_that_was_overwritten_ends_the_salvage(tmp_path: Path) -> None:
    bag = tmp_path / "whole"
    with BagWriter(bag) as writer:
        writer.add_topic("/command", "geometry_msgs/msg/TwistStamped")
        for number in range(40):
            writer.write("/command", number, stamped("geometry_msgs/msg/TwistStamped", number))
            if number == 19:
                writer.flush()
                end_of_first = (bag / "whole.mcap").stat().st_size
    data = bytearray((bag / "whole.mcap").read_bytes()[:-40])
    data[end_of_first + 60 : end_of_first + 90] = bytes(30)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data)
    with BagReader(cut) as reader:
        assert reader.message_counts == {"/command": 20}
        assert [entry.receive_ns for entry in reader] == list(range(20))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_damage_in_the_middle_of_a_finished_bag(tmp_path: Path, storage: str) -> None:
    sent = [(number, float(number), 0.0) for number in range(3000)]
    bag = write_bag(tmp_path / "bag", small_contract(), [0], sent, storage=storage)
    (path,) = [file for file in bag.iterdir() if file.name != "metadata.yaml"]
    data = bytearray(path.read_bytes())
    data[4000:12000] = bytes(value % 251 for value in range(8000))
    path.write_bytes(data)
    with pytest.raises(DamagedBagError, match="is damaged in the middle|cannot be read") as caught:
        with BagReader(bag) as reader:
            list(reader.raw())
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Without checksums a picture would decode to wrong numbers in silence."""
    bag = write_bag(tmp_path / "bag", small_contract(), list(range(200)), [(0, 0.0, 0.0)])
    data = (bag / "bag.mcap").read_bytes()
    chunk_bytes = data.index(b"zstd") + 12
    for offset in range(chunk_bytes + 20, chunk_bytes + 400, 20):
        flipped = bytearray(data)
        flipped[offset] ^= 1
        (bag / "bag.mcap").write_bytes(flipped)
        with BagReader(bag) as reader, pytest.raises(DamagedBagError, match="in the middle"):
            list(reader.raw())


def test_nothing_to_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mcap"
    empty.touch()
    with pytest.raises(DamagedBagError, match=r"empty\.mcap is empty \(0 bytes\)"):
        BagReader(empty)
    text = tmp_path / "text.mcap"
    text.write_text("this is not a bag\n" * 10)
    with pytest.raises(DamagedBagError, match="is not an MCAP file"):
        BagReader(text)
    database = tmp_path / "text.db3"
    database.write_text("this is not a bag\n" * 10)
    with pytest.raises(DamagedBagError, match=r"text\.db3 cannot be read"):
        BagReader(database)
    bag = write_bag(tmp_path / "old", small_contract(), [0], [(0, 0.0, 0.0)], storage="sqlite3")
    cut = tmp_path / "cut.db3"
    cut.write_bytes((bag / "old.db3").read_bytes()[:6000])
    with pytest.raises(DamagedBagError, match=r"cut\.db3 cannot be read"):
        BagReader(cut)
