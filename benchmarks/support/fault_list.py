"""The faults that are injected, one entry each; see `benchmarks/faults.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from support.fault_bench import NEVER, FaultBench, Passed, stamp_in, with_stamp

from lewm_ros import qos
from lewm_ros.action import ReachGoal
from lewm_ros.codecs import encode_image, ns_to_stamp
from lewm_ros.processes import NodeProcess
from lewm_ros.srv import ResetScene, SetGoal

#: How the planner is expected to answer: stop, or go on as if nothing were.
HOLDS, GOES_ON = "hold", "go on"
#: The planner cannot answer, or its commands do not arrive: the robot has to stop by itself.
ROBOT_STOPS = "robot stops"

_NS = 1_000_000_000
Manager = Callable[[FaultBench], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: For the table.
        expected: `HOLDS`, `GOES_ON` or `ROBOT_STOPS`.
        inject: A context manager: the fault is on inside.
        seconds: For which it is on.
        words: That the status must have meanwhile.
        simulated: Whether it needs a simulated clock.
        again: Whether the goal has to be given again afterwards.
        patience_s: Beyond a picture's timeout and one period, until it has to hold.
        doubtful: Whether pictures go on to come in time but must not be believed: that is found
            out within their timeout and acted on a period later.
    """

    name: str
    expected: str
    inject: Manager
    seconds: float = 2.0
    words: str = ""
    simulated: bool = False
    again: bool = False
    patience_s: float = 0.0
    doubtful: bool = False


# --- what may be done to pictures ---------------------------------------------------------------


def _pictures(change: Callable[[bytes, int], Iterator[Passed]]) -> Manager:
    """Put a change into the camera's relay; it gets the bytes and a count from 0."""

    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        count = iter(range(10**9))
        bench.camera.fault = lambda data: change(data, next(count))
        try:
            yield
        finally:
            bench.camera.fault = None
            bench.camera.forget()

    return inject


def _drop(data: bytes, count: int) -> Iterator[Passed]:
    yield from ()


def _drop_all_but(number: int) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        if count % number == 0:
            yield 0.0, data, stamp_in(data)

    return change


def _delay(seconds: float) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        yield seconds, data, stamp_in(data)

    return change


def _jitter(data: bytes, count: int) -> Iterator[Passed]:
    yield (count * 7919 % 10) * 0.03, data, stamp_in(data)


def _repeat(number: int) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        for index in range(number):
            yield 0.002 * index, data, stamp_in(data)

    return change


def _reorder() -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        # Every second one is overtaken by the next.
        yield (0.05 if count % 2 == 0 else 0.0), data, stamp_in(data)

    return change


def _burst(data: bytes, count: int) -> Iterator[Passed]:
    now_s = time.time()
    # Held back until the next whole 1.2 seconds, then all at once.
    yield 1.2 - now_s % 1.2, data, stamp_in(data)


def _freeze(with_new_stamps: bool) -> Manager:
    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        kept: list[bytes] = []

        def change(data: bytes) -> Iterator[Passed]:
            kept[:] = kept or [data]
            # What it shows was true once, whatever its stamp says.
            shown = with_stamp(kept[0], stamp_in(data)) if with_new_stamps else kept[0]
            yield 0.0, shown, stamp_in(kept[0])

        bench.camera.fault = change
        try:
            yield
        finally:
            bench.camera.fault = None

    return inject


def _edit(edit: Callable[[Image, int], Any], true: bool = False, every: int = 1) -> Manager:
    """Change each picture's message; ``every``: only each so-manieth, the others pass."""

    def change(data: bytes, count: int) -> Iterator[Passed]:
        if count % every:
            yield 0.0, data, stamp_in(data)
            return
        message = deserialize_message(data, Image)
        edited = edit(message, count)
        yield 0.0, edited, stamp_in(data) if true else None

    return _pictures(change)


def _shifted(seconds: float, believed: bool = False) -> Manager:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        stamp_ns = stamp_in(data) + round(seconds * _NS)
        yield 0.0, with_stamp(data, stamp_ns), stamp_ns if believed else None

    return _pictures(change)


def _stamp(stamp_ns: int) -> Manager:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        yield 0.0, with_stamp(data, stamp_ns), None

    return _pictures(change)


