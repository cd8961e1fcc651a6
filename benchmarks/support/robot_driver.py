"""A robot's driver as a process of its own: hands the planner's commands on to its robot.

    python benchmarks/support/robot_driver.py COMMAND_TOPIC ROBOT_TOPIC package/msg/Type
"""

from __future__ import annotations

import sys

import rclpy
from rclpy.executors import ExternalShutdownException

from lewm_ros import qos
from lewm_ros.command_messages import message_class
from lewm_ros.dds import apply_profile


def main() -> None:
    """Hand commands on until the process is ended."""
    source, target, type_name = sys.argv[1:4]
    apply_profile()
    rclpy.init()
    node = rclpy.create_node("robot_driver")
    message_type = message_class(type_name)
    publisher = node.create_publisher(message_type, target, qos.COMMAND)
    node.create_subscription(message_type, source, publisher.publish, qos.COMMAND, raw=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        # How its process is ended.
        return


if __name__ == "__main__":
    main()
