"""Costs of predicted futures, apart from the solvers that minimise them.

An objective is anything that is called with `Candidates` and a goal and returns a cost for each
(`lewm_core.planning.Objective`). Those here can be added up; a function of one's own joins them:

>>> def stay_left(candidates, goal):
...     return candidates.predicted[..., -1, 0].relu()
>>> objective = WeightedSum([(1.0, GoalDistance()), (0.1, stay_left)])

A package that brings objectives for presets names them as entry points of the group
`ENTRY_POINTS`; a preset then says ``objective: {custom: {NAME: weight}}``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import entry_points

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.world_model import goal_difference
from lewm_core.planning.protocols import Candidates, Dynamics, Objective

#: Group of entry points, each a function that takes the dynamics and returns an `Objective`.
ENTRY_POINTS = "lewm_core.objectives"


class ObjectiveConfig(BaseModel):
    """What a plan is to minimise: the goal's distance and, weighted, what else counts.

    Attributes:
        running_weight: Of the distances before the last; see `GoalDistance`.
        discount: How much an earlier distance counts; see `GoalDistance`.
        smoothness: Weight of `ActionSmoothness`; 0: not computed.
        excess: Weight of `ActionExcess`; 0: not computed.
        excess_bound: Standard deviations of the training data that actions are free within.
        custom: Weight of each objective that an installed package brings, by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    running_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    discount: float = Field(1.0, gt=0, le=1)
    smoothness: float = Field(0.0, ge=0, allow_inf_nan=False)
    excess: float = Field(0.0, ge=0, allow_inf_nan=False)
    excess_bound: float = Field(2.0, gt=0, allow_inf_nan=False)
    custom: dict[str, float] = Field(default_factory=dict)


class GoalDistance:
    """Squared latent distance to the goal.

    The paper's cost (arXiv 2603.19312, planning objective) is the distance of the *last*
    predicted embedding only. Such a plan always arrives ``horizon`` blocks from now: executed
    in full it arrives, replanned more often it may linger for ever. ``running_weight`` adds the
    mean distance of the earlier embeddings, which rewards arriving early.

    Args:
        running_weight: Weight of the mean over the blocks before the last; 0 is the paper.
        discount: In that mean each block counts this much less than the one after it.

    Raises:
        PlanningError: A number is out of its range.
    """

    def __init__(self, running_weight: float = 0.0, discount: float = 1.0) -> None:
        if not (math.isfinite(running_weight) and running_weight >= 0.0):
            raise PlanningError(f"running_weight must be 0 or more, not {running_weight}")
        if not 0.0 < discount <= 1.0:
            raise PlanningError(f"discount must be above 0 and at most 1, not {discount}")
        self.running_weight = float(running_weight)
        self.discount = float(discount)

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost ``(B, S)`` for a goal ``(B, E)``, compared with the first E numbers of a state."""
        predicted = candidates.predicted
        if self.running_weight == 0.0 or predicted.shape[2] == 1:
            return goal_difference(predicted[:, :, -1], goal[:, None]).square().sum(dim=-1)
        distance = goal_difference(predicted, goal[:, None, None]).square().sum(dim=-1)
        earlier = distance[:, :, :-1]
        age = torch.arange(earlier.shape[2] - 1, -1, -1, device=distance.device)
        weights = self.discount ** age.to(distance)
        running = (earlier * weights).sum(dim=-1) / weights.sum()
        return distance[:, :, -1] + self.running_weight * running


class SubgoalDistance:
    """Squared latent distance to the goal, having passed by subgoals in their order.

    Of all ways to say which block passes by which subgoal, none before the one of the subgoal
    before it, the cheapest counts: the mean of the squared distances then.

    Args:
        subgoals: ``(K, E)``, or ``(B, K, E)`` if each row has its own; first to be passed first.
        weight: Of the mean over the subgoals, beside the distance of the end to the goal.

    Raises:
        PlanningError: Of another shape, empty, or not finite.
    """

    def __init__(self, subgoals: Tensor, weight: float = 1.0) -> None:
        if subgoals.dim() not in (2, 3) or not subgoals.shape[-2]:
            raise PlanningError(f"subgoals have shape {tuple(subgoals.shape)}, expected (K, E) or "
                                "(B, K, E) with K >= 1")
        if not (bool(torch.isfinite(subgoals).all()) and math.isfinite(weight) and weight >= 0):
            raise PlanningError("subgoals and their weight must be finite, the weight 0 or more")
        self.subgoals = subgoals if subgoals.dim() == 3 else subgoals[None]
        self.weight = float(weight)

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost ``(B, S)``."""
        predicted = candidates.predicted
        subgoals = self.subgoals.to(predicted)
        cheapest = predicted.new_zeros(predicted.shape[:3])
        for number in range(subgoals.shape[1]):
            difference = goal_difference(predicted, subgoals[:, None, None, number])
            passing = cheapest + difference.square().sum(dim=-1)
            # The best so far to have passed by this one at the block or before it.
            cheapest = passing.cummin(dim=2).values
        end = goal_difference(predicted[:, :, -1], goal[:, None]).square().sum(dim=-1)
        return end + self.weight * cheapest[:, :, -1] / subgoals.shape[1]


