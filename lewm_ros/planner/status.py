"""What the planner reports about itself: counters, percentiles, ``~/status``, ``/diagnostics``."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from lewm_ros.codecs import ns_to_stamp
from lewm_ros.msg import PlanStatus

#: Percentiles are over this many newest values.
_WINDOW = 200
_PERCENTS = (50, 95, 99)

STATE_NAMES = {
    PlanStatus.INACTIVE: "INACTIVE",
    PlanStatus.WAITING: "WAITING",
    PlanStatus.PLANNING: "PLANNING",
    PlanStatus.REACHED: "REACHED",
    PlanStatus.STOPPED: "STOPPED",
    PlanStatus.FAILED: "FAILED",
}


class Window:
    """The newest values of something that is measured again and again."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_WINDOW)

    def add(self, value: float) -> None:
        """Take in one value."""
        self._values.append(value)

    @property
    def newest(self) -> float:
        """The value added last; NaN before the first."""
        return self._values[-1] if self._values else math.nan

    def percentiles(self) -> dict[int, float]:
        """Return the 50th, 95th and 99th percentile by their names; NaN before the first value."""
        if not self._values:
            return dict.fromkeys(_PERCENTS, math.nan)
        values = np.percentile(np.array(self._values), _PERCENTS)
        return dict(zip(_PERCENTS, values.tolist(), strict=True))


@dataclass
class PlannerReport:
    """Everything the planner says about itself; plain numbers, times in seconds.

    Field names are those of ``PlanStatus`` where it has them.
    """

    state: int = PlanStatus.INACTIVE
    reason: str = "not configured"
    holding: bool = False
    dry_run: bool = False
    speed_scale: float = 1.0
    other_drivers: str = ""
    verdict: str = ""
    goal: str = ""
    goal_distance: float = math.nan
    goal_tolerance: float = math.nan
    plan_cost: float = math.nan
    image_age: float = math.nan
    image_to_command: float = math.nan
    images: int = 0
    images_refused: int = 0
    plans: int = 0
    plans_late: int = 0
    candidates_dropped: int = 0
    commands: int = 0
    commands_held: int = 0
    commands_clipped: int = 0
    commands_slowed: int = 0
    watchdog_holds: int = 0
    encode_times: Window = field(default_factory=Window)
    plan_times: Window = field(default_factory=Window)
    publish_times: Window = field(default_factory=Window)
    image_ages: Window = field(default_factory=Window)
    command_ages: Window = field(default_factory=Window)
    command_jitters: Window = field(default_factory=Window)

    def key(self) -> tuple[int, str, bool, str, str]:
        """What makes a change worth reporting at once; numbers in a reason do not."""
        return self.state, self.words(), self.holding, self.goal, self.other_drivers

    def words(self) -> str:
        """Return the reason without its numbers."""
        return " ".join(word for word in self.reason.split() if not word[0].isdigit())

    def message(self, now_ns: int) -> PlanStatus:
        """Return the report as ``~/status`` carries it."""
        message = PlanStatus(
            state=self.state,
            reason="" if self.state == PlanStatus.PLANNING else self.reason,
            holding=self.holding,
            dry_run=self.dry_run,
            speed_scale=as_float32(self.speed_scale),
            other_drivers=self.other_drivers,
            verdict=self.verdict,
            goal=self.goal,
            goal_distance=as_float32(self.goal_distance),
            goal_tolerance=as_float32(self.goal_tolerance),
            plan_cost=as_float32(self.plan_cost),
            image_age=self.image_age,
            image_to_command=self.image_to_command,
            encode_time=self.encode_times.newest,
            plan_time=self.plan_times.newest,
            publish_time=self.publish_times.newest,
            images=self.images,
            plans=self.plans,
            plans_late=self.plans_late,
            candidates_dropped=self.candidates_dropped,
            commands=self.commands,
            commands_held=self.commands_held,
            watchdog_holds=self.watchdog_holds,
        )
        for label, window in self._windows().items():
            if hasattr(message, f"{label}_p50"):
                for percent, value in window.percentiles().items():
                    setattr(message, f"{label}_p{percent}", value)
        message.header.stamp = ns_to_stamp(max(0, now_ns))
        return message

    def _windows(self) -> dict[str, Window]:
        return {
            "image_age": self.image_ages,
            "encode_time": self.encode_times,
            "plan_time": self.plan_times,
            "publish_time": self.publish_times,
            "image_to_command": self.command_ages,
            "command_jitter": self.command_jitters,
        }

    def diagnostics(self, now_ns: int, node_name: str, hardware: str) -> DiagnosticArray:
        """Return the report as ``/diagnostics`` carries it.

        Args:
            now_ns: ROS time.
            node_name: Begins the names of the entries.
            hardware: Where the model runs.
        """
        level = {
            PlanStatus.INACTIVE: DiagnosticStatus.OK,
            PlanStatus.PLANNING: DiagnosticStatus.OK,
            PlanStatus.REACHED: DiagnosticStatus.OK,
            PlanStatus.WAITING: DiagnosticStatus.WARN,
            PlanStatus.STOPPED: DiagnosticStatus.WARN,
            PlanStatus.FAILED: DiagnosticStatus.ERROR,
        }[self.state]
        name = STATE_NAMES[self.state]
        text = name if self.state == PlanStatus.PLANNING else f"{name}: {self.reason}"
        if self.other_drivers:
            text += f"; {self.other_drivers} also publishes the command topic"
            level = max(level, DiagnosticStatus.WARN)
        values = {
            "verdict": self.verdict,
            "goal": self.goal,
            "goal_distance": self.goal_distance,
            "goal_tolerance": self.goal_tolerance,
            "image_age_s": self.image_age,
            "images": self.images,
            "images_refused": self.images_refused,
            "plans": self.plans,
            "plans_late": self.plans_late,
            "candidates_dropped": self.candidates_dropped,
            "commands": self.commands,
            "commands_held": self.commands_held,
            "commands_clipped": self.commands_clipped,
            "commands_slowed": self.commands_slowed,
            "watchdog_holds": self.watchdog_holds,
            "other_drivers": self.other_drivers,
            "speed_scale": self.speed_scale,
            "dry_run": self.dry_run,
        }
        for label, window in self._windows().items():
            for percent, value in window.percentiles().items():
                values[f"{label}_p{percent}_s"] = value
        status = DiagnosticStatus(
            level=level,
            name=f"{node_name}: planning",
            message=text,
            hardware_id=hardware,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = ns_to_stamp(max(0, now_ns))
        return array


def as_float32(value: float) -> float:
    """Return ``value`` as a float32 field takes it: too large becomes infinity, not an error."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _text(value: float | int | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
