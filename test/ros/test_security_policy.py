"""The SROS 2 policy allows what the running nodes have, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("lewm_ros.msg", reason="the interfaces are not built")

from rclpy.action import (  # noqa: E402
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

from lewm_core.paths import find_shared  # noqa: E402

#: By what is done with a name (such as "topics publish"): the names.
Rules = dict[str, set[str]]

#: Started with simulated time each, as the launch files do.
NODES = ("scene", "record_dataset", "planner", "expert")


def policy_rules() -> dict[str, Rules]:
    """Return the rules of the policy by the node's name."""
    root = ElementTree.parse(find_shared("config/sros2/policy.xml")).getroot()
    found: dict[str, Rules] = {}
    for context in root.iterfind("contexts/context"):
        for profile in context.iterfind("profiles/profile"):
            name = profile.attrib["node"]
            assert profile.attrib["ns"] == "/"
            assert context.attrib["path"] == f"/{name}"
            rules = found.setdefault(name, defaultdict(set))
            for group in profile:
                for action, verdict in group.attrib.items():
                    assert verdict == "ALLOW"
                    names = [str(entry.text) for entry in group]
                    assert len(set(names)) == len(names), f"{name}: a name is there twice"
                    rules[f"{group.tag} {action}"] |= set(names)
    return found


def graph_rules(node, name: str) -> Rules:
    """Return what a running node has, as seen by another one over DDS."""

    def names(pairs) -> set[str]:
        # Those of an action come with the action.
        return {entry for entry, _ in pairs if "/_action/" not in entry}

    return {
        "topics publish": names(node.get_publisher_names_and_types_by_node(name, "/")),
        "topics subscribe": names(node.get_subscriber_names_and_types_by_node(name, "/")),
        "services reply": names(node.get_service_names_and_types_by_node(name, "/")),
        "services request": names(node.get_client_names_and_types_by_node(name, "/")),
        "actions execute": names(get_action_server_names_and_types_by_node(node, name, "/")),
        "actions call": names(get_action_client_names_and_types_by_node(node, name, "/")),
    }


def test_the_policy_is_what_the_nodes_have(graph):
    """Endpoints of all four nodes, each of them doing what it is for."""
    simulated = {"use_sim_time": True}
    graph.start("scene", {"seed": 1, **simulated})
    out = str(graph.folder / "data")
    graph.start("record_dataset", {"out": out, "follow_events": True, **simulated})
    graph.start(
        "planner",
        {"checkpoint": "push_t-nano", "planner": "fast", "autostart": True, **simulated},
        ready="active",
    )
    graph.start("expert", {"steps": 100_000, "recorder": "record_dataset", **simulated})
    expected = policy_rules()
    seen: dict[str, Rules] = {}

    def agree() -> bool:
        for name in NODES:
            try:
                seen[name] = graph_rules(graph.node, name)
            except Exception as error:
                # Not discovered yet.
                assert type(error).__name__ == "NodeNameNonExistentError"
                return False
        return all(
            seen[name] == {key: expected[name].get(key, set()) for key in seen[name]}
            for name in NODES
        )

    try:
        graph.wait(agree, "policy and nodes differ", 30.0)
    except AssertionError:
        for name in NODES:
            for key, found in seen.get(name, {}).items():
                allowed = expected[name].get(key, set())
                assert found == allowed, f"{name}: {key}: only the node, only the policy: " + (
                    f"{sorted(found - allowed)}, {sorted(allowed - found)}"
                )
        raise


def test_an_operator_may_call_what_there_is():
    rules = policy_rules()
    offered = {
        kind: set().union(*(rules[name].get(kind, set()) for name in NODES))
        for kind in ("services reply", "actions execute", "topics publish")
    }
    operator = rules["operator"]
    assert operator["services request"] <= offered["services reply"]
    assert operator["actions call"] <= offered["actions execute"]
    # Reports, but no command: only the planner and the expert drive.
    assert operator["topics subscribe"] <= offered["topics publish"] | {"/clock"}
    assert "/command" not in operator["topics publish"]


def test_a_node_asked_to_be_secure_is_not_started_in_the_open(graph):
    """Without the security plugins (the wheels of PyPI have none) it does not come up at all."""
    enclave = graph.folder / "keystore" / "enclaves"
    enclave.mkdir(parents=True)
    files = ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem",
             "governance.p7s", "permissions.p7s")  # fmt: skip
    for name in files:
        # No keys: a build with the plugins refuses them, one without refuses before it looks.
        (enclave / name).write_text("nothing")
    graph.environment.update(
        ROS_SECURITY_KEYSTORE=str(enclave.parent),
        ROS_SECURITY_ENABLE="true",
        ROS_SECURITY_STRATEGY="Enforce",
    )
    assert graph.refuse("planner", {"checkpoint": "push_t-nano"}).startswith("error: ")
