"""Named quality-of-service profiles: who must not lose what.

A reliable publisher serves reliable and best-effort subscribers alike; a best-effort publisher
serves best-effort subscribers only. So publishers here offer the most, and subscribers ask for
the least that serves them.
"""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)


def _profile(
    reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int
) -> QoSProfile:
    return QoSProfile(
        reliability=reliability,
        durability=durability,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


#: A camera's publisher: a recorder may ask for every picture, a controller for the newest only.
#: Kept until every reliable subscriber has them: 64 pictures of 224x224 are 10 MB.
CAMERA_PUBLISHER = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 64)

#: A camera that offers sensor-data QoS only, as most drivers do.
CAMERA_SENSOR_DATA = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 5)

#: A dead-man switch, from whoever publishes it: the newest word counts, and it is said again soon.
DEADMAN = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)

#: A controller's camera subscription: the newest picture wins, a late one is worth nothing.
CAMERA_NEWEST = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)

#: Commands to a robot, on both sides: none lost, also not to a recorder that is busy.
COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 50)

#: Ground truth and joint states.
STATE = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 200)

#: Episode events: a node that joins late learns which episode is on. More than one is kept,
#: because an end and the next start come in one breath, and the second must not replace the first
#: on its way; so a late joiner also hears of a few episodes that are over.
EPISODE_PUBLISHER = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 10)

#: Of these, a subscriber keeps many.
EPISODE = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 100)

#: A node's own report (``~/status``): a late joiner gets the newest one.
STATUS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)

#: ``/diagnostics``, as diagnostic_updater publishes it.
DIAGNOSTICS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)

#: ``/clock``: a subscriber needs the newest time only (rclpy asks for best effort).
CLOCK_PUBLISHER = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)


def command_with_lifespan(seconds: float) -> QoSProfile:
    """Return `COMMAND` for a publisher that takes back what is not delivered by then.

    After a cut the network would otherwise deliver what a robot without stamps takes for new. A
    subscriber keeps what it has, however long it is busy (`docs/safety.md`).

    Args:
        seconds: After which nobody obeys a command any more, by the system's clock.
    """
    profile = _profile(COMMAND.reliability, COMMAND.durability, COMMAND.depth)
    profile.lifespan = Duration(nanoseconds=round(seconds * 1e9))
    return profile


def matching(offered: list[QoSProfile], depth: int) -> QoSProfile:
    """Return the strongest subscription that all publishers of a topic can serve.

    Reliable only if every publisher offers it, transient local only if every publisher does; no
    deadline, lifespan or liveliness is asked for, since a recorder takes what comes.

    Args:
        offered: Profiles of the publishers; empty gives best effort, volatile.
        depth: Messages that may wait in the middleware while this process is busy.
    """
    reliable = bool(offered) and all(
        profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered
    )
    transient = bool(offered) and all(
        profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered
    )
    profile = _profile(
        ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        DurabilityPolicy.TRANSIENT_LOCAL if transient else DurabilityPolicy.VOLATILE,
        depth,
    )
    profile.liveliness = LivelinessPolicy.AUTOMATIC
    return profile
