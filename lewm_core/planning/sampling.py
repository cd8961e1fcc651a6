"""Solvers that draw candidates around a mean, and move the mean by what they cost."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lewm_core.planning.problem import Problem
from lewm_core.planning.protocols import Candidates, begin_rollout
from lewm_core.planning.solver import (
    MOST_CANDIDATES,
    MOST_ROUNDS,
    BaseSolver,
    SearchState,
    SolverSettings,
)

if TYPE_CHECKING:
    from typing import Self


class SamplingConfig(SolverSettings):
    """Settings of a search by sampling.

    Standard deviations are in normalised action space: 1 is the spread of the training data.

    Attributes:
        candidates: Per round, the mean among them.
        rounds: Of the search.
        initial_std: Of the first round, except where a proposal is sure of itself.
        min_std: The search never narrows further than this.
        blocks_per_round: Most blocks that a round imagines for a plan: one of n blocks has this
            over n candidates, where that is fewer, but no fewer than the search needs. It bounds
            the time of a long plan, whose later blocks will be planned anew anyway. None: no bound.
    """

    candidates: int = Field(300, ge=2, le=MOST_CANDIDATES)
    rounds: int = Field(30, ge=1, le=MOST_ROUNDS)
    initial_std: float = Field(1.0, gt=0, allow_inf_nan=False)
    min_std: float = Field(0.0, ge=0, allow_inf_nan=False)
    blocks_per_round: int | None = Field(None, ge=1)


class EliteConfig(SamplingConfig):
    """Settings of a search that goes by the best candidates of a round, the elites.

    Attributes:
        elites: Best candidates, which make the next mean and standard deviation.
        smoothing: Share of the old mean and standard deviation kept in each round.
    """

    elites: int = Field(30, ge=2)
    smoothing: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _enough_candidates(self) -> Self:
        if self.elites > self.candidates:
            raise ValueError(f"elites ({self.elites}) must not exceed candidates "
                             f"({self.candidates})")
        return self


@dataclass
class SamplingState(SearchState):
    """What the rounds of a search by sampling change.

    Attributes:
        std: ``(B, horizon, F * A)`` that candidates are drawn with.
        wanted: ``(B,)`` candidates that each row has in a round, the others do not count; None:
            all.
    """

    std: Tensor
    wanted: Tensor | None


class SamplingSolver(BaseSolver):
    """Draws candidates in rounds; how they change mean and deviation is its subclasses'."""

    config: SamplingConfig

    @property
    def rounds(self) -> int:
        """Rounds of a plan without a deadline."""
        return self.config.rounds

    def begin(self, problem: Problem) -> SamplingState:
        """Look at the past once for all candidates, and find out where to begin."""
        start = self._start(problem)
        mean = start.mean.clone()
        std = self._initial_std(start, self.config.initial_std).expand_as(mean).clone()
        length = start.arrival
        wanted = None
        if self.config.blocks_per_round is not None:
            if length is None:
                length = torch.full((problem.rows,), mean.shape[1], device=mean.device)
            wanted = (self.config.blocks_per_round // length).clamp(
                max(2, self.least_finite), self.config.candidates
            )
        drawn = wanted
        if drawn is None:
            drawn = torch.full((problem.rows,), self.config.candidates, device=mean.device)
        return SamplingState(
            problem=problem,
            mean=mean,
            arrival=start.arrival,
            dropped=torch.zeros((), dtype=torch.int64, device=mean.device),
            fewest_finite=drawn.clone(),
            drawn=drawn,
            std=problem.release(std),
            imagine=begin_rollout(self.model, problem.history, problem.past_actions),
            wanted=wanted,
        )

    def improve(self, state: SamplingState, number: int) -> None:
        """Draw, imagine, judge, move."""
        problem = state.problem
        tried = self._draw(state, number)
        cost = self._cost(state, Candidates(state.imagine(tried), tried, problem.before))
        finite = torch.isfinite(cost)
        drawn = None
        if state.wanted is not None:
            places = torch.arange(tried.shape[1], device=cost.device)
            drawn = state.wanted.clamp_max(tried.shape[1])
            finite = finite & (places < drawn[:, None])
        elif tried.shape[1] != self.config.candidates:
            drawn = torch.full_like(state.drawn, tried.shape[1])
        self._count(state, finite, drawn)
        mean, std = self._move(state, tried, torch.where(finite, cost, torch.inf), number)
        # Neither rounding nor the least deviation may move what is decided already.
        state.mean.copy_(problem.commit(mean))
        state.std.copy_(problem.release(std.clamp_min(self.config.min_std)))

    def _draw(self, state: SamplingState, number: int) -> Tensor:
        """Candidates ``(B, S, horizon, F * A)``, the mean first."""
        problem, mean = state.problem, state.mean
        noise = self._noise(self._candidates(number), problem, mean)
        if state.wanted is not None and problem.shorten:
            noise = noise[:, : int(state.wanted.max())]
        tried = torch.addcmul(mean[:, None], noise, state.std[:, None])
        tried = self.limits.apply(tried, problem.before, problem.decided)
        tried[:, 0] = mean
        return tried

    def _candidates(self, number: int) -> int:
        """How many are drawn in a round."""
        return self.config.candidates

    @abstractmethod
    def _move(
        self, state: SamplingState, tried: Tensor, cost: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        """Return the next mean and standard deviation ``(B, horizon, F * A)``.

        Args:
            state: Before the round.
            tried: ``(B, S, horizon, F * A)``.
            cost: ``(B, S)``, infinite for candidates that do not count.
            number: Of the round.
        """


def best_of(tried: Tensor, cost: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the ``number`` cheapest ``(B, number, horizon, F * A)`` and costs ``(B, number)``."""
    cheapest = cost.topk(number, dim=1, largest=False, sorted=False)
    which = cheapest.indices[:, :, None, None].expand(-1, -1, *tried.shape[2:])
    return tried.gather(1, which), cheapest.values
