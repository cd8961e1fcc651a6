"""One line instead of a traceback where ROS, or a part of it, is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

#: Import names that come with ROS or with the built interfaces of this package.
_ROS_MODULES = (
    "rclpy",
    "lewm_ros",
    "action_msgs",
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "trajectory_msgs",
)


def missing_ros_message(program: str, module: str) -> str:
    """Return the line that a user of ``program`` sees when ``module`` cannot be imported."""
    if module.split(".")[0] == "lewm_ros":
        return (
            f"{program} needs the built interfaces ({module} is missing): run `make setup`, or "
            "`colcon build` in the workspace and source its install/setup.bash"
        )
    return (
        f"{program} needs ROS 2 ({module} is missing): run `make setup`, or source "
        "/opt/ros/$ROS_DISTRO/setup.bash"
    )


def require_ros(program: str) -> None:
    """Leave with one line on stderr and exit status 1 if there is no ``rclpy``.

    Args:
        program: What the user started, for example ``"lewm_ros.planner"``.

    Raises:
        SystemExit: With the line, if ``rclpy`` is missing.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise SystemExit(missing_ros_message(program, "rclpy"))


@contextmanager
def ros_imports(program: str) -> Iterator[None]:
    """Wrap a node module's ROS imports: a missing one is one line and exit status 1.

    Args:
        program: What the user started, for example ``"lewm_ros.planner"``.

    Raises:
        SystemExit: With the line, if a ROS module is missing. Other import errors pass.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or ""
        if module.split(".")[0] not in _ROS_MODULES:
            raise
        raise SystemExit(missing_ros_message(program, module)) from error
