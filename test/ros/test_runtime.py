"""How nodes start and end: parameters, arguments, signals."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from lewm_core.errors import ConfigError  # noqa: E402
from lewm_ros.missing import missing_ros_message  # noqa: E402
from lewm_ros.runtime import declare  # noqa: E402


@pytest.fixture
def make_node(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=100)
    nodes = []

    def make(**overrides):
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node("made", context=context, parameter_overrides=given))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_a_parameter_has_its_description_range_and_default(make_node):
    node = make_node()
    assert declare(node, "rate", 10.0, "Hz.", minimum=0.0, maximum=100.0) == 10.0
    descriptor = node.describe_parameter("rate")
    assert descriptor.description == "Hz." and descriptor.read_only
    limits = descriptor.floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 100.0)


def test_a_whole_number_is_accepted_where_a_real_one_is_meant(make_node):
    value = declare(make_node(rate=30), "rate", 10.0, "Hz.", minimum=0.0)
    assert value == 30.0 and isinstance(value, float)


@pytest.mark.parametrize(
    ("given", "default", "limits", "words"),
    [
        (500.0, 10.0, {"maximum": 100.0}, "500"),
        (-1, 3, {"minimum": 0}, "-1"),
        ("fast", 10.0, {}, "fast"),
        ("rbg8", "rgb8", {"choices": ("rgb8", "mono8")}, "did you mean rgb8"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(make_node, given, default, limits, words):
    with pytest.raises(ConfigError, match="parameter thing") as error:
        declare(make_node(thing=given), "thing", default, "Of the test.", **limits)
    assert words in str(error.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_cleanly_and_a_second_one_changes_nothing(graph, number):
    process = graph.start("record_dataset", {"out": graph.folder / "data", "record_at_start": True})
    os.kill(process.pid, number)
    os.kill(process.pid, number)
    graph.wait_for_end(process)
    assert (graph.folder / "data/episode_000000/recorder.json").exists()
    assert "Traceback" not in process.output()


STUCK = """
import ctypes, sys
import lewm_ros.runtime as runtime
from rclpy.node import Node

class Stuck(Node):
    def __init__(self):
        super().__init__("stuck")
        runtime.end_node()

    def destroy_node(self):
        print("closed, and stuck", flush=True)
        # PyDLL keeps the interpreter's lock, as a middleware that spins in a call may.
        ctypes.PyDLL(None).sleep(60)

runtime._DESTROY_TIMEOUT_S = 1.0
sys.exit(runtime.run_node(Stuck))
"""


def test_a_middleware_that_does_not_let_go_cannot_keep_the_process(graph):
    result = subprocess.run(
        [sys.executable, "-c", STUCK], env=graph.environment, capture_output=True, text=True,
        timeout=40.0,
    )  # fmt: skip
    assert result.returncode == 1
    assert "closed, and stuck" in result.stdout
    assert "Timeout" in result.stderr and "destroy_node" in result.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lewm_ros.scene", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60.0)


def test_help_says_what_the_node_is_for():
    result = run("--help")
    assert result.returncode == 0
    assert "MuJoCo scene as a camera and a robot" in result.stdout
    assert "example: python -m lewm_ros.scene" in result.stdout


def test_an_argument_outside_ros_args_is_refused_with_the_mend():
    result = run("seed:=3")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and "seed:=3" in line and "--ros-args -p" in line


def test_without_ros_the_message_says_what_to_do(tmp_path):
    assert "make setup" in missing_ros_message("lewm_ros.planner", "rclpy")
    assert "built interfaces" in missing_ros_message("lewm_ros.planner", "lewm_ros.msg")
    # A folder that shadows rclpy stands for a machine without it.
    (tmp_path / "rclpy.py").write_text("raise ModuleNotFoundError('no', name='rclpy')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lewm_ros.scene.node"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60.0)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("lewm_ros.scene needs ROS 2")
