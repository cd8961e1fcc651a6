"""A video of what went well beside what did not, each next to its goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm_core.evaluation.evaluate import Table
from lewm_core.evaluation.video import VideoWriter, side_by_side
from lewm_core.scenes.registry import Scene

#: Successes and failures shown, each.
PAIRS = 4
_RATE_HZ = 10.0
_HEIGHT = 256  # px of a panel


def write_showcase(path: Path, table: Table, scene: Scene, pairs: int = PAIRS) -> Path:
    """Write an MP4 of the first successes and the first failures, side by side.

    The first by number, not the best looking. Pictures are drawn from the recorded ground truth.

    Args:
        path: The video, replaced if it exists.
        table: Of the evaluation.
        scene: Draws the pictures.
        pairs: At most so many of each.

    Returns:
        ``path``.
    """
    rows = range(len(table.drives))
    reached = [row for row in rows if table.results[row].success_any][:pairs]
    missed = [row for row in rows if not table.results[row].success_any][:pairs]
    with VideoWriter(path, _RATE_HZ) as video:
        for success, failure in zip_longest(reached, missed):
            for frame in _frames(table, scene, success, failure):
                video.add(frame)
    return path


def _frames(
    table: Table, scene: Scene, success: int | None, failure: int | None
) -> Iterator[NDArray[np.uint8]]:
    budget = table.task.budget
    # Stand still at the end, so that one sees where it ended.
    for step in (*range(budget + 1), *[budget] * round(_RATE_HZ)):
        panels: list[NDArray[np.uint8]] = []
        titles: list[str] = []
        for row, kind in ((success, "reached"), (failure, "missed")):
            shown = _panels(table, scene, row, step, kind)
            panels += shown[0]
            titles += shown[1]
        caption = (
            f"{table.candidate.label}, planner {table.setup.name}, goals {table.task.distance} "
            f"steps away: step {step} of {budget}"
        )
        yield side_by_side(panels, titles, caption, _HEIGHT)


def _panels(
    table: Table, scene: Scene, row: int | None, step: int, kind: str
) -> tuple[Sequence[NDArray[np.uint8]], Sequence[str]]:
    width, height = table.candidate.contract.camera.size
    if row is None:
        blank = np.full((height, width, 3), 24, np.uint8)
        return (blank, blank), (f"no more {kind}", "")
    goal, drive = table.task.goals[row], table.drives[row]
    first = drive.result.first_success_step
    when = f" at {first}" if first is not None and step >= first else ""
    picture = scene.render_state(drive.truths[step], width, height)
    return (picture, goal.goal_picture), (f"goal {goal.number}: {kind}{when}", "goal")
