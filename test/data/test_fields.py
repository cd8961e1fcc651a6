"""Field selectors on rosbags messages and on rclpy messages."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import add_type, make_message, make_typestore, type_name_of
from lewm_core.errors import BagError, ContractError

CASES = [
    ("geometry_msgs/msg/TwistStamped", "twist.linear.x"),
    ("geometry_msgs/msg/Twist", "angular.z"),
    ("std_msgs/msg/Float64MultiArray", "data[0]"),
    ("std_msgs/msg/Float32MultiArray", "data[3]"),
    ("sensor_msgs/msg/JointState", "position[4]"),
    ("trajectory_msgs/msg/JointTrajectory", "points[1].positions[2]"),
    ("geometry_msgs/msg/PoseWithCovarianceStamped", "pose.covariance[35]"),
    ("std_msgs/msg/Int32", "data"),
]


def ros_message(type_name: str) -> Any:
    package, _, name = type_name.split("/")
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError as error:
        pytest.skip(f"ROS messages are not installed: {error}")
    return getattr(module, name)()


@pytest.mark.parametrize(("type_name", "text"), CASES)
def test_set_then_get_on_a_rosbags_message(type_name: str, text: str) -> None:
    selector = FieldSelector.parse(text)
    selector.check(type_name)
    message = make_message(type_name)
    selector.set(message, 3.0)
    assert selector.get(message) == 3.0
    assert type_name_of(message) == type_name
    # It must still be a message: the bytes go round.
    store = make_typestore()
    again = store.deserialize_cdr(store.serialize_cdr(message, type_name), type_name)
    assert selector.get(again) == 3.0
    selector.set(again, 4.0)
    assert selector.get(again) == 4.0, "decoded arrays are read-only and must be replaced"


@pytest.mark.parametrize(("type_name", "text"), CASES)
def test_set_then_get_on_an_rclpy_message(type_name: str, text: str) -> None:
    selector = FieldSelector.parse(text)
    message = ros_message(type_name)
    assert type_name_of(message) == type_name
    selector.set(message, 3.0, make=ros_message)
    selector.set(message, 5.0, make=ros_message)
    assert selector.get(message) == 5.0


def test_lists_grow_with_zeros() -> None:
    message = make_message("sensor_msgs/msg/JointState")
    FieldSelector.parse("position[2]").set(message, 7.0)
    np.testing.assert_array_equal(message.position, [0.0, 0.0, 7.0])


def test_reading_beyond_a_list_says_which_selector() -> None:
    message = make_message("sensor_msgs/msg/JointState")
    with pytest.raises(LookupError, match=r"'position\[2\]' is not in the message"):
        FieldSelector.parse("position[2]").get(message)


@pytest.mark.parametrize("text", ["", "a b", "a.[0]", "data[-1]", "data[x]", "data[0][1]", ".a"])
def test_text_that_is_no_selector(text: str) -> None:
    with pytest.raises(ContractError, match="not understood"):
        FieldSelector.parse(text)


def test_an_index_out_of_a_fixed_array() -> None:
    with pytest.raises(ContractError, match=r"has 36 elements, so its last is \[35\]"):
        FieldSelector.parse("pose.covariance[36]").check(
            "geometry_msgs/msg/PoseWithCovarianceStamped"
        )


def test_definitions_of_this_package_are_known() -> None:
    FieldSelector.parse("actions[3]").check("lewm_ros/msg/ActionPlan")
    assert make_message("lewm_ros/msg/EpisodeEvent").seed == 0


def test_definitions_of_installed_packages_are_found(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "share" / "my_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Inner.msg").write_text("float64 value\n")
    (folder / "Outer.msg").write_text("std_msgs/Header header\nInner[] inner\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    store = make_typestore()
    add_type(store, "my_msgs/msg/Outer")
    FieldSelector.parse("inner[2].value").check("my_msgs/msg/Outer", store)
    with pytest.raises(BagError, match="my_msgs/msg/Other is not known"):
        add_type(store, "my_msgs/msg/Other")
