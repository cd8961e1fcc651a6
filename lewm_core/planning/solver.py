"""What all solvers share: from a problem to a plan in stages that never wait for the device.

A plan is `begin`, some `improve`, `finish`. Each stage works on tensors alone and leaves its
results in the state's own tensors, so on a GPU it can be captured once and replayed
(`lewm_core.planning.graphs`). The host reads something only between rounds if there is a deadline,
and when the plan is done.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.graphs import StageGraphs
from lewm_core.planning.objectives import GoalDistance
from lewm_core.planning.plan import Plan
from lewm_core.planning.problem import Problem
from lewm_core.planning.protocols import Candidates, Dynamics, Objective
from lewm_core.planning.search_limits import SearchLimits
from lewm_core.planning.starts import ProposalStart, ProposalStartConfig, Start

if TYPE_CHECKING:
    from typing import Self


#: Bounds of a preset: one that asks for more is a slip or an attack, not a search.
MOST_CANDIDATES, MOST_ROUNDS, MOST_BLOCKS = 65_536, 1_000_000, 2**18
#: Numbers in the largest tensor of a search; 2^28 of float32 are 1 GiB.
_MOST_NUMBERS = 2**28


class SolverSettings(BaseModel):
    """Settings that every solver has.

    Attributes:
        horizon: Blocks in a plan; at most, if the proposal chooses when to arrive.
        proposal: Begin at the plan of the learned proposal; None: at the warm start or at 0.
        seed: Of the random numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizon: int = Field(5, ge=1, le=1000)
    proposal: ProposalStartConfig | None = None
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        blocks = getattr(self, "candidates", 1) * self.horizon
        if blocks > MOST_BLOCKS:
            raise ValueError(
                f"candidates times horizon are {blocks} blocks in a round, {MOST_BLOCKS} are "
                "allowed; lower one of them"
            )
        return self


@dataclass
class SearchState:
    """What the rounds of a search change; solvers add fields of their own.

    Attributes:
        problem: As given.
        mean: ``(B, horizon, F * A)`` the plan so far.
        arrival: ``(B,)`` blocks after which what is predicted does not count; None: all count.
        dropped: ``()`` candidates whose cost was not finite, over all rounds.
        fewest_finite: ``(B,)`` finite costs in the round that had fewest.
        drawn: ``(B,)`` candidates of a round.
        imagine: From candidates ``(B, S, horizon, F * A)`` to their states; what they share is
            computed already.
    """

    problem: Problem
    mean: Tensor
    arrival: Tensor | None
    dropped: Tensor
    fewest_finite: Tensor
    drawn: Tensor
    imagine: Callable[[Tensor], Tensor]


class Outcome(NamedTuple):
    """What `BaseSolver.finish` comes to, on the device; see `Plan`."""

    actions: Tensor
    blocks: Tensor
    cost: Tensor
    predicted: Tensor
    arrival: Tensor | None


