"""The recorder when events overtake messages: topics have no order among one another."""

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from rclpy.duration import Duration  # noqa: E402

from lewm_ros.msg import EpisodeEvent  # noqa: E402
from test.ros.test_recorder import CAMERA, Robot, read, report  # noqa: E402

SECOND = 10**9
START, END = EpisodeEvent.START, EpisodeEvent.END


def follow(graph, **parameters):
    """Start a recorder that follows events; return its process, its folder and its robot."""
    out = graph.folder / "data"
    robot = Robot(graph)
    recorder = graph.start("record_dataset", {"out": out, "follow_events": True, **parameters})
    robot.wait_for_recorder()
    graph.wait(lambda: robot.events.get_subscription_count() == 1, "no subscriber of events")
    return recorder, out, robot


def let_events_be_handled(robot: Robot) -> None:
    """Wait until the recorder has the events, and a moment for it to act on them."""
    assert robot.events.wait_for_all_acked(Duration(seconds=10.0))
    time.sleep(0.2)


def folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


# With simulated time there is no /clock at all: the worst of standing still.
@pytest.mark.parametrize("use_sim_time", [False, True])
def test_events_that_overtake_all_messages_lose_none(graph, use_sim_time):
    _, out, robot = follow(graph, settle_time=3.0, use_sim_time=use_sim_time)
    robot.announce(START, "first", 5 * SECOND)
    robot.announce(END, "first", 6 * SECOND, "success")
    # Touches the first; its messages of the shared moment are its own.
    robot.announce(START, "second", 6 * SECOND)
    robot.announce(END, "second", 7 * SECOND)
    robot.announce(START, "gone", 8 * SECOND)
    robot.announce(END, "gone", 9 * SECOND, "discard")
    robot.announce(START, "third", 10 * SECOND)
    let_events_be_handled(robot)
    stamps_ns = [4 * SECOND, 5 * SECOND, 6 * SECOND - 1, 6 * SECOND, 7 * SECOND, 7 * SECOND + 1,
                 8 * SECOND, 10 * SECOND, 11 * SECOND]  # fmt: skip
    for stamp_ns in stamps_ns:
        robot.publish(stamp_ns)
    # Between two that settle, and while the third is on.
    robot.publish(5 * SECOND + 1)
    robot.announce(END, "third", 11 * SECOND)
    graph.wait((out / "third" / "recorder.json").exists, "the last episode does not end")
    assert folders(out) == ["first", "second", "third"]
    for topic, sent in robot.sent.items():
        # Simulated time: read by their stamps.
        assert sorted(read(out / "first")[topic]) == sorted([*sent[1:3], sent[9]]), topic
        assert read(out / "second")[topic] == sent[3:5], topic
        assert read(out / "third")[topic] == sent[7:9], topic
    counters = report(out / "first")
    assert counters["ended_by"] == "event" and counters["error"] == ""
    assert [e["label"] for e in counters["events"]] == ["", "success"]
    assert all(c["received"] == c["written"] == 3 for c in counters["topics"].values())


def test_an_end_before_the_last_messages_loses_none_of_them(graph):
    _, out, robot = follow(graph, settle_time=3.0)
    robot.announce(START, "first", 5 * SECOND)
    robot.publish(5 * SECOND)
    robot.announce(END, "first", 6 * SECOND)
    let_events_be_handled(robot)
    robot.publish(6 * SECOND)
    robot.publish(7 * SECOND)
    graph.wait((out / "first" / "recorder.json").exists, "the episode does not end")
    assert read(out / "first") == {topic: sent[:2] for topic, sent in robot.sent.items()}
    # Not the time for which it settled.
    assert report(out / "first")["wall_seconds"] < 3.0


def test_a_late_joiner_makes_no_folder_for_what_is_over(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    for _ in range(2):
        robot.announce(START, "demo", 5 * SECOND)
        robot.publish(5 * SECOND)
        robot.announce(END, "demo", 6 * SECOND)
    robot.announce(START, "demo", 7 * SECOND)
    recorder = graph.start("record_dataset", {"out": out, "follow_events": True})
    robot.wait_for_recorder()
    graph.wait((out / "demo").exists, "the episode that is on is not recorded")
    robot.publish(8 * SECOND)
    robot.announce(END, "demo", 8 * SECOND)
    graph.wait((out / "demo" / "recorder.json").exists, "the episode does not end")
    assert folders(out) == ["demo"]
    assert recorder.output().count("nothing recorded") == 2
    assert read(out / "demo") == {topic: sent[2:] for topic, sent in robot.sent.items()}


def test_a_signal_waits_for_what_is_on_its_way_and_no_longer(graph):
    recorder, out, robot = follow(graph, settle_time=3.0)
    robot.announce(START, "over", 5 * SECOND)
    robot.announce(END, "over", 6 * SECOND)
    robot.announce(START, "on", 7 * SECOND)
    robot.publish(7 * SECOND)
    let_events_be_handled(robot)
    for publisher in robot.publishers:
        assert publisher.wait_for_all_acked(Duration(seconds=10.0))
    os.kill(recorder.pid, signal.SIGINT)
    graph.wait((out / "on" / "recorder.json").exists, "the episode that is on waits")
    assert not (out / "over" / "recorder.json").exists()
    robot.publish(6 * SECOND)
    signalled = time.monotonic()
    graph.wait_for_end(recorder)
    assert time.monotonic() - signalled < 10.0
    assert report(out / "on")["ended_by"] == "shutdown"
    assert report(out / "over")["ended_by"] == "event"
    for topic, sent in robot.sent.items():
        assert read(out / "on")[topic] == sent[:1]
        assert read(out / "over")[topic] == sent[1:]


def test_the_disk_guard_ends_what_settles_too(graph):
    # 1e-3 GiB are seven pictures.
    _, out, robot = follow(graph, settle_time=5.0, quota_gib=1e-3)
    robot.announce(START, "first", 5 * SECOND)
    robot.announce(END, "first", 6 * SECOND)
    robot.announce(START, "second", 7 * SECOND)
    for index in range(5):
        robot.publish(5 * SECOND + index)
    for index in range(6):
        robot.publish(7 * SECOND + index)
    pictures = 0
    for name in ("first", "second"):
        graph.wait((out / name / "recorder.json").exists, f"the guard does not end {name}")
        assert report(out / name)["ended_by"] == "disk guard"
        pictures += len(read(out / name)[CAMERA])
    assert pictures >= 7
    robot.announce(START, "third", 9 * SECOND)
    let_events_be_handled(robot)
    assert folders(out) == ["first", "second"]


def test_what_comes_later_still_is_told(graph):
    recorder, out, robot = follow(graph, settle_time=0.0)
    robot.announce(START, "first", 5 * SECOND)
    robot.publish(5 * SECOND)
    robot.announce(END, "first", 6 * SECOND)
    graph.wait((out / "first" / "recorder.json").exists, "the episode does not end")
    robot.publish(7 * SECOND)
    assert "settle_time" not in recorder.output().split("recorder is ready")[1]
    robot.publish(6 * SECOND)
    graph.wait(
        lambda: "episode first arrived after its file was closed" in recorder.output(),
        "lost without a word",
    )
    assert read(out / "first") == {topic: sent[:1] for topic, sent in robot.sent.items()}
