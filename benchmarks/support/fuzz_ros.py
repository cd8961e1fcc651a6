"""The kinds that need ROS: messages, goals and parameters, through what the nodes call."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support import fuzz_material as material
from support.fuzz_bombs import Bomb, picture_bombs
from support.fuzz_kinds import Kind
from support.fuzz_mutations import mutate_bytes, mutate_tree, yaml_text

from lewm_core.errors import ImageError, UserError


def ros_kinds() -> tuple[Kind, ...]:
    """Return the kinds of this module; none, and a line that says so, where ROS is missing."""
    for package in ("rclpy", "lewm_ros.msg"):
        if importlib.util.find_spec(package) is None:
            print(f"without {package}: messages, goals and parameters are left out")
            return ()
    return (
        Kind("image message", 3.0, _make_message, _load_message),
        Kind("goal picture", 2.0, _make_goal_file, _load_goal_file, _GOAL_FILES),
        Kind("goal request", 2.0, _make_request, _load_request, set_up=_start_ros),
        Kind("node parameters", 1.5, _make_parameters, _load_parameters, set_up=_start_ros),
        Kind("parameter file", 1.0, _make_parameter_file, _load_parameter_file),
        Kind("episode name", 0.5, _make_name, _load_name),
    )


# Messages, as the middleware hands them on: from serialised bytes.


def _image(rng: random.Random) -> Any:
    from sensor_msgs.msg import CompressedImage

    if rng.random() < 0.4:
        message = CompressedImage(format=rng.choice(("png", "jpeg", "", "webp")))
        pictures = {**material.picture_files(), **picture_bombs()}
        message.data = mutate_bytes(rng, pictures[rng.choice(list(pictures))])
        return message
    return _raw_image(rng)


def _raw_image(rng: random.Random) -> Any:
    from sensor_msgs.msg import Image

    width, height = material.WIDTH, material.HEIGHT
    message = Image(encoding="rgb8", width=width, height=height, step=3 * width)
    # A black picture would be refused before it is looked at more closely.
    message.data = rng.randbytes(3 * width * height)
    extremes = (0, 1, width - 1, 2**16, 2**31, 2**32 - 1)
    for _ in range(rng.choice((0, 1, 1, 2))):
        key = rng.choice(("encoding", "width", "height", "step", "data", "is_bigendian"))
        if key == "encoding":
            message.encoding = rng.choice(("bgr8", "mono8", "rgba8", "16UC1", "", "x" * 10_000))
        elif key == "data":
            message.data = bytes(rng.choice((0, 1, 143, 145, 10**6)))
        elif key == "is_bigendian":
            message.is_bigendian = 1
        else:
            setattr(message, key, rng.choice(extremes))
    return message


def _make_message(rng: random.Random, _: Path, folder: Path) -> None:
    from rclpy.serialization import serialize_message

    message = _image(rng)
    data = serialize_message(message)
    if rng.random() < 0.4:
        data = mutate_bytes(rng, data)
    (folder / type(message).__name__).write_bytes(data)


def _deserialised(folder: Path, kinds: Sequence[Any]) -> Any:
    from rclpy.serialization import deserialize_message

    kind = next(kind for kind in kinds if (folder / kind.__name__).exists())
    try:
        return deserialize_message((folder / kind.__name__).read_bytes(), kind)
    except Exception as error:
        # The middleware's word for it; such a message never reaches a node.
        if type(error).__name__ not in ("RMWError", "RCLError", "RuntimeError"):
            raise
        raise UserError(f"the middleware drops it: {error}") from error


def _load_message(folder: Path) -> None:
    from sensor_msgs.msg import CompressedImage, Image

    from lewm_ros.planner.goals import picture_from_message

    message = _deserialised(folder, (Image, CompressedImage))
    picture_from_message(message, material.contract().camera, material.IMAGE_SIZE)


# Goals.


def _make_goal_file(rng: random.Random, whole: Path, folder: Path) -> None:
    data = (whole / f"picture.{rng.choice(('png', 'jpeg'))}").read_bytes()
    (folder / "goal").write_bytes(mutate_bytes(rng, data))
    path = "goal"
    if rng.random() < 0.2:
        path = rng.choice(
            ("", ".", "..", "../" * 30, "goal/", "goal\0", "x" * 5000, "~nobody/x", "/dev/zero",
             "/dev/tty", "/proc/self/mem", "goal{camera}", "\n")
        )  # fmt: skip
    (folder / "path.json").write_text(json.dumps(path))


def _goal_bomb(data: bytes) -> Bomb:
    def write(_: Path, folder: Path) -> None:
        (folder / "goal").write_bytes(data)
        (folder / "path.json").write_text('"goal"')

    return write


def _pipe(_: Path, folder: Path) -> None:
    os.mkfifo(folder / "goal")
    (folder / "path.json").write_text('"goal"')


_GOAL_FILES: dict[str, Bomb] = {
    **{key: _goal_bomb(data) for key, data in picture_bombs().items()},
    "a file of 100 megabytes": _goal_bomb(bytes(100_000_000)),
    "a pipe": _pipe,
}


def _load_goal_file(folder: Path) -> None:
    from lewm_ros.planner.goals import goal_from_file

    path = json.loads((folder / "path.json").read_text())
    given = folder / path if path.startswith("goal") else path
    camera = material.contract().camera
    goal_from_file(given, [camera], material.IMAGE_SIZE)
    if "{camera}" in path:
        second = camera.model_copy(update={"name": "second"})
        goal_from_file(str(given), [camera, second], material.IMAGE_SIZE)


class _Host:
    """The planner behind the requests: pictures are read as it reads them, nothing is driven."""

    def why_not(self) -> str:
        return ""

    def stopped(self) -> bool:
        return False

    def number_of_cameras(self) -> int:
        return 1

    def goal_picture(self, source: Any) -> np.ndarray:
        from lewm_ros.planner.goals import goal_from_messages, goal_from_text

        read = goal_from_text if isinstance(source, str) else goal_from_messages
        return read(source, [material.contract().camera], material.IMAGE_SIZE)

    def captured_picture(self) -> np.ndarray:
        raise ImageError("nothing to capture: no picture yet")

    def tolerance(self, asked: float) -> float:
        return asked

    def pursue(self, request: Any) -> None:
        for goal in request.goals:
            if not (math.isfinite(goal.tolerance) and math.isfinite(goal.timeout_s)):
                raise AssertionError(f"a goal with {goal.tolerance}, {goal.timeout_s} is pursued")


_ros: dict[str, Any] = {}


def _start_ros() -> None:
    """Make a node in this worker, alone on a domain of its own process."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import LifecycleNode

    from lewm_ros.planner.requests import PlannerRequests

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    rclpy.init(args=["fuzz", "--ros-args", "--log-level", "fatal"])
    _ros["node"] = LifecycleNode("fuzz")
    _ros["requests"] = PlannerRequests(_ros["node"], _Host())
    _ros["executor"] = SingleThreadedExecutor()
    _ros["executor"].add_node(_ros["node"])