class BaseSolver(ABC):
    """Plans in rounds.

    Two solvers with the same seed, given the same sequence of calls, make the same plans.

    Args:
        model: The dynamics.
        config: Settings; default those of the solver's kind.
        objective: What to minimise; default the paper's, ``GoalDistance()``.
        action_limits: See `SearchLimits`.
        rate_limits: See `SearchLimits`.
        capture: Whether to capture the stages as CUDA graphs at the first plan of its shapes, and
            replay them from then on; no effect where the model is not on a GPU.

    Attributes:
        generator: Source of the random numbers; None before the first plan.

    Raises:
        PlanningError: The limits do not fit the model's actions, the start needs a proposal
            that the model has not, or the search would fill the memory.
    """

    #: What ``config`` is an instance of.
    settings: ClassVar[type[SolverSettings]]
    #: Whether a round needs gradients of the rollout.
    _differentiates: ClassVar[bool] = False

    def __init__(
        self,
        model: Dynamics,
        config: SolverSettings | None = None,
        objective: Objective | None = None,
        action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
        rate_limits: Sequence[float] | None = None,
        capture: bool = True,
    ) -> None:
        self.model = model
        self.config = config = config or self.settings()
        self._check_size()
        self.objective = objective or GoalDistance()
        self.limits = SearchLimits(model, action_limits, rate_limits)
        self._proposal = None
        if config.proposal is not None:
            self._proposal = ProposalStart(
                model, config.proposal, self.limits, config.horizon
            )
        self.generator: torch.Generator | None = None
        self._colours: dict[tuple[int, torch.device], Tensor | None] = {}
        self._graphs = StageGraphs(self) if capture else None

    def _check_size(self) -> None:
        """Refuse a search whose tensors would fill the memory."""
        blocks = getattr(self.config, "candidates", 1) * self.config.horizon
        steps = self.config.horizon * self.model.frame_skip
        width = max(
            self.model.frame_skip * self.model.action_dim, getattr(self.model, "latent_dim", 1)
        )
        # The largest is what candidates do or lead to, or what colours the noise of their steps.
        largest = max(blocks * width, steps * steps)
        if largest > _MOST_NUMBERS:
            raise PlanningError(
                f"solver: {blocks} blocks of candidates of this model need {largest} numbers at "
                f"once, {_MOST_NUMBERS} are allowed; lower candidates or horizon"
            )

    @contextlib.contextmanager
    def kept_randomness(self) -> Iterator[None]:
        """Let the random numbers go on afterwards as if none had been drawn."""
        before = None if self.generator is None else self.generator.get_state()
        yield
        if before is None:
            self.reset()
        else:
            self.generator.set_state(before)

    @property
    def horizon(self) -> int:
        """Blocks in a plan unless `plan` is told otherwise."""
        return self.config.horizon

    def reset(self) -> None:
        """Begin the random numbers anew, so that the next plans repeat the first ones."""
        if self.generator is not None:
            self.generator.manual_seed(self.config.seed)

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
        """Search for the actions of least cost.

        Args:
            history: ``(B, T, D)`` embeddings, one block apart, oldest first, ``T <= history``.
            goal: ``(B, E)``.
            past_actions: ``(B, T - 1, F * A)`` normalised; None: 0, as training has it where
                actions are missing.
            horizon: Blocks to plan; None: ``config.horizon``.
            initial_mean: ``(B, at most horizon, F * A)`` normalised; missing blocks begin at 0. A
                solver that starts with the proposal does not need it.
            deadline: See `Solver.plan`; on a GPU every round waits for the device then.
            committed: ``(B, n, A)`` normalised; see `Solver.plan`.

        Raises:
            PlanningError: A shape does not fit, the model is in training mode, or too few
                candidates had a finite cost in some round.
        """
        started = time.perf_counter()
        problem = Problem.checked(
            self.model, history, goal, past_actions,
            self.config.horizon if horizon is None else horizon, initial_mean, committed,
        )
        with torch.inference_mode(not self._differentiates), torch.no_grad():
            run = None if self._graphs is None else self._graphs.run(problem)
            run = run or _EagerRun(self, problem)
            rounds = self._rounds(run, deadline)
            outcome = run.finish()
        # Copied outside inference mode: the caller gets ordinary tensors. The first copy is the
        # one place where the host waits for the device.
        cost = to_host(outcome.cost)
        self._raise_if_failed(run.state, cost)
        return Plan(
            actions=to_host(outcome.actions),
            blocks=to_host(outcome.blocks),
            cost=cost,
            predicted=to_host(outcome.predicted),
            dropped=int(run.state.dropped),
            duration_s=time.perf_counter() - started,
            arrival=None if outcome.arrival is None else to_host(outcome.arrival),
            rounds=rounds,
        )

    def _rounds(self, run: Any, deadline: float | None) -> int:
        """Make rounds until they are over or the next would end after the deadline, if it took as
        long as the slowest so far; the first always is made."""
        slowest_s = 0.0
        if deadline is not None:
            # What `begin` has still to do there is no part of the first round.
            wait_for(run.state.mean)
        for number in range(self.rounds):
            began = time.perf_counter()
            if deadline is not None and number and began + slowest_s > deadline:
                return number
            run.improve(number)
            if deadline is not None:
                wait_for(run.state.mean)
                slowest_s = max(slowest_s, time.perf_counter() - began)
        return self.rounds

    # The stages. Nothing in them may wait for the device or branch on what a tensor holds.

    @property
    @abstractmethod
    def rounds(self) -> int:
        """Rounds of a plan without a deadline."""

    def round_kind(self, number: int) -> Hashable:
        """What rounds have in common that are the same work, on the same shapes."""
        return None

    @abstractmethod
    def begin(self, problem: Problem) -> SearchState:
        """Compute what all rounds share, and where they begin."""

    @abstractmethod
    def improve(self, state: SearchState, number: int) -> None:
        """Make round ``number``; what it changes, it changes in the state's own tensors."""

    def finish(self, state: SearchState) -> Outcome:
        """Say what the plan so far leads to."""
        problem = state.problem
        blocks = state.mean
        predicted = state.imagine(blocks[:, None])
        cost = self._cost(state, Candidates(predicted, blocks[:, None], problem.before))[:, 0]
        return Outcome(
            self.model.denormalise_actions(blocks).flatten(1, 2), blocks, cost, predicted[:, 0],
            state.arrival,
        )

    # What the stages are made of.

    def _start(self, problem: Problem) -> Start:
        """Where the rounds begin, inside the limits and with what is committed."""
        self.limits.to(problem.history.device)
        if self._proposal is not None:
            return self._proposal(problem)
        mean = problem.history.new_zeros(
            (problem.rows, problem.horizon, self.model.frame_skip * self.model.action_dim)
        )
        if problem.initial_mean is not None:
            mean[:, : problem.initial_mean.shape[1]] = problem.initial_mean.to(mean)
        mean = problem.commit(self.limits.clamp(mean))
        mean = self.limits.apply(mean[:, None], problem.before, problem.decided)[:, 0]
        return Start(mean, None, None)

    def _initial_std(self, start: Start, elsewhere: float) -> Tensor:
        """``(B, 1, 1)`` the proposal's where it is sure of itself, else ``elsewhere``."""
        std = torch.full_like(start.mean[:, :1, :1], elsewhere)
        if start.certain is None or self.config.proposal is None:
            return std
        return torch.where(start.certain[:, None, None], self.config.proposal.std, std)

    def _cost(self, state: SearchState, candidates: Candidates) -> Tensor:
        """``(B, S)``; what comes after the arrival does not count."""
        if state.arrival is not None:
            candidates = stay_after(candidates, state.arrival, self.model.action_dim)
        return self.objective(candidates, state.problem.goal)

    def _count(self, state: SearchState, finite: Tensor, drawn: Tensor | None = None) -> None:
        """Take note of which candidates ``(B, S)`` of a round had a finite cost."""
        number = finite.sum(dim=1)
        total = state.drawn if drawn is None else drawn
        state.dropped += (total - number).sum()
        # A round with fewer candidates is measured by what it had.
        state.fewest_finite.copy_(torch.minimum(state.fewest_finite, number))

    def _noise(self, candidates: int, problem: Problem, mean: Tensor) -> Tensor:
        """Normal numbers of variance 1, ``(B, candidates, horizon, F * A)`` as ``mean`` has it.

        They are drawn for the problem's whole horizon: they do not depend on when a plan arrives.
        """
        device = mean.device
        # Made on first use, because a model may move after the solver is made.
        if self.generator is None or self.generator.device != device:
            self.generator = torch.Generator(device=device).manual_seed(self.config.seed)
        shape = (problem.rows, candidates, problem.horizon, mean.shape[2])
        noise = torch.randn(shape, generator=self.generator, device=device, dtype=mean.dtype)
        key = (problem.horizon, device)
        if key not in self._colours:
            colour = self._colour(problem.horizon * self.model.frame_skip)
            self._colours[key] = None if colour is None else colour.to(mean)
        if self._colours[key] is not None:
            steps = noise.view(*shape[:2], -1, self.model.action_dim)
            noise = torch.einsum("ts,bcsa->bcta", self._colours[key], steps).reshape(shape)
        return noise[:, :, : mean.shape[1]]

    def _colour(self, steps: int) -> Tensor | None:
        """``(steps, steps)`` that colours the noise (`lewm_core.planning.noise`); None: white."""
        return None

    @property
    def least_finite(self) -> int:
        """Candidates with a finite cost that a round needs."""
        return 0

    def _raise_if_failed(self, state: SearchState, cost: Tensor) -> None:
        """Fail by name; rows are checked after the search because a check inside would wait."""
        fewest_finite = state.fewest_finite.cpu()
        row = int(fewest_finite.argmin())
        if int(fewest_finite[row]) < self.least_finite:
            raise PlanningError(
                f"only {int(fewest_finite[row])} of {int(state.drawn[row])} candidates had a "
                f"finite cost in some round, {self.least_finite} are needed: the history, the "
                "goal or the model's predictions are not finite"
            )
        if not bool(torch.isfinite(cost).all()):
            raise PlanningError("the cost of the finished plan is not finite: the history, the "
                                "goal or the model's predictions are not")


