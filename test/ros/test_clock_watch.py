"""Whether ROS time goes on, and whether somebody sets it."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")

from lewm_ros.planner.clock_watch import ClockWatch  # noqa: E402

SECOND_NS = 1_000_000_000


def look(watch: ClockWatch, ros_s: float, steady_s: float, took_s: float = 0.0):
    return watch.look(round(ros_s * SECOND_NS), steady_s - took_s, steady_s)


def test_a_clock_that_stands_still_is_told_with_its_time():
    watch = ClockWatch(True, 0.0)
    assert look(watch, 5.0, 0.0) == (0.0, 0.0)
    assert look(watch, 5.0, 0.7) == (pytest.approx(0.7), 0.0)
    assert look(watch, 5.1, 0.8) == (0.0, 0.0)


@pytest.mark.parametrize("step_s", [-5.0, 3600.0])
def test_a_system_clock_that_is_set_is_told_once(step_s):
    watch = ClockWatch(False, 0.0)
    assert look(watch, 1000.0, 0.0)[1] == look(watch, 1000.1, 0.1)[1] == 0.0
    assert look(watch, 1000.2 + step_s, 0.2)[1] == pytest.approx(step_s)
    assert look(watch, 1000.3 + step_s, 0.3)[1] == 0.0


def test_a_clock_that_is_corrected_a_little_is_not_set():
    watch = ClockWatch(False, 0.0)
    steps = [look(watch, 1000.0 + 0.105 * n, 0.1 * n)[1] for n in range(20)]
    assert set(steps) == {0.0}


def test_an_interruption_between_the_two_clocks_is_no_step():
    watch = ClockWatch(False, 0.0)
    look(watch, 1000.0, 0.0)
    assert look(watch, 1000.1, 0.6, took_s=0.5)[1] == 0.0
    assert look(watch, 1000.7, 0.7)[1] == 0.0


def test_simulated_time_may_run_at_any_speed():
    watch = ClockWatch(True, 0.0)
    assert [look(watch, 1.0 + 10.0 * n, 0.1 * n)[1] for n in range(5)] == [0.0] * 5
