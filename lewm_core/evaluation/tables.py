"""What an evaluation prints: tables a person can read, and what they do not prove."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lewm_core.evaluation.statistics import FEWEST_EPISODES, wilson_interval

_COLUMNS = (
    ("any time", "success_any", "ci95_any"),
    ("at the end", "success_final", "ci95_final"),
    ("object alone, any time", "object_any", "ci95_object_any"),
    ("object alone, at the end", "object_final", "ci95_object_final"),
)


def heading(record: Mapping[str, Any]) -> str:
    """What was evaluated, and how: every setting a reader needs to tell figures apart."""
    source = f"held-out episodes of {', '.join(record['data'])}" if record["data"] else (
        "fresh episodes of the scripted expert"
    )
    lines = [
        f"scene {record['scene']}, protocol {record['protocol']}, planner {record['planner']}, "
        f"split {record['split']}, seed {record['seed']}",
        f"{record['config']['protocol']['description']}",
        f"{record['episodes']} goals from {source}",
    ]
    settings = list(record["config"]["settings"])
    factor = record["config"]["goal_tolerance_factor"]
    if factor is None:
        lines.append("goals are pursued until the budget is over, also when they were reached")
    else:
        lines.append(f"reached: within {factor:g} times the latent distance of one block")
    if record["vary"]:
        lines.append(f"the scene varies from goal to goal: {', '.join(record['vary'])}")
    if settings:
        lines.append(f"settings changed: {', '.join(settings)}")
    return "\n".join(lines)


def table_text(row: Mapping[str, Any]) -> str:
    """One checkpoint at one distance, its baselines below it."""
    policies = {"planner": row, **{
        name.replace("_", " "): figures for name, figures in row["baselines"].items()
    }}
    lines = [
        f"{row['label']}: goals {row['distance_steps']} control steps away, "
        f"{row['budget_steps']} allowed, planner {row['planner']}",
        *rates(policies),
        "must really move: " + must_move(row),
        "median error before -> after: " + _errors(row),
    ]
    if row["plans_failed"]:
        lines.append(f"{row['plans_failed']} plans of {row['plans'] + row['plans_failed']} failed")
    if "goals_simulated_again" in row:
        lines.append(
            f"starts: {row['goals_simulated_again']} episodes run again from their seed, "
            f"{row['goals_from_rest']} from the recorded pose at rest, "
            f"{row['recordings_skipped']} not usable"
        )
    lines.append(f"{row['episodes_per_minute']:.0f} episodes a minute")
    return "\n".join(lines)


def rates(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a table: policy, and each rate with its 95 % interval."""
    width = max(len(name) for name in policies) + 2
    cells = {name: [_cell(row[key], row[interval]) for _, key, interval in _COLUMNS]
             for name, row in policies.items()}
    widths = [
        max(len(title), *(len(row[column]) for row in cells.values())) + 2
        for column, (title, _, _) in enumerate(_COLUMNS)
    ]
    titles = [title for title, _, _ in _COLUMNS]
    return [
        "  " + " " * width + _line(titles, widths),
        *("  " + name.ljust(width) + _line(row, widths) for name, row in cells.items()),
    ]


def plan_times_text(row: Mapping[str, Any], threads: int, device: str) -> str:
    """How long one plan takes."""
    if row["plan_ms_p50"] is None:
        return "no plan was made, so none was timed"
    unit = "thread" if threads == 1 else "threads"
    return (
        f"a plan, encoding included, one at a time on {device} with {threads} {unit}: "
        + ", ".join(f"p{p} {row[f'plan_ms_p{p}']:.1f} ms" for p in (50, 95, 99))
        + f" ({row['plans_timed']} plans)"
    )


def must_move(row: Mapping[str, Any]) -> str:
    """Success where the object does not lie at its goal to begin with."""
    if row["must_move_any"] is None:
        return "no goal"
    return (
        f"{row['must_move_episodes']} of {row['episodes']} goals, any time "
        f"{_cell(row['must_move_any'], row['ci95_must_move_any'])}, at the end "
        f"{_cell(row['must_move_final'], row['ci95_must_move_final'])}"
    )


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing a figure."""
    found = []
    fewest = min(row["episodes"] for row in record["tables"])
    if fewest < FEWEST_EPISODES:
        lower, upper = wilson_interval(fewest / 2, fewest)
        found.append(
            f"{fewest} {'episode proves' if fewest == 1 else 'episodes prove'} nothing: half of "
            f"them reached would mean anything from {_percent(lower)} to {_percent(upper)} %; "
            f"take {FEWEST_EPISODES} at the very least, 200 for a figure to be told"
        )
    asked = record["config"]["episodes"]
    if fewest < asked:
        found.append(f"{asked} episodes were asked for, the recordings held {fewest}")
    if not record["training_data_known"]:
        found.append(
            "a checkpoint does not say which episodes it was trained on; nobody can tell whether "
            "these are among them"
        )
    if record["split"] == "tuning":
        found.append("these are tuning goals: for choosing a setting, not for telling others")
    return found


def mean_text(rows: Sequence[Mapping[str, Any]], mean: Mapping[str, Any]) -> list[str]:
    """Several checkpoints on the same goals: each, and the mean."""
    named = {f"{row['label']}, {row['distance_steps']} steps": row for row in rows}
    return rates({**named, "mean": mean})


def _cell(rate: float, interval: Sequence[float]) -> str:
    return f"{100 * rate:.1f} % ({_percent(interval[0])} to {_percent(interval[1])})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(
        cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _errors(row: Mapping[str, Any]) -> str:
    """Medians at the start and at the end, of what the scene has."""
    parts = []
    for name, factor, unit in (("position", 1e3, "mm"), ("angle", math.degrees(1), "degrees")):
        before, after = (row[f"median_{name}_error_{when}"] for when in ("before", "after"))
        if before is not None and after is not None:
            parts.append(f"{name} {factor * before:.0f} -> {factor * after:.0f} {unit}")
    return ", ".join(parts)
