"""Where a robot that takes positions stands. No ROS in here.

A velocity of 0 is standing still wherever the robot is; a position is a place to go to, and the
first one may be anywhere. So the first command begins where the robot says that it stands, and as
long as it does not say so nothing is commanded. From then on the robot must be about where it was
sent: one that was moved by somebody else would jump back, at the full power of its drives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.contract import Contract
from lewm_core.errors import ContractError

_NS = 1e-9


class MeasuredPositions:
    """The newest measurement of every axis that holds at its last position.

    Args:
        contract: Says by ``measured`` which state fields these are.
        timeout_s: An older measurement does not tell where the robot stands.

    Raises:
        ContractError: A field holds at "last", and nothing says where it is measured.
    """

    def __init__(self, contract: Contract, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._axes = contract.action.fields
        for field in self._axes:
            if field.hold == "last" and field.measured is None:
                raise ContractError(
                    f"contract {contract.name!r}: action field {field.name} holds at its last "
                    "position, and nobody knows where it stands before the first command: add "
                    "measured: NAME to it, the state field that tells its position, and give the "
                    "file by -p contract:=FILE; no training is needed"
                )
        names = {field.measured for field in self._axes if field.measured is not None}
        #: State topics that tell positions, with the names of these state fields.
        self.topics: dict[str, tuple[str, ...]] = {
            state.topic: wanted
            for state in contract.states
            if (wanted := tuple(field.name for field in state.fields if field.name in names))
        }
        self._topic_of = {name: topic for topic, wanted in self.topics.items() for name in wanted}
        self._heard: dict[str, tuple[int, dict[str, float]]] = {}

    def hear(self, topic: str, stamp_ns: int, now_ns: int, values: Mapping[str, float]) -> None:
        """Take a measurement.

        Args:
            topic: Of a state; others than `topics` tell no position.
            stamp_ns: When it was measured. What is older than the newest is passed over, and so is
                what lies in the future by more than the timeout.
            now_ns: ROS time.
            values: By the names of the contract's state fields.
        """
        wanted = self.topics.get(topic, ())
        newest_ns = self._heard[topic][0] if topic in self._heard else -math.inf
        ahead_s = (stamp_ns - now_ns) * _NS
        if wanted and ahead_s <= self._timeout_s and stamp_ns >= newest_ns:
            self._heard[topic] = (stamp_ns, {name: values[name] for name in wanted})

    def forget(self) -> None:
        """Know nothing: the node was activated anew, or the clock jumped."""
        self._heard.clear()

    def missing(self, now_ns: int) -> tuple[str, str]:
        """Return the topic that does not tell, and what it lacks; empty if all tell."""
        for topic, wanted in self.topics.items():
            if topic not in self._heard:
                return topic, f"{topic} is not heard, {_stands(wanted)}"
            stamp_ns, values = self._heard[topic]
            age_s = (now_ns - stamp_ns) * _NS
            if age_s > self._timeout_s:
                return topic, (
                    f"the newest state on {topic} is {age_s:.2f} s old "
                    f"(limit {self._timeout_s:g} s), {_stands(wanted)}"
                )
            broken = [name for name in wanted if not math.isfinite(values[name])]
            if broken:
                return topic, f"{', '.join(broken)} on {topic} is not finite"
        return "", ""

    def outside(self, reach: NDArray[np.float64]) -> str:
        """Return why the robot cannot be commanded from where it stands; empty if it can.

        Args:
            reach: ``(A,)`` what one command may change; so far outside the limits is near enough.
        """
        for field, value, step in zip(self._axes, self.values(), reach, strict=True):
            if not field.lower - step <= value <= field.upper + step:
                return (
                    f"{field.name} stands at {value:.4g} {field.unit}, outside of its limits "
                    f"{field.lower:g} to {field.upper:g}: bring it inside by other means"
                )
        return ""

    def astray(self, sent: NDArray[np.float64]) -> str:
        """Return which axis is not where it was sent, a sentence; empty if all are about there.

        Args:
            sent: ``(A,)`` the command published last.
        """
        for field, value, place in zip(self._axes, self.values(), sent, strict=True):
            if field.measured is not None and abs(value - place) > field.allowed_deviation:
                return (
                    f"{field.name} was sent to {place:.4g} {field.unit} and stands at {value:.4g} "
                    f"(path_tolerance {field.allowed_deviation:.4g})"
                )
        return ""

    def values(self) -> NDArray[np.float64]:
        """Return ``(A,)``: where the axes stand, and the hold value of those that take no position.

        Call it only if nothing is `missing`.
        """
        return np.array(
            [
                field.hold
                if field.measured is None
                else self._heard[self._topic_of[field.measured]][1][field.measured]
                for field in self._axes
            ],
            dtype=np.float64,
        )


def _stands(names: tuple[str, ...]) -> str:
    return f"it tells where the robot stands ({', '.join(names)})"
