"""The cross-entropy method over blocks of actions, as the paper plans (arXiv 2603.19312).

Each round draws candidates around a mean, rolls them out in latent space, keeps the best
(the elites) and takes their mean and standard deviation for the next round. The mean itself is
candidate 0 of every round, and the mean after the last round is the plan.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lewm_core.planning.noise import exponential
from lewm_core.planning.sampling import EliteConfig, SamplingSolver, SamplingState, best_of


class CEMConfig(EliteConfig):
    """Settings of the cross-entropy method. The defaults are the paper's for Push-T.

    Attributes:
        noise_correlation: Of the noise of one control step with the next; 0 is the paper's white
            noise.
    """

    kind: Literal["cem"] = "cem"
    noise_correlation: float = Field(0.0, ge=0, lt=1)


class CEM(SamplingSolver):
    """Plans by the cross-entropy method; arguments as `BaseSolver`'s."""

    settings = CEMConfig
    config: CEMConfig

    @property
    def least_finite(self) -> int:
        """The elites."""
        return self.config.elites

    def _colour(self, steps: int) -> Tensor | None:
        return exponential(self.config.noise_correlation, steps)

    def _move(
        self, state: SamplingState, tried: Tensor, cost: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        elites, _ = best_of(tried, cost, self.config.elites)
        return (
            torch.lerp(elites.mean(dim=1), state.mean, self.config.smoothing),
            torch.lerp(elites.std(dim=1), state.std, self.config.smoothing),
        )
