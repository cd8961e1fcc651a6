"""Closed-loop evaluation: a policy drives a scene from starts to goals, and successes count.

The protocol is the published one: start and goal from one episode of the expert, 25 control steps
apart, a budget of 50 steps, success by the scene's own criterion. In process, without ROS:

>>> scene = make_scene("push_t")
>>> goals = goals_from_expert(scene, number=50, seed=7)
>>> policy = PlannerPolicy.from_model(lewm_core.load(path), contract, load_planner_config("nano"))
>>> summarise([run_goal(scene, goal, policy) for goal in goals])["success_any"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import UserError
from lewm_core.evaluation.goals import GoalScene, StartGoal, goals_from_expert
from lewm_core.evaluation.policies import (
    DoNothing,
    PlannerPolicy,
    Policy,
    RandomActions,
    ReplayActions,
)
from lewm_core.scenes.success import PushTOutcome, push_t_outcome

__all__ = [
    "DoNothing",
    "GoalResult",
    "PlannerPolicy",
    "Policy",
    "RandomActions",
    "ReplayActions",
    "StartGoal",
    "goals_from_expert",
    "judge",
    "run_goal",
    "summarise",
    "wilson_interval",
]


@dataclass(frozen=True)
class GoalResult:
    """What a policy made of one task.

    Attributes:
        policy: Its name.
        number: Of the goal.
        success_any: The scene's criterion was met after some step; the published figure.
        success_end: It was met after the last step.
        block_success_any: The same for the block alone, whatever the pusher's place.
        block_success_end: The same, after the last step.
        first_success_step: Control steps until the criterion was first met; None: never.
        position_error_before: m, joint distance of pusher and block to the goal at the start.
        position_error_after: m, after the last step.
        angle_error_before: rad, of the block at the start.
        angle_error_after: rad, after the last step.
        plan_times_s: Seconds of every plan, encoding included.
        plans_failed: Plans that could not be made; the policy held instead.
    """

    policy: str
    number: int
    success_any: bool
    success_end: bool
    block_success_any: bool
    block_success_end: bool
    first_success_step: int | None
    position_error_before: float
    position_error_after: float
    angle_error_before: float
    angle_error_after: float
    plan_times_s: tuple[float, ...] = field(default=(), repr=False)
    plans_failed: int = 0


def run_goal(
    scene: GoalScene,
    start_goal: StartGoal,
    policy: Policy,
    budget_steps: int = 50,
    *,
    outcome: Callable[[NDArray, NDArray], PushTOutcome] = push_t_outcome,
    on_step: Callable[[int, NDArray[np.uint8] | None], None] | None = None,
) -> GoalResult:
    """Let a policy drive from the start for the whole budget; success does not end the run.

    Args:
        scene: Set to the start first.
        start_goal: The task.
        policy: Begins anew.
        budget_steps: Control steps.
        outcome: Compares a ground truth with the goal's, each ``(N,)``.
        on_step: Called before every step with its number and the policy's picture (None unless
            the policy needs one), for videos.

    Raises:
        UserError: ``budget_steps`` is not above 0.
    """
    if budget_steps < 1:
        raise UserError(f"budget_steps ({budget_steps}) must be 1 or more")
    height, width = start_goal.goal_picture.shape[:2]
    period_ns = round(scene.control_period_s * 1e9)
    scene.set_state(start_goal.start)
    policy.begin(start_goal)
    before = outcome(scene.ground_truth(), start_goal.goal_truth)
    outcomes = []
    for step in range(budget_steps):
        picture = scene.render(width, height) if policy.needs_picture else None
        if on_step is not None:
            on_step(step, picture)
        truth = scene.step_control(policy.act(step * period_ns, picture))
        outcomes.append(outcome(truth, start_goal.goal_truth))
    return judge(
        policy.name,
        start_goal.number,
        [before, *outcomes],
        plan_times_s=policy.plan_times_s,
        plans_failed=policy.plans_failed,
    )


def judge(
    policy: str,
    number: int,
    outcomes: Sequence[PushTOutcome],
    *,
    plan_times_s: Sequence[float] = (),
    plans_failed: int = 0,
) -> GoalResult:
    """Sum up one run, wherever it took place.

    Args:
        policy: Its name.
        number: Of the goal.
        outcomes: At the start, then after every control step.
        plan_times_s: Of every plan made.
        plans_failed: Plans that could not be made.

    Raises:
        UserError: There is no step.
    """
    if len(outcomes) < 2:
        raise UserError(f"goal {number}: the scene reported no step; nothing can be judged")
    before, after = outcomes[0], outcomes[-1]
    successes = [outcome.success for outcome in outcomes[1:]]
    return GoalResult(
        policy=policy,
        number=number,
        success_any=any(successes),
        success_end=after.success,
        block_success_any=any(outcome.block_success for outcome in outcomes[1:]),
        block_success_end=after.block_success,
        first_success_step=successes.index(True) + 1 if any(successes) else None,
        position_error_before=before.joint_distance,
        position_error_after=after.joint_distance,
        angle_error_before=before.angle_distance,
        angle_error_after=after.angle_distance,
        plan_times_s=tuple(plan_times_s),
        plans_failed=plans_failed,
    )


def wilson_interval(successes: int, number: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a success rate (E. B. Wilson, 1927); right also near 0 and 1, and for few runs.

    Args:
        successes: Out of ``number``.
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
        ``episodes``; ``success_any``, ``success_final``, ``block_any``, ``block_final`` as rates
        with ``ci95_...`` beside them; medians of the errors; ``plan_ms_p50/p95/p99`` (None where
        nothing was planned); ``plans``; ``plans_failed``.

    Raises:
        UserError: There is no result.
    """
    number = len(results)
    if number == 0:
        raise UserError("there are no results to summarise")
    summary: dict[str, Any] = {"policy": results[0].policy, "episodes": number}
    for key, attribute in (
        ("success_any", "success_any"),
        ("success_final", "success_end"),
        ("block_any", "block_success_any"),
        ("block_final", "block_success_end"),
    ):
        successes = sum(getattr(result, attribute) for result in results)
        summary[key] = successes / number
        summary[f"ci95_{key.removeprefix('success_')}"] = list(wilson_interval(successes, number))
    for key in (
        "position_error_before", "position_error_after", "angle_error_before", "angle_error_after"
    ):
        summary[f"median_{key}"] = float(np.median([getattr(r, key) for r in results]))
    times_ms = 1e3 * np.concatenate([result.plan_times_s for result in results])
    for percentile in (50, 95, 99):
        value = float(np.percentile(times_ms, percentile)) if len(times_ms) else None
        summary[f"plan_ms_p{percentile}"] = value
    summary["plans"] = len(times_ms)
    summary["plans_failed"] = sum(result.plans_failed for result in results)
    return summary
