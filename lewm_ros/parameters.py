"""A node's parameters as one table: type, range, unit, meaning, and when they may change.

One table declares them all, so that ``ros2 param describe``, the checks and the documentation
cannot disagree.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

from lewm_ros.runtime import RCLPY_PARAMETERS, declare, nearest


class Change(enum.Enum):
    """When a parameter may change; the value is what ``ros2 param describe`` says."""

    LIVE = "may change at any time"
    IDLE = "may change while the node is not active"
    FIXED = "fixed while the node is configured; clean up first"
    START = "read once when the process starts"


@dataclass(frozen=True)
class Declaration:
    """One row of the table.

    Attributes:
        name: Of the parameter.
        default: Gives the type.
        description: Sentences with the unit.
        change: When it may change.
        lowest: Smallest value allowed, for numbers.
        highest: Largest value allowed, for numbers.
        choices: Values allowed, for text.
    """

    name: str
    default: str | bool | int | float | list[str]
    description: str
    change: Change = Change.FIXED
    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()


#: rclpy's own, of every node.
_ROS_TIME = Declaration("use_sim_time", False, "Follow /clock.")


def declare_parameters(node: Node, table: Sequence[Declaration]) -> None:
    """Declare all parameters on ``node``; overrides from the command line apply.

    Raises:
        ConfigError: A value given at start has another type or is out of range.
    """
    for row in table:
        declare(
            node,
            row.name,
            row.default,
            f"{row.description} ({row.change.value})",
            minimum=row.lowest,
            maximum=row.highest,
            choices=row.choices,
            read_only=row.change is Change.START,
        )


def read_parameters(node: Node, table: Sequence[Declaration]) -> dict[str, Any]:
    """Return the values that ``node`` has now."""
    return {row.name: node.get_parameter(row.name).value for row in table}


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
        name = f"parameter {change.name!r}"
        if not node.has_parameter(change.name):
            known = [known for known in node._parameters if known not in RCLPY_PARAMETERS]
            return [], f"{name} is not known{nearest(change.name, known)}"
        kind = node.get_parameter(change.name).type_
        if (kind, change.type_) == (Parameter.Type.DOUBLE, Parameter.Type.INTEGER):
            change = Parameter(change.name, kind, float(change.value))
        if change.type_ != kind:
            return [], (
                f"{name} takes {kind.name.lower().replace('_', ' ')}, given is "
                f"{change.type_.name.lower().replace('_', ' ')}: give a value of its type"
            )
        taken.append(change)
    return taken, ""


def why_refused(
    table: Sequence[Declaration],
    changes: Iterable[Parameter],
    node: str,
    *,
    configured: bool,
    active: bool,
) -> str:
    """Say by name, with the reason and the mend, what must not change now; empty: all may.

    Type and range were checked by rclpy from the descriptors before this is called, but it lets
    pass what is no number, and knows no choices. The source of ROS time is fixed like the rest:
    under a robot that moves, all stamps would lose their meaning.

    Args:
        table: Of the node.
        changes: What somebody wants to set.
        node: What sentences call the node: "the planner".
        configured: Whether it holds what it made in configure.
        active: Whether it is active.
    """
    rows = {row.name: row for row in table}
    for change in changes:
        row = _ROS_TIME if change.name == _ROS_TIME.name else rows.get(change.name)
        if row is None:
            continue
        name, value = f"parameter {change.name!r}", change.value
        if row.change is Change.FIXED and configured:
            return (
                f"{name} cannot change while {node} is configured: deactivate it and clean it up "
                "first"
            )
        if row.change is Change.IDLE and active:
            return f"{name} cannot change while {node} is active: deactivate it first"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}: give a finite number"
        if row.choices and value not in row.choices:
            return f"{name} is {value!r}: give one of {', '.join(row.choices)}"
    return ""
