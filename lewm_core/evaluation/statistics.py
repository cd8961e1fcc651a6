"""What a number of goals says: rates with their intervals, medians, percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lewm_core.errors import UserError
from lewm_core.evaluation.goal_result import GoalResult

#: Fewer goals than this prove nothing: the interval of 50 % is wider than 40 points.
FEWEST_EPISODES = 20
PERCENTILES = (50, 95, 99)

#: Key of a summary, and the attribute of `GoalResult` behind it.
_RATES = (
    ("success_any", "success_any"),
    ("success_final", "success_end"),
    ("object_any", "object_success_any"),
    ("object_final", "object_success_end"),
)


def wilson_interval(
    successes: float, number: int, z: float = 1.959964
) -> tuple[float, float]:
    """Interval of a success rate (E. B. Wilson, 1927); right also near 0 and 1, and for few runs.

    Args:
        successes: Out of ``number``; a mean over several evaluations need not be whole.
        number: Of independent runs.
        z: Normal quantile; the default gives 95 %.

    Returns:
        (lower, upper) in [0, 1].

    Raises:
        UserError: Not ``0 <= successes <= number`` with ``number`` above 0.
    """
    if number < 1 or not 0 <= successes <= number:
        raise UserError(f"{successes} successes in {number} runs have no interval")
    rate = successes / number
    scale = 1.0 + z * z / number
    centre = (rate + z * z / (2 * number)) / scale
    half = z / scale * math.sqrt(rate * (1.0 - rate) / number + z * z / (4 * number * number))
    # At the ends the formula is exact; rounding must not push it over.
    lower = 0.0 if successes == 0 else centre - half
    upper = 1.0 if successes == number else centre + half
    return lower, upper


def summarise(results: Sequence[GoalResult]) -> dict[str, Any]:
    """Flat figures of one policy, for tables and ``--json``.

    Returns:
        ``episodes``; ``success_any``, ``success_final``, ``object_any``, ``object_final`` as rates
        with ``ci95_...`` beside them; the first two again over the goals where the object must
        move (``must_move_...``, None where there is none); medians of the errors (None where the
        scene has none of the kind); ``plan_ms_p50/p95/p99`` (None where no plan was timed);
        ``plans``; ``plans_failed``.

    Raises:
        UserError: There is no result.
    """
    if not results:
        raise UserError("there are no results to summarise")
    summary: dict[str, Any] = {"policy": results[0].policy, "episodes": len(results)}
    for key, attribute in _RATES:
        summary |= _rate(key, [getattr(result, attribute) for result in results])
    moving = [result for result in results if result.must_move]
    summary["must_move_episodes"] = len(moving)
    for key, attribute in _RATES[:2]:
        name = f"must_move_{key.removeprefix('success_')}"
        summary |= _rate(name, [getattr(result, attribute) for result in moving])
    for key in (
        "position_error_before", "position_error_after", "angle_error_before", "angle_error_after"
    ):
        median = float(np.median([getattr(r, key) for r in results]))
        summary[f"median_{key}"] = median if math.isfinite(median) else None
    summary |= plan_percentiles([time for result in results for time in result.plan_times_s])
    summary["plans"] = sum(result.plans for result in results)
    summary["plans_failed"] = sum(result.plans_failed for result in results)
    return summary


def plan_percentiles(times_s: Sequence[float]) -> dict[str, float | None]:
    """Return ``plan_ms_p50/p95/p99`` in ms of times in s; None where there are none."""
    return {
        f"plan_ms_p{percentile}": float(1e3 * np.percentile(times_s, percentile))
        if len(times_s)
        else None
        for percentile in PERCENTILES
    }


def mean_summary(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of several summaries on the same goals: other training seeds, or other distances.

    The goals are shared, so they are counted once: an interval is that of the mean rate over the
    goals of one summary. It says how far the *goals* are to be trusted, not how much training
    seeds differ; for that look at the summaries one by one.

    Args:
        summaries: Of `summarise`, with equal keys.

    Raises:
        UserError: There is none.
    """
    if not summaries:
        raise UserError("there are no summaries to take a mean of")
    first = summaries[0]
    mean: dict[str, Any] = {}
    for key, value in first.items():
        column = [summary[key] for summary in summaries]
        if key.startswith("ci95_") or isinstance(value, bool | str):
            continue
        if isinstance(value, int) and len(set(column)) == 1:
            mean[key] = value
        elif all(isinstance(entry, int | float) for entry in column):
            mean[key] = float(np.mean(column))
        else:
            mean[key] = None
    for key in [key for key in first if key.startswith("ci95_")]:
        rate_key = key.removeprefix("ci95_")
        rate = mean.get(rate_key, mean.get(f"success_{rate_key}"))
        must_move = rate_key.startswith("must_move_")
        counts = [s["must_move_episodes" if must_move else "episodes"] for s in summaries]
        number = min(counts)
        mean[key] = None if rate is None else list(wilson_interval(rate * number, number))
    return mean


def _rate(key: str, met: Sequence[bool]) -> dict[str, Any]:
    """``key`` and ``ci95_...`` of it, None where there is no run."""
    interval_key = f"ci95_{key.removeprefix('success_')}"
    if not met:
        return {key: None, interval_key: None}
    successes = sum(met)
    return {
        key: successes / len(met),
        interval_key: list(wilson_interval(successes, len(met))),
    }