def _half_the_data(message: Image, count: int) -> Image:
    message.data = message.data[: len(message.data) // 2]
    return message


def _encoding(name: str) -> Callable[[Image, int], Image]:
    def edit(message: Image, count: int) -> Image:
        message.encoding = name
        return message

    return edit


def _as_bgr(message: Image, count: int) -> Image:
    picture = np.asarray(message.data, np.uint8).reshape(message.height, message.width, 3)
    stamp_ns = message.header.stamp.sec * _NS + message.header.stamp.nanosec
    return encode_image(picture, stamp_ns, encoding="bgr8")


def _shown(make: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Image, int], Image]:
    def edit(message: Image, count: int) -> Image:
        picture = np.asarray(message.data, np.uint8).reshape(message.height, message.width, 3)
        stamp_ns = message.header.stamp.sec * _NS + message.header.stamp.nanosec
        return encode_image(np.ascontiguousarray(make(picture, count)), stamp_ns)

    return edit


def _lying_header(message: Image, count: int) -> Image:
    message.height, message.width, message.step = 60_000, 60_000, 180_000
    return message


def _garbage(data: bytes, count: int) -> Iterator[Passed]:
    noise = np.random.default_rng(count).integers(0, 256, 400, dtype=np.uint8).tobytes()
    yield 0.0, data[:4] + noise, None


