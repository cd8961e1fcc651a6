"""A checkpoint that is given two cameras and the robot's own state, over real DDS."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image, JointState  # noqa: E402

from lewm_core.data import Contract, load_contract  # noqa: E402
from lewm_core.model.config import InputsConfig  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.action import ReachGoal  # noqa: E402
from lewm_ros.codecs import encode_image, ns_to_stamp  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.srv import SetGoal  # noqa: E402
from test.ros.planner_driver import SMALL, make_checkpoint, picture_of, running_planner  # noqa: E402

GOAL, WRIST_GOAL = picture_of(0.2, 0.8), picture_of(0.6, 0.3)


def two_cameras() -> Contract:
    values = load_contract("push_t").to_dict()
    wrist = {**values["cameras"][0], "name": "wrist", "topic": "/wrist/image_raw"}
    values["cameras"].append(wrist)
    return Contract.from_dict(values)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planner")
    contract = two_cameras()
    names = tuple(camera.name for camera in contract.cameras)
    inputs = InputsConfig(cameras=names, state=("agent_x", "agent_y"))
    config = SMALL.model_copy(update={"inputs": inputs})
    checkpoint = make_checkpoint(folder / "two", config=config, contract=contract)
    with running_planner(folder, checkpoint=checkpoint) as driver:
        wrist = driver.node.create_publisher(Image, "/wrist/image_raw", qos.CAMERA_SENSOR_DATA)
        state = driver.node.create_publisher(JointState, "/scene/state", qos.STATE)

        def send_wrist(picture, stamp_ns):
            wrist.publish(encode_image(picture[::-1].copy(), stamp_ns))

        def send_state(picture, stamp_ns):
            message = JointState(position=[0.01, -0.02, 0.0, 0.0, 0.0])
            message.header.stamp = ns_to_stamp(stamp_ns)
            state.publish(message)

        driver.send_wrist, driver.send_state = send_wrist, send_state
        driver.streaming = True
        yield driver


def ask(driver, *pictures, path: str = "") -> SetGoal.Response:
    images = [encode_image(picture) for picture in pictures]
    request = SetGoal.Request(path=path, tolerance=1e-9)
    if images:
        request.image, request.further_images = images[0], images[1:]
    return driver.call(driver.set_goal_client, request)


def test_it_drives_while_all_of_it_comes_and_holds_while_one_is_missing(driver):
    driver.companions = [driver.send_wrist, driver.send_state]
    assert ask(driver, GOAL, WRIST_GOAL).success
    driver.wait_motion()
    driver.wait_status(PlanStatus.PLANNING)

    driver.companions = [driver.send_state]
    driver.wait_status(PlanStatus.WAITING, "the newest picture on /wrist/image_raw is")
    assert all(seen.holds for seen in driver.wait_commands(3))

    driver.companions = [driver.send_wrist, driver.send_state]
    driver.wait_status(PlanStatus.PLANNING)
    driver.wait_motion()

    driver.companions = [driver.send_wrist]
    driver.wait_status(PlanStatus.WAITING, "the newest state on /scene/state is")
    assert all(seen.holds for seen in driver.wait_commands(3))


def test_a_goal_needs_a_picture_of_each_camera(driver, tmp_path):
    import cv2

    answer = ask(driver, GOAL)
    assert not answer.success and "give one of each camera of the model, " in answer.message
    for name, picture in zip(("top", "wrist"), (GOAL, WRIST_GOAL), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.ascontiguousarray(picture[..., ::-1]))
    assert ask(driver, path=str(tmp_path / "{camera}.png")).success
    answer = ask(driver, path=str(tmp_path / "top.png"))
    assert not answer.success and "{camera}" in answer.message


def test_goals_of_the_action_come_camera_after_camera(driver):
    driver.companions = [driver.send_wrist, driver.send_state]
    driver.wait_status(PlanStatus.PLANNING)
    handle = driver.send_goal([GOAL, WRIST_GOAL, WRIST_GOAL, GOAL], tolerance=1e9)
    result = driver.result_of(handle)
    assert (result.reason, result.goals_reached) == (ReachGoal.Result.REACHED, 2)
    handle = driver.send_goal([GOAL, WRIST_GOAL, GOAL], tolerance=1e9)
    result = driver.result_of(handle)
    assert result.reason == ReachGoal.Result.INVALID_GOAL
    assert "goals has 3 pictures, but the model sees 2 cameras" in result.message
