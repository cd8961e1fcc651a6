"""How often messages come, and whether their stamps are of this moment; for cameras and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.doctor.streams import Arrival, Stream

_NS = 1e-9

#: A stream this much slower than it should be is on time: clocks and counting at the ends.
_RATE_SLACK = 0.9
#: Stamps that repeat or go back: above this share of the messages they are the rule.
_DISORDER_SHARE = 0.1


@dataclass(frozen=True)
class Demands:
    """What a stream must be like.

    Attributes:
        control_rate: Hz; a message per control period is best.
        least_rate: Hz; below this the planner cannot work.
        timeout_s: The planner holds when the newest message is older.
        clock: ``header`` or ``receive``, the contract's.
        simulated: Whether ROS time is simulated.
        clock_runs: Whether ROS time goes on; if not, ages mean nothing.
    """

    control_rate: float
    least_rate: float
    timeout_s: float
    clock: str
    simulated: bool
    clock_runs: bool = True


def judge_rate(
    check: str, topic: str, stream: Stream, seconds: float, demands: Demands
) -> list[Finding]:
    """Judge how often messages come, by their stamps where the contract goes by them.

    Args:
        check: Subject, such as ``camera top``.
        topic: For the sentence.
        stream: What came.
        seconds: How long it was listened to.
        demands: What it must be like.
    """
    name, arrivals = f"{check}: rate", stream.arrivals
    if len(arrivals) < 2:
        return [
            fail(
                name, f"{len(arrivals)} messages on {topic} in {seconds:g} s",
                "start the stream; if its publisher says that it sends, see the checks of QoS and "
                "dds", messages=len(arrivals),
            )
        ]
    times_s = _times_s(arrivals, demands)
    gaps_s = np.diff(times_s)
    rate = len(gaps_s) / (times_s[-1] - times_s[0])
    longest_s = float(gaps_s.max())
    measured = {"rate_hz": rate, "longest_gap_s": longest_s, "messages": len(arrivals)}
    text = f"{rate:.1f} Hz on {topic}, longest gap {longest_s:.2f} s"
    findings = []
    if rate < _RATE_SLACK * demands.least_rate or 1.0 / rate > demands.timeout_s:
        findings.append(
            fail(
                name, f"{text}; at least {max(demands.least_rate, 1 / demands.timeout_s):g} Hz are "
                f"needed (control rate {demands.control_rate:g} Hz, timeout "
                f"{demands.timeout_s:g} s)",
                "raise its rate, or free the network and the processors", **measured,
            )
        )
    elif rate < _RATE_SLACK * demands.control_rate:
        findings.append(
            warning(
                name, f"{text}; the control rate is {demands.control_rate:g} Hz",
                "better one message in every control period", **measured,
            )
        )
    elif longest_s > demands.timeout_s:
        findings.append(
            warning(
                name, f"{text}; the planner holds after {demands.timeout_s:g} s",
                "look for what interrupts it: load, auto exposure, a wireless link", **measured,
            )
        )
    else:
        findings.append(ok(name, text, **measured))
    if stream.lost:
        findings.append(
            warning(
                f"{check}: lost", f"the middleware lost {stream.lost} messages of {topic} in "
                f"{seconds:g} s", "give its publisher the Fast DDS profile (docs/ros-nodes.md), "
                "and see the checks of dds", lost=stream.lost,
            )
        )
    return findings


def judge_stamps(check: str, topic: str, stream: Stream, demands: Demands) -> list[Finding]:
    """Judge the stamps: set, of this moment, in order."""
    name, stamps = f"{check}: stamps", [arrival.stamp_ns for arrival in stream.arrivals]
    if not stamps:
        return []
    if demands.clock == "receive":
        return [ok(name, "not used: the contract's clock is receive")]
    if all(stamp == 0 for stamp in stamps):
        return [
            fail(
                name, f"all stamps on {topic} are 0",
                "let the driver stamp its messages, or set clock: receive in the contract",
            )
        ]
    findings = [*_judge_age(name, topic, stream.arrivals, demands), *_judge_order(name, stamps)]
    return findings


def _judge_age(
    name: str, topic: str, arrivals: Sequence[Arrival], demands: Demands
) -> list[Finding]:
    if not demands.clock_runs:
        return [
            warning(
                name, "ages are not judged: ROS time stands still", "see the check of the clock"
            )
        ]
    ages_s = np.array([arrival.ros_ns - arrival.stamp_ns for arrival in arrivals]) * _NS
    age_s = float(np.median(ages_s))
    measured = {"age_p50_s": age_s, "age_max_s": float(ages_s.max())}
    # A simulator may publish what happens at a tick before the tick.
    ahead_s = 1.0 / demands.control_rate if demands.simulated else 0.02
    text = f"{age_s:.3f} s old on arrival (median), limit {demands.timeout_s:g} s"
    clocks = (
        "start both sides on the same clock: use_sim_time on all nodes, or on none"
        if demands.simulated or abs(age_s) > 3600.0
        else "set the clocks of both machines to the same time (chrony), and let the driver stamp "
        "the exposure"
    )
    if age_s > demands.timeout_s:
        return [fail(name, f"messages on {topic} are {text}", clocks, **measured)]
    if age_s < -demands.timeout_s:
        return [
            fail(
                name, f"stamps on {topic} are {-age_s:.3f} s in the future (median), limit "
                f"{demands.timeout_s:g} s", clocks, **measured,
            )
        ]
    if age_s < -ahead_s:
        found = f"stamps on {topic} are {-age_s:.3f} s in the future (median)"
        return [warning(name, found, clocks, **measured)]
    if age_s > 0.5 * demands.timeout_s:
        return [warning(name, f"messages on {topic} are {text}", clocks, **measured)]
    return [ok(name, text, **measured)]


def _judge_order(name: str, stamps: Sequence[int]) -> list[Finding]:
    steps = np.diff(np.array(stamps, dtype=np.int64))
    back, repeated = int((steps < 0).sum()), int((steps == 0).sum())
    if not back and not repeated:
        return []
    text = f"of {len(stamps)} stamps {repeated} repeat the one before and {back} go back"
    mend = "stop a second publisher; a driver that repeats stamps needs clock: receive"
    level = fail if back + repeated > _DISORDER_SHARE * len(stamps) else warning
    return [level(f"{name.removesuffix('stamps')}order", text, mend, repeated=repeated, back=back)]


def _times_s(arrivals: Sequence[Arrival], demands: Demands) -> np.ndarray:
    """Return when the messages were made or came, in the time that the planner lives in, s."""
    stamps = [arrival.stamp_ns or 0 for arrival in arrivals]
    if demands.clock == "header" and min(np.diff(stamps)) > 0:
        return np.array(stamps) * _NS
    if demands.clock_runs and arrivals[-1].ros_ns > arrivals[0].ros_ns:
        return np.array([arrival.ros_ns for arrival in arrivals]) * _NS
    return np.array([arrival.at_s for arrival in arrivals])
