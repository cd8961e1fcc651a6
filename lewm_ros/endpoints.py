"""Why two ends of a topic do not hear each other: nobody there, another type, another QoS."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible


def why_nothing_comes(node: Node, topic: str, type_name: str, asked: QoSProfile) -> str:
    """Return why a subscription gets nothing, a clause; empty if somebody fitting publishes.

    Args:
        node: Whose view of the graph is asked.
        topic: Full name.
        type_name: Of the subscription.
        asked: The subscription's profile.
    """
    others = node.get_publishers_info_by_topic(topic)
    if not others:
        return f"nobody publishes {topic}"
    problems = [
        _other_type(other, "publishes", topic, type_name)
        or _incompatible(other, other.qos_profile, asked, publisher=True)
        for other in others
    ]
    return problems[0] if all(problems) else ""


def why_nobody_hears(node: Node, topic: str, type_name: str, offered: QoSProfile) -> str:
    """Return why a publisher reaches nobody, a clause.

    Args:
        node: Whose view of the graph is asked.
        topic: Full name.
        type_name: Of the publisher.
        offered: The publisher's profile.
    """
    problems = [
        _other_type(other, "subscribes", topic, type_name)
        or _incompatible(other, offered, other.qos_profile, publisher=False)
        for other in node.get_subscriptions_info_by_topic(topic)
    ]
    return next(filter(None, problems), f"nobody listens on {topic}")


def _other_type(other: Any, verb: str, topic: str, type_name: str) -> str:
    if other.topic_type == type_name:
        return ""
    return (
        f"{_name(other)} {verb} {topic} as {other.topic_type}, this node uses {type_name}: mend "
        "the contract's message or the other node"
    )


def _incompatible(
    other: Any, offered: QoSProfile, asked: QoSProfile, *, publisher: bool
) -> str:
    compatibility, reason = qos_check_compatible(offered, asked)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    theirs, ours = (offered, asked) if publisher else (asked, offered)
    verbs = ("offers", "asks for") if publisher else ("asks for", "offers")
    reason = " ".join(reason.split()).rstrip(";").replace("ERROR: ", "")
    return (
        f"the QoS does not fit: {_name(other)} {verbs[0]} {_words(theirs)}, this node {verbs[1]} "
        f"{_words(ours)} ({reason})"
    )


def _name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _words(profile: QoSProfile) -> str:
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"
