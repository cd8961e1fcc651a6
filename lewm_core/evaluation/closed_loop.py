"""Closed-loop evaluation, one goal after the other: a policy drives a scene, successes count.

Start and goal come from one episode, a number of control steps apart; success is the scene's own
criterion. In process, without ROS; `lewm_core.evaluation.lock_step` drives many goals at once.

>>> scene = make_scene("push_t")
>>> goals = goals_from_expert(scene, number=50, seed=7)
>>> policy = PlannerPolicy.from_model(lewm_core.load(path), contract, load_planner_config("search"))
>>> summarise([run_goal(scene, goal, policy) for goal in goals])["success_any"]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lewm_core.errors import UserError
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.goals import GoalScene, StartGoal, goals_from_expert
from lewm_core.evaluation.policies import (
    DoNothing,
    PlannerPolicy,
    Policy,
    RandomActions,
    ReplayActions,
)
from lewm_core.evaluation.statistics import summarise, wilson_interval
from lewm_core.scenes.outcome import Outcome

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


def run_goal(
    scene: GoalScene,
    start_goal: StartGoal,
    policy: Policy,
    budget_steps: int = 50,
    *,
    on_step: Callable[[int], None] | None = None,
) -> GoalResult:
    """Let a policy drive from the start for the whole budget; success does not end the run.

    Args:
        scene: Set to the start first.
        start_goal: The task.
        policy: Begins anew.
        budget_steps: Control steps.
        on_step: Called before every step with its number.

    Raises:
        UserError: ``budget_steps`` is not above 0.
    """
    if budget_steps < 1:
        raise UserError(f"budget_steps ({budget_steps}) must be 1 or more")
    period_ns = round(scene.control_period_s * 1e9)
    scene.set_state(start_goal.start)
    policy.begin(start_goal, scene)
    before = scene.outcome(scene.ground_truth(), start_goal.goal_truth)
    outcomes = []
    for step in range(budget_steps):
        if on_step is not None:
            on_step(step)
        truth = scene.step_control(policy.act(step * period_ns, scene))
        outcomes.append(scene.outcome(truth, start_goal.goal_truth))
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
    outcomes: Sequence[Outcome],
    *,
    plan_times_s: Sequence[float] = (),
    plans: int | None = None,
    plans_failed: int = 0,
) -> GoalResult:
    """Sum up one run, wherever it took place.

    Args:
        policy: Its name.
        number: Of the goal.
        outcomes: At the start, then after every control step.
        plan_times_s: Of every plan made.
        plans: Plans made; None: as many as there are times.
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
        object_success_any=any(outcome.object_success for outcome in outcomes[1:]),
        object_success_end=after.object_success,
        first_success_step=successes.index(True) + 1 if any(successes) else None,
        position_error_before=before.position_distance,
        position_error_after=after.position_distance,
        angle_error_before=before.angle_distance,
        angle_error_after=after.angle_distance,
        must_move=not before.object_success,
        met=tuple(successes),
        plan_times_s=tuple(plan_times_s),
        plans=len(plan_times_s) if plans is None else plans,
        plans_failed=plans_failed,
    )
