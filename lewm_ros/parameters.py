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

from lewm_ros.runtime import declare


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
    pass what is no number, and knows no choices.

    Args:
        table: Of the node.
        changes: What somebody wants to set.
        node: What sentences call the node: "the planner".
        configured: Whether it holds what it made in configure.
        active: Whether it is active.
    """
    rows = {row.name: row for row in table}
    for change in changes:
        row = rows.get(change.name)
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