def _run(function: Any, *arguments: Any) -> Any:
    """Run a coroutine of the requests as the node's executor does."""
    task = _ros["executor"].create_task(function, *arguments)
    _ros["executor"].spin_until_future_complete(task, 30.0)
    if not task.done():
        raise AssertionError("the request is not answered")
    return task.result()


def _make_request(rng: random.Random, _: Path, folder: Path) -> None:
    from rclpy.serialization import serialize_message

    from lewm_ros.action import ReachGoal
    from lewm_ros.srv import SetGoal

    tolerance = rng.choice((0.0, 1.0, -1.0, math.nan, math.inf, 1e30))
    if rng.random() < 0.5:
        asked = SetGoal.Request(tolerance=tolerance)
        if rng.random() < 0.7:
            asked.image = _raw_image(rng)
        if rng.random() < 0.4:
            asked.path = rng.choice(
                ("/etc/passwd", "../x", "x\ny", "~nobody", "/dev/zero", "x" * 5000, "capture",
                 "bag:", "bag:/etc/passwd@1s", "bag:/no/bag@end", "bag:x@-1s", "bag:x@" + "9" * 400)
            )  # fmt: skip
        asked.further_images = [_raw_image(rng) for _ in range(rng.choice((0, 0, 1, 5)))]
        name = "set_goal"
    else:
        asked = ReachGoal.Goal(tolerance=tolerance)
        asked.goals = [_raw_image(rng) for _ in range(rng.choice((0, 1, 1, 2)))]
        if rng.random() < 0.1:
            asked.goals = [_raw_image(rng)] * 300
        asked.timeout.sec = rng.choice((0, 1, -1, 2**31 - 1))
        asked.timeout.nanosec = rng.choice((0, 2**32 - 1))
        asked.paths = rng.choice(([], [], ["capture"], ["bag:/no/bag@end", "x"], ["x"] * 300))
        asked.tolerances = rng.choice(([], [], [0.1], [math.nan], [-1.0, math.inf]))
        name = "reach_goal"
    data = serialize_message(asked)
    (folder / name).write_bytes(mutate_bytes(rng, data) if rng.random() < 0.4 else data)


