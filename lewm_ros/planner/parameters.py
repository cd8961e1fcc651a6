"""The planner's parameters: type, range, unit, meaning, and whether they may change while it runs.

One table declares them all, so that ``ros2 param describe``, the checks and the documentation
cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from lewm_ros.runtime import declare

_LIVE = "may change at any time"
_FIXED = "fixed while the node is configured; clean up first"
_START = "read once when the process starts"


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
        "clock_timeout", 2.0,
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


def check_changes(
    changes: Iterable[Parameter], configured: Callable[[], bool]
) -> SetParametersResult:
    """Refuse, by name and with the reason, what must not change now.

    Type and range were checked by rclpy from the descriptors before this is called.

    Args:
        changes: What somebody wants to set.
        configured: Whether the node holds a model at the moment.
    """
    rows = {row.name: row for row in DECLARATIONS}
    for change in changes:
        row = rows.get(change.name)
        if row is not None and row.change == _FIXED and configured():
            return SetParametersResult(
                successful=False,
                reason=f"parameter {change.name!r} cannot change while the planner is "
                "configured: deactivate it and clean it up first",
            )
    return SetParametersResult(successful=True)
