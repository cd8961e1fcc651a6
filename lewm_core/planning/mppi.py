"""Model predictive path integral control (Williams et al., 2017, arXiv 1707.02342), in rounds.

All candidates count, each with a weight that falls exponentially with its cost.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lewm_core.planning.noise import exponential
from lewm_core.planning.sampling import SamplingConfig, SamplingSolver, SamplingState
from lewm_core.planning.solver import MOST_CANDIDATES, MOST_ROUNDS


class MPPIConfig(SamplingConfig):
    """Settings of path integral control.

    Attributes:
        temperature: lambda, as a share of the standard deviation of the round's costs, so that it
            means the same for every checkpoint and every goal.
        std_decay: Every round draws with this times the standard deviation of the one before.
        noise_correlation: Of the noise of one control step with the next.
    """

    kind: Literal["mppi"] = "mppi"
    candidates: int = Field(128, ge=2, le=MOST_CANDIDATES)
    rounds: int = Field(8, ge=1, le=MOST_ROUNDS)
    temperature: float = Field(0.1, gt=0, allow_inf_nan=False)
    std_decay: float = Field(0.8, gt=0, le=1)
    noise_correlation: float = Field(0.6, ge=0, lt=1)


class MPPI(SamplingSolver):
    """Plans by path integrals; arguments as `BaseSolver`'s."""

    settings = MPPIConfig
    config: MPPIConfig

    @property
    def least_finite(self) -> int:
        """One has weight enough."""
        return 1

    def _colour(self, steps: int) -> Tensor | None:
        return exponential(self.config.noise_correlation, steps)

    def _move(
        self, state: SamplingState, tried: Tensor, cost: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        counts = torch.isfinite(cost)
        known = torch.where(counts, cost, 0.0)
        total = counts.sum(dim=1, keepdim=True).clamp_min(1)
        mean = known.sum(dim=1, keepdim=True) / total
        spread = torch.where(counts, cost - mean, 0.0).square().sum(dim=1, keepdim=True) / total
        scale = self.config.temperature * spread.sqrt().clamp_min(torch.finfo(cost.dtype).tiny)
        best = cost.amin(dim=1, keepdim=True)
        weights = torch.where(counts, torch.exp((best - cost) / scale), 0.0)
        weights = weights / weights.sum(dim=1, keepdim=True)
        moved = torch.einsum("bs,bsha->bha", weights, tried)
        return moved, state.std * self.config.std_decay
