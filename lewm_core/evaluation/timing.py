"""How long a plan takes: one at a time, on states of the evaluation, as a node would pay for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lewm_core.evaluation.closed_loop import run_goal
from lewm_core.evaluation.goals import GoalScene, StartGoal
from lewm_core.evaluation.planner_setup import PlannerSetup

#: Plans that are timed, at most; and the fewest, however long they take.
DEFAULT_PLANS, FEWEST_PLANS = 100, 20
#: Seconds after which no further goal is driven to for the sake of timing.
LONGEST_S = 60.0


@dataclass(frozen=True)
class PlanTimes:
    """Seconds of single plans.

    Attributes:
        times_s: Encoding of the newest picture and search, each plan.
        threads: Torch threads on the CPU.
        device: Where the model ran.
    """

    times_s: tuple[float, ...]
    threads: int
    device: str


def time_plans(
    scene: GoalScene,
    goals: Sequence[StartGoal],
    setup: PlannerSetup,
    budget_steps: int,
    plans: int = DEFAULT_PLANS,
    longest_s: float = LONGEST_S,
) -> PlanTimes:
    """Drive to some of the goals, one after the other, through ``replan``, and time every plan.

    Args:
        scene: Driven and left in another state.
        goals: As many of them as are needed, from the first.
        setup: Makes the controller.
        budget_steps: Control steps for each goal, as in the evaluation.
        plans: How many are wanted.
        longest_s: Wall time after which `FEWEST_PLANS` are enough.
    """
    policy = setup.policy()
    # The first plan allocates and compiles; a node makes one while it is configured.
    run_goal(scene, goals[0], policy, setup.model.frame_skip)
    began = time.monotonic()
    times: list[float] = []
    for goal in goals:
        late = time.monotonic() - began > longest_s and len(times) >= FEWEST_PLANS
        if len(times) >= plans or late:
            break
        run_goal(scene, goal, policy, budget_steps)
        times += policy.plan_times_s
    device = next(setup.model.parameters()).device
    return PlanTimes(tuple(times[:plans]), torch.get_num_threads(), str(device))
