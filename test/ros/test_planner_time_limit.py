"""How long a search may take in the node."""

import pytest

pytest.importorskip("rclpy")

from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import picture_of, running_planner  # noqa: E402

#: All rounds would take many times the replanning period.
ENDLESS = """
solver: {kind: cem, candidates: 100, rounds: 20000, elites: 10, horizon: 5}
controller: {execute_blocks: 2, time_limit: auto}
"""


def test_an_automatic_limit_makes_plans_in_time_at_the_rate_of_the_moment(tmp_path):
    preset = tmp_path / "endless.yaml"
    preset.write_text(ENDLESS)
    with running_planner(tmp_path, planner=preset, replan_rate=2.0) as driver:
        driver.streaming = True
        assert driver.set_goal(picture_of(0.2, 0.8), tolerance=1e-9).success
        driver.wait_motion()
        wait_until(lambda: driver.status.plans >= 3, 20.0, "no plans at 2 Hz")
        slow = driver.status.plan_time
        assert driver.set_parameter("replan_rate", 5.0) == ""
        plans = driver.status.plans
        wait_until(lambda: driver.status.plans >= plans + 3, 20.0, "no plans at 5 Hz")
        fast = driver.status.plan_time
    print(f"\nplan: {slow:.3f} s at 2 Hz, {fast:.3f} s at 5 Hz")
    # Seven tenths of the period; a busy machine may stretch the round that is under way.
    assert 0.2 < slow < 0.5
    assert 0.07 < fast < 0.25
