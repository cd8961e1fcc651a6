"""The recorder node as a process of its own: counts, bytes, episodes, guards."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from lewm_core.data import contract_differences, load_contract, save_contract  # noqa: E402
from lewm_core.data.alignment import align_episode  # noqa: E402
from lewm_core.data.bags import BagReader, find_bags  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_image, ns_to_stamp  # noqa: E402
from lewm_ros.msg import EpisodeEvent  # noqa: E402
from lewm_ros.srv import LabelEpisode  # noqa: E402

CAMERA, COMMAND, STATE = "/camera/image_raw", "/command", "/scene/state"


class Robot:
    """A camera and a command source in the test's process.

    Attributes:
        sent: What was published, by topic, as bytes: taken from the wire, because the padding
            between fields differs each time that a message is serialised.
    """

    def __init__(self, graph, camera_qos=qos.CAMERA_PUBLISHER) -> None:
        self._graph = graph
        self.sent: dict[str, list[bytes]] = {}
        self.publishers = []
        for kind, topic, profile in ((Image, CAMERA, camera_qos),
                                     (TwistStamped, COMMAND, qos.COMMAND),
                                     (JointState, STATE, qos.STATE)):  # fmt: skip
            self.publishers.append(graph.node.create_publisher(kind, topic, profile))
            self.sent[topic] = graph.collect(kind, topic, qos.matching([profile], 100), raw=True)
        self.events = graph.node.create_publisher(EpisodeEvent, "/episode", qos.EPISODE_PUBLISHER)
        self._random = np.random.default_rng(0)

    def wait_for_recorder(self) -> None:
        self._graph.wait(
            lambda: all(p.get_subscription_count() == 2 for p in self.publishers),
            "the recorder does not subscribe",
        )

    def publish(self, time_ns: int) -> None:
        """Publish one message on each topic, and wait until they have arrived."""
        picture = self._random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        command, state = TwistStamped(), JointState(position=self._random.random(5).tolist())
        command.twist.linear.x = float(self._random.random())
        for message in (command, state):
            message.header.stamp = ns_to_stamp(time_ns)
        count = len(self.sent[CAMERA])
        messages = (encode_image(picture, time_ns, "top"), command, state)
        for publisher, message in zip(self.publishers, messages, strict=True):
            publisher.publish(message)
        self._graph.wait(
            lambda: all(len(sent) == count + 1 for sent in self.sent.values()), "not delivered"
        )

    def announce(self, kind: int, name: str, time_ns: int, label: str = "") -> None:
        event = EpisodeEvent(event=kind, episode=name, seed=4, label=label)
        event.header.stamp = ns_to_stamp(time_ns)
        self.events.publish(event)


def read(folder: Path) -> dict[str, list[bytes]]:
    """Return the bytes of a bag's messages by topic."""
    with BagReader(folder) as reader:
        found: dict[str, list[bytes]] = {topic: [] for topic in reader.topics}
        for entry in reader.raw():
            found[entry.topic].append(bytes(entry.data))
    return found


def report(folder: Path) -> dict:
    return json.loads((folder / "recorder.json").read_text())


def start(graph, recorder="record_dataset") -> str:
    answer = graph.call(Trigger, f"/{recorder}/start_episode", Trigger.Request())
    assert answer.success, answer.message
    return answer.message


def stop(graph, recorder="record_dataset") -> str:
    answer = graph.call(Trigger, f"/{recorder}/stop_episode", Trigger.Request())
    assert answer.success, answer.message
    return answer.message


@pytest.mark.parametrize(
    ("storage", "camera_qos"),
    [("mcap", qos.CAMERA_PUBLISHER), ("sqlite3", qos.CAMERA_SENSOR_DATA)],
)
def test_bags_hold_the_bytes_that_were_published(graph, storage, camera_qos):
    out = graph.folder / "data"
    robot = Robot(graph, camera_qos)
    recorder = graph.start("record_dataset", {"out": out, "storage": storage})
    robot.wait_for_recorder()
    names = []
    for count in (20, 5):
        for sent in robot.sent.values():
            sent.clear()
        names.append(start(graph))
        for index in range(count):
            robot.publish(10**9 + index * 10**8)
        assert stop(graph) == names[-1]
        bag = out / names[-1]
        assert report(bag)["error"] == ""
        assert read(bag) == robot.sent
        counters = report(bag)["topics"]
        assert {t: (c["received"], c["written"]) for t, c in counters.items()} == {
            topic: (count, count) for topic in robot.sent
        }
        assert all(c["dropped"] == c["lost"] == 0 for c in counters.values())
        robot.publish(0)  # between episodes: recorded nowhere
    assert names == ["episode_000000", "episode_000001"]
    assert contract_differences(load_contract(out), load_contract("push_t")) == []
    metadata = (out / names[0] / "metadata.yaml").read_text()
    assert f"storage_identifier: {storage}" in metadata
    again = graph.call(Trigger, "/record_dataset/stop_episode", Trigger.Request())
    assert not again.success and "start_episode" in again.message
    assert recorder.running()


