"""What a solver hands back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    """

    actions: Tensor
    blocks: Tensor
    cost: Tensor
    predicted: Tensor
    dropped: int
    duration_s: float

    @property
    def horizon(self) -> int:
        """Blocks in the plan."""
        return self.blocks.shape[1]

    def goal_distances(self, goal: Tensor) -> Tensor:
        """Squared latent distance to ``goal`` ``(B, D)`` after each block: ``(B, horizon)``."""
        return (self.predicted - goal.to(self.predicted)[:, None]).square().sum(dim=-1)
