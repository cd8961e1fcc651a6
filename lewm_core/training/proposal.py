"""The last stage: a proposal is trained on the frozen embeddings of the same episodes.

Two terms, and no label but the recorded actions and pictures:

*Imitation.* The state k blocks after a recorded one is a goal that the recorded next block leads
to (hindsight; goal-conditioned inverse dynamics, GC-IDM, arXiv 2605.08732).

*Imagination.* The proposal acts in the frozen world model for k blocks, counting down, and the
logarithm of the squared distance between where it ends and that goal is differentiated through the
predictions. Imitation alone averages over what the expert might have done and has never seen its
own mistakes; here it meets them, and learns to end at the goal rather than to resemble the way
there. The logarithm makes the last millimetres of a plan that nearly arrives count as much as the
first metre of one that does not: without it, success was lower (docs/recipes.md).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lewm_core.model.imagination import imagine
from lewm_core.model.proposal import Proposal, make_proposal
from lewm_core.model.world_model import WorldModel, goal_difference
from lewm_core.training.config import ProposalTrainingConfig
from lewm_core.training.embeddings import EmbeddedEpisodes
from lewm_core.training.refinement import Report
from lewm_core.training.schedule import learning_rate


@dataclass(frozen=True)
class ProposalScore:
    """How good a proposal is on episodes it was not trained on.

    Attributes:
        imitation_error: Mean squared error of the next block, normalised; 1 is the mean action.
        end_distance: ``(k,)`` median squared latent distance to the goal at the end of the
            imagined plan, goals 1 .. k blocks away.
        start_distance: ``(k,)`` the same before it.
    """

    imitation_error: float
    end_distance: list[float]
    start_distance: list[float]

    def row(self) -> dict[str, float]:
        """Flat figures for logs and checkpoints."""
        row = {"proposal_imitation_error": self.imitation_error}
        for key, values in (("end", self.end_distance), ("start", self.start_distance)):
            for blocks, value in enumerate(values, start=1):
                row[f"proposal_{key}_distance_{blocks}"] = value
        return row


def train_proposal(
    model: WorldModel,
    episodes: EmbeddedEpisodes,
    config: ProposalTrainingConfig,
    *,
    seed: int,
    limits: tuple[Tensor, Tensor],
    autocast: torch.dtype | None = None,
    deadline: float | None = None,
    report: Report | None = None,
    start: Proposal | None = None,
) -> Proposal:
    """Train a proposal for a world model, which is left as it is.

    Args:
        model: In eval mode.
        episodes: To train on.
        config: Settings.
        seed: Of weights and draws.
        limits: Lower and upper (F*A,) of a normalised block.
        autocast: Type that matrix products are computed in; None: as the weights.
        deadline: `time.monotonic` at which to be done, the schedule fitted to it; None: none.
        report: Told of every step.
        start: A proposal to go on from; it is left as it is. None, or one of other sizes than
            ``config.network`` says: a new one.

    Returns:
        The proposal, in eval mode.

    Raises:
        BagError: No episode is long enough.
        FloatingPointError: The loss is not finite.
    """
    device = episodes.z.device
    torch.manual_seed(seed)
    proposal = make_proposal(model.config, config.network).to(device)
    if start is not None and start.config == config.network:
        proposal.load_state_dict(start.state_dict())
    optimiser = torch.optim.AdamW(
        proposal.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    imitated = _Goals(
        episodes, 0, config.network.longest, seed, config.imagination_horizon, config.near_share
    )
    imagined = _Goals(episodes, model.history - 1, config.imagination_horizon, seed + 1)
    required = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)  # gradients pass through the model, none is kept in it
    begun = time.monotonic()
    try:
        for step in range(config.steps):
            share = step / config.steps
            if deadline is not None:
                share = max(share, (time.monotonic() - begun) / max(deadline - begun, 1e-9))
                if share >= 1.0:
                    break
            rate = learning_rate(share, config.warmup_steps / config.steps, config.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                loss = _imitation_error(
                    proposal, imitated, config.batch_size, model.embedding_dim
                )
                if share >= config.imagination_from and config.imagination_weight > 0:
                    loss = loss + config.imagination_weight * _imagination_error(
                        model, proposal, imagined, config, limits
                    )
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"proposal: the loss is not finite at step {step + 1}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(proposal.parameters(), config.gradient_clip)
            optimiser.step()
            if report is not None:
                report(share, float(loss.detach()))
    finally:
        for parameter, was in zip(model.parameters(), required, strict=True):
            parameter.requires_grad_(was)
    return proposal.eval()


def score_proposal(
    model: WorldModel,
    proposal: Proposal,
    episodes: EmbeddedEpisodes,
    limits: tuple[Tensor, Tensor],
    horizon: int = 5,
    number: int = 512,
) -> ProposalScore:
    """Score a proposal on episodes it was not trained on; the same ones whatever the seed.

    Args:
        model: In eval mode.
        proposal: For it.
        episodes: Held out.
        limits: Lower and upper (F*A,) of a normalised block.
        horizon: Goals 1 .. horizon blocks away are tried; fewer where episodes are short.
        number: States to begin from, for each.

    Raises:
        BagError: No episode is long enough for a goal one block away.
    """
    behind = model.history - 1
    horizon = min(horizon, int(episodes.ahead[episodes.ticks(behind, 1)].max()))
    goals = _Goals(episodes, behind, horizon, seed=0)
    starts, ends = [], []
    with torch.inference_mode():
        error = float(_imitation_error(proposal, goals, 4 * number, model.embedding_dim))
        for blocks in range(1, horizon + 1):
            ticks, to_go = goals.draw(number, blocks)
            z, goal = goals.history(ticks), goals.goal(ticks, to_go, model.embedding_dim)
            states = imagine(
                model, proposal, z, goals.past(ticks), goal, to_go, blocks, limits
            ).states
            starts.append(float(goal_difference(z[:, -1], goal).square().sum(dim=-1).median()))
            ends.append(float(goal_difference(states[:, -1], goal).square().sum(dim=-1).median()))
    return ProposalScore(error, ends, starts)


class _Goals:
    """Draws states of the episodes with goals that lie some blocks ahead of them."""

    def __init__(
        self,
        episodes: EmbeddedEpisodes,
        behind: int,
        longest: int,
        seed: int,
        near: int = 1,
        near_share: float = 0.0,
    ) -> None:
        self.episodes, self.longest = episodes, longest
        self._near, self._near_share = near, near_share
        self._behind = behind
        self._ticks = episodes.ticks(behind, 1)
        self._device = episodes.z.device
        self._generator = torch.Generator(device=self._device).manual_seed(seed)

    def draw(self, number: int, blocks: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ticks and blocks to go, ``(number,)`` each.

        Blocks to go are uniform up to `longest`, for a part of the draws up to ``near``, and no
        more than the episode has left, unless ``blocks`` says how many.
        """
        ticks = self._ticks
        if blocks is not None:
            ticks = self.episodes.ticks(self._behind, blocks)
        ticks = ticks[self._integers(number, len(ticks))]
        if blocks is not None:
            return ticks, torch.full_like(ticks, blocks)
        is_near = self._uniform(number) < self._near_share
        longest = torch.where(is_near, min(self._near, self.longest), self.longest)
        most = torch.minimum(self.episodes.ahead[ticks], longest)
        share = self._uniform(number)
        return ticks, 1 + (share * most).long().clamp(max=most - 1)

    def history(self, ticks: Tensor) -> Tensor:
        """``(n, behind + 1, D)``."""
        offsets = torch.arange(-self._behind, 1, device=self._device)[None]
        return self.episodes.states(ticks, offsets)

    def past(self, ticks: Tensor) -> Tensor:
        """``(n, behind, F * A)``."""
        offsets = torch.arange(-self._behind, 0, device=self._device)[None]
        return self.episodes.actions(ticks, offsets)

    def after(self, ticks: Tensor, blocks: Tensor) -> Tensor:
        """``(n, D)``."""
        return self.episodes.states(ticks, blocks[:, None])[:, 0]

    def goal(self, ticks: Tensor, blocks: Tensor, size: int) -> Tensor:
        """``(n, E)``, what a picture of that state says: its first ``size`` numbers."""
        return self.after(ticks, blocks)[:, :size]

    def previous(self, ticks: Tensor) -> Tensor:
        """``(n, D)`` one block before; the state itself where an episode begins."""
        back = -(self.episodes.behind[ticks] > 0).long()
        return self.after(ticks, back)

    def _uniform(self, number: int) -> Tensor:
        return torch.rand(number, generator=self._generator, device=self._device)

    def _integers(self, number: int, below: int) -> Tensor:
        return torch.randint(below, (number,), generator=self._generator, device=self._device)


def _imitation_error(proposal: Proposal, goals: _Goals, number: int, goal_dim: int) -> Tensor:
    ticks, to_go = goals.draw(number)
    now = torch.zeros_like(ticks)
    proposed = proposal(
        goals.previous(ticks),
        goals.after(ticks, now),
        goals.goal(ticks, to_go, goal_dim),
        to_go,
    )
    recorded = goals.episodes.actions(ticks, now[:1, None])[:, 0]
    return (proposed - recorded).square().mean()


def _imagination_error(
    model: WorldModel,
    proposal: Proposal,
    goals: _Goals,
    config: ProposalTrainingConfig,
    limits: tuple[Tensor, Tensor],
) -> Tensor:
    number = config.imagination_batch_size
    ticks, to_go = goals.draw(number)
    goal = goals.goal(ticks, to_go, model.embedding_dim)
    states = imagine(
        model,
        proposal,
        goals.history(ticks),
        goals.past(ticks),
        goal,
        to_go,
        int(to_go.max()),
        limits,
    ).states
    end = states[torch.arange(number, device=states.device), to_go - 1]
    away = goal_difference(end, goal).square().mean(dim=-1)
    return (away + config.imagination_floor).log().mean()
