"""Solvers that begin with the learned proposal: by itself, and as the start of a search.

The proposal is told how many blocks are left to the goal. Nobody knows that for a goal picture,
so it is asked for every number at once, each answer is rolled out through the world model, and the
one whose end is nearest to the goal is taken; a block more has to be worth its time. Where no
answer gets near, there is no arrival that time could be saved on: then the nearest end is taken,
however many blocks it needs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.imagination import imagine
from lewm_core.model.world_model import WorldModel, goal_difference
from lewm_core.planning.cem import CEM, CEMConfig, stay_after
from lewm_core.planning.objective import GoalDistance
from lewm_core.planning.plan import Plan
from lewm_core.planning.protocols import Objective


class ArrivalConfig(BaseModel):
    """How the arrival is chosen from those that the proposal was asked for.

    Attributes:
        horizon: Blocks that a plan has at most; every arrival after 1 .. horizon blocks is
            imagined.
        block_price: A plan that is one block longer must end nearer to the goal by this share.
        doubt: The proposal is out of its depth if its plan ends farther from the goal than this
            share of the squared distance now. The longest way is not too long then, and a search
            widens.
        near: A state is near its goal, where nothing has to be gained any more, below this share
            of 2 E: the mean squared distance of unrelated states, which SIGReg makes normal with
            variance 1 in each of E dimensions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizon: int = Field(8, ge=1, le=1000)
    block_price: float = Field(0.25, ge=0, lt=1)
    doubt: float = Field(0.5, gt=0, allow_inf_nan=False)
    near: float = Field(0.03, ge=0, allow_inf_nan=False)


class ProposalSolverConfig(ArrivalConfig):
    """Settings of the proposal by itself: no search; attributes as in `ArrivalConfig`."""

    kind: Literal["proposal"] = "proposal"


