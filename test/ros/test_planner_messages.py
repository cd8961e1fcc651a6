"""Between messages and numbers: commands of several types, pictures raw and compressed."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from lewm_core.data import Contract, load_contract  # noqa: E402
from lewm_core.errors import ContractError, ImageError  # noqa: E402
from lewm_ros.codecs import encode_compressed, encode_image, stamp_to_ns  # noqa: E402
from lewm_ros.command_messages import CommandWriter, message_class  # noqa: E402
from lewm_ros.planner.goals import (
    goal_from_file,
    goal_from_messages,
    picture_from_message,
)  # noqa: E402
from lewm_ros.planner.messages import action_plan, imagination  # noqa: E402
from lewm_ros.planner.status import PlannerReport, as_float32  # noqa: E402

CAMERA = load_contract("push_t").camera
PICTURE = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)


def contract_with(message: str, selectors: list[str], clock: str = "receive") -> Contract:
    values = load_contract("push_t").to_dict()
    values["action"].update(message=message, clock=clock)
    for field, selector in zip(values["action"]["fields"], selectors, strict=True):
        field["selector"] = selector
    return Contract.from_dict(values)


def test_a_stamped_twist_carries_stamp_frame_and_values():
    message = CommandWriter(load_contract("push_t")).write(np.array([0.1, -0.05]), 1_500_000_000)
    assert stamp_to_ns(message.header.stamp) == 1_500_000_000
    assert message.header.frame_id == "board"
    assert (message.twist.linear.x, message.twist.linear.y) == (0.1, -0.05)


def test_arrays_and_nested_lists_of_messages_are_filled():
    array = contract_with("std_msgs/msg/Float64MultiArray", ["data[0]", "data[2]"])
    assert list(CommandWriter(array).write(np.array([0.1, -0.05]), 0).data) == [0.1, 0.0, -0.05]
    selectors = ["points[0].positions[0]", "points[0].positions[1]"]
    trajectory = contract_with("trajectory_msgs/msg/JointTrajectory", selectors)
    message = CommandWriter(trajectory).write(np.array([0.1, -0.05]), 0)
    assert list(message.points[0].positions) == [0.1, -0.05]


def test_a_message_type_that_is_not_installed_is_named():
    with pytest.raises(ContractError, match="no_such_msgs/msg/Thing is not installed"):
        message_class("no_such_msgs/msg/Thing")


def test_raw_and_compressed_pictures_become_the_same_tensor():
    raw = picture_from_message(encode_image(PICTURE), CAMERA, 64)
    packed = picture_from_message(encode_compressed(PICTURE, file_format="png"), CAMERA, 64)
    assert raw.shape == (3, 64, 64) and raw.dtype == np.uint8 and raw.std() > 1.0
    np.testing.assert_array_equal(raw, packed)


def test_broken_pictures_are_errors_of_one_line():
    broken = encode_compressed(PICTURE)
    broken.data = broken.data[:100]
    short = encode_image(PICTURE)
    short.data = short.data[:-10]
    small = encode_image(PICTURE[:100])
    for message, words in ((broken, "picture"), (short, "too few"), (small, "224x100")):
        with pytest.raises(ImageError, match=words) as caught:
            goal_from_messages([message], [CAMERA], 64)
        assert "\n" not in str(caught.value)


def test_a_trajectory_says_whose_numbers_it_holds_and_by_when():
    contract = load_contract("cube")
    message = CommandWriter(contract).write(np.array([0.1, 0.2, 0.3, 0.4, 5.0]), 1_000_000_000)
    assert message.joint_names == contract.action_names
    (point,) = message.points
    assert list(point.velocities) == [0.1, 0.2, 0.3, 0.4, 5.0]
    # Until half a period after the next is due; one that stops the robot ends when it is due.
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 75_000_000)
    assert stamp_to_ns(message.header.stamp) == 1_000_000_000
    (point,) = CommandWriter(contract).write(np.zeros(5), 1_000_000_000).points
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)


def test_a_goal_has_a_picture_of_every_camera():
    wrist = CAMERA.model_copy(update={"name": "wrist"})
    goal = goal_from_messages(
        [encode_image(PICTURE), encode_image(PICTURE[::-1].copy())], [CAMERA, wrist], 64
    )
    one = picture_from_message(encode_image(PICTURE), CAMERA, 64)
    assert goal.shape == (6, 64, 64)
    np.testing.assert_array_equal(goal[:3], one)
    assert not np.array_equal(goal[3:], one)
    with pytest.raises(ImageError, match=f"has 1 pictures: give one of each .* {CAMERA.name}, wri"):
        goal_from_messages([encode_image(PICTURE)], [CAMERA, wrist], 64)


def test_a_goal_of_several_cameras_is_read_from_a_file_of_each(tmp_path):
    wrist = CAMERA.model_copy(update={"name": "wrist"})
    for name, picture in ((CAMERA.name, PICTURE), ("wrist", PICTURE[::-1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    goal = goal_from_file(tmp_path / "{camera}.png", [CAMERA, wrist], 64)
    sent = goal_from_messages(
        [encode_image(PICTURE), encode_image(PICTURE[::-1].copy())], [CAMERA, wrist], 64
    )
    np.testing.assert_array_equal(goal, sent)
    with pytest.raises(ImageError, match="is one file, the model sees 2 cameras"):
        goal_from_file(tmp_path / "wrist.png", [CAMERA, wrist], 64)
    with pytest.raises(ImageError, match="wrist2.png is not a file"):
        goal_from_file(tmp_path / "{camera}2.png", [wrist, CAMERA], 64)


def test_a_plan_says_when_its_first_action_is_due_and_from_which_picture():
    plan = action_plan(
        load_contract("push_t"), np.array([[0.1, 0.2], [0.3, 0.4]]), 2_000_000_000,
        1_000_000_000, 1e300, [3.0, 2.0],
    )
    assert plan.steps == 2 and plan.names == ["velocity_x", "velocity_y"]
    assert list(plan.actions) == [0.1, 0.2, 0.3, 0.4] and plan.units == ["m/s", "m/s"]
    assert stamp_to_ns(plan.header.stamp) == 2_000_000_000
    assert stamp_to_ns(plan.image_stamp) == 1_000_000_000
    assert plan.cost == np.inf and plan.control_period == pytest.approx(0.1)


def test_numbers_too_large_for_a_report_become_infinity():
    assert as_float32(1e300) == np.inf and as_float32(-1e300) == -np.inf
    assert np.isnan(as_float32(np.nan))
    report = PlannerReport(goal_distance=1e300)
    report.plan_times.add(0.25)
    message = report.message(5)
    assert message.goal_distance == np.inf and message.plan_time_p50 == 0.25
    values = {pair.key: pair.value for pair in report.diagnostics(5, "p", "cpu").status[0].values}
    assert values["plan_time_p99_s"] == "0.25" and values["command_jitter_p50_s"] == "nan"


def test_imagination_shows_picture_and_goal_side_by_side():
    newest = np.full((3, 64, 64), 200, np.uint8)
    message = imagination(newest, None, "caption", 7)
    assert (message.width, message.height, message.encoding) == (448, 248, "rgb8")
    pixels = np.frombuffer(message.data, np.uint8).reshape(248, 448, 3)
    assert (pixels[:224, :224] == 200).all() and (pixels[:224, 224:] == 0).all()
    assert pixels[224:].max() == 255, "there is no caption"
