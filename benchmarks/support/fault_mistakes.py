"""Operators' mistakes, while the robot drives to a good goal: wrong parameters and wrong goals.

Every one must be refused by one line that names it, and change nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from support.fault_bench import NEVER, FaultBench

from lewm_core.data.bag_writer import BagWriter
from lewm_ros.action import ReachGoal
from lewm_ros.codecs import encode_image
from lewm_ros.planner.parameters import DECLARATIONS
from lewm_ros.srv import SetGoal

_NS = 1_000_000_000
_ANSWER_S = 20.0
#: By the float32 of its message.
_SAME = 1e-6

_PARAMETERS: tuple[tuple[str, Any], ...] = (
    # Out of range.
    ("speed_scale", 2.0), ("speed_scale", -0.1), ("speed_scale", math.inf),
    ("replan_rate", -1.0), ("replan_rate", 1e9), ("goal_tolerance", -1.0),
    ("reached_pictures", 0), ("reached_pictures", 2**62), ("deadman_timeout", 0.0),
    ("frozen_timeout", -2.0), ("clock_timeout", 1e9), ("progress_timeout", -1.0),
    # No number.
    ("speed_scale", math.nan), ("replan_rate", math.nan), ("goal_tolerance", math.nan),
    ("deadman_timeout", math.nan), ("clock_timeout", math.nan),
    # Of another type, none included.
    ("speed_scale", "fast"), ("speed_scale", [0.5]), ("speed_scale", True),
    ("reached_pictures", 3.5), ("force", 1), ("speed_scale", None),
    # Not known.
    ("speed_scal", 0.5), ("", 1.0), ("max_velocity", 0.1),
    # Fixed: always, while configured, while active.
    ("autostart", False), ("start_type_description_service", False), ("use_sim_time", True),
    ("checkpoint", "elsewhere"), ("contract", "elsewhere"), ("planner", "search"),
    ("device", "cpu"), ("threads", 2), ("seed", 7), ("deadman_topic", ""),
    ("goal_file", "goal.png"), ("status_rate", 10.0), ("lock_step", True),
    ("dry_run", True), ("watchdog_timeout", 1.0),
)  # fmt: skip


@contextlib.contextmanager
def wrong_parameters(bench: FaultBench) -> Iterator[None]:
    before = _values(bench)
    for name, value in _PARAMETERS:
        _require_refusal(bench.set_parameter(name, value), name, f"{name} := {value}")
    # All or none: a good one among them changes nothing either.
    client = bench.node.create_client(SetParametersAtomically, "/planner/set_parameters_atomically")
    request = SetParametersAtomically.Request(
        parameters=[
            Parameter("speed_scale", value=0.5).to_parameter_msg(),
            Parameter("deadman_timeout", value=-1.0).to_parameter_msg(),
        ]
    )
    result = bench.call(client, request).result
    bench.node.destroy_client(client)
    if result.successful:
        raise AssertionError("wrong parameters were taken, all at once")
    _require_refusal(result.reason, "deadman_timeout", "all at once")
    yield
    after = _values(bench)
    changed = [name for name in before if str(before[name]) != str(after[name])]
    if changed:
        raise AssertionError(f"refused, but changed: {', '.join(changed)}")


def _values(bench: FaultBench) -> dict[str, Any]:
    names = [row.name for row in DECLARATIONS] + ["use_sim_time"]
    client = bench.node.create_client(GetParameters, "/planner/get_parameters")
    values = bench.call(client, GetParameters.Request(names=names)).values
    bench.node.destroy_client(client)
    return dict(zip(names, values, strict=True))


@contextlib.contextmanager
def wrong_goals(bench: FaultBench) -> Iterator[None]:
    """Goals that cannot be; afterwards the planner must still pursue the one it had."""
    since = len(bench.seen.statuses)
    with tempfile.TemporaryDirectory() as folder:
        for what, words, request in _wrong_requests(bench, Path(folder)):
            answer = bench.call(bench.set_goal, request)
            if answer.success:
                raise AssertionError(f"a wrong goal was taken: {what}")
            _require_refusal(answer.message, words, what)
        for what, words, goal in _wrong_actions(bench, Path(folder)):
            result = _result(bench, goal)
            if result.reason != ReachGoal.Result.INVALID_GOAL:
                raise AssertionError(f"a wrong goal ended otherwise: {what}: {result.message}")
            _require_refusal(result.message, words, what)
    yield
    for _, status in bench.seen.statuses[since:]:
        if status.goal != "service" or abs(status.goal_tolerance - NEVER) > _SAME * NEVER:
            raise AssertionError(
                f"the goal is {status.goal!r} with tolerance {status.goal_tolerance:g}, not the "
                "one that it had"
            )


def _wrong_requests(bench: FaultBench, folder: Path) -> Iterator[tuple[str, str, SetGoal.Request]]:
    """Return what is wrong, words of the refusal, and the request, one after the other."""
    good = bench.goal_picture
    for what, words, image in _wrong_pictures(good):
        yield what, words, SetGoal.Request(image=image)
    yield "nothing", "neither", SetGoal.Request()
    two = [encode_image(good)]
    yield "two pictures", "2 pictures", SetGoal.Request(
        image=encode_image(good), further_images=two
    )
    yield "picture and path", "both", SetGoal.Request(image=encode_image(good), path="capture")
    for tolerance in (math.nan, -1.0, math.inf):
        yield f"tolerance {tolerance}", "tolerance", SetGoal.Request(
            image=encode_image(good), tolerance=tolerance
        )
    for path, words in _wrong_paths(bench, folder):
        yield path, words, SetGoal.Request(path=path)


def _wrong_pictures(good: np.ndarray) -> Iterator[tuple[str, str, Image]]:
    small = np.ascontiguousarray(good[:60, :80])
    yield "another size", "80x60", encode_image(small)
    for encoding in ("yuv9", "", "16UC1"):
        image = encode_image(good)
        image.encoding = encoding
        yield f"encoding {encoding!r}", repr(encoding), image
    image = encode_image(good)
    image.data = image.data[: len(image.data) // 2]
    yield "half of the data", "bytes", image
    image = encode_image(good)
    image.height = image.width = 60_000
    image.step = 3 * 60_000
    yield "a header of 60000x60000", "60000", image
    image = encode_image(good)
    image.height = image.width = image.step = 0
    yield "a header of 0x0", "0 x 0", image
    yield "black", "black", encode_image(np.zeros_like(good))


def _wrong_paths(bench: FaultBench, folder: Path) -> Iterator[tuple[str, str]]:
    bag = folder / "bag"
    camera = bench.contract.camera
    with BagWriter(bag) as writer:
        writer.add_topic(camera.topic, camera.message)
        for second in (0, 2):
            image = encode_image(bench.goal_picture, (100 + second) * _NS)
            writer.write_raw(camera.topic, (100 + second) * _NS, serialize_message(image))
    (folder / "text.png").write_text("no picture")
    os.mkfifo(folder / "pipe.png")
    yield str(folder / "none.png"), "not a file"
    yield str(folder / "text.png"), "neither JPEG nor PNG"
    yield str(folder / "pipe.png"), "not a file"
    yield str(folder), "not a file"
    yield "/dev/zero", "not a file"
    # Out of its folder: any file may be asked for, and must then be a picture (docs/security.md).
    yield f"{folder}/bag/../../../../../../../../etc/passwd", "neither JPEG nor PNG"
    yield "/proc/self/environ", "neither JPEG nor PNG"
    yield "~nobody-of-that-name/goal.png", "~nobody-of-that-name"
    yield f"bag:{bag}@99s", "past its end"
    yield f"bag:{bag}@-1s", "write bag:"
    yield f"bag:{bag}", "write bag:"
    yield f"bag:{bag}/../../../../../../../etc@1s", "etc"
    yield "bag:/no/bag@1s", "does not exist"


def _wrong_actions(bench: FaultBench, folder: Path) -> Iterator[tuple[str, str, ReachGoal.Goal]]:
    good = encode_image(bench.goal_picture)
    small = encode_image(np.ascontiguousarray(bench.goal_picture[:60, :80]))
    back = Duration(sec=-1)
    yield "a second goal of another size", "goals[1]", ReachGoal.Goal(goals=[good, small])
    yield "tolerance NaN", "tolerance", ReachGoal.Goal(goals=[good], tolerance=math.nan)
    yield "timeout -1 s", "timeout", ReachGoal.Goal(goals=[good], timeout=back)
    yield "one timeout -1 s", "timeout", ReachGoal.Goal(
        goals=[good, good], timeouts=[Duration(sec=1), back]
    )
    yield "two tolerances", "tolerances", ReachGoal.Goal(goals=[good], tolerances=[0.1, 0.1])
    yield "goals and paths", "both", ReachGoal.Goal(goals=[good], paths=["capture"])
    yield "no goals", "empty", ReachGoal.Goal()
    yield "257 goals", "256", ReachGoal.Goal(paths=["capture"] * 257)
    yield "no file", "paths[1]", ReachGoal.Goal(paths=["capture", str(folder / "none.png")])
    yield "past a bag's end", "past its end", ReachGoal.Goal(paths=[f"bag:{folder / 'bag'}@99s"])


def _result(bench: FaultBench, goal: ReachGoal.Goal) -> Any:
    sent = bench.reach.send_goal_async(goal)
    bench.wait(sent.done, "the goal is not answered", _ANSWER_S)
    result = sent.result().get_result_async()
    bench.wait(result.done, "the goal has no result", _ANSWER_S)
    return result.result().result


def _require_refusal(reason: str, words: str, what: str) -> None:
    if not reason or words not in reason or "\n" in reason:
        raise AssertionError(f"{what}: not refused by one line with {words!r}: {reason!r}")


@contextlib.contextmanager
def cancelled_goal(bench: FaultBench) -> Iterator[None]:
    goal = ReachGoal.Goal(paths=["capture"], tolerance=NEVER)
    future = bench.reach.send_goal_async(goal)
    bench.wait(future.done, "the goal is not answered", 10.0)
    time.sleep(0.5)
    cancelled = future.result().cancel_goal_async()
    bench.wait(cancelled.done, "the cancel is not answered", 10.0)
    yield
