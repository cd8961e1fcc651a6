"""Does ROS time go on, and do all go by the same?"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.doctor.streams import Arrival
from lewm_ros.endpoints import owners

_CHECK = "clock"
_SYNC_CHECK = "clock: synchronised"

#: `adjtimex` answers this when nobody disciplines the clock (``TIME_ERROR``).
_TIME_ERROR = 5


def runs(simulated: bool, ticks: Sequence[Arrival]) -> bool:
    """Whether ROS time goes on.

    Args:
        simulated: Whether it comes from ``/clock``.
        ticks: Messages on ``/clock``; ``stamp_ns`` is their time.
    """
    return not simulated or len({tick.stamp_ns for tick in ticks}) > 1


def judge_clock(
    simulated: bool, publishers: Sequence[Any], ticks: Sequence[Arrival], seconds: float
) -> list[Finding]:
    """Judge ``/clock`` against ``use_sim_time``.

    Args:
        simulated: ``use_sim_time`` of this node.
        publishers: Endpoints of ``/clock``.
        ticks: What came on it; ``stamp_ns`` is the time in the message.
        seconds: How long it was listened to.
    """
    if not simulated:
        if not publishers:
            return [ok(_CHECK, "the system's; nobody publishes /clock")]
        return [
            warning(
                _CHECK, f"{owners(publishers)} publishes /clock, but use_sim_time is false",
                "set use_sim_time on all nodes (-p use_sim_time:=true), or stop the simulator",
            )
        ]
    if not publishers:
        return [
            fail(
                _CHECK, "use_sim_time is true and nobody publishes /clock: ROS time is 0",
                "start the simulator, or leave use_sim_time out on a robot",
            )
        ]
    if not runs(simulated, ticks):
        return [
            fail(
                _CHECK, f"ROS time stands still: {len(ticks)} messages on /clock from "
                f"{owners(publishers)} in {seconds:g} s, all of the same time",
                "let the simulator run on (it may be paused)",
            )
        ]
    findings = []
    times_ns = [tick.stamp_ns or 0 for tick in ticks]
    if any(later < sooner for sooner, later in zip(times_ns, times_ns[1:], strict=False)):
        findings.append(
            warning(
                _CHECK, f"/clock goes back; it comes from {owners(publishers)}",
                "stop all publishers of /clock but one",
            )
        )
    factor = (times_ns[-1] - times_ns[0]) * 1e-9 / (ticks[-1].at_s - ticks[0].at_s)
    rate = (len(ticks) - 1) / (ticks[-1].at_s - ticks[0].at_s)
    findings.append(
        ok(
            _CHECK, f"simulated, {factor:.2f} times real time, {rate:.0f} messages per second on "
            "/clock", real_time_factor=factor, clock_rate_hz=rate,
        )
    )
    return findings


class _Timex(ctypes.Structure):
    """The head of ``struct timex`` (adjtimex(2)), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def judge_synchronised() -> list[Finding]:
    """Ask the kernel whether something (chrony, systemd-timesyncd) disciplines the clock."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError) as error:
        return [ok(_SYNC_CHECK, f"cannot be found out here ({error})")]
    if state < 0:
        return [ok(_SYNC_CHECK, "cannot be found out here: the kernel does not answer")]
    if state == _TIME_ERROR:
        return [
            warning(
                _SYNC_CHECK, "the kernel says that the system's clock is not synchronised",
                "no matter if all nodes run on this machine; otherwise install chrony on each "
                "(with rtcsync; `chronyc tracking` tells the offset)",
            )
        ]
    # Microseconds, by the daemon's own estimate.
    error_s = timex.maxerror * 1e-6
    return [ok(_SYNC_CHECK, f"yes, within {error_s * 1e3:.1f} ms", maximum_error_s=error_s)]
