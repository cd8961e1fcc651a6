"""Bags of a stranger: what unpacks, computes, or defines too much."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import apsw
import lz4.frame
import numpy as np
import pytest
import yaml

from lewm_core.data.alignment import align_episode
from lewm_core.data.bags import BagReader, DamagedBagError, peek_bag
from lewm_core.data.cache import build_cache, open_cache
from lewm_core.data.decompression import TooLargeError, unpack_file, unpack_lz4, unpack_zstd
from lewm_core.data.definitions import store_for
from lewm_core.errors import BagError
from test.data.synthetic import SECOND, small_contract, write_bag, write_episode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 2**20


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_episode(tmp_path / "bag", small_contract())


def test_nothing_unpacks_to_more_than_is_allowed(tmp_path):
    packed = zstd.compress(bytes(MIB))
    assert unpack_zstd(packed, MIB) == bytes(MIB)
    assert unpack_zstd(packed + packed, 2 * MIB) == bytes(2 * MIB)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        unpack_zstd(packed, 1000)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        unpack_lz4(lz4.frame.compress(bytes(MIB)), 1000)
    with pytest.raises(EOFError):
        unpack_zstd(packed[:-3])
    file = tmp_path / "x.zstd"
    file.write_bytes(zstd.compress(bytes(65 * MIB)))
    with pytest.raises(TooLargeError):
        unpack_file(file, tmp_path / "x")


@pytest.mark.parametrize("place", [16, 24], ids=["low", "high"])
def test_a_chunk_that_claims_gigabytes_is_refused(bag, place):
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    chunk = data.index(b"zstd") - 4 - 28 - 9
    assert data[chunk] == 0x06
    data[chunk + 9 + 16 : chunk + 9 + 24] = (2**place * 2**20).to_bytes(8, "little")
    file.write_bytes(data)
    (bag / "metadata.yaml").unlink()
    # The index is right, the chunk is not; without its end, the file is read by its chunks.
    file.write_bytes(data[:-20])
    with pytest.raises(DamagedBagError, match="a chunk claims .* 268435456 are allowed"):
        BagReader(bag)


def test_an_index_of_shared_chunks_is_refused(bag):
    file = next(bag.glob("*.mcap"))
    with BagReader(file) as reader:
        storage = reader._parts[0].storage
        chunk = storage.chunks[0]
        storage.chunks.append(chunk)
        with pytest.raises(Exception, match="share bytes"):
            storage._check_chunks()
        # A hundred chunks of 100 MiB each, all of the same time.
        large = chunk._replace(uncompressed_size=100 * MIB)
        storage.chunks[:] = [
            large._replace(chunk_start_offset=number * 10_000_000) for number in range(100)
        ]
        with pytest.raises(Exception, match="of the same time"):
            storage._check_chunks()


def test_metadata_that_counts_more_than_there_is_room_for_is_not_believed(bag):
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    for entry in content["rosbag2_bagfile_information"]["topics_with_message_count"]:
        entry["message_count"] = 10**12
    file.write_text(yaml.safe_dump(content))
    assert max(peek_bag(bag)[1].values()) == 41


def test_metadata_leads_to_no_other_folder(bag):
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    outside = bag.parent / "outside.mcap"
    shutil.copy(next(bag.glob("*.mcap")), outside)
    content["rosbag2_bagfile_information"]["relative_file_paths"] = ["../outside.mcap"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(BagError, match="outside.mcap is missing"):
        BagReader(bag)


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("CREATE VIEW messages AS SELECT 1 AS id", "'messages' is computed"),
        (
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
            "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
            "column 'data' of table messages is computed",
        ),
    ],
)
def test_a_database_that_computes_is_refused(tmp_path, statement, part):
    bag = write_bag(
        tmp_path / "bag", small_contract(), [SECOND], [(SECOND, 0.0, 0.0)], storage="sqlite3"
    )
    connection = apsw.Connection(str(next(bag.glob("*.db3"))))
    connection.execute("DROP TABLE messages")
    connection.execute(statement)
    connection.close()
    with pytest.raises(DamagedBagError, match=part):
        BagReader(bag)


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("string[4000000000] x", "msg", "4000000000 elements, 1 to 1024"),
        ("a/B[2000] x", "msg", "2000 elements, 1 to 1024"),
        ("uint8[0] x", "msg", "0 elements, 1 to"),
        ("\n".join(f"uint8 x{number}" for number in range(3000)), "msg", "more than 2000"),
        ("uint8 x\n" + "#" * 300_000, "msg", "characters, 262144 are allowed"),
        ("float64 X=1e999\nuint8 x", "msg", "cannot be used"),
        (
            "module a { module msg { const long X = 1 << 100000000000; "
            "struct B { uint8 x; }; }; };",
            "idl",
            "arithmetic",
        ),
    ],
)
def test_definitions_that_would_fill_the_memory_are_left_aside(caplog, text, kind, part):
    store = store_for((("a/msg/B", kind, text),))
    assert "a/msg/B" not in store.fielddefs
    assert part in caplog.text


def test_definitions_of_idl_with_prose_are_read():
    text = (
        'module a { module msg { @verbatim (language="comment", text="m/s * 2 << 3")\n'
        "// 3 * 4\nstruct B { uint8 x; }; }; };"
    )
    assert "a/msg/B" in store_for((("a/msg/B", "idl", text),)).fielddefs


def test_stamps_of_years_do_not_make_years_of_ticks(tmp_path):
    contract = small_contract(max_gap=3600.0, control_rate=1000.0)
    hour = 3600 * SECOND - 1
    stamps = sorted([SECOND + number for number in range(3)] + [n * hour for n in range(1, 3)])
    bag = write_bag(tmp_path / "bag", contract, stamps, [(stamp, 0.0, 0.0) for stamp in stamps])
    with BagReader(bag) as reader, pytest.raises(BagError, match="ticks, 4000000 are allowed"):
        align_episode(reader, contract)


def test_pictures_that_only_metadata_knows_of_are_none(tmp_path):
    contract = small_contract()
    bag = write_bag(tmp_path / "bag", contract, [], [(SECOND, 0.0, 0.0)])
    with BagReader(bag) as reader:
        reader.message_counts["/camera"] = 5
        with pytest.raises(BagError, match="tells of pictures on /camera, but has none"):
            align_episode(reader, contract)


def test_a_cache_of_a_stranger_is_checked(bag, tmp_path):
    folder = build_cache(bag, small_contract(), 16, tmp_path / "caches").folder
    with np.load(folder / "ticks.npz") as ticks:
        arrays = {name: ticks[name] for name in ticks.files}
    np.savez_compressed(folder / "ticks.npz", **arrays)
    with pytest.raises(BagError, match="is packed"):
        open_cache(folder)
    arrays["frame_index"] = np.full_like(arrays["frame_index"], 10**6)
    np.savez(folder / "ticks.npz", **arrays)
    with pytest.raises(BagError, match="leads out of the frames"):
        open_cache(folder)


def test_a_cache_whose_archive_is_of_an_unknown_version_is_refused(bag, tmp_path):
    folder = build_cache(bag, small_contract(), 16, tmp_path / "caches").folder
    data = bytearray((folder / "ticks.npz").read_bytes())
    # "Version needed to extract" of the central directory's first entry.
    data[data.index(b"PK\x01\x02") + 6] = 255
    (folder / "ticks.npz").write_bytes(data)
    with pytest.raises(BagError, match="zip file version 25.5"):
        open_cache(folder)


def test_a_cache_whose_array_has_a_damaged_header_is_refused(bag, tmp_path):
    folder = build_cache(bag, small_contract(), 16, tmp_path / "caches").folder
    data = bytearray((folder / "frames.npy").read_bytes())
    shape = data.index(b"'shape'")
    # An opening bracket less, and a zero: numpy's second reading of it ends in a TokenError.
    data[shape + 5 : shape + 13] = bytes(8)
    (folder / "frames.npy").write_bytes(data)
    with pytest.raises(BagError, match="is not a frame cache"):
        open_cache(folder)
