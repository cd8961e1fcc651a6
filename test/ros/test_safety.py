"""The command guard and the stop latch, on their own."""

import threading
import time

import numpy as np
import pytest

from lewm_core.data import Contract, load_contract
from lewm_core.errors import ContractError
from lewm_ros.positions import MeasuredPositions
from lewm_ros.safety import CommandGuard, DeadManSwitch, StopLatch, Watchdog

PERIOD_S = 0.1
PERIOD_NS = 100_000_000


def make_guard(
    rate_limit=(3.0, 3.0), hold=(0.0, 0.0), stands=None, positions=None
) -> CommandGuard:
    """A guard; ``stands``: a robot that takes positions and stands there at `PERIOD_NS`."""
    if stands is not None:
        hold = ("last", "last")
        positions = make_positions()
        tell(positions, PERIOD_NS, stands)
    guard = CommandGuard([-0.15, -0.15], [0.15, 0.15], rate_limit, hold, PERIOD_S, positions)
    guard.active = True
    return guard


def make_positions(**keys) -> MeasuredPositions:
    """Push-T, commanded by positions, which ``/scene/state`` tells."""
    values = load_contract("push_t").to_dict()
    for field, name in zip(values["action"]["fields"], ("agent_x", "agent_y"), strict=True):
        field.update(unit="m", hold="last", measured=name, **keys)
    return MeasuredPositions(Contract.from_dict(values), timeout_s=0.5)


def tell(positions, stamp_ns, values, now_ns=None) -> None:
    named = {"agent_x": values[0], "agent_y": values[1], "block_x": 0.0}
    positions.hear("/scene/state", stamp_ns, stamp_ns if now_ns is None else now_ns, named)


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
    guard = make_guard(rate_limit=(np.inf, np.inf), stands=(0.1, 0.0))
    assert guard.hold("no goal", PERIOD_NS).values is None
    guard.check([0.12, -0.03], 2 * PERIOD_NS)
    np.testing.assert_array_equal(guard.hold("no goal", 3 * PERIOD_NS).values, [0.12, -0.03])


def test_the_first_position_begins_where_the_robot_stands():
    guard = make_guard(rate_limit=(0.5, 0.5), stands=(0.1, -0.02))
    first = guard.check([-0.15, 0.0], PERIOD_NS)
    np.testing.assert_allclose(first.values, [0.05, 0.0])
    assert guard.counters.slowed == 1 and guard.moving
    second = guard.check([-0.15, 0.0], 2 * PERIOD_NS)
    np.testing.assert_allclose(second.values, [0.0, 0.0])


def test_the_first_position_is_scaled_from_where_the_robot_stands():
    guard = make_guard(stands=(0.1, 0.0))
    guard.speed_scale = 0.25
    np.testing.assert_allclose(guard.check([0.14, -0.04], PERIOD_NS).values, [0.11, -0.01])


def test_no_position_is_commanded_before_the_robot_told_where_it_stands():
    positions = make_positions()
    guard = make_guard(hold=("last", "last"), positions=positions)
    command = guard.check([0.1, 0.0], PERIOD_NS)
    assert command.hold and command.values is None
    assert "nothing is commanded: /scene/state is not heard" in command.reason
    assert "agent_x, agent_y" in command.reason
    tell(positions, PERIOD_NS, (0.1, 0.0))
    command = guard.check([0.1, 0.0], 10 * PERIOD_NS)
    assert command.values is None and "is 0.90 s old (limit 0.5 s)" in command.reason
    tell(positions, 10 * PERIOD_NS, (np.nan, 0.0))
    assert "agent_x on /scene/state is not finite" in guard.check([0, 0], 10 * PERIOD_NS).reason
    tell(positions, 99 * PERIOD_NS, (0.0, 0.0), now_ns=10 * PERIOD_NS)
    assert guard.check([0, 0], 10 * PERIOD_NS).values is None, "a stamp of the far future"
    tell(positions, 11 * PERIOD_NS, (0.1, 0.0))
    tell(positions, 9 * PERIOD_NS, (-0.1, 0.0), now_ns=11 * PERIOD_NS)
    np.testing.assert_allclose(guard.check([0.1, 0.0], 11 * PERIOD_NS).values, [0.1, 0.0])
    positions.forget()
    command = guard.check([0.11, 0.0], 12 * PERIOD_NS)
    assert command.hold and command.reason.startswith("/scene/state is not heard")
    np.testing.assert_allclose(command.values, [0.1, 0.0])
    guard.reset()
    assert guard.check([0.1, 0.0], 13 * PERIOD_NS).values is None, "activated anew"