def _load_request(folder: Path) -> None:
    from rclpy.serialization import deserialize_message

    from lewm_ros.action import ReachGoal
    from lewm_ros.srv import SetGoal

    service = (folder / "set_goal").exists()
    kind, name = (SetGoal.Request, "set_goal") if service else (ReachGoal.Goal, "reach_goal")
    try:
        asked = deserialize_message((folder / name).read_bytes(), kind)
    except Exception as error:
        if type(error).__name__ not in ("RMWError", "RCLError", "RuntimeError"):
            raise
        raise UserError(f"the middleware drops it: {error}") from error
    requests = _ros["requests"]
    if service:
        answer = _run(requests._on_set_goal, asked, SetGoal.Response())
        refusal = "" if answer.success else answer.message
    else:
        refusal = ""
        for goal in _run(requests._read_goals, asked):
            if not (math.isfinite(goal.tolerance) and math.isfinite(goal.timeout_s)):
                raise AssertionError(f"a goal with {goal.tolerance}, {goal.timeout_s} is taken")
    if "\n" in refusal:
        raise AssertionError(f"a refusal of several lines: {refusal!r}")
    if refusal:
        raise UserError(refusal)


# Parameters.


def _make_parameters(rng: random.Random, _: Path, folder: Path) -> None:
    from lewm_ros.planner.parameters import DECLARATIONS

    values = {}
    for row in rng.sample(DECLARATIONS, rng.choice((1, 1, 2, 4))):
        values[row.name] = rng.choice(
            (row.default, "", "x", "../../etc", "x" * 10_000, "a\nb", True, 0, 1, -1, -2, 2**62,
             -(2**63), 2**63 - 1, 0.0, -1.0, 1e308, math.nan, math.inf, -math.inf, [1, 2], ["a"])
        )  # fmt: skip
    (folder / "values.json").write_text(json.dumps(values))


def _load_parameters(folder: Path) -> None:
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from lewm_ros.parameters import as_declared, declare_parameters, why_refused
    from lewm_ros.planner.parameters import DECLARATIONS, read_settings

    def check(changes: list[Parameter]) -> SetParametersResult:
        reason = why_refused(DECLARATIONS, changes, "the planner", configured=True, active=True)
        return SetParametersResult(successful=not reason, reason=reason)

    values = json.loads((folder / "values.json").read_text())
    given = [Parameter(name, value=value) for name, value in values.items()]
    node = Node("parameters", parameter_overrides=given, enable_rosout=False,
                start_parameter_services=False)  # fmt: skip
    try:
        declare_parameters(node, DECLARATIONS)
        settings = read_settings(node)
        for name in ("replan_rate", "goal_tolerance", "goal_tolerance_factor", "clock_timeout",
                     "status_rate"):  # fmt: skip
            value = getattr(settings, name)
            if not math.isfinite(value) or value < 0.0:
                raise AssertionError(f"parameter {name} is {value}")
        node.add_on_set_parameters_callback(check)
        changes, problem = as_declared(node, given)
        answers = [answer.reason for answer in node.set_parameters(changes)]
        for reason in (problem, *answers):
            if "\n" in reason:
                raise AssertionError(f"a refusal of several lines: {reason!r}")
    finally:
        node.destroy_node()


def _make_parameter_file(rng: random.Random, _: Path, folder: Path) -> None:
    values = {"checkpoint": "push_t-nano", "seed": 1, "replan_rate": 2.0, "autostart": True}
    tree = {"/**": {"ros__parameters": values}, "planner": {"ros__parameters": values}}
    text = yaml_text(rng, mutate_tree(rng, tree))
    data = text.encode("utf-8", "replace")
    (folder / "file.yaml").write_bytes(mutate_bytes(rng, data) if rng.random() < 0.3 else data)


def _load_parameter_file(folder: Path) -> None:
    import rclpy

    context = rclpy.Context()
    arguments = ["fuzz", "--ros-args", "--params-file", str(folder / "file.yaml")]
    try:
        rclpy.init(args=arguments, context=context)
    except Exception as error:
        # As `lewm_ros.runtime` shows it: rcl's own words, as one line.
        if type(error).__name__ not in ("RCLError", "UnknownROSArgsError"):
            raise
        raise UserError(str(error)) from error
    context.try_shutdown()


# Names.


def _make_name(rng: random.Random, _: Path, folder: Path) -> None:
    pieces = ("..", "/", "a", "\0", "\n", "~", "$(x)", "é", "\\", " ", ".", "-", "x" * 300)
    name = "".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
    (folder / "name.json").write_text(json.dumps(name))
    shutil.rmtree(folder / "out", ignore_errors=True)


def _load_name(folder: Path) -> None:
    from lewm_ros.record_dataset.dataset_folder import free_folder

    out = folder / "out"
    out.mkdir()
    episode = free_folder(out, json.loads((folder / "name.json").read_text()), "episode_")
    if episode.parent != out or episode.resolve().parent != out.resolve():
        raise AssertionError(f"the episode would be recorded to {episode}")
    episode.mkdir()


