"""The command guard and the stop latch, on their own."""

import threading
import time

import numpy as np
import pytest

from lewm_core.errors import ContractError
from lewm_ros.safety import CommandGuard, DeadManSwitch, StopLatch, Watchdog

PERIOD_S = 0.1
PERIOD_NS = 100_000_000


def make_guard(rate_limit=(3.0, 3.0), hold=(0.0, 0.0)) -> CommandGuard:
    guard = CommandGuard([-0.15, -0.15], [0.15, 0.15], rate_limit, hold, PERIOD_S)
    guard.active = True
    return guard


def test_a_good_command_passes_unchanged():
    command = make_guard().check([0.1, -0.05], PERIOD_NS)
    assert not command.hold and command.reason == ""
    np.testing.assert_array_equal(command.values, [0.1, -0.05])


def test_a_command_outside_the_limits_is_clipped_and_counted():
    guard = make_guard()
    command = guard.check([9.0, -9.0], PERIOD_NS)
    np.testing.assert_allclose(command.values, [0.15, -0.15])
    assert not command.hold and guard.counters.clipped == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_becomes_hold(bad):
    command = make_guard().check([bad, 0.1], PERIOD_NS)
    assert command.hold and "not finite" in command.reason
    np.testing.assert_array_equal(command.values, [0.0, 0.0])


def test_a_command_of_another_length_becomes_hold():
    command = make_guard().check([0.1], PERIOD_NS)
    assert command.hold and "shape (1,)" in command.reason


def test_no_command_holds_for_the_given_reason():
    command = make_guard().check(None, PERIOD_NS, reason="no goal")
    assert command.hold and command.reason == "no goal"


def test_an_inactive_node_only_holds():
    guard = make_guard()
    guard.active = False
    command = guard.check([0.1, 0.1], PERIOD_NS)
    assert command.hold and "not active" in command.reason


def test_a_command_past_its_deadline_becomes_hold():
    guard = make_guard()
    assert not guard.check([0.1, 0.1], PERIOD_NS, deadline_ns=PERIOD_NS).hold
    late = guard.check([0.1, 0.1], 4 * PERIOD_NS, deadline_ns=PERIOD_NS)
    assert late.hold and "0.30 s past its deadline" in late.reason


def test_change_is_limited_by_measured_time_and_by_one_period():
    guard = make_guard(rate_limit=(0.5, 0.5))
    first = guard.check([0.15, 0.0], PERIOD_NS)
    np.testing.assert_allclose(first.values, [0.05, 0.0])
    half_a_period_later = guard.check([0.15, 0.0], PERIOD_NS + PERIOD_NS // 2)
    np.testing.assert_allclose(half_a_period_later.values, [0.075, 0.0])
    long_after = guard.check([-0.15, 0.0], 100 * PERIOD_NS)
    np.testing.assert_allclose(long_after.values, [0.025, 0.0])
    assert guard.counters.slowed == 3


def test_hold_is_never_slowed_and_the_next_command_starts_from_it():
    guard = make_guard(rate_limit=(0.5, 0.5))
    for tick in range(1, 5):
        guard.check([0.15, 0.15], tick * PERIOD_NS)
    held = guard.hold("camera lost", 5 * PERIOD_NS)
    np.testing.assert_array_equal(held.values, [0.0, 0.0])
    after = guard.check([0.15, 0.15], 6 * PERIOD_NS)
    np.testing.assert_allclose(after.values, [0.05, 0.05])


def test_hold_last_repeats_the_position_and_publishes_nothing_before_the_first():
    guard = make_guard(rate_limit=(np.inf, np.inf), hold=("last", "last"))
    assert guard.hold("no goal", PERIOD_NS).values is None
    guard.check([0.12, -0.03], 2 * PERIOD_NS)
    np.testing.assert_array_equal(guard.hold("no goal", 3 * PERIOD_NS).values, [0.12, -0.03])


def test_a_clock_that_goes_back_holds_once_and_then_goes_on():
    guard = make_guard()
    guard.check([0.1, 0.1], 10 * PERIOD_NS)
    back = guard.check([0.1, 0.1], 5 * PERIOD_NS)
    assert back.hold and "clock went back by 0.50 s" in back.reason
    assert not guard.check([0.1, 0.1], 6 * PERIOD_NS).hold


def test_no_input_whatever_leads_outside_the_limits():
    generator = np.random.default_rng(0)
    guard = make_guard(rate_limit=(1.0, 1.0))
    previous, now_ns = np.zeros(2), 0
    for _ in range(2000):
        step_ns = int(generator.integers(1, 3 * PERIOD_NS))
        now_ns += step_ns
        values = generator.choice([np.nan, np.inf, -1e30, 1e30, 0.0, 0.1, -0.14], size=2)
        command = guard.check(values, now_ns)
        assert np.all(np.abs(command.values) <= 0.15)
        if not command.hold:
            allowed = 1.0 * min(step_ns * 1e-9, PERIOD_S) + 1e-12
            assert np.all(np.abs(command.values - previous) <= allowed)
        previous = command.values
    assert guard.counters.passed + guard.counters.held == 2000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.0], [1.0, 1.0], [1.0], [0.0], 0.1), "different lengths"),
        (([0.0], [np.inf], [1.0], [0.0], 0.1), "finite"),
        (([1.0], [0.0], [1.0], [0.5], 0.1), "above its upper"),
        (([0.0], [1.0], [0.0], [0.0], 0.1), "rate_limit"),
        (([0.0], [1.0], [1.0], [2.0], 0.1), "hold 2.0"),
        (([0.0], [1.0], [1.0], [0.0], 0.0), "control period"),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(ContractError, match=words):
        CommandGuard(*arguments)


