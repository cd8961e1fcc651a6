"""Pictures of several cameras and states become moments; no node, no DDS."""

import numpy as np
import pytest

from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import ImageError

moments = pytest.importorskip("lewm_ros.planner.moments")

MS = 1_000_000
S = 8


def contract() -> Contract:
    """Push-T's contract, at 10 Hz, with a second camera."""
    values = load_contract("push_t").to_dict()
    wrist = {**values["cameras"][0], "name": "wrist", "topic": "/wrist/image_raw", "timeout": 0.3}
    values["cameras"] = [*values["cameras"], wrist]
    return Contract.from_dict(values)


def collector(cameras: int = 2, state_names: tuple[str, ...] = ()):
    robot = contract()
    layout = ObservationLayout(robot.cameras[:cameras], state_names, S)
    return moments.MomentCollector(layout, robot)


def see(collected, camera: str, at_ms: float, value: int = 1, now_ms: float | None = None) -> str:
    now_ns = round((at_ms if now_ms is None else now_ms) * MS)
    picture = np.full((3, S, S), value, np.uint8)
    return collected.picture_came(camera, round(at_ms * MS), now_ns, lambda: picture)


FIRST, TOPIC = "top", "/scene/state"


def feel(collected, at_ms: float, values: dict[str, float], now_ms: float | None = None) -> None:
    now_ns = round((at_ms if now_ms is None else now_ms) * MS)
    collected.state_came(TOPIC, round(at_ms * MS), now_ns, values)


def test_one_camera_is_a_moment_at_every_picture():
    collected = collector(cameras=1)
    assert collected.take() is None and "no picture" in collected.problem(0)
    see(collected, FIRST, 10, value=7)
    moment = collected.take()
    assert moment.stamp_ns == 10 * MS and moment.seen.state is None
    assert moment.seen.picture.shape == (3, S, S) and (moment.seen.picture == 7).all()
    assert collected.take() is None, "a moment is taken once"
    assert collected.problem(20 * MS) == "" and collected.age_s(20 * MS) == pytest.approx(0.01)


def test_pictures_of_one_time_stand_camera_after_camera():
    collected = collector()
    see(collected, "wrist", 100, value=2)
    assert collected.take() is None
    see(collected, FIRST, 100, value=1)
    picture = collected.take().seen.picture
    assert picture.shape == (6, S, S)
    assert (picture[:3] == 1).all() and (picture[3:] == 2).all()


def test_the_nearest_picture_of_the_other_camera_counts_within_half_a_period():
    collected = collector()
    for at, value in ((0, 10), (60, 11), (90, 12)):
        see(collected, "wrist", at, value)
    see(collected, FIRST, 80)
    assert (collected.take().seen.picture[3:] == 12).all()
    see(collected, FIRST, 150)
    assert collected.take() is None, "60 ms are more than half a period of 100 ms"
    see(collected, "wrist", 190, 13)
    moment = collected.take()
    assert moment.stamp_ns == 150 * MS and (moment.seen.picture[3:] == 13).all()


def test_an_older_moment_that_is_completed_late_is_passed_over():
    collected = collector()
    see(collected, FIRST, 100)
    see(collected, FIRST, 200)
    see(collected, "wrist", 200)
    assert collected.take().stamp_ns == 200 * MS
    see(collected, "wrist", 210)
    assert collected.take() is None


def test_a_camera_that_is_silent_holds_and_is_named():
    collected = collector()
    see(collected, FIRST, 0)
    see(collected, "wrist", 0)
    assert collected.take() is not None and collected.problem(0) == ""
    for at in range(100, 500, 100):
        see(collected, FIRST, at)
        assert collected.take() is None
    assert "/wrist/image_raw" in collected.problem(400 * MS)
    assert collected.deadline_ns() == 300 * MS, "the shortest timeout counts from the last moment"


def test_cameras_whose_pictures_never_meet_hold_and_say_so():
    collected = collector()
    for at in (0, 250, 500):
        see(collected, FIRST, at)
        see(collected, "wrist", at + 120)
        assert collected.take() is None
    assert "within 0.05 s of each other" in collected.problem(630 * MS)


def test_a_broken_picture_is_no_picture():
    collected = collector()

    def broken():
        raise ImageError("the data end early")

    assert collected.picture_came("wrist", 0, 0, broken) == "the data end early"
    see(collected, FIRST, 0)
    assert collected.take() is None and "the data end early" in collected.problem(0)
    assert (collected.counters.received, collected.counters.refused) == (2, 1)


def test_a_picture_waits_for_the_state_of_its_time():
    collected = collector(cameras=1, state_names=("agent_y", "agent_x"))
    see(collected, FIRST, 100)
    assert "no state on /scene/state yet" in collected.problem(100 * MS)
    feel(collected, 40, {"agent_x": 1.0, "agent_y": 2.0})
    assert collected.take() is None, "a newer one of before the picture may be on its way"
    feel(collected, 100, {"agent_x": 3.0, "agent_y": 4.0})
    np.testing.assert_array_equal(collected.take().seen.state, np.float32([4.0, 3.0]))


def test_the_newest_state_before_the_picture_counts():
    collected = collector(cameras=1, state_names=("agent_x",))
    for at in (60, 90, 130):
        feel(collected, at, {"agent_x": float(at)})
    feel(collected, 80, {"agent_x": -1.0})  # out of order: passed over
    see(collected, FIRST, 100)
    np.testing.assert_array_equal(collected.take().seen.state, np.float32([90.0]))


def test_a_state_that_is_not_finite_or_old_is_none():
    collected = collector(cameras=1, state_names=("agent_x",))
    see(collected, FIRST, 100)
    feel(collected, 100, {"agent_x": float("nan")})
    assert collected.take() is None
    collected.forget()
    feel(collected, 100, {"agent_x": 1.0})
    see(collected, FIRST, 1000)
    assert collected.take() is None
    assert "is 0.90 s old" in collected.problem(1000 * MS)


def test_a_state_of_the_future_does_not_bury_those_that_follow():
    collected = collector(cameras=1, state_names=("agent_x",))
    feel(collected, 5000, {"agent_x": -1.0}, now_ms=90)
    see(collected, FIRST, 100)
    assert collected.take() is None
    feel(collected, 100, {"agent_x": 1.0})
    np.testing.assert_array_equal(collected.take().seen.state, np.float32([1.0]))


def test_a_state_that_is_never_of_a_pictures_time_holds_and_says_so():
    collected = collector(cameras=1, state_names=("agent_x",))
    feel(collected, 150, {"agent_x": 1.0})
    see(collected, FIRST, 100, now_ms=150)
    assert collected.take() is None
    assert collected.problem(150 * MS).startswith("no state of the time of a picture")


def test_after_a_jump_of_the_clock_nothing_of_before_counts():
    collected = collector()
    see(collected, "wrist", 1000)
    see(collected, FIRST, 1000)
    assert collected.take() is not None
    collected.forget()
    see(collected, FIRST, 10)
    assert collected.take() is None
    see(collected, "wrist", 10)
    assert collected.take().stamp_ns == 10 * MS
