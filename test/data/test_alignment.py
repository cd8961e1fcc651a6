"""Alignment on bags whose stamps are known to the nanosecond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lewm_core.data.alignment import AlignedEpisode, align_episode
from lewm_core.data.bags import BagReader, BagWriter
from lewm_core.data.cache import build_cache
from lewm_core.data.contract import Contract, save_contract
from lewm_core.errors import BagError, ContractError
from test.data.synthetic import (
    MS,
    SECOND,
    image_message,
    picture,
    small_contract,
    stamped,
    write_bag,
    write_episode,
)

START = 1_700_000_000 * SECOND


def align(bag: Path, contract: Contract) -> list[AlignedEpisode]:
    with BagReader(bag) as reader:
        return align_episode(reader, contract)


def commands(ticks: int, period_ms: int = 100, start_ns: int = 0) -> list[tuple[int, float, float]]:
    """Return commands whose x is their number."""
    return [(start_ns + tick * period_ms * MS, float(tick), 0.0) for tick in range(ticks)]


def test_camera_every_fifth_tick(tmp_path: Path) -> None:
    contract = small_contract()
    (episode,) = align(write_episode(tmp_path / "e", contract, ticks=26), contract)
    assert episode.name == "e"
    assert episode.number_of_ticks == 26
    expected = np.full(26, -1)
    expected[::5] = np.arange(6)
    np.testing.assert_array_equal(episode.frame_index, expected)
    assert episode.action_valid.all()
    np.testing.assert_allclose(episode.actions[:, 0], np.arange(26) / 1000, rtol=1e-6)
    np.testing.assert_allclose(episode.states[:, 1], -np.arange(26) / 1000, rtol=1e-6)
    assert episode.frame_index.dtype == np.int32
    assert episode.actions.dtype == episode.states.dtype == np.float32


def test_camera_of_30_hz_on_a_grid_of_10_hz(tmp_path: Path) -> None:
    contract = small_contract()
    stamps = [START + round(number * SECOND / 30) for number in range(91)]
    bag = write_bag(tmp_path / "e", contract, stamps, commands(31, start_ns=START))
    (episode,) = align(bag, contract)
    np.testing.assert_array_equal(episode.frame_index, 3 * np.arange(31))
    np.testing.assert_array_equal(episode.actions[:, 0], np.arange(31))


def test_jitter_is_pulled_to_the_nearest_tick(tmp_path: Path) -> None:
    contract = small_contract()
    jitter_ms = [0, 30, -40, 49, -20, 10]
    stamps = [START + (100 * tick + shift) * MS for tick, shift in enumerate(jitter_ms)]
    bag = write_bag(tmp_path / "e", contract, stamps, commands(6, start_ns=START))
    (episode,) = align(bag, contract)
    np.testing.assert_array_equal(episode.frame_index, np.arange(6))


def test_a_missing_picture_leaves_a_hole_not_a_neighbour(tmp_path: Path) -> None:
    contract = small_contract()
    stamps = [START + 100 * tick * MS for tick in (0, 1, 3, 4)]
    bag = write_bag(tmp_path / "e", contract, stamps, commands(5, start_ns=START))
    (episode,) = align(bag, contract)
    np.testing.assert_array_equal(episode.frame_index, [0, 1, -1, 2, 3])


def test_pictures_out_of_order_keep_their_numbers(tmp_path: Path) -> None:
    """Numbers count in the order of receipt: the cache finds the picture by them."""
    contract = small_contract()
    bag = tmp_path / "e"
    with BagWriter(bag) as writer:
        for topic, type_name in contract.topic_types().items():
            writer.add_topic(topic, type_name)
        for receive, tick in enumerate((0, 2, 1, 3)):
            message = stamped("sensor_msgs/msg/Image", tick * 100 * MS)
            writer.write("/camera", receive, message)
        writer.write("/command", 9, stamped("geometry_msgs/msg/TwistStamped", 0))
    (episode,) = align(bag, contract)
    np.testing.assert_array_equal(episode.frame_index, [0, 2, 1, 3])


def test_a_gap_ends_the_episode(tmp_path: Path) -> None:
    contract = small_contract(max_gap=1.0)
    ticks = [0, 5, 10, 20, 31, 36]  # 1.0 s is allowed, 1.1 s is not
    stamps = [tick * 100 * MS for tick in ticks]
    bag = write_bag(tmp_path / "e", contract, stamps, commands(40))
    first, second = align(bag, contract)
    assert (first.name, second.name) == ("e", "e+1")
    assert second.start_ns == 3100 * MS
    # Commands behind the last picture belong to it, but not those of the next episode.
    assert first.number_of_ticks == 31
    np.testing.assert_array_equal(np.flatnonzero(first.frame_index >= 0), [0, 5, 10, 20])
    np.testing.assert_array_equal(second.frame_index[:6], [4, -1, -1, -1, -1, 5])
    np.testing.assert_array_equal(second.actions[:, 0], np.arange(31, 40))


def test_a_command_is_in_force_until_the_next(tmp_path: Path) -> None:
    """`latest`: the newest at the tick; a millisecond late counts, two do not."""
    contract = small_contract()
    sent = [
        (0, 1.0, 0.0),
        (100 * MS + MS, 2.0, 0.0),
        (200 * MS + 2 * MS, 3.0, 0.0),
        (390 * MS, 4.0, 0.0),
        (395 * MS, 5.0, 0.0),
    ]
    stamps = [tick * 100 * MS for tick in range(6)]
    (episode,) = align(write_bag(tmp_path / "e", contract, stamps, sent), contract)
    np.testing.assert_array_equal(episode.actions[:, 0], [1, 2, 2, 3, 5, 5])
    assert episode.action_valid.all()


def test_the_contract_says_whether_commands_or_executed_actions_are_learned(tmp_path: Path) -> None:
    executed = {
        "topic": "/executed",
        "message": "sensor_msgs/msg/JointState",
        "clock": "receive",
        "fields": ["velocity[1]", "velocity[0]"],
    }
    both = small_contract(action__executed=executed)
    bag = tmp_path / "e"
    with BagWriter(bag) as writer:
        for topic, type_name in both.topic_types().items():
            writer.add_topic(topic, type_name)
        for tick in range(5):
            stamp_ns = START + tick * 100 * MS
            writer.write("/camera", stamp_ns, image_message(picture(tick), stamp_ns))
            command = stamped(both.action.message, stamp_ns)
            command.twist.linear.x = 1.0
            writer.write("/command", stamp_ns, command)
            report = stamped("sensor_msgs/msg/JointState", 0)  # its stamps are of no use
            report.velocity = np.array([0.25, 0.5])
            writer.write("/executed", stamp_ns, report)
    (commanded,) = align(bag, both)
    np.testing.assert_array_equal(commanded.actions, [[1.0, 0.0]] * 5)
    learned = small_contract(action__executed=executed, action__source="executed")
    (done,) = align(bag, learned)
    np.testing.assert_array_equal(done.actions, [[0.5, 0.25]] * 5)
    assert done.action_valid.all()
    # Recorded under the one contract, trained under the other; not under a third.
    save_contract(both, tmp_path / "contract.yaml")
    cache = build_cache(bag, learned, 4, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(cache.actions, done.actions)
    with pytest.raises(ContractError, match="action.timeout: 0.3 != 0.4"):
        build_cache(bag, small_contract(action__executed=executed, action__timeout=0.4), 4)
    # A bag without it is refused by name, but only where it is learned from.
    folder = tmp_path / "plain" / "e"
    plain = write_bag(folder, small_contract(), [START], commands(3, start_ns=START))
    align(plain, both)
    with pytest.raises(BagError, match="no messages on /executed"):
        align(plain, learned)


def test_old_commands_are_not_in_force(tmp_path: Path) -> None:
    contract = small_contract(action__timeout=0.3)
    sent = [(200 * MS, 1.0, 0.5)]
    stamps = [tick * 100 * MS for tick in range(8)]
    (episode,) = align(write_bag(tmp_path / "e", contract, stamps, sent), contract)
    np.testing.assert_array_equal(episode.action_valid, [0, 0, 1, 1, 1, 1, 0, 0])
    assert np.isnan(episode.actions[~episode.action_valid]).all()
    np.testing.assert_array_equal(episode.actions[2:6], [[1.0, 0.5]] * 4)


def test_commands_that_are_not_finite_are_not_valid(tmp_path: Path) -> None:
    for resample in ("latest", "mean"):
        contract = small_contract(action__resample=resample)
        sent = commands(4)
        sent[2] = (200 * MS, float("nan"), 0.0)
        stamps = [tick * 100 * MS for tick in range(4)]
        (episode,) = align(write_bag(tmp_path / resample, contract, stamps, sent), contract)
        np.testing.assert_array_equal(episode.action_valid, [1, 1, 0, 1])


def test_commands_of_100_hz_latest_and_mean(tmp_path: Path) -> None:
    sent = commands(100, period_ms=10)
    stamps = [tick * 100 * MS for tick in range(10)]
    bag = write_bag(tmp_path / "e", small_contract(), stamps, sent)
    (latest,) = align(bag, small_contract())
    np.testing.assert_array_equal(latest.actions[:, 0], 10 * np.arange(10))
    (mean,) = align(bag, small_contract(action__resample="mean"))
    # Commands 10 k to 10 k + 9 are in force for 10 ms each.
    np.testing.assert_allclose(mean.actions[:, 0], 10 * np.arange(10) + 4.5, rtol=1e-6)
    assert mean.action_valid.all()


def test_mean_weighs_by_time_and_begins_with_the_command_before(tmp_path: Path) -> None:
    contract = small_contract(action__resample="mean")
    sent = [(-50 * MS + START, 1.0, 0.0), (75 * MS + START, 5.0, 0.0), (125 * MS + START, 0.0, 2.0)]
    stamps = [START, START + 100 * MS]
    (episode,) = align(write_bag(tmp_path / "e", contract, stamps, sent), contract)
    np.testing.assert_allclose(episode.actions[0], [0.75 * 1 + 0.25 * 5, 0.0])
    np.testing.assert_allclose(episode.actions[1], [0.25 * 5, 0.75 * 2])


def test_mean_is_not_valid_where_commands_were_missing(tmp_path: Path) -> None:
    contract = small_contract(action__resample="mean", action__timeout=0.15)
    sent = [(50 * MS, 1.0, 0.0), (400 * MS, 2.0, 0.0)]
    stamps = [tick * 100 * MS for tick in range(6)]
    (episode,) = align(write_bag(tmp_path / "e", contract, stamps, sent), contract)
    # In force from 50 to 200 ms and from 400 to 550 ms.
    np.testing.assert_array_equal(episode.action_valid, [0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(episode.actions[[1, 4], 0], [1.0, 2.0])


def test_header_and_receive_clocks(tmp_path: Path) -> None:
    """Commands carry wall time in their headers, pictures simulated time: receipt aligns them."""
    contract = small_contract()
    bag = tmp_path / "e"
    with BagWriter(bag) as writer:
        for topic, type_name in contract.topic_types().items():
            writer.add_topic(topic, type_name)
        for tick in range(5):
            now = START + tick * 100 * MS
            writer.write("/camera", now, stamped("sensor_msgs/msg/Image", tick * 50 * MS))
            command = stamped("geometry_msgs/msg/TwistStamped", now)
            command.twist.linear.x = float(tick)
            writer.write("/command", now, command)
    with pytest.raises(BagError, match="do not overlap.*clock: receive"):
        align(bag, contract)
    received = small_contract(cameras__0__clock="receive", action__clock="receive")
    (episode,) = align(bag, received)
    np.testing.assert_array_equal(episode.frame_index, np.arange(5))
    np.testing.assert_array_equal(episode.actions[:, 0], np.arange(5))
    assert episode.start_ns == START


def test_states_are_the_newest_before_the_tick(tmp_path: Path) -> None:
    contract = small_contract(max_gap=0.5)
    states = [(150 * MS, 1.0, 2.0), (250 * MS, 3.0, 4.0)]
    stamps = [tick * 100 * MS for tick in range(10)]
    bag = write_bag(tmp_path / "e", contract, stamps, commands(10), states)
    (episode,) = align(bag, contract)
    assert np.isnan(episode.states[:2]).all()
    np.testing.assert_array_equal(episode.states[2], [1, 2])
    np.testing.assert_array_equal(episode.states[3:8], [[3, 4]] * 5)
    assert np.isnan(episode.states[8:]).all(), "older than max_gap"


def test_a_bag_without_states_or_a_contract_without(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "e", small_contract(), [0, 100 * MS], commands(2))
    (episode,) = align(bag, small_contract())
    assert episode.states.shape == (2, 2)
    assert np.isnan(episode.states).all()
    (episode,) = align(bag, small_contract(states=[]))
    assert episode.states.shape == (2, 0)


def test_control_rates_that_are_no_whole_number_of_nanoseconds(tmp_path: Path) -> None:
    contract = small_contract(control_rate=30.0)
    stamps = [START + round(number * SECOND / 30) for number in range(901)]
    sent = [(stamp, float(number), 0.0) for number, stamp in enumerate(stamps)]
    (episode,) = align(write_bag(tmp_path / "e", contract, stamps, sent), contract)
    np.testing.assert_array_equal(episode.frame_index, np.arange(901))
    np.testing.assert_array_equal(episode.actions[:, 0], np.arange(901))


def test_stamps_that_cannot_be_used(tmp_path: Path) -> None:
    contract = small_contract()
    unset = write_bag(tmp_path / "unset", contract, [0, 0, 0], commands(3))
    with pytest.raises(BagError, match="all headers of /camera carry stamp 0.*clock: receive"):
        align(unset, contract)
    back = tmp_path / "back"
    with BagWriter(back) as writer:
        for topic, type_name in contract.topic_types().items():
            writer.add_topic(topic, type_name)
        for receive, tick in enumerate([0, 1, 50, 0, 1]):
            writer.write("/camera", receive, stamped("sensor_msgs/msg/Image", tick * 100 * MS))
        writer.write("/command", 9, stamped("geometry_msgs/msg/TwistStamped", 0))
    with pytest.raises(BagError, match="header clock of /camera jumps back by 5 s"):
        align(back, contract)
    slow = write_bag(tmp_path / "slow", contract, [0, 2 * SECOND, 4 * SECOND], commands(41))
    with pytest.raises(BagError, match="pictures come every 2 s, but max_gap is 1 s"):
        align(slow, contract)


def test_a_message_without_the_selected_element(tmp_path: Path) -> None:
    contract = small_contract(
        states=[
            {
                "name": "scene",
                "topic": "/state",
                "message": "sensor_msgs/msg/JointState",
                "fields": [{"name": "c", "selector": "position[2]", "unit": "m"}],
            }
        ]
    )
    bag = write_bag(tmp_path / "e", small_contract(), [0], commands(1), [(0, 1.0, 2.0)])
    with pytest.raises(BagError, match=r"message 1 of /state: 'position\[2\]' is not in"):
        align(bag, contract)
