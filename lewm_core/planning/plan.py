"""What a solver hands back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.world_model import goal_difference


@dataclass(frozen=True)
class Plan:
    """Actions for B rows, with what the model expects of them. All tensors are on the CPU.

    Attributes:
        actions: ``(B, horizon * F, A)`` one action per control step, in physical units.
        blocks: ``(B, horizon, F * A)`` the same, normalised; shifted, it starts the next search.
        cost: ``(B,)`` of these actions by the solver's objective.
        predicted: ``(B, horizon, D)`` embedding expected after each block.
        dropped: Candidates whose cost was not finite, over all rounds and rows.
        duration_s: Seconds the search took.
        arrival: ``(B,)`` blocks after which each row is there, for solvers that choose; what the
            blocks behind it hold is of no meaning. None: after ``horizon``.
        rounds: Rounds of the search that were completed; 0 for a solver that has none.
    """

    actions: Tensor
    blocks: Tensor
    cost: Tensor
    predicted: Tensor
    dropped: int
    duration_s: float
    arrival: Tensor | None = None
    rounds: int = 0

    @property
    def horizon(self) -> int:
        """Blocks in the plan."""
        return self.blocks.shape[1]

    def goal_distances(self, goal: Tensor) -> Tensor:
        """Squared latent distance to ``goal`` ``(B, E)`` after each block: ``(B, horizon)``."""
        goal = goal.to(self.predicted)[:, None]
        return goal_difference(self.predicted, goal).square().sum(dim=-1)

    def row(self, index: int) -> Plan:
        """The plan of one row, with B = 1, as long as until it arrives.

        `dropped` and `duration_s` remain those of all rows.
        """
        rows = slice(index, index + 1)
        horizon = self.horizon if self.arrival is None else int(self.arrival[index])
        steps = self.actions.shape[1] // self.horizon * horizon
        return replace(
            self,
            actions=self.actions[rows, :steps],
            blocks=self.blocks[rows, :horizon],
            cost=self.cost[rows],
            predicted=self.predicted[rows, :horizon],
            arrival=None if self.arrival is None else self.arrival[rows],
        )

    def check(self, frame_skip: int, action_dim: int) -> None:
        """Make sure that a robot may follow this: any solver may stand behind the protocol.

        Args:
            frame_skip: F of the model.
            action_dim: A.

        Raises:
            PlanningError: Not the actions of one row, or not finite.
        """
        expected = (1, self.horizon * frame_skip, action_dim)
        if tuple(self.actions.shape) != expected:
            raise PlanningError(f"the solver's actions have shape {tuple(self.actions.shape)}, "
                                f"expected {expected}")
        if not bool(torch.isfinite(self.actions).all()):
            raise PlanningError("plan not finite")
