"""What an evaluation leaves for machines: flat, stable keys, and the whole configuration."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import lewm_core
from lewm_core.evaluation.evaluate import EvaluationRequest, Table, Task
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.provenance import knows_its_data
from lewm_core.evaluation.report import describe_machine
from lewm_core.evaluation.statistics import (
    FEWEST_EPISODES,
    mean_summary,
    plan_percentiles,
    summarise,
)

#: Of a summary, what only a policy that plans has.
_PLANNING = ("plan_ms_p50", "plan_ms_p95", "plan_ms_p99", "plans", "plans_failed")
#: What differs from run to run: how fast the machine was, not what came of it.
TIMINGS = ("plan_ms_p50", "plan_ms_p95", "plan_ms_p99", "plans_timed", "seconds",
           "episodes_per_minute")


def make_record(request: EvaluationRequest, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the result of an evaluation; JSON values only.

    The figures at the top are those of the one table; of several, their mean (see
    `mean_summary`). Everything in ``tables`` is of one checkpoint at one distance. All is equal
    from run to run on one machine, but the `TIMINGS`.
    """
    rows = [table_record(table) for table in tables]
    first = tables[0]
    tasks = list({id(table.task): table.task for table in tables}.values())
    return {
        "scene": request.scene,
        "protocol": request.protocol.name,
        "planner": ", ".join(_different(table.setup.name for table in tables)),
        "split": request.split,
        "seed": request.seed,
        "vary": list(request.vary),
        "delay_s": request.delay_s,
        "distances": list(request.protocol.distances),
        "budgets": [request.protocol.budget_steps(d) for d in request.protocol.distances],
        **_mean(rows),
        "baselines": _mean_baselines(tasks),
        "proves_something": min(row["episodes"] for row in rows) >= FEWEST_EPISODES,
        "checkpoints": _different(row["checkpoint"] for row in rows),
        "checkpoint_sha256": _different(row["checkpoint_sha256"] for row in rows),
        "training_data_known": all(
            knows_its_data(table.candidate.model.metadata) for table in tables
        ),
        "data": [path.name for path in request.data],
        "config": _configuration(request, tables),
        "threads": first.times.threads,
        "device": first.times.device,
        "machine": describe_machine(),
        "versions": {
            "lewm_core": lewm_core.__version__,
            **{package: version(package) for package in ("torch", "mujoco", "numpy")},
            "python": sys.version.split()[0],
        },
        "tables": rows,
    }


def table_record(table: Table) -> dict[str, Any]:
    """Return the figures of one checkpoint at one distance."""
    summary = summarise(table.results)
    del summary["policy"]
    task = table.task
    recorded = {}
    if task.recorded is not None:
        recorded = {
            "goals_simulated_again": task.recorded.simulated_again,
            "goals_from_rest": task.recorded.from_rest,
            "recordings_skipped": len(task.recorded.skipped),
        }
    return {
        "checkpoint": table.candidate.given,
        "label": table.candidate.label,
        "checkpoint_sha256": table.candidate.sha256,
        "planner": table.setup.name,
        "distance_steps": task.distance,
        "budget_steps": task.budget,
        **summary,
        **plan_percentiles(table.times.times_s),
        "plans_timed": len(table.times.times_s),
        "seconds": round(table.seconds, 3),
        "episodes_per_minute": round(60.0 * len(task.goals) / max(table.seconds, 1e-9), 1),
        "baselines": {_key(name): _baseline(rows) for name, rows in task.baselines.items()},
        **recorded,
        "goals": [_goal(table, row) for row in range(len(task.goals))],
    }


def _goal(table: Table, row: int) -> dict[str, Any]:
    goal, result = table.task.goals[row], table.results[row]
    return {
        "number": goal.number,
        "episode": goal.episode,
        "success_any": result.success_any,
        "success_final": result.success_end,
        "object_any": result.object_success_any,
        "object_final": result.object_success_end,
        "first_success_step": result.first_success_step,
        "must_move": result.must_move,
        **{
            f"{name}_error_{when}": value if math.isfinite(value) else None
            for name in ("position", "angle")
            for when in ("before", "after")
            for value in (getattr(result, f"{name}_error_{when}"),)
        },
        "plans": result.plans,
        "plans_failed": result.plans_failed,
        **{
            f"{_key(name)}_success_any": results[row].success_any
            for name, results in table.task.baselines.items()
        },
    }


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    apart = ("goals", "distance_steps", "budget_steps")
    kept = [
        {key: value for key, value in row.items() if not isinstance(value, str | dict)
         and key not in apart}
        for row in rows
    ]
    return mean_summary(kept)


def _mean_baselines(tasks: Sequence[Task]) -> dict[str, Any]:
    return {
        _key(name): mean_summary([_baseline(task.baselines[name]) for task in tasks])
        for name in tasks[0].baselines
    }


def _baseline(results: Sequence[GoalResult]) -> dict[str, Any]:
    summary = summarise(results)
    return {key: value for key, value in summary.items() if key not in ("policy", *_PLANNING)}


def _configuration(request: EvaluationRequest, tables: Sequence[Table]) -> dict[str, Any]:
    protocol, first = request.protocol, tables[0]
    planners = {table.setup.name: table.setup.config.model_dump(mode="json") for table in tables}
    return {
        "scene": request.scene,
        "protocol": {
            "name": protocol.name,
            "description": protocol.description,
            "distances": list(protocol.distances),
            "budget_factor": protocol.budget_factor,
            "controller": dict(protocol.controller),
            "whole_plans": protocol.whole_plans,
            "count_down": protocol.count_down,
        },
        "planners": planners,
        "settings": list(request.settings),
        "split": request.split,
        "seed": request.seed,
        "episodes": request.episodes,
        "batch": request.batch,
        "goal_tolerance_factor": request.tolerance_factor(first.candidate.model),
        "timed_plans": request.timed_plans,
        "data": [path.name for path in request.data],
        "contract": first.candidate.contract.to_dict(),
    }


def _different(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _key(policy: str) -> str:
    return policy.replace(" ", "_")
