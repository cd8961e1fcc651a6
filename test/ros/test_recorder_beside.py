"""What goes on beside a recording: somebody reads the bag; and what does not: decoding."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from lewm_core.data import (  # noqa: E402
    Contract,
    align_episode,
    load_contract,
    save_contract,
)
from lewm_core.data.bags import BagReader, DamagedBagError  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_compressed, ns_to_stamp  # noqa: E402
from test.ros.test_recorder import CAMERA, Robot, read, report, start, stop  # noqa: E402


def test_a_bag_is_read_while_it_is_written_and_the_recorder_does_not_mind(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out})
    robot.wait_for_recorder()
    name = start(graph)
    counts: list[int] = []
    opened: BagReader | None = None
    try:
        for index in range(40):
            robot.publish(10**9 + index * 10**8)
            try:
                with BagReader(out / name) as reader:
                    assert reader.truncated
                    found = {topic: [] for topic in reader.topics}
                    for entry in reader.raw():
                        found[entry.topic].append(bytes(entry.data))
                    assert {t: len(messages) for t, messages in found.items()} == (
                        reader.message_counts
                    )
            except DamagedBagError as error:
                assert not counts and "first complete chunk" in str(error)
                continue
            for topic, messages in found.items():
                assert messages == robot.sent[topic][: len(messages)], topic
            counts.append(len(found[CAMERA]))
            opened = opened or BagReader(out / name)
        # Chunk by chunk, a MiB each: seven pictures, so there are five of them in all.
        assert counts == sorted(counts) and len(set(counts)) >= 3
        # Whoever opened it early reads what was there then.
        assert sum(1 for _ in opened.raw()) == sum(opened.message_counts.values())
    finally:
        if opened is not None:
            opened.close()
    stop(graph)
    assert read(out / name) == robot.sent
    assert report(out / name)["error"] == ""
    counters = report(out / name)["topics"].values()
    assert all(counter["dropped"] == counter["lost"] == 0 for counter in counters)


def test_the_executed_action_is_recorded_beside_the_command(graph):
    values = load_contract("push_t").to_dict()
    values["action"]["executed"] = {
        "topic": "/executed",
        "message": "geometry_msgs/msg/TwistStamped",
        "fields": ["twist.linear.x", "twist.linear.y"],
    }
    values["action"]["source"] = "executed"
    contract = Contract.from_dict(values)
    save_contract(contract, graph.folder / "both.yaml")
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out, "contract": graph.folder / "both.yaml"})
    report_of = graph.node.create_publisher(TwistStamped, "/executed", qos.COMMAND)
    robot.wait_for_recorder()
    graph.wait(lambda: report_of.get_subscription_count() == 1, "the report is not subscribed")
    name = start(graph)
    for index in range(4):
        done = TwistStamped()
        done.header.stamp = ns_to_stamp(10**9 + index * 10**8)
        done.twist.linear.x = 0.5 * index
        report_of.publish(done)
        robot.publish(10**9 + index * 10**8)
    assert report_of.wait_for_all_acked(Duration(seconds=10.0))
    stop(graph)
    assert load_contract(out) == contract
    with BagReader(out / name) as reader:
        assert set(reader.message_counts.values()) == {4} and len(reader.topics) == 4
        (episode,) = align_episode(reader, load_contract(out))
    np.testing.assert_allclose(episode.actions[:4, 0], [0.0, 0.5, 1.0, 1.5])


def libraries(process: int | str) -> set[str]:
    """Return which of the libraries that decode pictures a process has loaded."""
    loaded = Path(f"/proc/{process}/maps").read_text()
    names = ("/cv2/", "/PIL/", "/torch/", "libturbojpeg", "libjpeg", "libpng")
    return {name for name in names if name in loaded}


def test_no_picture_is_decoded_on_the_way(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    recorder = graph.start("record_dataset", {"out": out, "extra_topics": ["/small"]})
    small = graph.node.create_publisher(CompressedImage, "/small", qos.CAMERA_PUBLISHER)
    sent = graph.collect(CompressedImage, "/small", qos.CAMERA_PUBLISHER, raw=True)
    robot.wait_for_recorder()
    graph.wait(lambda: small.get_subscription_count() == 2, "the extra topic is not subscribed")
    name = start(graph)
    for index in range(3):
        robot.publish(10**9 + index * 10**8)
        small.publish(encode_compressed(np.zeros((8, 8, 3), np.uint8), 0, "top"))
    graph.wait(lambda: len(sent) == 3, "not delivered")
    stop(graph)
    found = read(out / name)
    # On its way a message is padded to whole words.
    assert [data.rstrip(b"\0") for data in found.pop("/small")] == [
        data.rstrip(b"\0") for data in sent
    ]
    assert found == robot.sent
    assert libraries(recorder.pid) == set(), "the recorder has loaded what decodes pictures"
    # This process, which made them, has; so the test can tell.
    assert "/cv2/" in libraries(os.getpid())
