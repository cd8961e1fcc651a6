"""Between ROS time stamps and nanoseconds; imports no pictures' libraries, as `codecs` does."""

from __future__ import annotations

from builtin_interfaces.msg import Time

_NS_PER_S = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """Return a message's time stamp as integer nanoseconds."""
    return stamp.sec * _NS_PER_S + stamp.nanosec


def ns_to_stamp(time_ns: int) -> Time:
    """Return integer nanoseconds (not negative) as a message's time stamp."""
    return Time(sec=int(time_ns // _NS_PER_S), nanosec=int(time_ns % _NS_PER_S))
