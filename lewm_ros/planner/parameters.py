"""The planner's parameters: type, range, unit, meaning, and whether they may change while it runs.

One table declares them all, so that ``ros2 param describe``, the checks and the documentation
cannot disagree.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from lewm_ros.runtime import declare

_LIVE = "may change at any time"
_IDLE = "may change while the planner is not active"
_FIXED = "fixed while the node is configured; clean up first"
_START = "read once when the process starts"

#: rclpy's own, of every node.
_USE_SIM_TIME = "use_sim_time"


@dataclass(frozen=True)
class _Declaration:
    """One row of the table."""

    name: str
    default: str | bool | int | float
    description: str
    change: str = _FIXED
    lowest: float | None = None
    highest: float | None = None


DECLARATIONS: tuple[_Declaration, ...] = (
    _Declaration("checkpoint", "", "Folder of the checkpoint to plan with."),
    _Declaration(
        "contract", "",
        "Contract file, or a name in config/robots; empty: the checkpoint's. Another one than "
        "the checkpoint's is refused.",
    ),
    _Declaration(
        "force", False,
        "Activate although lewm-check found that the checkpoint cannot plan. The robot will move, "
        "and not towards the goal.", _LIVE,
    ),
    _Declaration(
        "planner", "auto",
        "Planner preset: a YAML file, or a name in config/planner; auto: default for a "
        "checkpoint with a learned proposal, else search.",
    ),
    _Declaration("device", "auto", "Where the model runs: cpu, cuda, cuda:1, or auto."),
    _Declaration(
        "threads", 0, "Threads of the model on a CPU; 0: all cores but one, at least one.",
        lowest=0, highest=256,
    ),
    _Declaration(
        "seed", -1, "Seed of the search; -1: the preset's.", lowest=-1, highest=2**31 - 1
    ),
    _Declaration(
        "replan_rate", 0.0,
        "Plans per second of ROS time [Hz]; 0: one per block of the model.", _LIVE, 0.0, 100.0,
    ),
    _Declaration(
        "goal_tolerance", 0.0,
        "Squared latent distance [-] that counts as reached; 0: goal_tolerance_factor times the "
        "checkpoint's distance of one block.", _LIVE, 0.0, 1.0e9,
    ),
    _Declaration(
        "goal_tolerance_factor", 0.0,
        "Default tolerance in units of the checkpoint's squared latent distance between pictures "
        "one block apart [-]; 0: the checkpoint's own, mostly 0.06, about a quarter of the motion "
        "in a block.", _LIVE, 0.0, 1.0e6,
    ),
    _Declaration(
        "reached_pictures", 3,
        "Consecutive pictures within the tolerance that make a goal reached [-].", _LIVE, 1, 1000,
    ),
    _Declaration(
        "reached_time", 0.2,
        "Time [s] by the pictures' stamps for which the goal must be within the tolerance, besides "
        "reached_pictures.", _LIVE, 0.0, 60.0,
    ),
    _Declaration(
        "progress_timeout", 0.0,
        "Give a goal up when the distance has not become 5 % less for this long [s of ROS time]; "
        "0: never.", _LIVE, 0.0, 3600.0,
    ),
    _Declaration(
        "failure_timeout", 10.0,
        "Give a goal up when planning has failed for this long [s of ROS time]; 0: never.",
        _LIVE, 0.0, 3600.0,
    ),
    _Declaration(
        "dry_run", False,
        "Plan and report everything but publish no command: the robot stands, or others drive it.",
        _IDLE,
    ),
    _Declaration(
        "speed_scale", 1.0,
        "Share of every command's way from the hold command that is published [-]: 0.2 drives at a "
        "fifth of the speed.", _LIVE, 0.0, 1.0,
    ),
    _Declaration(
        "deadman_topic", "",
        "Topic of std_msgs/Bool that must say true, again and again, for the robot to move; "
        "empty: none.",
    ),
    _Declaration(
        "deadman_timeout", 0.5, "Time [s of wall time] for which one such message counts.",
        _LIVE, 0.02, 60.0,
    ),
    _Declaration(
        "frozen_timeout", -1.0,
        "Hold when the pictures are the same to the last byte for this long [s] while the robot is "
        "commanded to move: a frozen camera, or a robot that does not move. 0: never; -1: the "
        "camera's timeout, but never in simulated time, where pictures have no noise.",
        _LIVE, -1.0, 3600.0,
    ),
    _Declaration(
        "watchdog_timeout", 0.5,
        "Hold when the node's callbacks stand still for this long [s of wall time].",
        _IDLE, 0.1, 60.0,
    ),
    _Declaration(
        "goal_file", "",
        "PNG or JPEG to drive to as soon as the node is active; empty: wait for ~/set_goal or "
        "~/reach_goal.",
    ),
    _Declaration(
        "status_rate", 5.0, "Reports on ~/status per second of wall time [Hz].",
        lowest=2.0, highest=50.0,
    ),
    _Declaration(
        "lock_step", False,
        "Withhold the command of a control tick while a plan is being made, so that a simulated "
        "scene in lock step waits for it. Never on a robot.",
    ),
    _Declaration(
        "clock_timeout", 0.5,
        "When ROS time stands still for this long [s of wall time], hold and say so.",
        _LIVE, 0.1, 3600.0,
    ),
    _Declaration(
        "autostart", False,
        "Configure and activate without a lifecycle manager; end with status 1 if that fails.",
        _START,
    ),
)


@dataclass(frozen=True)
class PlannerParameters:
    """Values of all parameters; see `DECLARATIONS` for meaning and units."""

    checkpoint: str
    contract: str
    force: bool
    planner: str
    device: str
    threads: int
    seed: int
    replan_rate: float
    goal_tolerance: float
    goal_tolerance_factor: float
    reached_pictures: int
    reached_time: float
    progress_timeout: float
    failure_timeout: float
    dry_run: bool
    speed_scale: float
    deadman_topic: str
    deadman_timeout: float
    frozen_timeout: float
    watchdog_timeout: float
    goal_file: str
    status_rate: float
    lock_step: bool
    clock_timeout: float
    autostart: bool


def declare_parameters(node: Node) -> None:
    """Declare all parameters on ``node``; overrides from the command line apply.

    Raises:
        ConfigError: A value given at start has another type or is out of range.
    """
    for row in DECLARATIONS:
        declare(
            node,
            row.name,
            row.default,
            f"{row.description} ({row.change})",
            minimum=row.lowest,
            maximum=row.highest,
            read_only=row.change == _START,
        )


def read_parameters(node: Node) -> PlannerParameters:
    """Return the values that ``node`` has now."""
    values: dict[str, Any] = {
        row.name: node.get_parameter(row.name).value for row in DECLARATIONS
    }
    return PlannerParameters(**values)


def as_declared(node: Node, changes: Sequence[Parameter]) -> tuple[list[Parameter], str]:
    """Compare what somebody wants to set with the declared names and types.

    rclpy refuses an unknown name and another type, too, but does not say of which parameter.

    Args:
        node: Has the parameters.
        changes: What somebody wants to set.

    Returns:
        The changes, a whole number given for a number as such: ``speed_scale 1`` means 1.0, as at
        start; and why one of them cannot be, empty if all can.
    """
    taken = []
    for change in changes:
        if not node.has_parameter(change.name):
            near = difflib.get_close_matches(change.name, [row.name for row in DECLARATIONS], 1)
            meant = f", did you mean {near[0]!r}?" if near else ""
            return [], f"parameter {change.name!r} is not known{meant}"
        kind = node.get_parameter(change.name).type_
        if (kind, change.type_) == (Parameter.Type.DOUBLE, Parameter.Type.INTEGER):
            change = Parameter(change.name, kind, float(change.value))
        if change.type_ != kind:
            return [], (
                f"parameter {change.name!r} takes {kind.name.lower()}, given is "
                f"{change.type_.name.lower().replace('_', ' ')}: give a value of its type"
            )
        taken.append(change)
    return taken, ""


def check_changes(
    changes: Iterable[Parameter], configured: Callable[[], bool], active: Callable[[], bool]
) -> SetParametersResult:
    """Refuse, by name and with the reason, what must not change now.

    Type and range were checked by rclpy from the descriptors before this is called. The source of
    ROS time is fixed like the rest: under a robot that moves, all stamps would lose their meaning.

    Args:
        changes: What somebody wants to set.
        configured: Whether the node holds a model at the moment.
        active: Whether it may publish commands at the moment.
    """
    rows = {row.name: row for row in DECLARATIONS}
    for change in changes:
        row = rows.get(change.name)
        fixed = change.name == _USE_SIM_TIME or (row is not None and row.change == _FIXED)
        if fixed and configured():
            return SetParametersResult(
                successful=False,
                reason=f"parameter {change.name!r} cannot change while the planner is "
                "configured: deactivate it and clean it up first",
            )
        if row is not None and row.change == _IDLE and active():
            return SetParametersResult(
                successful=False,
                reason=f"parameter {change.name!r} cannot change while the planner is active: "
                "deactivate it first",
            )
    return SetParametersResult(successful=True)