def diagnostics(graph) -> str:
    """Return the newest diagnostic values as text."""
    if not hasattr(graph, "diagnostics"):
        graph.diagnostics = graph.collect(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    if not graph.diagnostics:
        return ""
    return str({entry.key: entry.value for entry in graph.diagnostics[-1].status[0].values})


def test_topics_that_appear_late_and_extra_topics_are_recorded(graph):
    out = graph.folder / "data"
    graph.start("record_dataset", {"out": out, "record_at_start": True, "extra_topics": ["/note"]})
    note = graph.node.create_publisher(String, "/note", qos.STATUS)
    seen = graph.collect(String, "/note", qos.STATUS, raw=True)
    note.publish(String(data="latched"))  # transient local: before the recorder knows the topic
    robot = Robot(graph)
    robot.wait_for_recorder()
    robot.publish(10**9)
    graph.wait(lambda: note.get_subscription_count() == 2, "the extra topic is not subscribed")
    name = stop(graph)
    found = read(out / name)
    assert found["/note"] == seen and len(seen) == 1
    assert found[CAMERA] == robot.sent[CAMERA]


def test_episodes_follow_events_by_their_stamps(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    graph.start("record_dataset", {"out": out, "follow_events": True})
    robot.wait_for_recorder()
    graph.wait(lambda: robot.events.get_subscription_count() == 1, "no subscriber of events")
    second = 10**9
    robot.publish(second)
    # The first message of an episode comes before its event, as other topics may.
    robot.publish(5 * second)
    robot.announce(EpisodeEvent.START, "pick up/1", 5 * second)
    robot.publish(6 * second)
    robot.announce(EpisodeEvent.END, "pick up/1", 6 * second, "success")
    robot.publish(7 * second)
    robot.announce(EpisodeEvent.START, "second", 8 * second)
    robot.publish(8 * second)
    robot.announce(EpisodeEvent.END, "something else", 8 * second)
    robot.announce(EpisodeEvent.START, "pick up/1", 9 * second)
    robot.publish(9 * second)
    robot.announce(EpisodeEvent.END, "pick up/1", 9 * second, "discard")
    robot.announce(EpisodeEvent.START, "pick up/1", 10 * second)
    robot.publish(10 * second)
    robot.announce(EpisodeEvent.END, "pick up/1", 10 * second)
    last = out / "pick_up_1-2" / "recorder.json"
    graph.wait(last.exists, "the last episode does not end")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "pick_up_1", "pick_up_1-2", "second"]  # fmt: skip
    for topic, sent in robot.sent.items():
        assert read(out / "pick_up_1")[topic] == sent[1:3], topic
        assert read(out / "second")[topic] == sent[4:5], topic
        assert read(out / "pick_up_1-2")[topic] == sent[6:7], topic
    events = report(out / "pick_up_1")["events"]
    assert [(e["event"], e["label"], e["seed"]) for e in events] == [
        ("start", "", 4), ("end", "success", 4)]  # fmt: skip


def test_a_killed_recorder_leaves_readable_bags_and_is_continued(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    recorder = graph.start("record_dataset", {"out": out})
    robot.wait_for_recorder()
    first = start(graph)
    robot.publish(10**9)
    stop(graph)
    for sent in robot.sent.values():
        sent.clear()
    second = start(graph)
    storage = out / second / f"{second}.mcap"
    for index in range(12):
        robot.publish(10**9 + index * 10**8)
    # Nothing more comes, yet the last chunk is handed to the system within a second or two.
    graph.wait(lambda: diagnostics(graph).count("'12'") == 6, "not all is written")
    sizes: list[int] = []

    def settled() -> bool:
        sizes.append(storage.stat().st_size)
        return len(sizes) > 100 and len(set(sizes[-100:])) == 1 and sizes[-1] > 12 * 150_528

    graph.wait(settled, "the last chunk is not handed over")
    graph.kill(recorder)
    assert len(read(out / first)[CAMERA]) == 1
    assert not (out / second / "metadata.yaml").exists()
    assert read(out / second) == robot.sent
    assert find_bags([out]) == [out / first, out / second]
    # A new recorder goes on behind it, and overwrites nothing. Another name: the dead one's
    # services are forgotten only when its lease ends.
    graph.start("record_dataset", {"out": out}, remappings={"__node": "heir"})
    # Nobody wrote a report of the episode that was cut short; it can be labelled all the same.
    request = LabelEpisode.Request(label="failure")
    answer = graph.call(LabelEpisode, "/heir/label_episode", request)
    assert (answer.success, answer.message) == (True, second)
    assert report(out / second) == {"episode": second, "label": "failure"}
    assert start(graph, "heir") == "episode_000002"
    stop(graph, "heir")
    assert read(out / second) == robot.sent


def test_the_disk_guard_ends_the_episode_and_refuses_the_next(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    # 1e-3 GiB are seven pictures.
    graph.start("record_dataset", {"out": out, "quota_gib": 1e-3})
    robot.wait_for_recorder()
    name = start(graph)
    for index in range(12):
        robot.publish(index * 10**8)
    graph.wait((out / name / "recorder.json").exists, "the guard does not end the episode")
    assert report(out / name)["ended_by"] == "disk guard"
    # It looks once a second, so on a busy machine it may find its seven before the twelve are out.
    for topic, messages in read(out / name).items():
        assert len(messages) >= 7 and messages == robot.sent[topic][: len(messages)], topic
    answer = graph.call(Trigger, "/record_dataset/start_episode", Trigger.Request())
    assert not answer.success and "quota_gib" in answer.message
    diagnostics(graph)
    graph.wait(
        lambda: graph.diagnostics
        and graph.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR,
        "the diagnostics do not say so",
    )


def test_a_full_queue_drops_and_counts(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    # Room for commands and states, but not for one picture.
    graph.start("record_dataset", {"out": out, "queue_mib": 0.01})
    robot.wait_for_recorder()
    name = start(graph)
    for index in range(5):
        robot.publish(index * 10**8)
    stop(graph)
    camera = report(out / name)["topics"][CAMERA]
    assert (camera["received"], camera["written"], camera["dropped"]) == (5, 0, 5)
    assert read(out / name)[COMMAND] == robot.sent[COMMAND]


def test_sigint_finishes_the_episode(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    recorder = graph.start("record_dataset", {"out": out, "record_at_start": True})
    robot.wait_for_recorder()
    for index in range(8):
        robot.publish(10**9 + index * 10**8)
    for publisher in robot.publishers:
        assert publisher.wait_for_all_acked(Duration(seconds=10.0))
    graph.stop(recorder)
    bag = out / "episode_000000"
    assert report(bag)["ended_by"] == "shutdown"
    assert read(bag) == robot.sent
    with BagReader(bag) as reader:
        (episode,) = align_episode(reader, load_contract("push_t"))
    assert (episode.frame_index >= 0).sum() == 8


def test_what_cannot_work_is_one_line_and_status_1(graph):
    occupied = graph.folder / "occupied"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("years of work")
    other = graph.folder / "other"
    other.mkdir()
    contract = load_contract("push_t").to_dict()
    contract["action"]["fields"][0]["upper"] = 0.2
    save_contract(type(load_contract("push_t")).from_dict(contract), other / "contract.yaml")
    cases = [
        ({}, ["out"]),
        ({"out": occupied}, ["occupied", "not empty"]),
        ({"out": other}, ["action.fields[0].upper", "0.2", "0.15"]),
        ({"out": graph.folder / "new", "record_at_start": True, "minimum_free_gib": 1e6},
         ["minimum_free_gib"]),
    ]  # fmt: skip
    for parameters, words in cases:
        line = graph.refuse("record_dataset", parameters)
        assert all(word in line for word in words), line
    assert [path.name for path in occupied.iterdir()] == ["thesis.txt"]
