"""Bags: what is written is read back, by this project's reader and by others."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosReliability
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from lewm_core.data.bags import BagReader, BagWriter, find_bags, make_qos, peek_bag
from lewm_core.data.messages import make_message, typestore
from lewm_core.errors import BagError
from lewm_core.paths import find_shared
from test.data.synthetic import (
    MS,
    compressed_message,
    image_message,
    picture,
    small_contract,
    stamped,
    write_bag,
    write_episode,
)

CONTRACT = small_contract()
TWIST = "geometry_msgs/msg/TwistStamped"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_is_written_is_read(tmp_path: Path, storage: str) -> None:
    bag = write_bag(
        tmp_path / "episode_1",
        CONTRACT,
        [0, 500 * MS],
        [(tick * 100 * MS, tick / 10, 0.0) for tick in range(6)],
        receive_delay_ns=7 * MS,
        storage=storage,
    )
    with BagReader(bag) as reader:
        assert reader.name == "episode_1"
        assert not reader.truncated
        assert reader.message_counts == {"/camera": 2, "/command": 6}
        entries = list(reader)
        stamps = [entry.receive_ns for entry in entries]
        assert stamps == sorted(stamps)
        assert all(entry.receive_ns - entry.header_ns == 7 * MS for entry in entries)
        pictures = [entry.message for entry in entries if entry.topic == "/camera"]
        for number, message in enumerate(pictures):
            pixels = message.data.reshape(message.height, message.width, 3)
            np.testing.assert_array_equal(pixels, picture(number))
        only = [entry.message.twist.linear.x for entry in reader.messages(["/command"])]
        np.testing.assert_allclose(only, np.arange(6) / 10)
    assert peek_bag(bag) == (CONTRACT_TOPICS, {"/camera": 2, "/command": 6})


CONTRACT_TOPICS = {"/camera": "sensor_msgs/msg/Image", "/command": TWIST}


def test_bare_files_and_split_bags(tmp_path: Path) -> None:
    bag = write_episode(tmp_path / "one", CONTRACT)
    with BagReader(bag / "one.mcap") as reader:
        assert reader.name == "one"
        count = sum(1 for _ in reader)
    # A bag split by its recorder, without metadata.yaml: parts in the order of their numbers.
    split = tmp_path / "split"
    split.mkdir()
    for number in (0, 2, 10):
        part = write_bag(
            tmp_path / f"part{number}", CONTRACT, [], [(number, float(number), 0.0)]
        )
        shutil.move(part / f"part{number}.mcap", split / f"split_{number}.mcap")
        shutil.rmtree(part)
    with BagReader(split) as reader:
        assert [entry.message.twist.linear.x for entry in reader] == [0.0, 2.0, 10.0]
    loose = tmp_path / "loose"
    loose.mkdir()
    shutil.copy(bag / "one.mcap", loose / "a.mcap")
    shutil.copy(bag / "one.mcap", loose / "b.mcap")
    assert count == 41 + 41 + 9
    (tmp_path / ".hidden").mkdir()
    shutil.copy(bag / "one.mcap", tmp_path / ".hidden" / "c.mcap")
    found = find_bags(tmp_path)
    assert found == [loose / "a.mcap", loose / "b.mcap", bag, split]
    assert find_bags([bag, tmp_path, loose / "a.mcap"]) == [
        bag, loose / "a.mcap", loose / "b.mcap", split,
    ]


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_bags_of_plain_ros2_bag_record_compressed(tmp_path: Path, mode: CompressionMode) -> None:
    path = tmp_path / "plain"
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/command", TWIST, typestore=typestore())
        for number in range(5):
            data = typestore().serialize_cdr(stamped(TWIST, number), TWIST)
            writer.write(connection, number, data)
    with BagReader(path) as reader:
        assert [entry.header_ns for entry in reader] == [0, 1, 2, 3, 4]


def test_definitions_travel_with_the_bag(tmp_path: Path) -> None:
    definition = "std_msgs/Header header\nfloat64[] effort\nInner inner\n"
    definition += "=" * 80 + "\nMSG: my_robot/Inner\nuint8 kind\n"
    bag = tmp_path / "own_types"
    with BagWriter(bag) as writer:
        writer.add_topic("/episode", "lewm_ros/msg/EpisodeEvent")
        event = make_message("lewm_ros/msg/EpisodeEvent")
        event.episode = "episode_3"
        writer.write("/episode", 5, event)
        writer.add_topic("/hand", "my_robot/msg/Hand", definition)
        hand = writer._store.types["my_robot/msg/Hand"](
            header=event.header,
            effort=np.array([1.0, 2.0]),
            inner=writer._store.types["my_robot/msg/Inner"](kind=4),
        )
        writer.write("/hand", 6, hand)
    assert "my_robot/msg/Hand" not in typestore().fielddefs
    with BagReader(bag) as reader:
        first, second = reader.messages()
        assert first.message.episode == "episode_3"
        np.testing.assert_array_equal(second.message.effort, [1.0, 2.0])
        assert second.message.inner.kind == 4
    # A reader that knows nothing of this project, with nothing but what is in the bag.
    with AnyReader([bag]) as foreign:
        decoded = [
            foreign.deserialize(data, connection.msgtype)
            for connection, _, data in foreign.messages()
        ]
    assert decoded[0].episode == "episode_3"
    assert decoded[1].inner.kind == 4


def test_a_bag_whose_definition_differs_is_read_by_its_own(tmp_path: Path) -> None:
    """An older distribution may define a type differently; the bag is right about itself."""
    bag = tmp_path / "old_types"
    with BagWriter(bag) as writer:
        writer._store = _store_with("geometry_msgs/msg/Vector3", "float32 x\nfloat32 y\n")
        writer.add_topic("/v", "geometry_msgs/msg/Vector3")
        writer.write("/v", 0, writer._store.types["geometry_msgs/msg/Vector3"](x=1.5, y=2.5))
    with BagReader(bag) as reader:
        (entry,) = reader
        assert (entry.message.x, entry.message.y) == (1.5, 2.5)


def _store_with(name: str, definition: str) -> Typestore:
    store = Typestore()
    store.register(get_types_from_msg(definition, name))
    return store


def test_metadata_is_what_ros2_bag_info_reads(tmp_path: Path) -> None:
    """Keys and types of rosbag2's metadata version 8, which Humble to Kilted read."""
    bag = tmp_path / "episode"
    with BagWriter(bag, custom_data={"seed": "3"}) as writer:
        writer.add_topic("/command", TWIST, qos=make_qos(reliability=2, depth=1))
        writer.add_topic("/episode", "lewm_ros/msg/EpisodeEvent")
        writer.write("/command", 1_000, stamped(TWIST, 1_000))
        writer.write("/command", 4_000, stamped(TWIST, 4_000))
    information = yaml.safe_load((bag / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    assert information["version"] == 8
    assert information["storage_identifier"] == "mcap"
    assert information["relative_file_paths"] == ["episode.mcap"]
    assert information["starting_time"] == {"nanoseconds_since_epoch": 1_000}
    assert information["duration"] == {"nanoseconds": 3_000}
    assert information["message_count"] == 2
    assert information["compression_mode"] == ""
    assert information["custom_data"]["seed"] == "3"
    topics = {
        entry["topic_metadata"]["name"]: entry
        for entry in information["topics_with_message_count"]
    }
    command = topics["/command"]
    assert command["message_count"] == 2
    assert command["topic_metadata"]["serialization_format"] == "cdr"
    assert command["topic_metadata"]["type"] == TWIST
    (qos,) = yaml.safe_load(command["topic_metadata"]["offered_qos_profiles"])
    assert (qos["reliability"], qos["depth"], qos["history"]) == (2, 1, 1)
    assert topics["/episode"]["message_count"] == 0


def test_type_hashes_are_those_of_rosidl(tmp_path: Path) -> None:
    """The hash of a type identifies it on the wire; ours must be what ROS computes."""
    generated = find_shared("msg/EpisodeEvent.msg").parent
    candidates = [
        folder / "lewm_ros" / "msg" / "EpisodeEvent.json" for folder in _share_folders()
    ]
    built = [path for path in [*candidates, generated / "EpisodeEvent.json"] if path.is_file()]
    if not built:
        pytest.skip("the interfaces are not built here")
    hashes = json.loads(built[0].read_text())["type_hashes"]
    (expected,) = [
        entry["hash_string"]
        for entry in hashes
        if entry["type_name"] == "lewm_ros/msg/EpisodeEvent"
    ]
    assert typestore().hash_rihs01("lewm_ros/msg/EpisodeEvent") == expected


def _share_folders() -> list[Path]:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    return [Path(prefix) / "share" for prefix in prefixes if prefix]


def test_other_readers_agree(tmp_path: Path) -> None:
    bag = write_episode(tmp_path / "episode", CONTRACT)
    with Reader(bag) as reader:
        assert reader.message_count == 41 + 41 + 9
        (qos,) = reader.connections[0].ext.offered_qos_profiles
        assert qos.reliability == QosReliability.RELIABLE
    mcap_reader = pytest.importorskip("mcap.reader")
    with (bag / "episode.mcap").open("rb") as stream:
        foreign = mcap_reader.make_reader(stream, validate_crcs=True)
        summary = foreign.get_summary()
        assert summary.statistics.message_count == 41 + 41 + 9
        assert {entry.name for entry in summary.schemas.values()} == {
            "sensor_msgs/msg/Image", TWIST, "sensor_msgs/msg/JointState",
        }
        assert {entry.encoding for entry in summary.schemas.values()} == {"ros2msg"}
        assert {entry.message_encoding for entry in summary.channels.values()} == {"cdr"}
        stamps = [message.log_time for _, _, message in foreign.iter_messages(topics="/command")]
    assert stamps == [tick * 100 * MS for tick in range(41)]


@pytest.mark.parametrize("compression", ["LZ4", "ZSTD", "NONE"])
@pytest.mark.parametrize("cut", [0, 20])
def test_files_of_another_writer(tmp_path: Path, compression: str, cut: int) -> None:
    """MCAP as rosbag2's own plugin may write it: with checksums, other compressions, cut short."""
    mcap_writer = pytest.importorskip("mcap.writer")
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as stream:
        writer = mcap_writer.Writer(
            stream,
            chunk_size=1000,
            compression=mcap_writer.CompressionType[compression],
            enable_crcs=True,
        )
        writer.start(profile="ros2", library="test")
        text, _ = typestore().generate_msgdef(TWIST, ros_version=2)
        schema = writer.register_schema(TWIST, "ros2msg", text.encode())
        channel = writer.register_channel("/command", "cdr", schema)
        for number in range(100):
            data = bytes(typestore().serialize_cdr(stamped(TWIST, number), TWIST))
            writer.add_message(channel, number, data, number)
        writer.finish()
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    with BagReader(path) as reader:
        assert reader.truncated == (cut > 0)
        assert [entry.header_ns for entry in reader] == list(range(100))


def test_pictures_are_not_copied_on_their_way(tmp_path: Path) -> None:
    bag = tmp_path / "episode"
    with BagWriter(bag) as writer:
        writer.add_topic("/camera", "sensor_msgs/msg/Image")
        writer.write("/camera", 0, image_message(picture(1), 0))
        writer.add_topic("/packed", "sensor_msgs/msg/CompressedImage")
        writer.write("/packed", 1, compressed_message(picture(1), 1))
    with BagReader(bag) as reader:
        for entry in reader.raw():
            raw = np.frombuffer(entry.data, np.uint8)
            assert np.shares_memory(reader.decode(entry.type_name, raw.data).data, raw)


def test_misuse_of_the_writer(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", TWIST)
        writer.add_topic("/a", TWIST)
        with pytest.raises(BagError, match=f"/a is recorded as {TWIST}"):
            writer.add_topic("/a", "std_msgs/msg/Int32")
        with pytest.raises(BagError, match="/b was not announced"):
            writer.write_raw("/b", 0, b"")
        with pytest.raises(BagError, match="unknown_msgs/msg/Thing is not known"):
            writer.add_topic("/c", "unknown_msgs/msg/Thing")
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag")
    assert (tmp_path / "bag" / "metadata.yaml").exists()
    writer = BagWriter(tmp_path / "unwanted")
    writer.discard()
    assert not (tmp_path / "unwanted").exists()


def test_missing_bags(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="nowhere does not exist"):
        BagReader(tmp_path / "nowhere")
    with pytest.raises(BagError, match="nowhere does not exist"):
        find_bags(tmp_path / "nowhere")
    with pytest.raises(BagError, match="holds no bag"):
        find_bags(tmp_path)
    with pytest.raises(BagError, match="is no bag"):
        BagReader(tmp_path)
    bag = write_episode(tmp_path / "episode", CONTRACT)
    (bag / "episode.mcap").unlink()
    with pytest.raises(BagError, match=r"episode\.mcap is missing, metadata\.yaml names it"):
        BagReader(bag)


def test_broken_metadata_does_not_matter(tmp_path: Path) -> None:
    bag = write_episode(tmp_path / "episode", CONTRACT)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    with BagReader(bag) as reader:
        assert reader.message_counts["/command"] == 41
    assert peek_bag(bag)[1]["/command"] == 41


def test_a_bag_without_the_contracts_topics(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "episode", CONTRACT, [0], [(0, 0.0, 0.0)])
    other = small_contract(cameras__0__topic="/front", action__topic="/cmd")
    with BagReader(bag) as reader:
        reader.require(CONTRACT)
        with pytest.raises(BagError) as caught:
            reader.require(other)
        message = str(caught.value)
        assert "no messages on /front, /cmd" in message
        assert "/camera (1), /command (1)" in message
        compressed = small_contract(cameras__0__message="sensor_msgs/msg/CompressedImage")
        with pytest.raises(BagError, match="/camera is sensor_msgs/msg/Image in the bag, but"):
            reader.require(compressed)
