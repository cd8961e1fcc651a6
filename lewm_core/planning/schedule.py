"""How one plan follows another: how far to plan, and from where to begin the search."""

from __future__ import annotations

from torch import Tensor

from lewm_core.planning.state import ActivePlan, Goal


def count_down(
    goal: Goal, start_ns: int, longest: int, shortest: int, block_ns: int
) -> int:
    """Blocks from ``start_ns`` to the moment of arrival; sets the next arrival when it is over.

    A horizon that always ends a fixed time from now never lets the robot arrive when it replans
    more often than that; one that counts down does.

    Args:
        goal: Its ``arrival_ns`` is read, and renewed to ``longest`` blocks from ``start_ns`` if
            it is not set or less than half a block away.
        start_ns: When the plan begins.
        longest: Blocks at most.
        shortest: Blocks at least.
        block_ns: Length of a block.
    """
    remaining = 0
    if goal.arrival_ns is not None:
        remaining = round((goal.arrival_ns - start_ns) / block_ns)
    if remaining < 1:
        goal.arrival_ns = start_ns + longest * block_ns
        remaining = longest
    return min(max(remaining, shortest), longest)


def remaining_blocks(
    active: ActivePlan | None, goal: Goal, start_ns: int, horizon: int, block_ns: int
) -> Tensor | None:
    """The previous plan for the same goal, less the whole blocks that have passed since.

    Returns:
        ``(1, at most horizon, F * A)`` normalised; None if nothing is left or there was none.
    """
    if active is None or active.goal_serial != goal.serial:
        return None
    passed = max(0, round((start_ns - active.start_ns) / block_ns))
    rest = active.plan.blocks[:, passed : passed + horizon]
    return rest if rest.shape[1] else None
