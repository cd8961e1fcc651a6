"""Which ROS domain a test, demo or benchmark takes for itself."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")

from lewm_ros.dds import clean_domain, domain_files, domain_in_use  # noqa: E402
from lewm_ros.processes import isolated_environment  # noqa: E402


def test_a_domain_is_in_use_while_a_node_is_in_it(graph):
    assert domain_in_use(graph.domain)
    chosen = {int(isolated_environment()["ROS_DOMAIN_ID"]) for _ in range(300)}
    assert graph.domain not in chosen and len(chosen) > 50


def test_what_killed_processes_left_of_a_domain_goes_when_nobody_is_in_it(graph):
    mine = domain_files(graph.domain)
    assert mine
    clean_domain(graph.domain)
    assert domain_files(graph.domain) == mine
    free = next(domain for domain in range(101, 120) if not domain_in_use(domain))
    left = Path(f"/dev/shm/fastrtps_port{7400 + 250 * free + 11}")
    left.touch()
    assert domain_files(free) == {left}
    clean_domain(free)
    assert not left.exists()
