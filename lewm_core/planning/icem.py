"""The improved cross-entropy method (Pinneri et al., 2020, arXiv 2008.06389).

It differs from the plain one in what a robot feels: the noise has the colour of movements, good
candidates are kept from round to round, later rounds are smaller, and the plan is the best
candidate that was found rather than a mean of good ones. The start shifted by the time that passed
is the controller's (``warm_start``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lewm_core.planning.noise import power_law
from lewm_core.planning.problem import Problem
from lewm_core.planning.sampling import EliteConfig, SamplingSolver, SamplingState, best_of
from lewm_core.planning.solver import Outcome, SearchState


class ICEMConfig(EliteConfig):
    """Settings of the improved cross-entropy method.

    Attributes:
        noise_exponent: Power of the noise over frequency, beta: 0 white, 1 pink, 2 red.
        candidate_decay: Every round has this times fewer candidates than the one before, but no
            fewer than twice the elites.
        kept_share: Of the elites, that go on competing in the next round; they cost no rollout.
        best: The plan is the best candidate of all; otherwise the mean after the last round.
    """

    kind: Literal["icem"] = "icem"
    smoothing: float = Field(0.1, ge=0, lt=1)
    noise_exponent: float = Field(2.0, ge=0, le=10)
    candidate_decay: float = Field(1.25, ge=1, allow_inf_nan=False)
    kept_share: float = Field(0.3, ge=0, le=1)
    best: bool = True


@dataclass
class ICEMState(SamplingState):
    """What the rounds change besides.

    Attributes:
        kept: ``(B, K, horizon, F * A)`` best candidates so far, at least one.
        kept_cost: ``(B, K)``, infinite before the first round.
    """

    kept: Tensor
    kept_cost: Tensor


class ICEM(SamplingSolver):
    """Plans by the improved cross-entropy method; arguments as `BaseSolver`'s."""

    settings = ICEMConfig
    config: ICEMConfig

    @property
    def least_finite(self) -> int:
        """The elites."""
        return self.config.elites

    def begin(self, problem: Problem) -> ICEMState:
        """As every search by sampling, with nothing kept yet."""
        state = super().begin(problem)
        kept = max(1, round(self.config.kept_share * self.config.elites))
        return ICEMState(
            **vars(state),
            kept=state.mean[:, None].repeat(1, kept, 1, 1),
            kept_cost=state.mean.new_full((problem.rows, kept), torch.inf),
        )

    def finish(self, state: SearchState) -> Outcome:
        """The plan is the best candidate, if so configured."""
        if self.config.best and isinstance(state, ICEMState):
            best, _ = best_of(state.kept, state.kept_cost, 1)
            state.mean.copy_(best[:, 0])
        return super().finish(state)

    def round_kind(self, number: int) -> int:
        """The number of candidates."""
        return self._candidates(number)

    def _candidates(self, number: int) -> int:
        decayed = round(self.config.candidates * self.config.candidate_decay**-number)
        return min(self.config.candidates, max(2 * self.config.elites, decayed))

    def _colour(self, steps: int) -> Tensor | None:
        return power_law(self.config.noise_exponent, steps)

    def _move(
        self, state: SamplingState, tried: Tensor, cost: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(state, ICEMState)
        every = torch.cat([state.kept, tried], dim=1)
        every_cost = torch.cat([state.kept_cost, cost], dim=1)
        best, best_cost = best_of(every, every_cost, state.kept.shape[1])
        state.kept.copy_(best)
        state.kept_cost.copy_(best_cost)
        if not self.config.kept_share:
            every, every_cost = tried, cost
        elites, _ = best_of(every, every_cost, self.config.elites)
        return (
            torch.lerp(elites.mean(dim=1), state.mean, self.config.smoothing),
            torch.lerp(elites.std(dim=1), state.std, self.config.smoothing),
        )
