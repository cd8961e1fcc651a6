"""The recorder's pre-trigger buffer and labels of episodes, over real DDS."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from lewm_core.data.bags import BagReader, find_bags  # noqa: E402
from lewm_ros.msg import EpisodeEvent  # noqa: E402
from lewm_ros.srv import LabelEpisode  # noqa: E402
from test.ros.test_recorder import CAMERA, Robot, read, report, start, stop  # noqa: E402

SECOND = 10**9


def label(graph, episode: str, text: str) -> LabelEpisode.Response:
    request = LabelEpisode.Request(episode=episode, label=text)
    return graph.call(LabelEpisode, "/record_dataset/label_episode", request)


def folders(out) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


def test_what_came_before_the_start_is_there_once_and_in_order(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out, "pre_trigger": 30.0})
    robot.wait_for_recorder()
    for index in range(4):
        robot.publish(SECOND + index)
    first = start(graph)
    for index in range(3):
        robot.publish(2 * SECOND + index)
    stop(graph)
    assert read(out / first) == robot.sent
    assert report(out / first)["pre_trigger_messages"] == 12
    # What is in the first episode is not in the second, though it is young enough.
    for sent in robot.sent.values():
        sent.clear()
    robot.publish(3 * SECOND)
    second = start(graph)
    robot.publish(4 * SECOND)
    stop(graph)
    assert read(out / second) == robot.sent and len(robot.sent[CAMERA]) == 2
    with BagReader(out / second) as reader:
        stamps = [entry.receive_ns for entry in reader.raw()]
    assert stamps == sorted(stamps)


def test_the_time_before_the_start_is_bounded(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out, "pre_trigger": 1.0})
    robot.wait_for_recorder()
    robot.publish(SECOND)
    old = {topic: list(sent) for topic, sent in robot.sent.items()}
    began = graph.node.get_clock().now().nanoseconds
    graph.wait(
        lambda: graph.node.get_clock().now().nanoseconds - began > 1.2 * SECOND, "time stands still"
    )
    name = start(graph)
    stop(graph)
    assert all(not messages for messages in read(out / name).values())
    assert all(len(sent) == 1 for sent in old.values())


def test_the_memory_of_the_time_before_the_start_is_bounded(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    # Room for three pictures of 147 KiB.
    parameters = {"out": out, "pre_trigger": 60.0, "pre_trigger_mib": 0.5}
    recorder = graph.start("record_dataset", parameters)
    robot.wait_for_recorder()
    for index in range(8):
        robot.publish(SECOND + index)
    name = start(graph)
    stop(graph)
    found = read(out / name)
    assert found[CAMERA] == robot.sent[CAMERA][-3:]
    for topic, messages in found.items():
        assert messages == robot.sent[topic][-len(messages) :], topic
    assert recorder.output().count("the oldest messages go") == 1


def test_pre_trigger_that_cannot_be_is_refused(graph):
    out = graph.folder / "data"
    line = graph.refuse("record_dataset", {"out": out, "pre_trigger": 5.0, "follow_events": True})
    assert "pre_trigger" in line and "follow_events" in line
    line = graph.refuse("record_dataset", {"out": out, "pre_trigger": 61.0})
    assert "pre_trigger" in line
    line = graph.refuse(
        "record_dataset", {"out": out, "pre_trigger": 5.0, "pre_trigger_mib": 9.0, "queue_mib": 8.0}
    )
    assert "pre_trigger_mib" in line and "queue_mib" in line


def test_labels_of_episodes_that_are_on_and_that_are_over(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    recorder = graph.start("record_dataset", {"out": out})
    assert "no episode yet" in label(graph, "", "success").message
    robot.wait_for_recorder()
    names = []
    for number in range(3):
        names.append(start(graph))
        robot.publish((1 + number) * SECOND)
        if number == 1:
            answer = label(graph, "", "failure")
            assert (answer.success, answer.message) == (True, names[1])
        stop(graph)
    assert [report(out / name)["label"] for name in names] == ["", "failure", ""]

    # The newest, one by its name, a second thought.
    before = report(out / names[2])
    assert label(graph, "", "success").message == names[2]
    assert label(graph, names[0], "failure").success
    assert label(graph, names[0], "success").success
    assert [report(out / name)["label"] for name in names] == ["success", "failure", "success"]
    assert report(out / names[2]) == {**before, "label": "success"}

    for episode, text, words in (
        ("", "great", "none of success, failure, discard"),
        ("nothing", "success", "has no episode"),
        ("..", "discard", "has no episode"),
        (f"../data/{names[0]}", "discard", "has no episode"),
        (str(out / names[0]), "discard", "has no episode"),
        (".", "discard", "has no episode"),
    ):
        answer = label(graph, episode, text)
        assert not answer.success and words in answer.message, (episode, answer.message)
    # A folder that only lies there, and a link out of the dataset.
    (out / "notes").mkdir()
    outside = graph.folder / "outside"
    outside.mkdir()
    (outside / "outside.mcap").write_bytes(b"years of work")
    (out / "link").symlink_to(outside)
    for episode in ("notes", "link"):
        assert not label(graph, episode, "discard").success
    assert (outside / "outside.mcap").exists() and (out / "notes").is_dir()
    (out / "link").unlink()
    (out / "notes").rmdir()

    assert label(graph, names[1], "discard").success
    fourth = start(graph)
    robot.publish(5 * SECOND)
    assert label(graph, "", "discard").message == fourth
    assert not (out / fourth).exists()
    assert folders(out) == [names[0], names[2]]
    assert find_bags(out) == [out / names[0], out / names[2]]
    assert recorder.output().count("is discarded, as its label asks") == 2
    # The one that was on is gone, and the next one begins.
    assert start(graph) == fourth
    stop(graph)


def test_a_label_said_before_the_event_that_says_none(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out, "follow_events": True, "settle_time": 0.2})
    robot.wait_for_recorder()
    graph.wait(lambda: robot.events.get_subscription_count() == 1, "no subscriber of events")
    for number, (said, told) in enumerate((("success", ""), ("", "failure"))):
        name = f"episode_{number}"
        robot.announce(EpisodeEvent.START, name, (10 * number + 1) * SECOND)
        robot.publish((10 * number + 2) * SECOND)
        graph.wait((out / name).exists, "the episode does not begin")
        if said:
            assert label(graph, name, said).success
        robot.announce(EpisodeEvent.END, name, (10 * number + 3) * SECOND, told)
        graph.wait((out / name / "recorder.json").exists, "the episode does not end")
        assert report(out / name)["label"] == (said or told)
