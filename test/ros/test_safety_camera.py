"""Which pictures one may act on."""

import math

from lewm_ros.planner.camera_watch import CameraWatch

SECOND_NS = 1_000_000_000


def make_watch() -> CameraWatch:
    return CameraWatch("/camera", timeout_s=0.5)


def seconds(value: float) -> int:
    return round(value * SECOND_NS)


def test_without_a_picture_there_is_a_reason_and_no_age():
    watch = make_watch()
    assert "no picture on /camera yet" in watch.problem(0)
    assert math.isnan(watch.age_s(0)) and watch.deadline_ns() is None


def test_a_fresh_picture_is_good_until_the_timeout():
    watch = make_watch()
    assert watch.accepts(seconds(10.0), seconds(10.1))
    watch.accept(seconds(10.0))
    assert watch.problem(seconds(10.5)) == ""
    assert "0.60 s old" in watch.problem(seconds(10.6))
    assert watch.deadline_ns() == seconds(10.5)


def test_a_stamp_in_the_future_is_refused_with_the_reason():
    watch = make_watch()
    assert not watch.accepts(seconds(12.0), seconds(10.0))
    assert "2.00 s in the future" in watch.problem(seconds(10.0))


def test_a_picture_that_arrives_old_is_refused_with_its_age():
    watch = make_watch()
    assert not watch.accepts(seconds(8.0), seconds(10.0))
    assert "2.00 s old on arrival" in watch.problem(seconds(10.0))


def test_out_of_order_and_repeated_stamps_are_passed_over_silently():
    watch = make_watch()
    watch.accept(seconds(10.0))
    assert not watch.accepts(seconds(9.9), seconds(10.1))
    assert not watch.accepts(seconds(10.0), seconds(10.1))
    assert watch.problem(seconds(10.1)) == "" and watch.counters.refused == 0


def test_one_broken_picture_does_not_stop_a_stream_but_a_broken_stream_does():
    watch = make_watch()
    watch.accept(seconds(10.0))
    watch.refuse("unknown encoding 'yuv9'")
    assert watch.problem(seconds(10.2)) == ""
    assert "unknown encoding 'yuv9'" in watch.problem(seconds(10.7))
    watch.accept(seconds(10.8))
    assert watch.problem(seconds(10.9)) == ""