class ProposalCEMConfig(ArrivalConfig):
    """Settings of a cross-entropy search that begins at the proposal's plan.

    Standard deviations are in normalised action space: 1 is the spread of the training data.

    Attributes:
        candidates: Per round, the mean among them.
        blocks_per_round: Most blocks that a round imagines for a plan: one of n blocks has this
            over n candidates, where that is fewer, but no fewer than ``elites``. It bounds the
            time of a long plan, whose later blocks will be planned anew anyway. None: no bound.
        rounds: Of the search.
        elites: Best candidates that make the next mean and standard deviation.
        initial_std: Where the proposal's plan gets to the goal.
        wide_std: Where it does not.
        min_std: The search never narrows further than this.
        noise_correlation: Of the noise of one control step with the next.
        seed: Of the random numbers.
    """

    kind: Literal["proposal+cem"] = "proposal+cem"
    candidates: int = Field(96, ge=2)
    blocks_per_round: int | None = Field(None, ge=1)
    rounds: int = Field(3, ge=1)
    elites: int = Field(10, ge=2)
    initial_std: float = Field(0.4, gt=0, allow_inf_nan=False)
    wide_std: float = Field(1.0, gt=0, allow_inf_nan=False)
    min_std: float = Field(0.05, ge=0, allow_inf_nan=False)
    noise_correlation: float = Field(0.6, ge=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _enough_candidates(self) -> ProposalCEMConfig:
        if self.elites > self.candidates:
            raise ValueError(f"elites ({self.elites}) must not exceed candidates "
                             f"({self.candidates})")
        return self

    def search(self) -> CEMConfig:
        """The search's part of these settings."""
        return CEMConfig(
            candidates=self.candidates,
            rounds=self.rounds,
            elites=self.elites,
            initial_std=self.initial_std,
            min_std=self.min_std,
            horizon=self.horizon,
            noise_correlation=self.noise_correlation,
            seed=self.seed,
        )


class ProposalSolver(CEM):
    """Plans by the learned proposal, and searches on from there if its settings say so.

    A plan ends where it arrives: it may have fewer blocks than asked for. With several rows side
    by side it is as long as the longest; a row that arrives earlier goes on with what the
    proposal does there.

    Args:
        model: A world model with a proposal.
        config: With or without a search.
        objective: What the search minimises; default the distance of the last state to the goal.
        action_limits: See `SearchLimits`.
        rate_limits: See `SearchLimits`; what the proposal proposes is brought inside when its
            arrival is chosen, and rolled out once more.

    Raises:
        PlanningError: The model has no proposal, or the limits do not fit its actions.
    """

    def __init__(
        self,
        model: WorldModel,
        config: ProposalSolverConfig | ProposalCEMConfig,
        objective: Objective | None = None,
        action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
        rate_limits: Sequence[float] | None = None,
    ) -> None:
        if getattr(model, "proposal", None) is None:
            raise PlanningError(
                f"planner {config.kind!r} needs a checkpoint with a learned proposal, this one "
                "has none; use planner 'cem' or 'nano', or train with lewm-train's proposal "
                "stage"
            )
        searches = isinstance(config, ProposalCEMConfig)
        super().__init__(
            model,
            config.search() if searches else CEMConfig(horizon=config.horizon),
            objective or GoalDistance(),
            action_limits,
            rate_limits,
        )
        self.settings = config
        self._searches = searches

    def plan(
        self,
        history: Tensor,
        goal: Tensor,
        past_actions: Tensor | None = None,
        *,
        horizon: int | None = None,
        initial_mean: Tensor | None = None,
        deadline: float | None = None,
        committed: Tensor | None = None,
    ) -> Plan:
        """Propose, choose the arrival, and search from there.

        Args:
            history: ``(B, T, D)`` embeddings, one block apart, oldest first, ``T <= history``.
            goal: ``(B, E)``.
            past_actions: ``(B, T - 1, F * A)`` normalised; None: 0.
            horizon: Blocks at most; None: the settings'.
            initial_mean: Not needed: the proposal is the start.
            deadline: See `Solver.plan`.
            committed: ``(B, n, A)`` normalised; see `Solver.plan`.

        Raises:
            PlanningError: See `CEM.plan`.
        """
        started = time.perf_counter()
        horizon = self.config.horizon if horizon is None else horizon
        past_actions = self._check(history, goal, past_actions, horizon, initial_mean)
        self._check_committed(committed, history.shape[0], horizon)
        dropped = rounds = 0
        with torch.inference_mode():
            mean, arrival, certain = self._propose(
                history, goal, past_actions, horizon, committed
            )
            if self._searches:
                std = torch.where(certain, self.config.initial_std, self.settings.wide_std)
                std = std.to(mean)[:, None, None].expand_as(mean)
                candidates = self._candidates(arrival)
                found = self._search(
                    history, goal, past_actions, mean, std, arrival, candidates, deadline, committed
                )
                mean, dropped, rounds = found.mean, found.dropped, found.rounds
                self._raise_if_too_few(found.fewest_finite.cpu(), torch.zeros(()), candidates)
            predicted = self.model.rollout(history, past_actions, mean[:, None])
            cost = self.objective(stay_after(predicted, arrival), goal)[:, 0]
            actions = self.model.denormalise_actions(mean).flatten(1, 2)
        cost = cost.cpu().clone()
        if not bool(torch.isfinite(cost).all()):
            raise PlanningError("the cost of the proposed plan is not finite: the history, the "
                                "goal or the model's predictions are not")
        return Plan(
            actions=actions.cpu().clone(),
            blocks=mean.cpu().clone(),
            cost=cost,
            predicted=predicted[:, 0].cpu().clone(),
            dropped=int(dropped),
            duration_s=time.perf_counter() - started,
            arrival=arrival.cpu().clone(),
            rounds=rounds,
        )

    def _candidates(self, arrival: Tensor) -> Tensor | None:
        """How many candidates a round has for plans of ``arrival`` ``(B,)`` blocks: ``(B,)``."""
        if self.settings.blocks_per_round is None:
            return None
        fitting = self.settings.blocks_per_round // arrival
        return fitting.clamp(self.settings.elites, self.settings.candidates)

    def _propose(
        self,
        history: Tensor,
        goal: Tensor,
        past_actions: Tensor,
        horizon: int,
        committed: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Imagine every arrival and choose.

        Returns:
            Blocks ``(B, longest arrival, F * A)``; arrivals ``(B,)`` in blocks; whether the
            proposal is in its depth ``(B,)``.
        """
        rows = history.shape[0]

        def every_arrival(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(horizon, dim=0)

        arrivals = torch.arange(1, horizon + 1, device=history.device)
        # No plan may be over before it is there.
        shortest = 1
        if committed is not None:
            shortest = committed.shape[1] // self.model.frame_skip + 1
        imagined = imagine(
            self.model,
            self.model.proposal,
            every_arrival(history),
            every_arrival(past_actions),
            every_arrival(goal),
            arrivals.repeat(rows),
            horizon,
            self.limits.blocks,
            None if committed is None else every_arrival(committed),
        )
        states = imagined.states.unflatten(0, (rows, horizon))
        ends = states.diagonal(dim1=1, dim2=2).transpose(1, 2)
        distance = goal_difference(ends, goal[:, None]).square().sum(dim=-1)
        # A plan that is not finite must not be chosen, and not win by being so.
        distance = torch.nan_to_num(distance, nan=torch.inf)
        distance[:, : shortest - 1] = torch.inf
        price = (1.0 - self.settings.block_price) ** -arrivals.to(distance)
        now = goal_difference(history[:, -1], goal).square().sum(dim=-1)
        chosen = (distance * price).argmin(dim=1)
        row = torch.arange(rows, device=history.device)
        certain = distance[row, chosen] <= self.settings.doubt * now
        is_near = now < self.settings.near * 2 * goal.shape[1]
        chosen = torch.where(certain | is_near, chosen, distance.argmin(dim=1))
        arrival = chosen + 1
        blocks = imagined.blocks.unflatten(0, (rows, horizon))[row, chosen]
        before = past_actions[:, -1] if past_actions.shape[1] else None
        decided = 0 if committed is None else committed.shape[1]
        blocks = self.limits.apply(blocks[:, None], before, decided)[:, 0]
        return blocks[:, : int(arrival.max())], arrival, certain
