"""Gradient descent on the actions, through the world model.

The model is differentiable, so the cost of a plan says in which direction to change its actions.
Several plans descend side by side from different beginnings; the best is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lewm_core.planning.problem import Problem
from lewm_core.planning.protocols import Candidates, begin_rollout
from lewm_core.planning.sampling import best_of
from lewm_core.planning.solver import (
    MOST_CANDIDATES,
    MOST_ROUNDS,
    BaseSolver,
    Outcome,
    SearchState,
    SolverSettings,
)


class AdamConfig(SolverSettings):
    """Settings of the descent.

    Attributes:
        candidates: Plans that descend side by side; the first begins at the start itself.
        rounds: Steps of the descent.
        learning_rate: In normalised actions a step; 1 is the spread of the training data.
        initial_std: Of the beginnings around the start, except where a proposal is sure of itself.
    """

    kind: Literal["adam"] = "adam"
    candidates: int = Field(8, ge=1, le=MOST_CANDIDATES)
    rounds: int = Field(20, ge=1, le=MOST_ROUNDS)
    learning_rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    initial_std: float = Field(0.5, ge=0, allow_inf_nan=False)


#: Decay of the two moments and the least divisor (Kingma and Ba, 2015, arXiv 1412.6980).
_DECAY, _DECAY_SQUARE, _EPSILON = 0.9, 0.999, 1e-8


@dataclass
class AdamState(SearchState):
    """What the steps change.

    Attributes:
        tried: ``(B, S, horizon, F * A)`` plans now.
        first: Decayed mean of their gradients.
        second: Decayed mean of the squares.
        decays: ``(2,)`` what is left in both of the zeros that they began with.
        best: ``(B, horizon, F * A)`` cheapest so far.
        best_cost: ``(B, 1)``.
    """

    tried: Tensor
    first: Tensor
    second: Tensor
    decays: Tensor
    best: Tensor
    best_cost: Tensor


class Adam(BaseSolver):
    """Plans by gradient descent; arguments as `BaseSolver`'s."""

    settings = AdamConfig
    config: AdamConfig
    _differentiates = True

    @property
    def rounds(self) -> int:
        """Steps of a plan without a deadline."""
        return self.config.rounds

    def begin(self, problem: Problem) -> AdamState:
        """Spread the beginnings around the start."""
        # Of inference mode, as embeddings often are, nothing can be differentiated.
        problem = replace(
            problem, history=problem.history.clone(), goal=problem.goal.clone(),
            past_actions=problem.past_actions.clone(),
        )
        start = self._start(problem)
        mean = start.mean.clone()
        std = self._initial_std(start, self.config.initial_std)[:, None]
        noise = problem.release(self._noise(self.config.candidates, problem, mean))
        tried = self.limits.apply(mean[:, None] + std * noise, problem.before, problem.decided)
        tried[:, 0] = mean
        number = torch.full((problem.rows,), self.config.candidates, device=mean.device)
        return AdamState(
            problem=problem,
            mean=mean,
            arrival=start.arrival,
            dropped=torch.zeros((), dtype=torch.int64, device=mean.device),
            fewest_finite=number.clone(),
            drawn=number,
            tried=tried,
            first=torch.zeros_like(tried),
            second=torch.zeros_like(tried),
            decays=mean.new_ones(2),
            best=mean.clone(),
            best_cost=mean.new_full((problem.rows, 1), torch.inf),
            # The faster rollout has no gradients.
            imagine=begin_rollout(
                getattr(self.model, "model", self.model), problem.history, problem.past_actions
            ),
        )

    def improve(self, state: SearchState, number: int) -> None:
        """One step of all plans."""
        assert isinstance(state, AdamState)
        with torch.enable_grad():
            tried = state.tried.detach().requires_grad_()
            cost = self._judge(state, tried)
            finite = torch.isfinite(cost)
            total = torch.where(finite, cost, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, tried)
        self._count(state, finite)
        self._remember(state, torch.where(finite, cost.detach(), torch.inf))
        gradient = state.problem.release(torch.nan_to_num(gradient, 0.0, 0.0, 0.0))
        state.first.lerp_(gradient, 1 - _DECAY)
        state.second.lerp_(gradient.square(), 1 - _DECAY_SQUARE)
        state.decays[0] *= _DECAY
        state.decays[1] *= _DECAY_SQUARE
        step = state.first / (1 - state.decays[0])
        size = (state.second / (1 - state.decays[1])).sqrt() + _EPSILON
        moved = state.tried - self.config.learning_rate * step / size
        # A plan that went where the model has no answer goes on from the best one.
        moved = torch.where(finite[:, :, None, None], moved, state.best[:, None])
        problem = state.problem
        state.tried.copy_(self.limits.apply(moved, problem.before, problem.decided))

    def finish(self, state: SearchState) -> Outcome:
        """The plan is the cheapest of all that were imagined, the last step's among them."""
        assert isinstance(state, AdamState)
        cost = self._judge(state, state.tried)
        self._remember(state, torch.where(torch.isfinite(cost), cost, torch.inf))
        state.mean.copy_(state.best)
        return super().finish(state)

    def _judge(self, state: AdamState, tried: Tensor) -> Tensor:
        futures = Candidates(state.imagine(tried), tried, state.problem.before)
        return self._cost(state, futures)

    def _remember(self, state: AdamState, cost: Tensor) -> None:
        every = torch.cat([state.best[:, None], state.tried], dim=1)
        best, best_cost = best_of(every, torch.cat([state.best_cost, cost], dim=1), 1)
        state.best.copy_(best[:, 0])
        state.best_cost.copy_(best_cost)
