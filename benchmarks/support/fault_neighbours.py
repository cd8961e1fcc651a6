"""What may happen to the planner's neighbours: the robot's driver, another driver, a recorder."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geometry_msgs.msg import Twist
from std_srvs.srv import Trigger
from support.fault_bench import STRANGER, FaultBench

from lewm_core.data.bags import BagReader
from lewm_core.errors import UserError
from lewm_ros import qos
from lewm_ros.codecs import ns_to_stamp
from lewm_ros.processes import NodeProcess

_DRIVER = Path(__file__).with_name("robot_driver.py")
_DRIVER_TOPIC = "/driver/command"
_START_S, _DISK_S = 60.0, 15.0
#: Of the recorder's disk; it keeps 8 MiB of it free for its end.
_DISK_MIB = 24
_MIB = 2**20

# --- the robot's driver -------------------------------------------------------------------------


@contextlib.contextmanager
def driver_killed(bench: FaultBench) -> Iterator[None]:
    """Commands pass through a driver's process, which is killed; then a new one starts."""
    direct = bench.robot.source
    drivers = [_start_driver(bench)]
    try:
        _listen_to(bench, _DRIVER_TOPIC)
        time.sleep(0.5)
        bench.mark()
        drivers[0].kill()
        yield
        drivers.append(_start_driver(bench))
        _wait_for_motion(bench)
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
        _listen_to(bench, direct)


def _start_driver(bench: FaultBench) -> subprocess.Popen[bytes]:
    action = bench.contract.action
    arguments = [action.topic, _DRIVER_TOPIC, action.message]
    return subprocess.Popen([sys.executable, str(_DRIVER), *arguments], env=bench.environment)


def _listen_to(bench: FaultBench, topic: str) -> None:
    """Let the robot take its commands from another topic, once somebody publishes there."""
    node = bench.node
    bench.wait(lambda: node.count_publishers(topic) > 0, f"nobody publishes {topic}", _START_S)
    bench.robot.listen(False)
    bench.robot.source = topic
    bench.robot.listen(True)
    _wait_for_motion(bench)


def _wait_for_motion(bench: FaultBench) -> None:
    since = len(bench.seen.commands)
    bench.wait(
        lambda: any(not command.holds for command in bench.seen.commands[since:]),
        "the robot is not commanded to move", _START_S,
    )  # fmt: skip


@contextlib.contextmanager
def robot_comes_and_goes(bench: FaultBench) -> Iterator[None]:
    for _ in range(3):
        bench.robot.listen(False)
        time.sleep(0.5)
        bench.robot.listen(True)
        _wait_for_motion(bench)
    yield


@contextlib.contextmanager
def robot_of_another_type(bench: FaultBench) -> Iterator[None]:
    """In the place of the driver there is one that subscribes another type."""
    bench.robot.listen(False)
    # One process can have one type on a topic only.
    with bench.stranger() as node:
        node.create_subscription(Twist, bench.robot.source, lambda _: None, qos.COMMAND)
        try:
            yield
        finally:
            bench.robot.listen(True)


@contextlib.contextmanager
def second_driver(bench: FaultBench) -> Iterator[None]:
    """Somebody else commands the robot, too, at the planner's own rate."""
    ended = threading.Event()

    with bench.stranger() as node:
        message_type = bench.robot.message_type
        publisher = node.create_publisher(message_type, bench.robot.source, qos.COMMAND)

        def command() -> None:
            while not ended.wait(bench.contract.control_period):
                message = message_type()
                # By this the bench tells them from the planner's.
                message.header.frame_id = STRANGER
                message.header.stamp = ns_to_stamp(time.time_ns())
                bench.command_something(message)
                publisher.publish(message)

        thread = threading.Thread(target=command)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    if bench.strangers_commands == 0:
        raise AssertionError("no command of the second driver arrived")


# --- a recorder beside the planner --------------------------------------------------------------


@contextlib.contextmanager
def recorder_disk_full(bench: FaultBench) -> Iterator[None]:
    """A recorder's disk is filled by somebody else; it must end its episode, and keep it."""
    disk = bench.folder / "disk"
    disk.mkdir()
    prefix = _small_disk(disk)
    recorder = NodeProcess(
        "record_dataset",
        {"out": disk / "data", "contract": bench.contract.name, "minimum_free_gib": 0.0,
         "autostart": True},
        bench.environment, bench.folder / "recorder.log", prefix=prefix,
    )  # fmt: skip
    # Its disk is its own: seen from here, it lies under its root.
    root = Path(f"/proc/{recorder.pid}/root") if prefix else Path("/")
    out = root / (disk / "data").absolute().relative_to("/")
    try:
        _wait_for_recorder(bench, recorder)
        episode = next(path for path in out.iterdir() if path.is_dir())
        time.sleep(2.0)
        bench.mark()
        ballast = _fill(out, recorder, episode, bool(prefix))
        report = episode / "recorder.json"
        bench.wait(report.exists, "the recorder goes on writing", _DISK_S)
        said = json.loads(report.read_text())
        bench.note = f"(recorder: {said['error']})"
        yield
        _check_episode(episode, said, recorder)
        _refuses_and_begins_again(bench, recorder, ballast)
    finally:
        status = recorder.stop()
    if status != 0:
        raise AssertionError(f"the recorder left with status {status}: {recorder.log}")


def _small_disk(folder: Path) -> list[str]:
    """Return what gives a process a small disk of its own; empty if this user may not mount."""
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             f'mount -t tmpfs -o size={_DISK_MIB}m tmpfs "$0" && exec "$@"',
             str(folder.absolute())]  # fmt: skip
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*mount, "true"], capture_output=True, timeout=20)
    return [] if tried.returncode else mount


def _wait_for_recorder(bench: FaultBench, recorder: NodeProcess) -> None:
    def ready() -> bool:
        recorder.require_running()
        return "recorder is ready" in recorder.output()

    bench.wait(ready, "the recorder does not start", _START_S)


def _fill(out: Path, recorder: NodeProcess, episode: Path, own_disk: bool) -> Path | None:
    """Fill the disk; where there is none of its own, its bag may not grow any more."""
    if not own_disk:
        size = max(file.stat().st_size for file in episode.iterdir())
        _, hard = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (size, hard))
        return None
    ballast = out / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        # Until the last byte is taken: then the write raises.
        for size in (_MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def _check_episode(episode: Path, said: dict[str, Any], recorder: NodeProcess) -> None:
    if said["ended_by"] != "disk failure" or said["error"] not in recorder.output():
        raise AssertionError(f"the recorder does not say why it stopped: {said}")
    with BagReader(episode) as bag:
        kept: dict[str, int] = dict.fromkeys(said["topics"], 0)
        for message in bag.raw():
            kept[message.topic] += 1
    written = {topic: counters["written"] for topic, counters in said["topics"].items()}
    if kept != written or not all(written.values()):
        raise AssertionError(f"the bag has {kept}, the recorder has counted {written}")


def _refuses_and_begins_again(
    bench: FaultBench, recorder: NodeProcess, ballast: Path | None
) -> None:
    client = bench.node.create_client(Trigger, "/record_dataset/start_episode")
    try:
        answer = bench.call(client, Trigger.Request())
        if answer.success or "make room" not in answer.message:
            raise UserError(f"an episode began on a full disk: {answer.message}")
        if ballast is None:
            _, hard = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (hard, hard))
        else:
            ballast.unlink()
        answer = bench.call(client, Trigger.Request())
        if not answer.success:
            raise UserError(f"no episode begins after there is room again: {answer.message}")
    finally:
        bench.node.destroy_client(client)
