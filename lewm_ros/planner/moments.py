"""What the model is given of one moment, put together from messages that come one by one; no ROS.

A moment is a picture of the model's first camera, with the nearest pictures of its other cameras,
taken within half a control period of it, and with the state fields as they were then. With one
camera and no state fields, which is the rule, every good picture is a moment.

A picture waits for the state: only when one that is as new has come it is known what the newest one
at the picture's time was. So states should come at the control rate or faster. It does not wait for
a nearer picture of another camera than there is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.alignment import TOLERANCE_NS
from lewm_core.data.contract import Contract
from lewm_core.data.observation import Observation, ObservationLayout
from lewm_core.errors import ImageError
from lewm_ros.planner.camera_watch import CameraCounters, CameraWatch

#: Pictures of each camera, and messages of each state topic, that wait for their counterparts.
_PICTURES_KEPT, _STATES_KEPT = 8, 256
_NS = 1e-9


@dataclass(frozen=True, eq=False)
class Moment:
    """Something to plan from.

    Attributes:
        stamp_ns: Of the first camera's picture.
        seen: What the model is given.
    """

    stamp_ns: int
    seen: Observation


@dataclass
class _Camera:
    watch: CameraWatch
    timeout_s: float
    pictures: deque[tuple[int, NDArray[np.uint8]]]
    ahead_ns: int = field(default=0, init=False)


class MomentCollector:
    """Takes pictures and states, and says what may be acted on.

    Args:
        layout: What the model is given.
        contract: Of the layout.
    """

    def __init__(self, layout: ObservationLayout, contract: Contract) -> None:
        self._names = layout.state_names
        self._cameras = {
            camera.name: _Camera(
                CameraWatch(camera.topic, camera.timeout),
                camera.timeout,
                deque(maxlen=_PICTURES_KEPT),
            )
            for camera in layout.cameras
        }
        self._first, *self._others = self._cameras.values()
        self._states: dict[str, deque[tuple[int, Mapping[str, float]]]] = {
            state.topic: deque(maxlen=_STATES_KEPT)
            for state in contract.states
            if any(field.name in layout.state_names for field in state.fields)
        }
        self._apart_ns = round(contract.control_period / 2 / _NS)
        self._timeout_s = min(camera.timeout for camera in layout.cameras)
        self._oldest_state_ns = round(contract.max_gap / _NS)
        self._newest_ns: int | None = None

    @property
    def counters(self) -> CameraCounters:
        """Picture messages since activation, of all cameras."""
        counters = [camera.watch.counters for camera in self._cameras.values()]
        return CameraCounters(
            sum(counter.received for counter in counters),
            sum(counter.accepted for counter in counters),
            sum(counter.refused for counter in counters),
        )

    def reset(self) -> None:
        """Forget everything: the node was activated anew."""
        for camera in self._cameras.values():
            camera.watch.reset()
        self.forget()

    def forget(self) -> None:
        """Forget pictures and states but keep counting: the clock jumped."""
        for camera in self._cameras.values():
            camera.watch.forget()
            camera.pictures.clear()
        for states in self._states.values():
            states.clear()
        self._newest_ns = None

    def set_frozen_timeout(self, seconds: float | None) -> None:
        """Hold for pictures that stay the same for this long; None: for each camera's timeout."""
        for camera in self._cameras.values():
            camera.watch.frozen_timeout_s = camera.timeout_s if seconds is None else seconds

    def try_again(self) -> None:
        """Let pictures that stay the same count from now on: somebody asks for motion anew."""
        for camera in self._cameras.values():
            camera.watch.try_again()

    def picture_came(
        self,
        camera: str,
        stamp_ns: int,
        now_ns: int,
        read: Callable[[], NDArray[np.uint8]],
        mark: Callable[[], int] | None = None,
        moving: bool = False,
    ) -> str:
        """Take a picture.

        Args:
            camera: Its name in the contract, one of the model's.
            stamp_ns: When it was taken.
            now_ns: ROS time.
            read: Decodes it to ``(3, S, S)`` uint8; called only if the stamp is good.
            mark: Returns its `fingerprint`; None: it is not compared.
            moving: Whether the robot was commanded to move since the picture before.

        Returns:
            Why it cannot be used; empty otherwise.
        """
        source = self._cameras[camera]
        if not source.watch.accepts(stamp_ns, now_ns):
            return ""
        try:
            picture = read()
        except (ImageError, ValueError) as error:
            reason = " ".join(str(error).split())
            source.watch.refuse(reason)
            return reason
        if mark is not None:
            source.watch.compare(mark(), stamp_ns, moving)
        # A stamp ahead of ROS time must not make a picture last longer than its timeout.
        source.ahead_ns = max(0, stamp_ns - now_ns)
        source.watch.accept(stamp_ns)
        source.pictures.append((stamp_ns, picture))
        return ""

    def state_came(
        self, topic: str, stamp_ns: int, now_ns: int, values: Mapping[str, float]
    ) -> None:
        """Take the state fields of a message.

        Args:
            topic: Passed over if the model is given nothing of it.
            stamp_ns: When it was measured. What is older than the newest is passed over, and so is
                what lies farther in the future than a picture may: it would be the newest for ever.
            now_ns: ROS time.
            values: By the names of the contract's fields.
        """
        states = self._states.get(topic)
        if states is None:
            return
        ahead_s = (stamp_ns - now_ns) * _NS
        if ahead_s <= self._timeout_s and not (states and stamp_ns < states[-1][0]):
            states.append((stamp_ns, values))

    def take(self) -> Moment | None:
        """Return the newest moment that is complete, if it is newer than all before."""
        for stamp_ns, picture in reversed(self._first.pictures):
            if self._newest_ns is not None and stamp_ns <= self._newest_ns:
                return None
            pictures = [picture, *(self._nearest(other, stamp_ns) for other in self._others)]
            state = self._state_at(stamp_ns)
            if state is None or any(picture is None for picture in pictures):
                continue
            self._newest_ns = stamp_ns
            seen = Observation(np.concatenate(pictures), state if self._names else None)
            return Moment(stamp_ns, seen)
        return None

    def age_s(self, now_ns: int) -> float:
        """Seconds since the newest moment; NaN before the first."""
        return math.nan if self._newest_ns is None else (now_ns - self._newest_ns) * _NS

    def deadline_ns(self) -> int | None:
        """Until when commands may rest on the newest moment; None if there is none."""
        if self._newest_ns is None:
            return None
        ahead_ns = max(camera.ahead_ns for camera in self._cameras.values())
        return self._newest_ns - ahead_ns + round(self._timeout_s / _NS)

    def problem(self, now_ns: int) -> str:
        """Why nothing may be done now, in one sentence; empty if the newest moment is good."""
        for camera in self._cameras.values():
            problem = camera.watch.problem(now_ns)
            if problem:
                return problem
        if self._newest_ns is not None and self.age_s(now_ns) <= self._timeout_s:
            return ""
        for topic, states in self._states.items():
            if not states:
                return f"no state on {topic} yet, and the model is given {', '.join(self._names)}"
            age_s = (now_ns - states[-1][0]) * _NS
            if age_s > self._timeout_s:
                return (
                    f"the newest state on {topic} is {age_s:.2f} s old (limit "
                    f"{self._timeout_s:g} s)"
                )
        lacking = []
        if self._others:
            names = " and ".join(self._cameras)
            lacking.append(f"pictures of {names} within {self._apart_ns * _NS:g} s of each other")
        if self._states:
            lacking.append("state of the time of a picture")
        return f"no {' with a '.join(lacking)}: compare their stamps"

    def _nearest(self, camera: _Camera, stamp_ns: int) -> NDArray[np.uint8] | None:
        near = [
            (abs(stamp - stamp_ns), index)
            for index, (stamp, _) in enumerate(camera.pictures)
            if abs(stamp - stamp_ns) <= self._apart_ns
        ]
        return camera.pictures[min(near)[1]][1] if near else None

    def _state_at(self, stamp_ns: int) -> NDArray[np.float32] | None:
        """The state fields ``(P,)`` at a time, as training aligns them; None: not known yet."""
        found: dict[str, float] = {}
        for states in self._states.values():
            if not states or states[-1][0] < stamp_ns - TOLERANCE_NS:
                return None
            then = [entry for entry in states if entry[0] <= stamp_ns + TOLERANCE_NS]
            if not then or stamp_ns - then[-1][0] > self._oldest_state_ns:
                return None
            found.update(then[-1][1])
        values = np.array([found[name] for name in self._names], dtype=np.float32)
        return values if np.isfinite(values).all() else None