class _EagerRun:
    """The stages of one plan, each run as it is called."""

    def __init__(self, solver: BaseSolver, problem: Problem) -> None:
        self._solver = solver
        self.state = solver.begin(problem)

    def improve(self, number: int) -> None:
        self._solver.improve(self.state, number)

    def finish(self) -> Outcome:
        return self._solver.finish(self.state)


def stay_after(candidates: Candidates, arrival: Tensor, action_dim: int) -> Candidates:
    """Let states stay, and the last action go on, after ``arrival`` ``(B,)`` blocks.

    So a plan that ends early is a plan of full length in which nothing changes any more, and every
    objective looks at the state it arrives in.
    """
    predicted, actions, before = candidates
    blocks = torch.arange(predicted.shape[2], device=predicted.device)
    source = torch.minimum(blocks, (arrival - 1).to(predicted.device)[:, None])
    which = source[:, None, :, None]

    def gathered(tensor: Tensor) -> Tensor:
        return tensor.gather(2, which.expand(-1, tensor.shape[1], -1, tensor.shape[3]))

    over = blocks >= arrival.to(predicted.device)[:, None]
    kept = gathered(actions)
    last = kept[..., -action_dim:].repeat(1, 1, 1, actions.shape[3] // action_dim)
    return Candidates(
        gathered(predicted), torch.where(over[:, None, :, None], last, kept), before
    )


def wait_for(tensor: Tensor) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def to_host(tensor: Tensor) -> Tensor:
    """Copy to the CPU, also from the CPU: what a stage works on is overwritten by the next plan."""
    return tensor.detach().to("cpu", copy=True)
