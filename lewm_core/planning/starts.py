"""Where a search begins: at nothing, at the rest of the last plan, or at the learned proposal.

The proposal is told how many blocks are left to the goal. Nobody knows that for a goal picture,
so it is asked for every number at once, each answer is rolled out through the world model, and the
one whose end is nearest to the goal is taken; a block more has to be worth its time. Where no
answer gets near, there is no arrival that time could be saved on: then the nearest end is taken,
however many blocks it needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.fast_proposal import FastProposal
from lewm_core.model.fast_rollout import FastRollout
from lewm_core.model.imagination import imagine
from lewm_core.model.proposal import Proposal
from lewm_core.model.world_model import goal_difference
from lewm_core.planning.problem import Problem
from lewm_core.planning.search_limits import SearchLimits


class Start(NamedTuple):
    """Where the rounds of a search begin.

    Attributes:
        mean: ``(B, horizon, F * A)`` inside the limits, what is committed in its place.
        certain: ``(B,)`` whether the start is near to a good plan; None: nobody knows.
        arrival: ``(B,)`` blocks after which each row is there; None: after ``horizon``.
    """

    mean: Tensor
    certain: Tensor | None
    arrival: Tensor | None


class ProposalStartConfig(BaseModel):
    """How the proposal's plan is chosen from those that it was asked for.

    Attributes:
        block_price: A plan that is one block longer must end nearer to the goal by this share.
        doubt: The proposal is out of its depth if its plan ends farther from the goal than this
            share of the squared distance now. The longest way is not too long then, and a search
            widens.
        near: A state is near its goal, where nothing has to be gained any more, below this share
            of 2 E: the mean squared distance of unrelated states, which SIGReg makes normal with
            variance 1 in each of E dimensions.
        std: With which a search begins where the proposal is in its depth; elsewhere it begins
            with its own ``initial_std``. Normalised: 1 is the spread of the training data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_price: float = Field(0.25, ge=0, lt=1)
    doubt: float = Field(0.5, gt=0, allow_inf_nan=False)
    near: float = Field(0.03, ge=0, allow_inf_nan=False)
    std: float = Field(0.4, gt=0, allow_inf_nan=False)


class ProposalStart:
    """Asks the proposal for every arrival and chooses.

    A plan ends where it arrives: it may have fewer blocks than asked for. With several rows side
    by side it is as long as the longest; what a row that arrives earlier holds behind its arrival
    is 0. On a GPU, where to know the longest would be to wait for the device, all plans are of
    full length.

    Args:
        model: A world model with a proposal.
        config: How to choose.
        limits: What is proposed is brought inside.
        horizon: Blocks of the longest plan that will be asked for.

    Raises:
        PlanningError: The model has no proposal, or one that knows no arrival so late.
    """

    def __init__(
        self, model: Any, config: ProposalStartConfig, limits: SearchLimits, horizon: int
    ) -> None:
        if getattr(model, "proposal", None) is None:
            raise PlanningError(
                "this planner begins with a learned proposal, and the checkpoint has none; use "
                "planner 'search' or 'paper', or train with lewm-train's proposal stage"
            )
        longest = model.proposal.config.longest
        if horizon > longest:
            raise PlanningError(
                f"solver.horizon is {horizon} blocks, the checkpoint's proposal knows arrivals "
                f"after 1 to {longest}"
            )
        self._model, self._config, self._limits = model, config, limits
        self._fast: FastProposal | None = None

    def __call__(self, problem: Problem) -> Start:
        """Imagine every arrival and choose."""
        rows, horizon = problem.rows, problem.horizon
        history, goal, committed = problem.history, problem.goal, problem.committed

        def every_arrival(tensor: Tensor) -> Tensor:
            return tensor.repeat(horizon, *[1] * (tensor.dim() - 1))

        # The latest first: those that have arrived are behind those that still act.
        arrivals = torch.arange(horizon, 0, -1, device=history.device)
        # No plan may be over before it is there.
        shortest = problem.decided // self._model.frame_skip + 1
        imagined = imagine(
            self._model,
            self._proposal(),
            every_arrival(history),
            every_arrival(problem.past_actions),
            every_arrival(goal),
            arrivals.repeat_interleave(rows),
            horizon,
            self._limits.blocks,
            None if committed is None else every_arrival(committed),
            acting=[rows * (horizon - block) for block in range(horizon)],
        )
        # From the shortest way to the longest: (B, arrival, ...).
        ends = imagined.states[:, -1].unflatten(0, (horizon, rows)).flip(0).transpose(0, 1)
        blocks = imagined.blocks.unflatten(0, (horizon, rows)).flip(0).transpose(0, 1)
        arrivals = arrivals.flip(0)
        distance = goal_difference(ends, goal[:, None]).square().sum(dim=-1)
        # A plan that is not finite must not be chosen, and not win by being so.
        distance = torch.nan_to_num(distance, nan=torch.inf)
        distance[:, : shortest - 1] = torch.inf
        price = (1.0 - self._config.block_price) ** -arrivals.to(distance)
        now = goal_difference(history[:, -1], goal).square().sum(dim=-1)
        chosen = (distance * price).argmin(dim=1)
        nearest = distance.gather(1, chosen[:, None])[:, 0]
        certain = nearest <= self._config.doubt * now
        is_near = now < self._config.near * 2 * goal.shape[1]
        chosen = torch.where(certain | is_near, chosen, distance.argmin(dim=1))
        arrival = chosen + 1
        which = chosen[:, None, None, None].expand(-1, -1, *blocks.shape[2:])
        blocks = blocks.gather(1, which)
        blocks = self._limits.apply(blocks, problem.before, problem.decided)[:, 0]
        if problem.shorten:
            blocks = blocks[:, : int(arrival.max())]
        return Start(blocks, certain, arrival)

    def _proposal(self) -> Proposal | FastProposal:
        """The model's own, or the faster one beside a faster rollout, where that one lives now."""
        own = self._model.proposal
        if not isinstance(self._model, FastRollout):
            return own
        if self._fast is None or self._fast.device != own.output.weight.device:
            self._fast = FastProposal(own, self._model.dtype)
        return self._fast