def _cut_bytes(data: bytes, count: int) -> Iterator[Passed]:
    yield 0.0, data[: len(data) // 3], None


@contextlib.contextmanager
def _camera_restarts(bench: FaultBench) -> Iterator[None]:
    bench.camera.publish_as(None)
    try:
        yield
    finally:
        bench.camera.publish_as(Image)


@contextlib.contextmanager
def _camera_of_another_type(bench: FaultBench) -> Iterator[None]:
    bench.camera.publish_as(None)
    # One process can have one type on a topic only.
    with bench.stranger() as node:
        node.create_publisher(CompressedImage, bench.camera.target, qos.CAMERA_SENSOR_DATA)
        try:
            yield
        finally:
            bench.camera.publish_as(Image)


@contextlib.contextmanager
def _second_camera(bench: FaultBench) -> Iterator[None]:
    """Another camera, of another size, on the same topic."""
    other = bench.node.create_publisher(Image, bench.camera.target, qos.CAMERA_SENSOR_DATA)
    picture = np.full((120, 160, 3), 90, np.uint8)
    timer = bench.node.create_timer(
        0.05, lambda: other.publish(encode_image(picture, time.time_ns()))
    )
    try:
        yield
    finally:
        bench.node.destroy_timer(timer)
        bench.node.destroy_publisher(other)


# --- what may be done to commands ---------------------------------------------------------------


def _commands(change: Callable[[bytes, int], Iterator[Passed]]) -> Manager:
    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        count = iter(range(10**9))
        bench.robot.fault = lambda data: change(data, next(count))
        try:
            yield
        finally:
            bench.robot.fault = None
            bench.robot.forget()

    return inject


def _not_a_number(data: bytes, count: int) -> Iterator[Passed]:
    # The last six doubles of a TwistStamped are its velocities.
    yield 0.0, data[:-48] + np.full(6, np.nan).tobytes(), None


def _robot_listens(asked: QoSProfile | None) -> Manager:
    """Let the robot's side ask for another QoS; None: let it leave."""

    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        bench.robot.listen(asked is not None, asked)
        try:
            yield
        finally:
            bench.robot.listen(True)

    return inject


# --- what may happen to the planner, and what operators do --------------------------------------


@contextlib.contextmanager
def _suspended(process: NodeProcess) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@contextlib.contextmanager
def _planner_suspended(bench: FaultBench) -> Iterator[None]:
    with _suspended(bench.planner):
        yield


@contextlib.contextmanager
def _scene_suspended(bench: FaultBench) -> Iterator[None]:
    with _suspended(bench.scene):
        yield


def _planner_ends(number: int) -> Manager:
    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        os.kill(bench.planner.pid, number)
        try:
            yield
        finally:
            bench.restart_planner()

    return inject


@contextlib.contextmanager
def _system_clock_set_back(bench: FaultBench) -> Iterator[None]:
    bench.shift.publish(Float64(data=-5.0))
    try:
        yield
    finally:
        bench.shift.publish(Float64(data=0.0))


@contextlib.contextmanager
def _callbacks_hang(bench: FaultBench) -> Iterator[None]:
    bench.block.publish(Float64(data=1.8))
    yield


@contextlib.contextmanager
def _busy_processor(bench: FaultBench) -> Iterator[None]:
    number = 2 * (os.cpu_count() or 1)
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@contextlib.contextmanager
def _deadman(bench: FaultBench, says: bool | None) -> Iterator[None]:
    bench.deadman_says = says
    try:
        yield
    finally:
        bench.deadman_says = True


@contextlib.contextmanager
def _stopped(bench: FaultBench) -> Iterator[None]:
    bench.call(bench.stop, Trigger.Request())
    try:
        yield
    finally:
        bench.call(bench.resume, Trigger.Request())


@contextlib.contextmanager
def _deactivated(bench: FaultBench) -> Iterator[None]:
    bench.transition(Transition.TRANSITION_DEACTIVATE)
    try:
        yield
    finally:
        bench.transition(Transition.TRANSITION_ACTIVATE)


@contextlib.contextmanager
def _wrong_parameters(bench: FaultBench) -> Iterator[None]:
    refused = [
        bench.set_parameter(name, value)
        for name, value in (
            ("speed_scale", 2.0), ("speed_scale", float("nan")), ("checkpoint", "elsewhere"),
            ("goal_tolerance", -1.0), ("reached_pictures", 0), ("dry_run", True),
        )
    ]  # fmt: skip
    if not all(refused):
        raise AssertionError(f"a wrong parameter was taken: {refused}")
    yield


@contextlib.contextmanager
def _wrong_goals(bench: FaultBench) -> Iterator[None]:
    small = encode_image(np.full((60, 80, 3), 90, np.uint8))
    requests = [
        SetGoal.Request(image=small), SetGoal.Request(path="/dev/zero"), SetGoal.Request(),
        SetGoal.Request(path="capture", tolerance=float("nan")),
        SetGoal.Request(path="bag:/no/bag@1s"),
    ]
    for request in requests:
        if bench.call(bench.set_goal, request).success:
            raise AssertionError(f"a wrong goal was taken: {request}")
    yield


@contextlib.contextmanager
def _cancelled_goal(bench: FaultBench) -> Iterator[None]:
    goal = ReachGoal.Goal(paths=["capture"], tolerance=NEVER)
    future = bench.reach.send_goal_async(goal)
    bench.wait(future.done, "the goal is not answered", 10.0)
    time.sleep(0.5)
    cancelled = future.result().cancel_goal_async()
    bench.wait(cancelled.done, "the cancel is not answered", 10.0)
    yield


@contextlib.contextmanager
def _scene_is_reset(bench: FaultBench) -> Iterator[None]:
    bench.call(bench.reset_scene, ResetScene.Request(seed=77))
    yield


# --- what may happen to the clock ---------------------------------------------------------------


def _clock(change: Callable[[int, float], int | None]) -> Manager:
    """Change the clock: gets its time and the seconds since the fault began, returns the time."""

    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        began = time.monotonic()

        def spoil(data: bytes) -> Iterator[Passed]:
            changed = change(stamp_in(data), time.monotonic() - began)
            if changed is not None:
                message = Clock(clock=ns_to_stamp(max(0, changed)))
                yield 0.0, serialize_message(message), stamp_in(data)

        bench.clock.fault = spoil
        try:
            yield
        finally:
            bench.clock.fault = None

    return inject


FAULTS: tuple[Fault, ...] = (
    Fault("no picture arrives", HOLDS, _pictures(_drop), words="s old"),
    Fault("every second picture lost", GOES_ON, _pictures(_drop_all_but(2))),
    Fault("nine of ten pictures lost", GOES_ON, _pictures(_drop_all_but(10))),
    Fault("pictures 0.2 s late", GOES_ON, _pictures(_delay(0.2))),
    Fault("pictures 0.7 s late", HOLDS, _pictures(_delay(0.7)), words="old"),
    Fault("pictures 0 to 0.27 s late", GOES_ON, _pictures(_jitter)),
    # It moves after each burst, and holds until the next.
    Fault("pictures in bursts of 1.2 s", GOES_ON, _pictures(_burst), 4.0, "old"),
    Fault("every picture three times", GOES_ON, _pictures(_repeat(3))),
    Fault("every picture seven times", GOES_ON, _pictures(_repeat(7))),
    Fault("pictures out of order", GOES_ON, _pictures(_reorder())),
    Fault("picture frozen, new stamps", HOLDS, _freeze(True), words="not changed",
          doubtful=True),
    Fault("picture frozen, old stamp", HOLDS, _freeze(False), words="old"),
    Fault("half of each picture's data", HOLDS, _edit(_half_the_data), words="bytes"),
    Fault("each third picture damaged", GOES_ON, _edit(_half_the_data, every=3)),
    Fault("encoding yuv9", HOLDS, _edit(_encoding("yuv9")), words="yuv9"),
    Fault("encoding becomes bgr8", GOES_ON, _edit(_as_bgr, true=True)),
    Fault("size becomes 160x120", HOLDS, _edit(_shown(lambda p, n: p[:120, :160])),
          words="160x120"),
    Fault("header says 60000x60000", HOLDS, _edit(_lying_header), words="60000"),
    Fault("black pictures", HOLDS, _edit(_shown(lambda p, n: p * 0)), words="black"),
    Fault("pictures of one colour", HOLDS, _edit(_shown(lambda p, n: p * 0 + np.uint8(128))),
          words="one colour"),
    Fault("pictures of noise", GOES_ON, _edit(_shown(
        lambda p, n: np.random.default_rng(n).integers(0, 256, p.shape, dtype=np.uint8)),
        true=True)),
    Fault("bytes that are no message", HOLDS, _pictures(_garbage), words="old"),
    Fault("messages cut off", HOLDS, _pictures(_cut_bytes), words="old"),
    Fault("stamps 2 s behind", HOLDS, _shifted(-2.0), words="old"),
    Fault("stamps 2 s ahead", HOLDS, _shifted(2.0), words="in the future"),
    Fault("stamps 10 years ahead", HOLDS, _shifted(3.15e8), words="in the future"),
    Fault("stamp zero", HOLDS, _stamp(0), words="old"),
    Fault("stamp before 1970", HOLDS, _stamp(-_NS), words="old"),
    Fault("stamps fall back by 0.3 s", GOES_ON, _shifted(-0.3, believed=True)),
    Fault("camera leaves and returns", HOLDS, _camera_restarts, words="nobody publishes"),
    Fault("camera of another type", HOLDS, _camera_of_another_type, 4.0, "CompressedImage"),
    Fault("a second camera, 160x120", GOES_ON, _second_camera),
    Fault("commands lost on their way", ROBOT_STOPS, _commands(_drop)),
    Fault("commands 1 s late", ROBOT_STOPS, _commands(_delay(1.0))),
    Fault("every command three times", GOES_ON, _commands(_repeat(3))),
    Fault("commands out of order", GOES_ON, _commands(_reorder())),
    Fault("commands become NaN", ROBOT_STOPS, _commands(_not_a_number)),
    Fault("robot leaves", ROBOT_STOPS, _robot_listens(None), words="nobody listens"),
    Fault("robot asks for another QoS", ROBOT_STOPS, _robot_listens(qos.STATUS),
          words="QoS does not fit"),
    Fault("callbacks hang", HOLDS, _callbacks_hang, 1.6, "watchdog"),
    Fault("system clock set back by 5 s", HOLDS, _system_clock_set_back, words="in the future"),
    Fault("planner suspended", ROBOT_STOPS, _planner_suspended),
    Fault("planner killed", ROBOT_STOPS, _planner_ends(signal.SIGKILL), again=True),
    Fault("planner ended by SIGINT", HOLDS, _planner_ends(signal.SIGINT), again=True,
          words="ended"),
    Fault("processor busy with others", GOES_ON, _busy_processor),
    Fault("dead-man switch released", HOLDS, lambda b: _deadman(b, False), words="released"),
    Fault("dead-man switch silent", HOLDS, lambda b: _deadman(b, None), words="silent"),
    Fault("~/stop", HOLDS, _stopped, words="~/stop", again=True),
    Fault("deactivated", HOLDS, _deactivated, words="not active", again=True),
    Fault("wrong parameters", GOES_ON, _wrong_parameters),
    Fault("wrong goals", GOES_ON, _wrong_goals),
    Fault("goal cancelled", HOLDS, _cancelled_goal, words="cancelled", again=True,
          patience_s=1.0),
    Fault("scene reset", GOES_ON, _scene_is_reset),
    Fault("scene suspended", HOLDS, _scene_suspended, words="s old"),
    Fault("clock stops", HOLDS, _clock(lambda t, s: None), words="stands still", simulated=True),
    Fault("clock jumps back by 5 s", HOLDS, _clock(lambda t, s: t - 5 * _NS), simulated=True),
    Fault("clock jumps ahead by 5 s", HOLDS, _clock(lambda t, s: t + 5 * _NS), simulated=True),
    Fault("clock at a third of its speed", HOLDS, _clock(lambda t, s: t - int(s * 0.7 * _NS)), 4.0,
          simulated=True, patience_s=2.5),
    # It moves, with good reason, whenever the clock was right for a while.
    Fault("clock jumps to and fro", GOES_ON,
          _clock(lambda t, s: t - 5 * _NS * (int(4 * s) % 2)), words="in the future",
          simulated=True),
    Fault("/clock starts anew", HOLDS, _clock(lambda t, s: int(s * _NS)), simulated=True),
    Fault("scene suspended, simulated time", HOLDS, _scene_suspended, simulated=True,
          words="stands still"),
)  # fmt: skip