class ActionSmoothness:
    """Mean squared change of the action from one control step to the next.

    In normalised units (1: the spread of the training data), the step from what is executed
    before the plan to its first among them, so that plans join smoothly, too.

    Args:
        action_dim: A.
    """

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost ``(B, S)``; the goal does not matter."""
        steps = candidates.actions.reshape(*candidates.actions.shape[:2], -1, self.action_dim)
        if candidates.before is not None:
            last = candidates.before[:, None, None, -self.action_dim :]
            steps = torch.cat([last.expand(-1, steps.shape[1], -1, -1), steps], dim=2)
        if steps.shape[2] == 1:
            return steps.new_zeros(steps.shape[:2])
        return steps.diff(dim=2).square().mean(dim=(2, 3))


class ActionExcess:
    """Mean squared part of the actions that lies beyond what the training data mostly held.

    A world model is a guess there. The contract's limits are no matter of cost: they hold in every
    candidate (`SearchLimits`).

    Args:
        bound: Standard deviations of the training data that are free.
    """

    def __init__(self, bound: float = 2.0) -> None:
        self.bound = bound

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost ``(B, S)``; the goal does not matter."""
        return (candidates.actions.abs() - self.bound).relu().square().mean(dim=(2, 3))


class WeightedSum:
    """Objectives added up.

    Args:
        parts: Weight and objective of each.
    """

    def __init__(self, parts: Sequence[tuple[float, Objective]]) -> None:
        self.parts = tuple(parts)

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost ``(B, S)``."""
        costs = [weight * part(candidates, goal) for weight, part in self.parts]
        return torch.stack(costs).sum(dim=0)


def make_objective(config: ObjectiveConfig, model: Dynamics) -> Objective:
    """Build what a preset's ``objective`` says.

    Raises:
        PlanningError: No installed package brings an objective of ``custom``'s name.
    """
    parts: list[tuple[float, Objective]] = [
        (1.0, GoalDistance(config.running_weight, config.discount))
    ]
    if config.smoothness:
        parts.append((config.smoothness, ActionSmoothness(model.action_dim)))
    if config.excess:
        parts.append((config.excess, ActionExcess(config.excess_bound)))
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    for name, weight in config.custom.items():
        if name not in installed:
            raise PlanningError(
                f"objective.custom: no installed package brings {name!r} as an entry point of "
                f"{ENTRY_POINTS!r}; there are: {', '.join(sorted(installed)) or 'none'}"
            )
        parts.append((weight, installed[name].load()(model)))
    return parts[0][1] if len(parts) == 1 else WeightedSum(parts)
