import numpy as np
import pytest

from lewm_core.errors import PlanningError
from lewm_core.planning import CommandLog, FrameHistory

MS = 1_000_000


def history(**changes) -> FrameHistory:
    return FrameHistory(**{"block_period_s": 0.5, "length": 3, "tolerance_s": 0.05, **changes})


def stamps(frames: FrameHistory, now_ms: int) -> list[int]:
    return [stamp // MS for stamp, _ in frames.sample(now_ms * MS)]


def test_empty_until_a_frame_comes():
    assert history().sample(0) == []
    assert history().newest_ns is None


def test_frames_one_block_apart_are_picked_from_a_fast_camera():
    frames = history()
    for k in range(60):  # 30 Hz
        frames.add(k * 33 * MS, k)
    assert frames.newest_ns == 59 * 33 * MS
    assert stamps(frames, 2000) == [957, 1452, 1947]
    assert [picture for _, picture in frames.sample(2000 * MS)] == [29, 44, 59]


def test_the_sample_grows_from_the_first_frame():
    frames = history()
    lengths = []
    for k in range(12):  # 10 Hz
        frames.add(k * 100 * MS, k)
        lengths.append(len(frames.sample(k * 100 * MS)))
    assert lengths == [1] * 5 + [2] * 5 + [3] * 2


def test_it_stops_at_the_first_missing_block():
    frames = history()
    for stamp in (0, 700, 1000):  # nothing near 500
        frames.add(stamp * MS, stamp)
    assert stamps(frames, 1000) == [1000]


def test_the_nearest_frame_counts_and_the_tolerance_is_kept():
    frames = history()
    for stamp in (440, 470, 520, 1000):
        frames.add(stamp * MS, stamp)
    assert stamps(frames, 1000) == [520, 1000]
    frames = history()
    for stamp in (449, 551, 1000):
        frames.add(stamp * MS, stamp)
    assert stamps(frames, 1000) == [1000]


def test_one_frame_is_never_used_twice():
    frames = history(block_period_s=0.1, tolerance_s=0.09)
    frames.add(0, "a")
    frames.add(80 * MS, "b")
    assert stamps(frames, 80) == [0, 80]


def test_frames_of_the_future_are_left_alone():
    frames = history()
    frames.add(0, 0)
    frames.add(500 * MS, 1)
    assert stamps(frames, 300) == [0]
    assert stamps(frames, 460) == [0, 500]  # within the tolerance of two clocks


def test_a_clock_set_back_forgets_the_other_past():
    frames = history()
    for stamp in (1000, 1500, 2000):
        frames.add(stamp * MS, stamp)
    frames.add(0, "new")
    assert stamps(frames, 2500) == [0]
    assert len(frames) == 1


def test_a_frame_a_little_out_of_order_is_sorted_in():
    frames = history()
    for stamp in (0, 530, 500, 1000):
        frames.add(stamp * MS, stamp)
    assert stamps(frames, 1000) == [0, 500, 1000]


def test_the_same_stamp_replaces():
    frames = history()
    frames.add(5, "old")
    frames.add(5, "new")
    assert frames.sample(5) == [(5, "new")]


def test_memory_does_not_grow():
    frames = history()
    for k in range(10_000):
        frames.add(k * 10 * MS, k)
    assert len(frames) < 200
    assert stamps(frames, 100_000) == [98_990, 99_490, 99_990]


@pytest.mark.parametrize("changes", [{"block_period_s": 0.0}, {"length": 0}, {"tolerance_s": 0.5}])
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(PlanningError, match="history of"):
        history(**changes)


def commands(**changes) -> CommandLog:
    return CommandLog(**{"action_dim": 2, "control_period_s": 0.1, **changes})


@pytest.mark.parametrize(("phase", "first"), [(-40, 0), (0, 0), (40, 0), (60, -1)])
def test_a_block_takes_the_command_in_force_for_most_of_each_period(phase, first):
    log = commands()
    for k in range(-2, 6):
        log.add((1000 + 100 * k + phase) * MS, (k, -k))
    block = log.block(1000 * MS, frame_skip=3)
    assert block[:, 0].tolist() == [first, first + 1, first + 2]


def test_a_block_holds_the_command_in_force_at_every_tick():
    log = commands()
    for k, stamp in enumerate((0, 100, 200, 310, 400)):
        log.add(stamp * MS, (k, -k))
    block = log.block(0, frame_skip=5)
    assert block[:, 0].tolist() == [0, 1, 2, 3, 4]  # 310 is 300, by a timer that came late
    assert block[:, 1].tolist() == [0, -1, -2, -3, -4]


def test_rounding_of_a_stamp_does_not_shift_a_command():
    log = commands()
    log.add(100 * MS + 400_000, (1, 1))
    assert log.block(100 * MS, 1).tolist() == [[1, 1]]


def test_missing_commands_are_nan():
    log = commands()
    log.add(200 * MS, (1, 2))
    block = log.block(0, frame_skip=3)
    assert np.isnan(block[:2]).all()
    assert block[2].tolist() == [1, 2]
    assert np.isnan(commands().block(0, 2)).all()


def test_a_command_the_robot_no_longer_obeys_is_missing():
    log = commands(timeout_s=0.25)
    log.add(0, (3, 3))
    block = log.block(0, frame_skip=5)
    assert block[:3, 0].tolist() == [3, 3, 3]
    assert np.isnan(block[3:]).all()


def test_the_same_stamp_replaces_a_command_and_an_earlier_one_forgets_all():
    log = commands()
    log.add(100, (1, 1))
    log.add(100, (2, 2))
    assert log.last[1].tolist() == [2, 2] and len(log) == 1
    log.add(50, (3, 3))
    assert log.last[0] == 50 and len(log) == 1


def test_the_log_keeps_its_own_copy_and_does_not_grow():
    log = commands(keep_s=1.0)
    values = np.zeros(2)
    log.add(0, values)
    values[:] = 9
    assert log.last[1].tolist() == [0, 0]
    for k in range(1000):
        log.add(k * 100 * MS, (k, k))
    assert len(log) == 11


def test_a_command_of_another_length_is_refused():
    with pytest.raises(PlanningError, match="shape"):
        commands().add(0, (1, 2, 3))
