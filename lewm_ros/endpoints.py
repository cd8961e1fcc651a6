"""Who is at the two ends of a topic, and why they do not hear each other: nobody, type, QoS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

#: No deadline, no lease: as the graph reports them. A profile of our own says 0.
_INFINITE = Duration(nanoseconds=2**63 - 1)

#: What rclpy calls the node of an endpoint that it has only just heard of, or that is no ROS node.
_UNKNOWN = "_NODE_NAME_UNKNOWN_"


def owner(info: Any) -> str:
    """Return the full name of the node that an endpoint belongs to."""
    if _UNKNOWN in (info.node_name, info.node_namespace):
        return "a node that does not tell its name"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def owners(infos: Sequence[Any]) -> str:
    """Return the nodes of these endpoints, for a sentence."""
    return ", ".join(sorted({owner(info) for info in infos}))


def others_than(infos: Sequence[Any], name: str) -> list[Any]:
    """Return these endpoints without one of a node; a second node of its name is another one.

    Args:
        infos: Endpoints of a topic.
        name: Full name of the node.
    """
    others = list(infos)
    own = next((info for info in infos if owner(info) == name), None)
    if own is not None:
        others.remove(own)
    return others


def policies(profile: QoSProfile) -> str:
    """Return what decides whether two sides fit: ``reliable, volatile``, and what is unusual."""
    words = [
        profile.reliability.name.lower().replace("_", " "),
        profile.durability.name.lower().replace("_", " "),
    ]
    # Infinite periods come back as about 292 years.
    if 0 < profile.deadline.nanoseconds < 10**18:
        words.append(f"deadline {profile.deadline.nanoseconds * 1e-9:g} s")
    if profile.liveliness.name.startswith("MANUAL"):
        words.append(f"liveliness {profile.liveliness.name.lower().replace('_', ' ')}")
    return ", ".join(words)


def incompatibility(offered: QoSProfile, asked: QoSProfile) -> str:
    """Return why a subscription gets nothing from a publisher; empty if their QoS fits."""
    result, reason = qos_check_compatible(_explicit(offered), _explicit(asked))
    if result != QoSCompatibility.ERROR:
        return ""
    return " ".join(reason.replace("ERROR:", "").split()).rstrip(";.") or "incompatible"


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
    problems = []
    for other in others:
        problem = _other_type(other, "publishes", topic, type_name)
        reason = incompatibility(other.qos_profile, asked)
        if not problem and reason:
            problem = (
                f"the QoS does not fit: {owner(other)} offers {policies(other.qos_profile)}, this "
                f"node asks for {policies(asked)} ({reason})"
            )
        problems.append(problem)
    return problems[0] if all(problems) else ""


def why_nobody_hears(node: Node, topic: str, type_name: str, offered: QoSProfile) -> str:
    """Return why a publisher reaches nobody, a clause.

    Args:
        node: Whose view of the graph is asked.
        topic: Full name.
        type_name: Of the publisher.
        offered: The publisher's profile.
    """
    for other in node.get_subscriptions_info_by_topic(topic):
        problem = _other_type(other, "subscribes", topic, type_name)
        if problem:
            return problem
        reason = incompatibility(offered, other.qos_profile)
        if reason:
            return (
                f"the QoS does not fit: {owner(other)} asks for {policies(other.qos_profile)}, "
                f"this node offers {policies(offered)} ({reason})"
            )
    return f"nobody listens on {topic}"


def _explicit(profile: QoSProfile) -> QoSProfile:
    """Return a profile with its defaults spelt out, to compare it with others'."""
    return QoSProfile(
        reliability=profile.reliability,
        durability=profile.durability,
        liveliness=profile.liveliness,
        history=profile.history,
        depth=profile.depth,
        deadline=profile.deadline if profile.deadline.nanoseconds else _INFINITE,
        liveliness_lease_duration=profile.liveliness_lease_duration
        if profile.liveliness_lease_duration.nanoseconds
        else _INFINITE,
    )


def _other_type(other: Any, verb: str, topic: str, type_name: str) -> str:
    if other.topic_type == type_name:
        return ""
    return (
        f"{owner(other)} {verb} {topic} as {other.topic_type}, this node uses {type_name}: mend "
        "the contract's message or the other node"
    )
