"""Planner and scene in one process, over DDS to whoever is outside."""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TwistStamped  # noqa: E402

from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_image  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.processes import NodeProcess  # noqa: E402
from lewm_ros.srv import SetGoal  # noqa: E402
from test.ros.planner_driver import QUICK_PLANNER, make_checkpoint, picture_of  # noqa: E402


def test_planner_and_scene_in_one_process_drive_and_end_with_hold(graph, tmp_path):
    (tmp_path / "quick.yaml").write_text(QUICK_PLANNER)
    parameters = {
        "use_sim_time": True, "scene:seed": 3,
        "planner:checkpoint": make_checkpoint(tmp_path / "checkpoint"),
        "planner:planner": tmp_path / "quick.yaml", "planner:autostart": True,
        "planner:threads": 1,
    }  # fmt: skip
    program = ["-m", "lewm_ros.composed", "scene", "planner"]
    log = tmp_path / "composed.log"
    with NodeProcess("composed", parameters, graph.environment, log, program=program) as process:
        graph.processes.append(process)
        commands = graph.collect(TwistStamped, "/command", qos.COMMAND)
        statuses = graph.collect(PlanStatus, "/planner/status", qos.STATUS)
        graph.wait(lambda: statuses and statuses[-1].state == PlanStatus.WAITING, "not active", 60)
        request = SetGoal.Request(image=encode_image(picture_of(0.2, 0.8)), tolerance=1e-9)
        assert graph.call(SetGoal, "/planner/set_goal", request).success
        graph.wait(lambda: any(c.twist.linear.x for c in commands), "it does not move")
        graph.stop(process)
    graph.wait(lambda: holds(commands[-1]), "the last command is not hold")


def holds(command: TwistStamped) -> bool:
    return command.twist.linear.x == command.twist.linear.y == 0.0


#: As in docs/ros-nodes.md, with a camera.
PROGRAM = """
import sys

from rclpy.node import Node
from sensor_msgs.msg import Image

from lewm_ros import qos
from lewm_ros.codecs import encode_image
from lewm_ros.planner.node import PlannerNode
from lewm_ros.runtime import run_nodes
from test.ros.planner_driver import picture_of


class CameraNode(Node):
    def __init__(self):
        super().__init__("camera")
        self.topic = self.create_publisher(Image, "/camera/image_raw", qos.CAMERA_SENSOR_DATA)
        self.create_timer(0.1, self.publish)

    def publish(self):
        self.topic.publish(encode_image(picture_of(0.5, 0.5), self.get_clock().now().nanoseconds))

    def close(self):
        print("camera closed", flush=True)


sys.exit(run_nodes([PlannerNode, CameraNode]))
"""


def test_a_node_of_ones_own_runs_beside_the_planner(graph, tmp_path):
    parameters = {
        "planner:checkpoint": make_checkpoint(tmp_path / "checkpoint"),
        "planner:autostart": True, "planner:threads": 1,
    }  # fmt: skip
    log = tmp_path / "own.log"
    with NodeProcess("own", parameters, graph.environment, log, program=["-c", PROGRAM]) as process:
        graph.processes.append(process)
        statuses = graph.collect(PlanStatus, "/planner/status", qos.STATUS)
        graph.wait(lambda: statuses and statuses[-1].images >= 3, "it sees no pictures", 60)
        assert "camera" in graph.node.get_node_names()
        graph.stop(process)
    assert "camera closed" in process.output()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "which nodes? Give some of planner"),
        (["plannr"], "did you mean planner?"),
        (["scene", "scene"], "scene is named twice"),
        (["scene", "--ros-args", "-p", "scen:seed:=3"], "'scen' is not started: did you"),
        (["scene", "--ros-args", "-r", "__ns:=/lab", "-p", "scene:seed:=3"], "/NAMESPACE/scene:"),
    ],
)
def test_what_cannot_be_composed_is_named(names, words):
    command = [sys.executable, "-m", "lewm_ros.composed", *names]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and words in run.stderr and len(run.stderr.splitlines()) == 1
