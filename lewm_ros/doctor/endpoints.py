"""Who publishes and subscribes a topic, and whether the two sides fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.endpoints import incompatibility, owner, owners, policies


def judge_publishers(
    check: str, topic: str, message: str, asked: QoSProfile, publishers: Sequence[Any],
    elsewhere: Sequence[str],
) -> list[Finding]:
    """Judge who publishes a topic that the planner subscribes: there, type, quality of service.

    Args:
        check: Subject, such as ``camera top``.
        topic: Its name.
        message: The contract's type.
        asked: What the planner asks for.
        publishers: Endpoints of the topic.
        elsewhere: Other topics of this type, for a hint.
    """
    name = f"{check}: publisher"
    if not publishers:
        near = f"; topics of this type: {', '.join(elsewhere)}" if elsewhere else ""
        return [
            fail(
                name, f"nobody publishes {topic}",
                "start it, or mend the topic's name (contract, or a remapping -r FROM:=TO)" + near,
            )
        ]
    findings = _judge_types(name, topic, message, publishers, "published")
    fitting = [info for info in publishers if info.topic_type == message]
    if not fitting:
        return findings
    if len(fitting) > 1:
        findings.append(
            warning(
                name, f"{len(fitting)} publishers of {topic}: {owners(fitting)}",
                "stop all but one: their messages are taken for one stream",
            )
        )
    for info in fitting:
        reason = incompatibility(info.qos_profile, asked)
        sides = (
            f"{owner(info)} offers {policies(info.qos_profile)}, the planner asks for "
            f"{policies(asked)}"
        )
        if reason:
            findings.append(
                fail(
                    f"{check}: QoS", f"{sides} on {topic}: no message gets through "
                    f"({reason})",
                    "set the publisher's reliability and durability to what is asked for",
                )
            )
        else:
            findings.append(ok(f"{check}: QoS", sides))
    return findings


def judge_subscribers(
    topic: str, message: str, offered: QoSProfile, subscribers: Sequence[Any]
) -> list[Finding]:
    """Judge who takes the commands: somebody who is no recorder, of this type and fitting QoS.

    Args:
        topic: The command topic.
        message: The contract's type.
        offered: What the planner offers.
        subscribers: Endpoints of the topic.
    """
    name = "commands: subscriber"
    robots = [info for info in subscribers if not _records(info)]
    if not robots:
        recorders = f"; only recorders listen: {owners(subscribers)}" if subscribers else ""
        return [
            fail(
                name, f"nobody listens on {topic}{recorders}",
                "start the robot's controller, or mend the topic's name (contract, or a remapping "
                "-r FROM:=TO)",
            )
        ]
    findings = _judge_types(name, topic, message, robots, "subscribed")
    for info in robots:
        if info.topic_type != message:
            continue
        findings.append(ok(name, f"{owner(info)} takes {message} on {topic}"))
        reason = incompatibility(offered, info.qos_profile)
        sides = (
            f"the planner offers {policies(offered)}, {owner(info)} asks for "
            f"{policies(info.qos_profile)}"
        )
        if reason:
            findings.append(
                fail(
                    "commands: QoS", f"{sides} on {topic}: no command gets through "
                    f"({reason})",
                    "let the robot's side ask for reliable or best effort, and volatile",
                )
            )
        else:
            findings.append(ok("commands: QoS", sides))
    return findings


def judge_other_drivers(topic: str, publishers: Sequence[Any], planner: str) -> list[Finding]:
    """Warn of publishers of the command topic besides the planner: two drivers of one robot."""
    others = [info for info in publishers if owner(info) != planner]
    if not others:
        return [ok("commands: other publishers", f"none on {topic} besides the planner")]
    return [
        warning(
            "commands: other publishers", f"{owners(others)} also publishes {topic}",
            "stop it before the planner drives, or let a multiplexer such as twist_mux choose: "
            "two drivers of one robot disturb each other",
        )
    ]


def topics_of_type(node: Node, message: str, besides: str) -> list[str]:
    """Return the other topics of a type that somebody publishes."""
    return sorted(
        topic
        for topic, types in node.get_topic_names_and_types()
        if message in types and topic != besides and node.count_publishers(topic) > 0
    )


def _judge_types(
    name: str, topic: str, message: str, infos: Sequence[Any], verb: str
) -> list[Finding]:
    return [
        fail(
            name, f"{topic} is {verb} by {owner(info)} as {info.topic_type}, the contract says "
            f"{message}",
            "mend the contract's message, or the node's topic",
        )
        for info in infos
        if info.topic_type != message
    ]


def _records(info: Any) -> bool:
    """Whether an endpoint is a recorder's (ours, or rosbag2's): it moves nothing."""
    return info.node_name.startswith(("record_dataset", "rosbag2_recorder"))
