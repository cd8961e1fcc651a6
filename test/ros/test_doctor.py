"""The doctor as a process over DDS: all well, and one line with the mend for each fault."""

import json
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from geometry_msgs.msg import TwistStamped  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

from lewm_core.data import Contract, load_contract, save_contract  # noqa: E402
from lewm_core.model.config import InputsConfig  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_image, ns_to_stamp  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.processes import NodeProcess  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.conftest import Graph, _free_domain  # noqa: E402
from test.ros.planner_driver import SMALL, make_checkpoint  # noqa: E402

RATE_S = 0.05


class Robot:
    """Pictures of noise at 20 Hz, stamped with the system's time, until `stop`.

    Attributes:
        size: (width, height), px.
        stamp_offset_s: Added to the stamps.
        frozen: Whether every picture is the first one.
        also: Called with every stamp, ns.
    """

    def __init__(self, node, topic="/camera/image_raw"):
        self.size, self.stamp_offset_s, self.frozen = (224, 224), 0.0, False
        self.also = lambda stamp_ns: None
        self._publisher = node.create_publisher(Image, topic, qos.CAMERA_SENSOR_DATA)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._stream, daemon=True)
        self._thread.start()

    def stop(self):
        self._ended.set()
        self._thread.join(5.0)

    def _stream(self):
        random = np.random.default_rng(0)
        first = random.integers(0, 256, (224, 224, 3), np.uint8)
        while not self._ended.wait(RATE_S):
            width, height = self.size
            noise = random.integers(0, 256, (height, width, 3), np.uint8)
            stamp_ns = time.time_ns() + round(self.stamp_offset_s * 1e9)
            self._publisher.publish(encode_image(first if self.frozen else noise, stamp_ns))
            self.also(stamp_ns)


def start_doctor(graph, parameters):
    """Start it; a short look is enough here."""
    log = graph.folder / "doctor.log"
    defaults = {"seconds": 1.0, "wait": 4.0, "json": graph.folder / "doctor.json"}
    return NodeProcess("doctor", {**defaults, **parameters}, graph.environment, log)


def finish(graph, process):
    """Wait for the doctor's end: exit status, findings, all it printed."""
    status = process.wait(60.0)
    output = process.output()
    report = json.loads((graph.folder / "doctor.json").read_text())
    assert report["passed"] == (status == 0) == (report["failures"] == 0), output
    assert "Traceback" not in output and "this check broke" not in output, output
    return status, report["checks"], output


def failures(checks):
    """What failed, by check: found and mend."""
    return {
        check["check"]: f"{check['found']}; {check['mend']}"
        for check in checks
        if check["level"] == "FAIL"
    }


def levels(checks):
    return {check["check"]: check["level"] for check in checks}


def test_with_the_scene_running_all_is_well(graph):
    # Not configured: the doctor says so, and nothing is wrong with it.
    graph.start("planner", {"use_sim_time": True}, ready="")
    graph.start("scene")
    reports = graph.collect(PlanStatus, "/planner/status", qos.STATUS)
    graph.wait(lambda: reports, "the planner does not report")
    parameters = {
        "use_sim_time": True, "checkpoint": "push_t-nano", "contract": "push_t",
        "out": graph.folder, "minimum_free_gib": 0.001,
    }  # fmt: skip
    with start_doctor(graph, parameters) as process:
        status, checks, output = finish(graph, process)
    assert status == 0, output
    assert output.strip().splitlines()[-1].endswith("nothing failed")
    found = {check["check"]: check for check in checks}
    assert found["planner"]["found"] == "/planner is unconfigured, INACTIVE: not configured"
    assert found["clock"]["level"] == "ok" and found["camera top: size"]["level"] == "ok"
    assert found["commands: subscriber"]["found"].startswith("/scene takes geometry_msgs/msg/Twist")
    assert abs(found["camera top: rate"]["measured"]["rate_hz"] - 10.0) < 0.5
    expected = 224 * 224 * 3 * 10
    assert 0.5 < found["disk"]["measured"]["camera_bytes_per_second"] / expected < 1.5
    assert found["checkpoint: lewm-check"]["found"] == "can plan"


def late_and_alone(graph, robot):
    """Pictures of another size and of 2 s ago, a camera that is not there, nobody to command."""
    values = load_contract("push_t").to_dict()
    values["cameras"].append({**values["cameras"][0], "name": "wrist", "topic": "/wrist/image"})
    save_contract(Contract.from_dict(values), graph.folder / "two.yaml")
    robot.size, robot.stamp_offset_s = (160, 120), -2.0
    return {"contract": graph.folder / "two.yaml"}


