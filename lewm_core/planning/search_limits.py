"""Limits of range and rate inside a search, so that no plan relies on what is never published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.protocols import Dynamics, device_of


class SearchLimits:
    """What candidates may be, in normalised action space.

    Args:
        model: Its normalisation counts.
        action_limits: ``(lower (A,), upper (A,))`` in physical units. None: free, as in the paper,
            whose environments clip.
        rate_limits: ``(A,)`` greatest change from one control step to the next, in physical units;
            infinite where there is none. None: free.

    Raises:
        PlanningError: The limits do not fit the model's actions.
    """

    def __init__(
        self,
        model: Dynamics,
        action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
        rate_limits: Sequence[float] | None = None,
    ) -> None:
        self._action_dim, self._frame_skip = model.action_dim, model.frame_skip
        self.blocks: tuple[Tensor, Tensor] | None = None
        if action_limits is not None:
            lower, upper = (
                self._given(f"{name} action limits", limits)
                for name, limits in zip(("lower", "upper"), action_limits, strict=True)
            )
            if (lower > upper).any():
                raise PlanningError(f"lower action limits {lower.tolist()} exceed the upper ones "
                                    f"{upper.tolist()}")
            self.blocks = (self._normalised(model, lower), self._normalised(model, upper))
        self.rates: Tensor | None = None
        if rate_limits is not None:
            rates = self._given("rate limits", rate_limits)
            if (rates <= 0).any():
                raise PlanningError(f"rate limits {rates.tolist()} must be above 0")
            self.rates = self._binding(model, rates)

    def _given(self, name: str, values: Sequence[float]) -> Tensor:
        limit = torch.as_tensor(values, dtype=torch.float32).flatten()
        if len(limit) != self._action_dim or limit.isnan().any():
            raise PlanningError(f"{name} {limit.tolist()} do not fit the model's "
                                f"{self._action_dim} action dimensions")
        return limit

    def _normalised(self, model: Dynamics, limit: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            steps = limit.to(device_of(model)).expand(self._frame_skip, -1)
            return model.normalise_actions(steps).clone()

    def _binding(self, model: Dynamics, rates: Tensor) -> Tensor | None:
        """``(A,)`` normalised; None if no pair of allowed actions differs by more."""
        # The mean falls out of a difference.
        change = self._normalised(model, rates) - self._normalised(model, torch.zeros_like(rates))
        change = change[: self._action_dim]
        if self.blocks is not None:
            span = (self.blocks[1] - self.blocks[0])[: self._action_dim]
            if bool((span <= change).all()):
                return None
        return None if bool(torch.isinf(change).all()) else change

    def to(self, device: torch.device) -> None:
        """Move them to where a search runs: a model may move after the solver is made."""
        if self.blocks is not None and self.blocks[0].device != device:
            lower, upper = self.blocks
            self.blocks = (lower.to(device), upper.to(device))
        if self.rates is not None and self.rates.device != device:
            self.rates = self.rates.to(device)

    def clamp(self, blocks: Tensor) -> Tensor:
        """Bring blocks ``(..., F * A)`` into the range."""
        if self.blocks is None:
            return blocks
        lower, upper = (limit.to(blocks) for limit in self.blocks)
        return torch.clamp(blocks, lower, upper)

    def apply(self, blocks: Tensor, before: Tensor | None, decided: int = 0) -> Tensor:
        """Bring candidates into the range, and every step near enough to the one before it.

        Args:
            blocks: ``(B, S, horizon, F * A)``.
            before: ``(B, F * A)`` block before the first; None: not known, the first is free.
            decided: Control steps at the beginning that stay as they are, whatever the limits
                (hold, for one, is not slowed).
        """
        wanted, blocks = blocks, self.clamp(blocks)
        if decided:
            numbers = decided * self._action_dim
            blocks = torch.cat([wanted.flatten(2)[..., :numbers], blocks.flatten(2)[..., numbers:]],
                               dim=2).reshape(blocks.shape)
        if self.rates is None:
            return blocks
        rates = self.rates.to(blocks)
        steps = list(blocks.reshape(*blocks.shape[:2], -1, self._action_dim).unbind(2))
        last = steps[0] if before is None else before[:, None, -self._action_dim :]
        if decided:
            last = steps[decided - 1]
        for number, step in enumerate(steps[decided:], start=decided):
            last = torch.clamp(step, last - rates, last + rates)
            steps[number] = last
        return torch.stack(steps, dim=2).reshape(blocks.shape)
