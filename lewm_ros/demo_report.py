"""What the demo leaves behind: a table on the terminal, a JSON file, a video and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm_core.evaluation.closed_loop import summarise as summarise_policy
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.goals import StartGoal
from lewm_core.evaluation.report import GoalRow, Report, describe_machine, write_html
from lewm_core.evaluation.video import VideoWriter, side_by_side
from lewm_core.scenes.registry import Scene

if TYPE_CHECKING:
    from lewm_ros.goal_runner import GoalTrace

#: The scene's camera comes at the control rate, 10 Hz; the video plays at twice that.
_VIDEO_RATE_HZ = 20.0
_PERCENTILES = (50, 95, 99)

Results = Mapping[str, Sequence[GoalResult]]


def summarise(
    settings: Mapping[str, Any], traces: Sequence[GoalTrace], results: Results
) -> dict[str, Any]:
    """Return the flat result for ``demo.json``.

    Args:
        settings: How the demo was run.
        traces: Of the planner's goals.
        results: Policy to its results; ``planner`` is one of them.
    """
    planner = summarise_policy(results["planner"])
    summary: dict[str, Any] = {**settings, "machine": describe_machine()}
    for key in ("episodes", "success_any", "success_final", "ci95_any", "ci95_final"):
        summary[key] = planner[key]
    summary["baselines"] = {
        name: {key: baseline[key] for key in ("success_any", "success_final", "ci95_any")}
        for name, baseline in (
            (name, summarise_policy(rows)) for name, rows in results.items() if name != "planner"
        )
    }
    for name, values in (
        ("plan_ms", [time for trace in traces for time in trace.plan_times_s]),
        ("encode_ms", [time for trace in traces for time in trace.encode_times_s]),
        ("image_to_command_ms", [age for trace in traces for age in trace.image_to_command_s]),
    ):
        for percentile in _PERCENTILES:
            value = float(np.percentile(values, percentile)) * 1e3 if values else None
            summary[f"{name}_p{percentile}"] = value
    summary["plans"] = sum(len(trace.plan_times_s) for trace in traces)
    summary["commands"] = sum(trace.commands for trace in traces)
    summary["commands_held"] = sum(trace.commands_held for trace in traces)
    return summary


def table(summary: Mapping[str, Any], results: Results) -> str:
    """Return what the demo prints at its end."""
    names = list(results)
    widths = [max(len(name), 7) for name in names]
    lines = ["", "goal  " + "  ".join(n.ljust(w) for n, w in zip(names, widths, strict=True))
             + "  planner's error before -> after"]
    for row, planner in enumerate(results["planner"]):
        marks = [
            ("reached" if results[name][row].success_any else "-").ljust(width)
            for name, width in zip(names, widths, strict=True)
        ]
        lines.append(f"{row + 1:4d}  " + "  ".join(marks) + "  " + _errors(planner))
    totals = [
        f"{sum(result.success_any for result in results[name])}/{len(results[name])}".ljust(width)
        for name, width in zip(names, widths, strict=True)
    ]
    low, high = summary["ci95_any"]
    lines += [
        "all   " + "  ".join(totals),
        f"planner: {100 * summary['success_any']:.0f} % at any time (95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}), {100 * summary['success_final']:.0f} % at the end",
        "plan " + _milliseconds(summary, "plan_ms"),
        "image to command " + _milliseconds(summary, "image_to_command_ms"),
    ]
    return "\n".join(lines)


def write(
    out: Path,
    summary: Mapping[str, Any],
    goals: Sequence[StartGoal],
    traces: Sequence[GoalTrace],
    results: Results,
    scene: Scene,
) -> None:
    """Write ``demo.json``, ``demo.mp4`` and ``report.html`` into ``out``."""
    (out / "demo.json").write_text(json.dumps(dict(summary), indent=2) + "\n")
    _write_video(out / "demo.mp4", goals, traces, results["planner"])
    reached = sum(result.success_any for result in results["planner"])
    report = Report(
        title=f"{scene.title} over ROS 2: planning to goal pictures in latent space",
        verdict=f"The planner reached {reached} of {len(goals)} goals; doing nothing reached "
        f"{sum(r.success_any for r in results['do nothing'])}, random commands "
        f"{sum(r.success_any for r in results['random'])}.",
        totals=[_total(name, rows) for name, rows in results.items()],
        goals=[
            GoalRow(
                number=row + 1,
                pictures={
                    "start": trace.pictures[0],
                    "end": trace.pictures[-1],
                    "goal": goal.goal_picture,
                },
                success={name: rows[row].success_any for name, rows in results.items()},
                details={"planner's error": _errors(results["planner"][row]),
                         "planner's own judgement": trace.message},
            )
            for row, (goal, trace) in enumerate(zip(goals, traces, strict=True))
        ],
        timings={
            "encode": _milliseconds(summary, "encode_ms"),
            "plan": _milliseconds(summary, "plan_ms"),
            "image to command": _milliseconds(summary, "image_to_command_ms"),
            "commands": f"{summary['commands']}, of these {summary['commands_held']} hold",
        },
        configuration={
            key: summary[key]
            for key in (
                "checkpoint", "planner_preset", "lock_step", "seed", "distance_steps",
                "budget_steps", "machine",
            )
        }
        | {"success": f"{scene.criterion.text}, at any time within the budget; do nothing and "
           "random ran in process"},
        video="demo.mp4",
    )
    write_html(out / "report.html", report)


def _write_video(
    path: Path,
    goals: Sequence[StartGoal],
    traces: Sequence[GoalTrace],
    results: Sequence[GoalResult],
) -> None:
    with VideoWriter(path, _VIDEO_RATE_HZ) as video:
        for goal, trace, result in zip(goals, traces, results, strict=True):
            heading = f"goal {goal.number + 1} of {len(goals)}"
            for picture in trace.pictures:
                video.add(side_by_side([picture, goal.goal_picture], ["camera", "goal"], heading))
            verdict = "reached" if result.success_any else "missed"
            last = side_by_side(
                [trace.pictures[-1], goal.goal_picture],
                ["camera", "goal"],
                f"{heading}: {verdict}, {_errors(result)}",
            )
            for _ in range(round(_VIDEO_RATE_HZ)):
                video.add(last)


def _total(name: str, rows: Sequence[GoalResult]) -> list[str]:
    figures = summarise_policy(rows)
    reached = sum(result.success_any for result in rows)
    low, high = figures["ci95_any"]
    return [
        name,
        f"{reached} of {len(rows)}",
        f"{100 * figures['success_any']:.0f} %",
        f"{100 * low:.0f} to {100 * high:.0f} %",
    ]


def _errors(result: GoalResult) -> str:
    before = f"{1e3 * result.position_error_before:.0f} mm"
    after = f"{1e3 * result.position_error_after:.0f} mm"
    if math.isfinite(result.angle_error_before):
        before += f", {math.degrees(result.angle_error_before):.0f} deg"
        after += f", {math.degrees(result.angle_error_after):.0f} deg"
    return f"{before} -> {after}"


def _milliseconds(summary: Mapping[str, Any], name: str) -> str:
    values = [summary[f"{name}_p{percentile}"] for percentile in _PERCENTILES]
    if None in values:
        return "(none)"
    return ", ".join(
        f"p{percentile} {value:.0f} ms"
        for percentile, value in zip(_PERCENTILES, values, strict=True)
    )