def test_a_robot_that_is_not_where_it_was_sent_is_commanded_nothing_until_somebody_says_so():
    positions = make_positions(path_tolerance=0.03)
    guard = make_guard(hold=("last", "last"), positions=positions)
    tell(positions, PERIOD_NS, (0.1, 0.0))
    assert not guard.check([0.1, 0.0], PERIOD_NS).hold
    tell(positions, 2 * PERIOD_NS, (0.071, 0.0))
    assert not guard.check([0.1, 0.0], 2 * PERIOD_NS).hold, "it lags"
    # Moved by hand: the last position would be a jump.
    tell(positions, 3 * PERIOD_NS, (0.069, 0.0))
    command = guard.check([0.1, 0.0], 3 * PERIOD_NS)
    assert command.hold and command.values is None
    assert command.reason == (
        "velocity_x was sent to 0.1 m and stands at 0.069 (path_tolerance 0.03)"
    )
    # Not even if it is brought back: who holds it may let go at any time.
    tell(positions, 4 * PERIOD_NS, (0.1, 0.0))
    assert guard.check([0.1, 0.0], 4 * PERIOD_NS).values is None
    assert guard.hold("no goal", 4 * PERIOD_NS).values is None
    tell(positions, 5 * PERIOD_NS, (0.05, 0.0))
    guard.go_on()
    guard.speed_scale = 0.0
    np.testing.assert_allclose(guard.check([0.1, 0.0], 5 * PERIOD_NS).values, [0.05, 0.0])


def test_holding_watches_too_and_in_a_dry_run_others_may_drive():
    positions = make_positions(path_tolerance=0.03)
    guard = make_guard(hold=("last", "last"), positions=positions)
    tell(positions, PERIOD_NS, (0.1, 0.0))
    assert not guard.check([0.1, 0.0], PERIOD_NS).hold
    tell(positions, 2 * PERIOD_NS, (-0.1, 0.0))
    guard.drives = False
    assert not guard.check([0.1, 0.0], 2 * PERIOD_NS).hold
    guard.drives = True
    assert guard.hold("no goal", 3 * PERIOD_NS).values is None
    assert "stands at -0.1" in guard.astray


@pytest.mark.parametrize("wanted", [0.15, 0.0, -0.15])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_a_robot_that_stands_outside_its_limits_is_not_commanded_from_afar(wanted, scale):
    guard = make_guard(rate_limit=(0.5, 0.5), stands=(0.3, 0.0))
    command = guard.check([wanted, 0.0], PERIOD_NS)
    assert command.values is None
    assert "velocity_x stands at 0.3 m, outside of its limits -0.15 to 0.15" in command.reason
    # Within what one command may change, the first command brings it inside.
    guard = make_guard(rate_limit=(0.5, 0.5), stands=(0.19, 0.0))
    guard.speed_scale = scale
    first = guard.check([wanted, 0.0], PERIOD_NS).values[0]
    assert 0.14 - 1e-12 <= first <= 0.15


def test_a_contract_that_does_not_tell_where_positions_are_measured_is_refused():
    values = load_contract("push_t").to_dict()
    values["action"]["fields"][1].update(unit="m", hold="last")
    with pytest.raises(ContractError, match="velocity_y holds at its last .*add measured: NAME"):
        MeasuredPositions(Contract.from_dict(values), 0.5)
    velocities = MeasuredPositions(load_contract("push_t"), 0.5)
    assert velocities.topics == {} and velocities.missing(0) == ("", "")


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
        (([0.0], [1.0], [1.0], ["last"], 0.1), "measurement of where it stands"),
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
    guard = make_guard(stands=(0.1, 0.0))
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
