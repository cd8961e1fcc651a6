"""The cross-entropy method over blocks of actions, as the paper plans (arXiv 2603.19312).

Each round draws candidates around a mean, rolls them out in latent space, keeps the best
(the elites) and takes their mean and standard deviation for the next round. The mean itself is
candidate 0 of every round, and the mean after the last round is the plan.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.objective import GoalDistance
from lewm_core.planning.plan import Plan
from lewm_core.planning.protocols import Dynamics, Objective, begin_rollout
from lewm_core.planning.search_limits import SearchLimits


class CEMConfig(BaseModel):
    """Settings of the search. The defaults are the paper's for Push-T.

    Standard deviations are in normalised action space: 1 is the spread of the training data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["cem"] = "cem"
    candidates: int = Field(300, ge=2, description="candidates per round, the mean among them")
    rounds: int = Field(30, ge=1)
    elites: int = Field(30, ge=2, description="best candidates that make the next mean and std")
    initial_std: float = Field(1.0, gt=0, allow_inf_nan=False)
    min_std: float = Field(0.0, ge=0, allow_inf_nan=False, description="the search never narrows "
                           "further than this")
    horizon: int = Field(5, ge=1, description="blocks in a plan")
    running_weight: float = Field(0.0, ge=0, allow_inf_nan=False,
                                  description="see GoalDistance")
    smoothing: float = Field(0.0, ge=0, lt=1, description="share of the old mean and std kept in "
                             "each round")
    noise_correlation: float = Field(0.0, ge=0, lt=1, description="of the noise of one control "
                                     "step with the next; 0 is the paper's white noise")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _enough_candidates(self) -> CEMConfig:
        if self.elites > self.candidates:
            raise ValueError(f"elites ({self.elites}) must not exceed candidates "
                             f"({self.candidates})")
        return self


class SearchResult(NamedTuple):
    """What the rounds of a search came to.

    Attributes:
        mean: ``(B, horizon, F * A)`` after the last round.
        dropped: ``()`` candidates whose cost was not finite.
        fewest_finite: ``(B,)`` finite costs in the round that had fewest.
        rounds: That were completed.
    """

    mean: Tensor
    dropped: Tensor
    fewest_finite: Tensor
    rounds: int


