"""The recorder and a disk that refuses: a limit of the kernel's, and a small disk that is full."""

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from lewm_core.data.bags import BagReader, DamagedBagError  # noqa: E402
from lewm_ros import qos  # noqa: E402
from test.ros.test_recorder import Robot, read, report, start, stop  # noqa: E402

MIB = 2**20


def publish_until_it_ends(robot, bag: Path) -> None:
    for index in range(400):
        robot.publish(2 * 10**9 + index * 10**8)
        if (bag / "recorder.json").exists():
            return
    raise AssertionError("the disk refuses nothing")


def on_disk(bag: Path) -> dict[str, list[bytes]]:
    """Return what can be read of a bag that is being written; nothing before its first chunk."""
    try:
        return read(bag)
    except DamagedBagError:
        return {}


def check_kept(bag: Path, robot) -> int:
    """Check that the bag has the first messages and that the counters say so; return how many."""
    found, counters = read(bag), report(bag)["topics"]
    for topic, messages in found.items():
        assert messages == robot.sent[topic][: len(messages)], topic
    for topic, counter in counters.items():
        assert counter["written"] == len(found.get(topic, ())), topic
        assert counter["received"] == counter["written"] + counter["dropped"], topic
        assert counter["bytes"] == sum(map(len, found.get(topic, ()))), topic
    return sum(map(len, found.values()))


def wait_for_level(graph, seen: list, level: bytes, text: str) -> None:
    def newest() -> bool:
        return bool(seen) and (
            seen[-1].status[0].level == level and text in seen[-1].status[0].message
        )

    graph.wait(newest, f"the diagnostics do not say {text!r}")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_that_may_not_grow_ends_the_episode_and_loses_no_more_than_its_last_chunk(
    graph, storage
):
    out = graph.folder / "data"
    robot = Robot(graph)
    seen = graph.collect(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    recorder = graph.start(
        "record_dataset", {"out": out, "storage": storage, "minimum_free_gib": 0.0}
    )
    robot.wait_for_recorder()
    first = start(graph)
    for index in range(3):
        robot.publish(10**9 + index * 10**8)
    # A transaction of sqlite3 lasts a second.
    graph.wait(lambda: sum(map(len, on_disk(out / first).values())) == 9, "not on disk")
    # EFBIG in the middle of the third chunk of pictures that do not compress.
    unlimited = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (int(2.5 * MIB), unlimited[1]))
    publish_until_it_ends(robot, out / first)
    said = report(out / first)
    assert said["ended_by"] == "disk failure"
    assert "recording has stopped" in said["error"] and said["error"] in recorder.output()
    wait_for_level(graph, seen, DiagnosticStatus.ERROR, "recording has stopped")
    assert check_kept(out / first, robot) >= (3 * 14 if storage == "mcap" else 3 * 3)
    if storage == "mcap":
        assert "File too large" in said["error"]
        with BagReader(out / first) as reader:
            assert reader.truncated
            # What the disk had taken of the chunk that it refused is gone again.
            (part,) = reader._parts
            assert part.lost_bytes == 0

    answer = graph.call(Trigger, "/record_dataset/start_episode", Trigger.Request())
    assert not answer.success and "make room" in answer.message and "\n" not in answer.message
    assert [path.name for path in out.iterdir() if path.is_dir()] == [first]

    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, unlimited)
    for sent in robot.sent.values():
        sent.clear()
    second = start(graph)
    for index in range(10):
        robot.publish(10**10 + index * 10**8)
    wait_for_level(graph, seen, DiagnosticStatus.OK, f"recording {second}")
    stop(graph)
    assert report(out / second)["error"] == "" and read(out / second) == robot.sent


def small_disk(folder: Path) -> list[str]:
    """Return what to put before a command to give it a disk of 24 MiB in a folder.

    The disk is the process's own: nobody else sees it, and it goes with the process.
    """
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"', str(folder)]  # fmt: skip
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    tried = subprocess.run([*mount, "true"], capture_output=True, text=True, timeout=20)
    if tried.returncode:
        pytest.skip(f"this user may not mount: {tried.stderr.strip()}")
    return mount


def test_a_full_disk_loses_nothing_that_was_taken(graph):
    disk = graph.folder / "disk"
    disk.mkdir()
    prefix = small_disk(disk)
    robot = Robot(graph)
    seen = graph.collect(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    parameters = {"out": disk / "data", "minimum_free_gib": 0.0}
    recorder = graph.start("record_dataset", parameters, prefix=prefix)
    out = Path(f"/proc/{recorder.pid}/root") / (disk / "data").relative_to("/")
    robot.wait_for_recorder()
    first = start(graph)
    publish_until_it_ends(robot, out / first)
    said = report(out / first)
    assert said["ended_by"] == "disk failure"
    assert "No space left" in said["error"] and "except" not in said["error"]
    wait_for_level(graph, seen, DiagnosticStatus.ERROR, "No space left")
    # A disk of 24 MiB, of which 8 were kept for the end: the last chunk and the index are there.
    assert check_kept(out / first, robot) > 3 * 90
    with BagReader(out / first) as reader:
        assert not reader.truncated and (out / first / "metadata.yaml").exists()

    # Somebody else takes the rest.
    with pytest.raises(OSError, match="No space left"), (out / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(MIB))
            ballast.flush()
    answer = graph.call(Trigger, "/record_dataset/start_episode", Trigger.Request())
    assert not answer.success and "No space left" in answer.message
    assert sorted(path.name for path in out.iterdir()) == ["ballast", "contract.yaml", first]

    (out / "ballast").unlink()
    shutil.rmtree(out / first)
    for sent in robot.sent.values():
        sent.clear()
    second = start(graph)
    for index in range(10):
        robot.publish(10**10 + index * 10**8)
    stop(graph)
    assert report(out / second)["error"] == "" and read(out / second) == robot.sent
