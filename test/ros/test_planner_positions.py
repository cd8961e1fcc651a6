"""A robot that takes positions: the planner begins where it stands, and waits until it knows."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from lewm_core.data import Contract, load_contract, save_contract  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import ns_to_stamp  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import (  # noqa: E402
    CONTROL_PERIOD_S,
    make_checkpoint,
    picture_of,
    running_planner,
)

GOAL = picture_of(0.2, 0.8)
COMMANDS, JOINTS = "/arm/joint_trajectory", "/joint_states"
RATE = 0.4  # rad/s
TOLERANCE = 0.15  # rad
STANDS = (1.2, -0.9)


def make_contract() -> Contract:
    values = load_contract("push_t").to_dict()
    values["action"] |= {"topic": COMMANDS, "message": "trajectory_msgs/msg/JointTrajectory"}
    values["action"]["fields"] = [
        {
            "name": name, "selector": f"points[0].positions[{index}]", "unit": "rad",
            "lower": -1.5, "upper": 1.5, "rate_limit": RATE, "hold": "last",
            "measured": f"{name}_measured", "path_tolerance": TOLERANCE,
        }
        for index, name in enumerate(("shoulder", "elbow"))
    ]  # fmt: skip
    values["states"] = [
        {
            "name": "joints", "topic": JOINTS, "message": "sensor_msgs/msg/JointState",
            "fields": [
                {"name": f"{name}_measured", "selector": f"position[{index}]", "unit": "rad"}
                for index, name in enumerate(("shoulder", "elbow"))
            ],
        }
    ]  # fmt: skip
    return Contract.from_dict(values)


def without_measurement(contract: Contract) -> Contract:
    values = contract.to_dict()
    for field in values["action"]["fields"]:
        del field["measured"], field["path_tolerance"]
    return Contract.from_dict(values | {"states": []})


class Arm:
    """Goes at once where it is commanded, and says with every picture where it is.

    Attributes:
        braked: By an emergency stop: it takes no command.
    """

    def __init__(self, driver) -> None:
        self.position, self.commands, self._joints = np.array(STANDS), [], None
        self.braked = False
        self._node = driver.node
        driver.node.create_subscription(JointTrajectory, COMMANDS, self._on_command, qos.COMMAND)
        driver.companions.append(self._on_picture)

    def tell(self) -> None:
        self._joints = self._node.create_publisher(JointState, JOINTS, 10)

    def _on_command(self, command: JointTrajectory) -> None:
        self.commands.append(np.array(command.points[0].positions))
        if not self.braked:
            self.position = self.commands[-1]

    def _on_picture(self, picture: np.ndarray, stamp_ns: int) -> None:
        if self._joints is not None:
            message = JointState(position=self.position.tolist())
            message.header.stamp = ns_to_stamp(stamp_ns)
            self._joints.publish(message)


def assert_begins_where_it_stands(arm, stood: np.ndarray) -> None:
    wait_until(lambda: len(arm.commands) >= 8, 20.0, "no commands")
    places = np.array([stood, *arm.commands[:8]])
    assert np.abs(np.diff(places, axis=0)).max() <= RATE * CONTROL_PERIOD_S + 1e-9, places
    assert np.ptp(places) > 0.0


def test_it_begins_where_the_robot_stands_and_waits_until_it_knows(tmp_path):
    contract = make_contract()
    save_contract(contract, tmp_path / "arm.yaml")
    # Trained before anybody wrote where the positions are measured.
    checkpoint = make_checkpoint(tmp_path / "arm", contract=without_measurement(contract))
    with running_planner(tmp_path, checkpoint=checkpoint, autostart=False) as driver:
        arm = Arm(driver)
        driver.streaming = True
        assert not driver.change_state(Transition.TRANSITION_CONFIGURE)
        status = driver.wait_status(PlanStatus.INACTIVE, "shoulder holds at its last position")
        assert "add measured: NAME" in status.reason and "-p contract:=FILE" in status.reason
        assert driver.set_parameter("contract", str(tmp_path / "arm.yaml")) == ""
        assert driver.change_state(Transition.TRANSITION_CONFIGURE), driver.process.output()
        assert driver.change_state(Transition.TRANSITION_ACTIVATE)
        assert driver.set_goal(GOAL, tolerance=1e-9).success
        status = driver.wait_status(
            PlanStatus.WAITING, f"nothing is commanded: {JOINTS} is not heard"
        )
        assert status.reason.endswith(f"nobody publishes {JOINTS}")
        assert arm.commands == []
        arm.tell()
        driver.wait_status(PlanStatus.PLANNING)
        assert_begins_where_it_stands(arm, np.array(STANDS))

        # Activated anew, after somebody else moved it: from there, not from its last command.
        assert driver.change_state(Transition.TRANSITION_DEACTIVATE)
        seen = len(driver.statuses)
        wait_until(lambda: len(driver.statuses) > seen + 2, 10.0, "no reports")
        arm.position, arm.commands = -np.array(STANDS), []
        driver.wait_status(PlanStatus.INACTIVE)
        assert driver.change_state(Transition.TRANSITION_ACTIVATE)
        assert driver.set_goal(GOAL, tolerance=1e-9).success
        assert_begins_where_it_stands(arm, -np.array(STANDS))

        # An emergency stop, and it is moved by hand: it must not jump back when it is released.
        arm.braked = True
        arm.position = arm.position - [0.0, 2.1 * TOLERANCE]
        status = driver.wait_status(PlanStatus.STOPPED, "elbow was sent to")
        assert status.reason.endswith(
            f"(path_tolerance {TOLERANCE:g}); ~/resume lets it begin where it stands"
        )
        told = len(arm.commands)
        seen = len(driver.statuses)
        wait_until(lambda: len(driver.statuses) > seen + 5, 10.0, "no reports")
        assert len(arm.commands) == told, "nothing is published"
        stands = arm.position
        arm.braked, arm.commands = False, []
        assert driver.call(driver.resume_client, Trigger.Request()).success
        assert driver.set_goal(GOAL, tolerance=1e-9).success
        assert_begins_where_it_stands(arm, stands)
