"""An evaluation in one picture: rates with intervals, errors before and after, success in time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.evaluation.evaluate import Table, Task
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.statistics import summarise
from lewm_core.scenes.outcome import Criterion

_GREY = "0.55"


def draw_summary(
    path: Path, title: str, tables: Sequence[Table], criterion: Criterion
) -> Path:
    """Draw one row of panels for each distance; returns ``path``.

    Args:
        path: PNG file, replaced if it exists.
        title: Heading.
        tables: Of one evaluation.
        criterion: The scene's.
    """
    # Here, not at the top: matplotlib takes a second to import.
    from matplotlib.figure import Figure

    tasks = list({id(table.task): table.task for table in tables}.values())
    figure = Figure(figsize=(17, 4.3 * len(tasks) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(tasks), 4, squeeze=False)
    for axes, task in zip(grid, tasks, strict=True):
        shown = {table.candidate.label: table.results for table in tables if table.task is task}
        _draw_rates(axes[0], task, shown)
        _draw_errors(
            axes[1], shown, "position error, mm", 1e3, criterion.position_tolerance,
            lambda r: r.position_error_before, lambda r: r.position_error_after,
        )
        _draw_errors(
            axes[2], shown, "angle error, degrees", math.degrees(1), criterion.angle_tolerance,
            lambda r: r.angle_error_before, lambda r: r.angle_error_after,
        )
        _draw_in_time(axes[3], task, shown)
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new.png")
    figure.savefig(fresh, dpi=100)
    os.replace(fresh, path)
    return path


def _draw_rates(axis: Any, task: Task, shown: Mapping[str, Sequence[GoalResult]]) -> None:
    """Bars of success at any time and at the end, with their intervals."""
    policies = {**shown, **task.baselines}
    for row, results in enumerate(policies.values()):
        figures = summarise(results)
        for offset, key, interval_key, alpha in (
            (-0.19, "success_any", "ci95_any", 1.0), (0.19, "success_final", "ci95_final", 0.5)
        ):
            rate, (low, high) = figures[key], figures[interval_key]
            axis.barh(
                row + offset, 100 * rate, height=0.36, alpha=alpha,
                color=f"C{row}" if row < len(shown) else _GREY,
                xerr=[[100 * (rate - low)], [100 * (high - rate)]],
                error_kw={"ecolor": "black", "elinewidth": 1, "capsize": 2},
            )
            axis.text(101, row + offset, f"{100 * rate:.1f}", va="center", fontsize=8)
    axis.set_yticks(range(len(policies)), list(policies), fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of goals")
    axis.set_title(
        f"{task.distance} steps away, {task.budget} allowed, {len(task.goals)} goals:\n"
        "any time (full), at the end (pale), 95 %", fontsize=9,
    )


def _draw_errors(
    axis: Any,
    shown: Mapping[str, Sequence[GoalResult]],
    label: str,
    unit: float,
    tolerance: float | None,
    before: Callable[[GoalResult], float],
    after: Callable[[GoalResult], float],
) -> None:
    """Share of the goals whose error is below x: dashed at the start, full at the end."""
    errors = [before(result) for results in shown.values() for result in results]
    if not np.isfinite(errors).any():
        # The scene has no such error.
        axis.set_visible(False)
        return
    for number, (name, results) in enumerate(shown.items()):
        share = 100 * np.arange(1, len(results) + 1) / len(results)
        axis.step(np.sort([unit * after(r) for r in results]), share, where="post",
                  color=f"C{number}", label=f"{name}, at the end")
        if number == 0:
            axis.step(np.sort([unit * before(r) for r in results]), share, where="post",
                      color=_GREY, linestyle="--", label="at the start")
    if tolerance is not None:
        axis.axvline(unit * tolerance, color="black", linewidth=1, linestyle=":",
                     label="criterion")
    scale = tolerance if tolerance is not None else max(float(np.median(errors)), 1e-9)
    axis.set_xscale("symlog", linthresh=unit * scale / 4)
    axis.set_xlim(0, None)
    axis.set_ylim(0, 100)
    axis.set_xlabel(label)
    axis.set_ylabel("% of goals below")
    axis.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_in_time(axis: Any, task: Task, shown: Mapping[str, Sequence[GoalResult]]) -> None:
    """Share of the goals met so far (full), and met at that step (dotted)."""
    curves = {**shown, "replay": task.baselines["replay"]} if "replay" in task.baselines else shown
    steps = np.arange(1, task.budget + 1)
    for number, (name, results) in enumerate(curves.items()):
        met = np.array([result.met for result in results], dtype=float)
        colour = f"C{number}" if name in shown else _GREY
        so_far = 100 * np.maximum.accumulate(met, axis=1).mean(axis=0)
        axis.plot(steps, so_far, color=colour, label=name)
        axis.plot(steps, 100 * met.mean(axis=0), color=colour, linestyle=":")
    axis.axvline(task.distance, color="black", linewidth=1, linestyle=":")
    axis.set_xlim(0, task.budget)
    axis.set_ylim(0, 100)
    axis.set_xlabel("control steps (the recorded way: dotted line)")
    axis.set_ylabel("% of goals met so far, dotted: just then")
    axis.legend(fontsize=8, frameon=False, loc="upper left")
