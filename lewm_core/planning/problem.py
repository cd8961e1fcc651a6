"""What a solver is given, held against what the model can take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.protocols import Dynamics


@dataclass
class Problem:
    """Where B rows are, and where they want to be.

    Attributes:
        history: ``(B, T, D)`` embeddings, one block apart, oldest first.
        goal: ``(B, E)``.
        past_actions: ``(B, T - 1, F * A)`` normalised.
        horizon: Blocks to plan.
        initial_mean: ``(B, at most horizon, F * A)`` where to begin; None: at 0.
        committed: ``(B, n, A)`` normalised, the first control steps; None: all are open.
        shorten: Whether stages may look at what tensors hold, to compute no more than is needed:
            on a GPU that would be to wait for it.
    """

    history: Tensor
    goal: Tensor
    past_actions: Tensor
    horizon: int
    initial_mean: Tensor | None = None
    committed: Tensor | None = None
    shorten: bool = True

    @classmethod
    def checked(
        cls,
        model: Dynamics,
        history: Tensor,
        goal: Tensor,
        past_actions: Tensor | None,
        horizon: int,
        initial_mean: Tensor | None,
        committed: Tensor | None,
    ) -> Problem:
        """Hold every shape against the model's; past actions that are None become 0, and what is
        on another device than the history is copied there.

        Raises:
            PlanningError: A shape does not fit, or the model is in training mode.
        """
        if getattr(model, "training", False):
            raise PlanningError("the world model is in training mode; call model.eval() first")
        size = model.frame_skip * model.action_dim
        if history.dim() != 3 or not 1 <= history.shape[1] <= model.history:
            raise PlanningError(f"history has shape {tuple(history.shape)}, expected (B, T, D) "
                                f"with 1 <= T <= {model.history}")
        rows, frames, latent = history.shape
        goal_dim = getattr(model, "embedding_dim", latent)
        if goal.shape != (rows, goal_dim):
            raise PlanningError(f"goal has shape {tuple(goal.shape)}, expected {(rows, goal_dim)}")
        if horizon < 1:
            raise PlanningError(f"horizon is {horizon} blocks, at least 1 is needed")
        if past_actions is None:
            past_actions = history.new_zeros((rows, frames - 1, size))
        if past_actions.shape != (rows, frames - 1, size):
            raise PlanningError(f"past_actions have shape {tuple(past_actions.shape)}, expected "
                                f"{(rows, frames - 1, size)}")
        if initial_mean is not None and (
            initial_mean.dim() != 3
            or initial_mean.shape[1] > horizon
            or (initial_mean.shape[0], initial_mean.shape[2]) != (rows, size)
        ):
            raise PlanningError(f"initial_mean has shape {tuple(initial_mean.shape)}, expected "
                                f"({rows}, at most {horizon}, {size})")
        steps = horizon * model.frame_skip
        if committed is not None and not (
            committed.dim() == 3
            and (committed.shape[0], committed.shape[2]) == (rows, model.action_dim)
            and committed.shape[1] < steps
        ):
            raise PlanningError(
                f"committed has shape {tuple(committed.shape)}, expected ({rows}, fewer than "
                f"{steps}, {model.action_dim}): a plan of {horizon} blocks must have a step that "
                "is open"
            )
        # Where the history is, so is the work: a stage must not copy from the host.
        device = history.device
        return cls(
            history, goal.to(device), past_actions.to(device), horizon,
            None if initial_mean is None else initial_mean.to(device),
            None if committed is None else committed.to(device),
            shorten=not history.is_cuda,
        )

    @property
    def rows(self) -> int:
        """Plans that are made side by side, B."""
        return self.history.shape[0]

    @property
    def before(self) -> Tensor | None:
        """``(B, F * A)`` block that was executed last; None: not known."""
        return self.past_actions[:, -1] if self.past_actions.shape[1] else None

    @property
    def decided(self) -> int:
        """Control steps at the beginning of the plan that are not open."""
        return 0 if self.committed is None else self.committed.shape[1]

    def commit(self, blocks: Tensor) -> Tensor:
        """Put what is committed at the beginning of blocks ``(B, ..., horizon, F * A)``."""
        if self.committed is None:
            return blocks
        known = self.committed[0].numel()
        decided = self.committed.flatten(1).to(blocks)
        while decided.dim() < blocks.dim() - 1:
            decided = decided[:, None]
        numbers = blocks.flatten(-2)
        decided = decided.expand(*numbers.shape[:-1], known)
        return torch.cat([decided, numbers[..., known:]], dim=-1).reshape(blocks.shape)

    def release(self, blocks: Tensor) -> Tensor:
        """Put 0 where nothing is open: for deviations and gradients."""
        if self.committed is None:
            return blocks
        numbers = blocks.flatten(-2).clone()
        numbers[..., : self.committed[0].numel()] = 0.0
        return numbers.reshape(blocks.shape)