def test_the_latch_keeps_the_first_reason_until_resumed():
    latch = StopLatch()
    assert not latch.latched and not latch.resume()
    latch.stop("the operator")
    latch.stop("somebody else")
    assert latch.latched and latch.reason == "the operator"
    assert latch.resume() and not latch.latched and latch.reason == ""


def test_the_speed_scale_goes_from_hold_towards_the_command():
    guard = make_guard()
    guard.speed_scale = 0.25
    np.testing.assert_allclose(guard.check([0.12, -0.08], PERIOD_NS).values, [0.03, -0.02])
    with pytest.raises(ValueError, match="speed_scale is 1.5"):
        guard.speed_scale = 1.5


def test_scaled_positions_go_a_share_of_the_way_from_the_last_one():
    guard = make_guard(hold=("last", "last"))
    first = guard.check([0.1, 0.0], PERIOD_NS)
    np.testing.assert_allclose(first.values, [0.1, 0.0])
    guard.speed_scale = 0.5
    np.testing.assert_allclose(guard.check([0.12, 0.0], 2 * PERIOD_NS).values, [0.11, 0.0])


def test_it_knows_whether_the_robot_is_commanded_to_move():
    guard = make_guard()
    guard.check([0.02, 0.0], PERIOD_NS)
    assert not guard.moving, "a little is not seen by a camera"
    guard.check([0.05, 0.0], 2 * PERIOD_NS)
    assert guard.moving
    guard.hold("no picture", 3 * PERIOD_NS)
    assert not guard.moving


def test_a_dead_man_switch_must_be_pressed_again_and_again():
    switch = DeadManSwitch("/deadman", timeout_s=0.5)
    assert "nothing heard on /deadman" in switch.problem(100.0)
    switch.hear(True, 100.0)
    assert switch.problem(100.4) == ""
    assert "silent for 0.60 s" in switch.problem(100.6)
    switch.hear(False, 101.0)
    assert "released" in switch.problem(101.0)


def test_a_watchdog_bites_until_it_is_fed_also_when_a_bite_fails():
    bites, many = [], threading.Event()

    def bite(hungry_s: float) -> None:
        bites.append(hungry_s)
        if len(bites) >= 3:
            many.set()
        raise RuntimeError("no bite")

    watchdog = Watchdog(timeout_s=0.2, period_s=0.02, bite=bite)
    watchdog.start()
    for _ in range(10):
        time.sleep(0.03)
        watchdog.feed()
    fed = len(bites)
    assert many.wait(5.0)
    watchdog.end()
    assert min(bites) > 0.2 and (fed == 0 or min(bites[:fed]) > 0.2)
    ended = len(bites)
    time.sleep(0.1)
    assert len(bites) == ended