class CEM:
    """Plans by the cross-entropy method.

    The rounds run without a host synchronisation: nothing is copied to the host, and nothing
    branches on a tensor, until the plan is done. Two solvers with the same seed, given the same
    sequence of calls, make the same plans.

    Args:
        model: The dynamics.
        config: Settings; default `CEMConfig()`, the paper's.
        objective: What to minimise; default ``GoalDistance(config.running_weight)``.
        action_limits: See `SearchLimits`.
        rate_limits: See `SearchLimits`.

    Raises:
        PlanningError: The limits do not fit the model's actions.
    """

    def __init__(
        self,
        model: Dynamics,
        config: CEMConfig | None = None,
        objective: Objective | None = None,
        action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
        rate_limits: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        self.config = config or CEMConfig()
        self.objective = objective or GoalDistance(self.config.running_weight)
        self.limits = SearchLimits(model, action_limits, rate_limits)
        self._generator: torch.Generator | None = None

    @property
    def horizon(self) -> int:
        """Blocks in a plan unless `plan` is told otherwise."""
        return self.config.horizon

    def reset(self) -> None:
        """Begin the random numbers anew, so that the next plans repeat the first ones."""
        self._generator = None

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
        """Search for the actions that bring the last predicted embedding to the goal.

        Args:
            history: ``(B, T, D)`` embeddings, one block apart, oldest first, ``T <= history``.
            goal: ``(B, E)``.
            past_actions: ``(B, T - 1, F * A)`` normalised; None: 0, as training has it where
                actions are missing.
            horizon: Blocks to plan; None: ``config.horizon``.
            initial_mean: ``(B, at most horizon, F * A)`` normalised; missing blocks begin at 0.
            deadline: See `Solver.plan`; on a GPU every round waits for the device then.
            committed: ``(B, n, A)`` normalised; see `Solver.plan`.

        Raises:
            PlanningError: A shape does not fit, the model is in training mode, or fewer
                candidates than ``elites`` had a finite cost in some round.
        """
        started = time.perf_counter()
        horizon = self.config.horizon if horizon is None else horizon
        past_actions = self._check(history, goal, past_actions, horizon, initial_mean)
        self._check_committed(committed, history.shape[0], horizon)
        with torch.inference_mode():
            mean = self._initial_mean(history, horizon, initial_mean)
            std = torch.full_like(mean, self.config.initial_std)
            found = self._search(
                history, goal, past_actions, mean, std, deadline=deadline, committed=committed
            )
            mean = found.mean
            predicted = self.model.rollout(history, past_actions, mean[:, None])
            cost = self.objective(predicted, goal)[:, 0]
            actions = self.model.denormalise_actions(mean).flatten(1, 2)
        # Copied outside inference mode: the caller gets ordinary tensors. The first copy is the
        # one place where the host waits for the device.
        fewest_finite, cost = _to_host(found.fewest_finite), _to_host(cost)
        self._raise_if_too_few(fewest_finite, cost)
        return Plan(
            actions=_to_host(actions),
            blocks=_to_host(mean),
            cost=cost,
            predicted=_to_host(predicted[:, 0]),
            dropped=int(found.dropped),
            duration_s=time.perf_counter() - started,
            rounds=found.rounds,
        )

    def _search(
        self,
        history: Tensor,
        goal: Tensor,
        past_actions: Tensor,
        mean: Tensor,
        std: Tensor,
        arrival: Tensor | None = None,
        candidates: Tensor | None = None,
        deadline: float | None = None,
        committed: Tensor | None = None,
    ) -> SearchResult:
        """All rounds, from ``mean`` and ``std`` ``(B, horizon, F * A)``.

        With ``arrival`` ``(B,)`` each row's plan ends after that many blocks: what is predicted
        later does not count. With ``candidates`` ``(B,)`` each row has that many in a round
        instead of the settings' number. With ``deadline``, of `time.perf_counter`, no round is
        begun that would end after it if it took as long as the slowest so far; the first always
        is. ``committed`` ``(B, n, A)`` stands in every candidate.
        """
        config = self.config
        imagine = begin_rollout(self.model, history, past_actions)
        generator = self._generator_on(mean.device)
        colour = self._colour(mean)
        most = config.candidates if candidates is None else int(candidates.max())
        shape = (mean.shape[0], most, *mean.shape[1:])
        drawn = torch.ones(shape[:2], dtype=torch.bool, device=mean.device)
        if candidates is not None:
            drawn = torch.arange(most, device=mean.device) < candidates[:, None]
        dropped = torch.zeros((), dtype=torch.int64, device=mean.device)
        fewest_finite = torch.full(
            (mean.shape[0],), most, dtype=torch.int64, device=mean.device
        )
        known = decided = 0
        if committed is not None:
            known, decided = committed[0].numel(), committed.shape[1]
            mean, std = mean.clone(), std.clone()
            mean.flatten(1)[:, :known] = committed.flatten(1)
            std.flatten(1)[:, :known] = 0.0
        before = past_actions[:, -1] if past_actions.shape[1] else None
        mean = self.limits.apply(mean[:, None], before, decided)[:, 0]
        rounds, slowest_s = 0, 0.0
        for _ in range(config.rounds):
            began = time.perf_counter()
            if deadline is not None and rounds and began + slowest_s > deadline:
                break
            noise = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)
            if colour is not None:
                steps = noise.view(*shape[:2], -1, self.model.action_dim)
                noise = torch.einsum("ts,bcsa->bcta", colour, steps).reshape(shape)
            tried = torch.addcmul(mean[:, None], noise, std[:, None])
            tried = self.limits.apply(tried, before, decided)
            tried[:, 0] = mean
            predicted = imagine(tried)
            if arrival is not None:
                predicted = stay_after(predicted, arrival)
            cost = self.objective(predicted, goal)
            finite = torch.isfinite(cost) & drawn
            number_finite = finite.sum(dim=1)
            dropped += drawn.sum() - number_finite.sum()
            fewest_finite = torch.minimum(fewest_finite, number_finite)
            cost = torch.where(finite, cost, torch.inf)
            best = cost.topk(config.elites, dim=1, largest=False, sorted=False).indices
            elites = tried.gather(
                1, best[:, :, None, None].expand(-1, -1, *mean.shape[1:])
            )
            mean = torch.lerp(elites.mean(dim=1), mean, config.smoothing)
            std = torch.lerp(elites.std(dim=1), std, config.smoothing).clamp_min(config.min_std)
            if committed is not None:
                # Neither rounding nor the least deviation may move what is decided already.
                mean.flatten(1)[:, :known] = committed.flatten(1)
                std.flatten(1)[:, :known] = 0.0
            rounds += 1
            if deadline is not None:
                if mean.is_cuda:
                    torch.cuda.synchronize(mean.device)
                slowest_s = max(slowest_s, time.perf_counter() - began)
        return SearchResult(mean, dropped, fewest_finite, rounds)

    def _initial_mean(self, history: Tensor, horizon: int, given: Tensor | None) -> Tensor:
        size = self.model.frame_skip * self.model.action_dim
        mean = history.new_zeros((history.shape[0], horizon, size))
        if given is not None:
            mean[:, : given.shape[1]] = given.to(mean)
        return self.limits.clamp(mean)

    def _colour(self, mean: Tensor) -> Tensor | None:
        """``(steps, steps)`` that turns white noise over the control steps of a plan into noise
        whose correlation falls by a constant factor from step to step; variances stay 1.

        White noise in every control step mostly cancels itself out: candidates tremble and get
        nowhere. Correlated noise (Pinneri et al., 2020, arXiv 2008.06389) moves further.
        """
        correlation = self.config.noise_correlation
        if correlation == 0.0:
            return None
        steps = torch.arange(mean.shape[1] * self.model.frame_skip, dtype=torch.float64)
        covariance = correlation ** (steps[:, None] - steps).abs()
        return torch.linalg.cholesky(covariance).to(mean)

    def _generator_on(self, device: torch.device) -> torch.Generator:
        """The noise source; made on first use, because a model may move after the solver is."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device=device).manual_seed(self.config.seed)
        return self._generator

    def _check(
        self,
        history: Tensor,
        goal: Tensor,
        past_actions: Tensor | None,
        horizon: int,
        initial_mean: Tensor | None,
    ) -> Tensor:
        """Hold every shape against the model's; return the past actions, 0 where None."""
        if getattr(self.model, "training", False):
            raise PlanningError("the world model is in training mode; call model.eval() first")
        size = self.model.frame_skip * self.model.action_dim
        if history.dim() != 3 or not 1 <= history.shape[1] <= self.model.history:
            raise PlanningError(f"history has shape {tuple(history.shape)}, expected (B, T, D) "
                                f"with 1 <= T <= {self.model.history}")
        rows, frames, latent = history.shape
        goal_dim = getattr(self.model, "embedding_dim", latent)
        if goal.shape != (rows, goal_dim):
            raise PlanningError(f"goal has shape {tuple(goal.shape)}, expected "
                                f"{(rows, goal_dim)}")
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
        return past_actions

    def _check_committed(self, committed: Tensor | None, rows: int, horizon: int) -> None:
        steps = horizon * self.model.frame_skip
        if committed is not None and not (
            committed.dim() == 3
            and (committed.shape[0], committed.shape[2]) == (rows, self.model.action_dim)
            and committed.shape[1] < steps
        ):
            raise PlanningError(
                f"committed has shape {tuple(committed.shape)}, expected ({rows}, fewer than "
                f"{steps}, {self.model.action_dim}): a plan of {horizon} blocks must have a step "
                "that is open"
            )

    def _raise_if_too_few(
        self, fewest_finite: Tensor, cost: Tensor, candidates: Tensor | None = None
    ) -> None:
        """Fail by name; rows are checked after the search because a check inside would wait."""
        row = int(fewest_finite.argmin())
        fewest = int(fewest_finite[row])
        if fewest < self.config.elites:
            tried = self.config.candidates if candidates is None else int(candidates[row])
            raise PlanningError(
                f"only {fewest} of {tried} candidates had a finite cost in some "
                f"round, {self.config.elites} elites are needed: the history, the goal or the "
                "model's predictions are not finite"
            )
        if not bool(torch.isfinite(cost).all()):
            raise PlanningError("the cost of the finished plan is not finite")


def stay_after(predicted: Tensor, arrival: Tensor) -> Tensor:
    """Let predictions ``(B, S, horizon, D)`` stay as they are after ``arrival`` ``(B,)`` blocks.

    So a plan that ends early is a plan of full length whose state no longer changes, and every
    objective looks at the state it arrives in.
    """
    blocks = torch.arange(predicted.shape[2], device=predicted.device)
    source = torch.minimum(blocks, (arrival - 1).to(predicted.device)[:, None])
    return predicted.gather(
        2, source[:, None, :, None].expand(-1, predicted.shape[1], -1, predicted.shape[3])
    )


def _to_host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