def still_and_latched(graph, robot):
    """A clock that stands still, a robot that asks for latched commands, a second driver."""
    clock = graph.node.create_publisher(Clock, "/clock", qos.CLOCK_PUBLISHER)
    robot.also = lambda stamp_ns: clock.publish(Clock(clock=ns_to_stamp(10**10)))
    # A latched command is nothing that the planner offers.
    graph.collect(TwistStamped, "/command", qos.STATUS)
    graph.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
    return {"contract": "push_t", "use_sim_time": True}


def frozen_and_unheard(graph, robot):
    """A frozen camera, a state that the model is given and cannot get, commands of another type."""
    config = SMALL.model_copy(update={"inputs": InputsConfig(state=("agent_x", "agent_y"))})
    checkpoint = make_checkpoint(graph.folder / "state", config=config)
    state = graph.node.create_publisher(JointState, "/scene/state", qos.CAMERA_SENSOR_DATA)

    def send_state(stamp_ns):
        message = JointState(position=[0.0] * 5)
        message.header.stamp = ns_to_stamp(stamp_ns)
        state.publish(message)

    robot.also, robot.frozen = send_state, True
    graph.collect(JointState, "/command", qos.COMMAND)
    return {"checkpoint": checkpoint}


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """What the doctor says of each, on a domain of its own; at once, since it mostly imports."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        runs = {}
        for fault in (late_and_alone, still_and_latched, frozen_and_unheard):
            domain, lock = _free_domain()
            stack.callback(lock.close)
            graph = Graph(domain, tmp_path_factory.mktemp(fault.__name__))
            stack.callback(graph.close)
            robot = Robot(graph.node)
            stack.callback(robot.stop)
            process = stack.enter_context(start_doctor(graph, fault(graph, robot)))
            runs[fault] = (graph, process)
        yield {fault: finish(*run) for fault, run in runs.items()}


def test_another_size_late_stamps_no_camera_and_nobody_on_the_command_topic(examined):
    status, checks, output = examined[late_and_alone]
    assert status == 1
    failed = failures(checks)
    assert set(failed) == {
        "camera top: size", "camera top: stamps", "camera wrist: publisher", "commands: subscriber",
    }  # fmt: skip
    assert "160x120 px, the contract says 224x224 px" in failed["camera top: size"]
    assert "set the camera to 224x224" in failed["camera top: size"]
    assert "2.0" in failed["camera top: stamps"] and "old on" in failed["camera top: stamps"]
    assert "set the clocks of both machines to the same time" in failed["camera top: stamps"]
    assert "nobody publishes /wrist/image;" in failed["camera wrist: publisher"]
    assert "topics of this type: /camera/image_raw" in failed["camera wrist: publisher"]
    assert "nobody listens on /command" in failed["commands: subscriber"]
    assert "start the robot's controller" in failed["commands: subscriber"]
    assert sum(line.startswith("FAIL ") for line in output.splitlines()) == 4


def test_a_clock_that_stands_still_and_commands_that_do_not_get_through(examined):
    status, checks, output = examined[still_and_latched]
    assert status == 1
    failed = failures(checks)
    assert set(failed) == {"clock", "commands: QoS"}, output
    assert "ROS time stands still" in failed["clock"] and "/test" in failed["clock"]
    assert "let the simulator run on" in failed["clock"]
    assert "the planner offers reliable, volatile" in failed["commands: QoS"]
    assert "/test asks for reliable, transient local" in failed["commands: QoS"]
    assert levels(checks)["commands: other publishers"] == "warning"
    assert "/test also publishes /command" in output


def test_a_state_that_the_model_is_given_and_a_frozen_camera(examined):
    status, checks, output = examined[frozen_and_unheard]
    assert status == 1
    failed = failures(checks)
    assert set(failed) == {"state scene: QoS", "camera top: content", "commands: subscriber"}
    assert "as sensor_msgs/msg/JointState, the contract says geometry_msgs/msg/TwistStamped" in (
        failed["commands: subscriber"]
    )
    assert "/test offers best effort, volatile" in failed["state scene: QoS"]
    assert "the planner asks for reliable, volatile" in failed["state scene: QoS"]
    assert "frozen" in failed["camera top: content"]
    # What is measured does not depend on the QoS that fails.
    assert levels(checks)["state scene: rate"] == "ok", output
    assert levels(checks)["checkpoint: lewm-check"] == "warning"


def test_an_interrupted_doctor_and_a_misspelt_parameter_end_with_one_line(graph):
    with start_doctor(graph, {"contract": "push_tt", "wait": 60.0, "seconds": 60.0}) as process:
        assert "did you mean contract?" in graph.refuse("doctor", {"contrac": "push_t"})
        wait_until(lambda: "FAIL" in process.output(), 40.0, "no check is done")
        assert process.stop() == 1
        output = process.output()
    assert "there is no contract 'push_tt'" in output and "did you mean 'push_t'" in output
    assert "error: the doctor was interrupted" in output
