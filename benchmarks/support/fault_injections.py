"""What can be done to a running planner: one context manager each, the fault is on inside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from support.fault_bench import FaultBench, Passed, stamp_in, with_stamp

from lewm_ros import qos
from lewm_ros.codecs import encode_image, ns_to_stamp
from lewm_ros.processes import NodeProcess
from lewm_ros.srv import ResetScene

_NS = 1_000_000_000
Manager = Callable[[FaultBench], contextlib.AbstractContextManager[None]]


# --- what may be done to pictures ---------------------------------------------------------------


def pictures(change: Callable[[bytes, int], Iterator[Passed]]) -> Manager:
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


def drop(data: bytes, count: int) -> Iterator[Passed]:
    yield from ()


def drop_all_but(number: int) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        if count % number == 0:
            yield 0.0, data, stamp_in(data)

    return change


def delay(seconds: float) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        yield seconds, data, stamp_in(data)

    return change


def jitter(data: bytes, count: int) -> Iterator[Passed]:
    yield (count * 7919 % 10) * 0.03, data, stamp_in(data)


def repeat(number: int) -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        for index in range(number):
            yield 0.002 * index, data, stamp_in(data)

    return change


def reorder() -> Callable[[bytes, int], Iterator[Passed]]:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        # Every second one is overtaken by the next.
        yield (0.05 if count % 2 == 0 else 0.0), data, stamp_in(data)

    return change


def burst(data: bytes, count: int) -> Iterator[Passed]:
    now_s = time.time()
    # Held back until the next whole 1.2 seconds, then all at once.
    yield 1.2 - now_s % 1.2, data, stamp_in(data)


def freeze(with_new_stamps: bool) -> Manager:
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


def edit(edit: Callable[[Image, int], Any], true: bool = False, every: int = 1) -> Manager:
    """Change each picture's message; ``every``: only each so-manieth, the others pass."""

    def change(data: bytes, count: int) -> Iterator[Passed]:
        if count % every:
            yield 0.0, data, stamp_in(data)
            return
        message = deserialize_message(data, Image)
        edited = edit(message, count)
        yield 0.0, edited, stamp_in(data) if true else None

    return pictures(change)


def shifted(seconds: float, believed: bool = False) -> Manager:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        stamp_ns = stamp_in(data) + round(seconds * _NS)
        yield 0.0, with_stamp(data, stamp_ns), stamp_ns if believed else None

    return pictures(change)


def stamp(stamp_ns: int) -> Manager:
    def change(data: bytes, count: int) -> Iterator[Passed]:
        yield 0.0, with_stamp(data, stamp_ns), None

    return pictures(change)


def half_the_data(message: Image, count: int) -> Image:
    message.data = message.data[: len(message.data) // 2]
    return message


def encoding(name: str) -> Callable[[Image, int], Image]:
    def edit(message: Image, count: int) -> Image:
        message.encoding = name
        return message

    return edit


def as_bgr(message: Image, count: int) -> Image:
    picture = np.asarray(message.data, np.uint8).reshape(message.height, message.width, 3)
    stamp_ns = message.header.stamp.sec * _NS + message.header.stamp.nanosec
    return encode_image(picture, stamp_ns, encoding="bgr8")


def shown(make: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Image, int], Image]:
    def edit(message: Image, count: int) -> Image:
        picture = np.asarray(message.data, np.uint8).reshape(message.height, message.width, 3)
        stamp_ns = message.header.stamp.sec * _NS + message.header.stamp.nanosec
        return encode_image(np.ascontiguousarray(make(picture, count)), stamp_ns)

    return edit


def lying_header(message: Image, count: int) -> Image:
    message.height, message.width, message.step = 60_000, 60_000, 180_000
    return message


def garbage(data: bytes, count: int) -> Iterator[Passed]:
    noise = np.random.default_rng(count).integers(0, 256, 400, dtype=np.uint8).tobytes()
    yield 0.0, data[:4] + noise, None


def cut_bytes(data: bytes, count: int) -> Iterator[Passed]:
    yield 0.0, data[: len(data) // 3], None


@contextlib.contextmanager
def camera_restarts(bench: FaultBench) -> Iterator[None]:
    bench.camera.publish_as(None)
    try:
        yield
    finally:
        bench.camera.publish_as(Image)


@contextlib.contextmanager
def camera_of_another_type(bench: FaultBench) -> Iterator[None]:
    bench.camera.publish_as(None)
    # One process can have one type on a topic only.
    with bench.stranger() as node:
        node.create_publisher(CompressedImage, bench.camera.target, qos.CAMERA_SENSOR_DATA)
        try:
            yield
        finally:
            bench.camera.publish_as(Image)


@contextlib.contextmanager
def second_camera(bench: FaultBench) -> Iterator[None]:
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


def commands(change: Callable[[bytes, int], Iterator[Passed]]) -> Manager:
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


def not_a_number(data: bytes, count: int) -> Iterator[Passed]:
    # The last six doubles of a TwistStamped are its velocities.
    yield 0.0, data[:-48] + np.full(6, np.nan).tobytes(), None


def robot_listens(asked: QoSProfile | None) -> Manager:
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
def planner_suspended(bench: FaultBench) -> Iterator[None]:
    with _suspended(bench.planner):
        yield


@contextlib.contextmanager
def scene_suspended(bench: FaultBench) -> Iterator[None]:
    with _suspended(bench.scene):
        yield


def planner_ends(number: int) -> Manager:
    @contextlib.contextmanager
    def inject(bench: FaultBench) -> Iterator[None]:
        os.kill(bench.planner.pid, number)
        try:
            yield
        finally:
            bench.restart_planner()

    return inject


@contextlib.contextmanager
def system_clock_set_back(bench: FaultBench) -> Iterator[None]:
    bench.shift.publish(Float64(data=-5.0))
    try:
        yield
    finally:
        bench.shift.publish(Float64(data=0.0))


@contextlib.contextmanager
def callbacks_hang(bench: FaultBench) -> Iterator[None]:
    bench.block.publish(Float64(data=1.8))
    yield


@contextlib.contextmanager
def busy_processor(bench: FaultBench) -> Iterator[None]:
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
def deadman(bench: FaultBench, says: bool | None) -> Iterator[None]:
    bench.deadman_says = says
    try:
        yield
    finally:
        bench.deadman_says = True


@contextlib.contextmanager
def stopped(bench: FaultBench) -> Iterator[None]:
    bench.call(bench.stop, Trigger.Request())
    try:
        yield
    finally:
        bench.call(bench.resume, Trigger.Request())


@contextlib.contextmanager
def deactivated(bench: FaultBench) -> Iterator[None]:
    bench.transition(Transition.TRANSITION_DEACTIVATE)
    try:
        yield
    finally:
        bench.transition(Transition.TRANSITION_ACTIVATE)


@contextlib.contextmanager
def scene_is_reset(bench: FaultBench) -> Iterator[None]:
    bench.call(bench.reset_scene, ResetScene.Request(seed=77))
    yield


# --- what may happen to the clock ---------------------------------------------------------------


def clock(change: Callable[[int, float], int | None]) -> Manager:
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
