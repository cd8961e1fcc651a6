"""Which ROS domain a test, demo or benchmark takes for itself."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")

from lewm_ros.processes import domain_in_use, isolated_environment  # noqa: E402


def test_a_domain_is_in_use_while_a_node_is_in_it(graph):
    assert domain_in_use(graph.domain)
    chosen = {int(isolated_environment()["ROS_DOMAIN_ID"]) for _ in range(300)}
    assert graph.domain not in chosen and len(chosen) > 50
