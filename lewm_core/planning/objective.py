"""Costs of predicted futures, apart from the solvers that minimise them."""

from __future__ import annotations

import math

from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.world_model import goal_difference


class GoalDistance:
    """Squared latent distance to the goal.

    The paper's cost (arXiv 2603.19312, planning objective) is the distance of the *last*
    predicted embedding only. Such a plan always arrives ``horizon`` blocks from now: executed
    in full it arrives, replanned more often it may linger for ever. ``running_weight`` adds the
    mean distance of the earlier embeddings, which rewards arriving early.

    Args:
        running_weight: Weight of the mean over the blocks before the last; 0 is the paper.

    Raises:
        PlanningError: The weight is negative or not finite.
    """

    def __init__(self, running_weight: float = 0.0) -> None:
        if not (math.isfinite(running_weight) and running_weight >= 0.0):
            raise PlanningError(f"running_weight must be 0 or more, not {running_weight}")
        self.running_weight = float(running_weight)

    def __call__(self, predicted: Tensor, goal: Tensor) -> Tensor:
        """Cost of every candidate.

        Args:
            predicted: ``(B, S, horizon, D)``.
            goal: ``(B, E)``, compared with the first E numbers of a state.

        Returns:
            ``(B, S)``.
        """
        if self.running_weight == 0.0 or predicted.shape[2] == 1:
            return goal_difference(predicted[:, :, -1], goal[:, None]).square().sum(dim=-1)
        distance = goal_difference(predicted, goal[:, None, None]).square().sum(dim=-1)
        return distance[:, :, -1] + self.running_weight * distance[:, :, :-1].mean(dim=-1)
