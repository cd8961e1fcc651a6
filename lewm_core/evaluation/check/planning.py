"""Does the planner's cost point the right way? Recorded actions against random ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lewm_core.data.contract import Contract
from lewm_core.evaluation.check.data import HORIZON, CheckData, episodes_of
from lewm_core.model.world_model import WorldModel, goal_difference
from lewm_core.planning.objectives import GoalDistance
from lewm_core.planning.protocols import Candidates

#: Goals whose candidates are rolled out together; bounds the memory.
_GOALS_AT_ONCE = 8
#: Starts whose actions are tried elsewhere.
_MOST_DONORS = 4096


@dataclass(frozen=True)
class CostFigures:
    """How the cost of the planner treats the recorded actions and random ones.

    All are over starts in held-out episodes, with the picture five blocks later as the goal.

    Attributes:
        true_rank: Mean part of the candidates (other episodes' actions) that the model prefers to
            the recorded ones; 0 is perfect, 0.5 is chance.
        true_rank_noise: The same among Gaussian noise.
        cost_spread: Median coefficient of variation of the candidates' costs: what actions change
            in the cost at all.
        true_gain: Median part of the way to the goal that the recorded actions cover in the
            model: 1 - cost / distance at the start.
        best_gain: The same for the best candidate of each start.
        goals: Starts that were used.
        candidates: Random sequences per start, both kinds together.
    """

    true_rank: float
    true_rank_noise: float
    cost_spread: float
    true_gain: float
    best_gain: float
    goals: int
    candidates: int


@torch.no_grad()
def measure_costs(
    model: WorldModel, data: CheckData, *, goals: int, candidates: int, seed: int = 0
) -> CostFigures:
    """Rank the recorded actions among random ones by the planner's cost.

    Args:
        model: In eval mode.
        data: Held-out episodes.
        goals: Starts, spread evenly over all clips; fewer if there are fewer.
        candidates: Random sequences per start; half of them recorded in other episodes, half
            Gaussian noise in normalised action space, both within the contract's limits.
        seed: Of the candidates.
    """
    device = next(model.parameters()).device
    rng = np.random.default_rng(seed)
    starts = _spread(data.clips.starts, goals)
    half = max(2, candidates // 2)
    lower, upper = _limits(model, data.contract)
    objective = GoalDistance()
    donors = _spread(data.clips.starts, _MOST_DONORS)
    donor_episodes = episodes_of(data.cache, donors)
    costs, distances = [], []
    for part in np.array_split(starts, max(1, -(-len(starts) // _GOALS_AT_ONCE))):
        clips = data.clips.clips(part)
        inputs = None if clips.inputs is None else clips.inputs.to(device)
        z = model.encode(clips.frames.to(device), inputs).float()
        actions = model.normalise_actions(clips.actions.to(device))
        history = model.history
        past = actions[:, : history - 1]
        true = actions[:, None, history - 1 : history - 1 + HORIZON]
        own = episodes_of(data.cache, part)
        drawn = np.stack([rng.choice(donors[donor_episodes != one], half) for one in own])
        others = _sequences(model, data, drawn)
        noise = torch.from_numpy(
            rng.standard_normal(others.shape, dtype=np.float32)
        ).to(device)
        noise = noise.clamp(lower.to(device), upper.to(device))
        tried = torch.cat([true, others, noise], dim=1)
        goal = z[:, history - 1 + HORIZON, : model.embedding_dim]
        futures = Candidates(model.rollout(z[:, :history], past, tried), tried)
        costs.append(objective(futures, goal).double().cpu())
        away = goal_difference(z[:, history - 1], goal)
        distances.append(away.square().sum(-1).double().cpu())
    return _figures(torch.cat(costs), torch.cat(distances), half)


def _figures(costs: Tensor, distances: Tensor, half: int) -> CostFigures:
    """Sum up costs (N, 1 + 2 * half), the recorded actions' first, and distances (N,)."""
    true, others, noise = costs[:, :1], costs[:, 1 : 1 + half], costs[:, 1 + half :]
    random = costs[:, 1:]
    mean = random.mean(1).clamp_min(1e-300)
    spread = random.std(1, unbiased=False) / mean
    far = distances.clamp_min(1e-300)
    return CostFigures(
        true_rank=float(_share_below(true, others).mean()),
        true_rank_noise=float(_share_below(true, noise).mean()),
        cost_spread=_median(spread),
        true_gain=_median(1 - true[:, 0] / far),
        best_gain=_median(1 - random.amin(1) / far),
        goals=len(costs),
        candidates=random.shape[1],
    )


def _median(values: Tensor) -> float:
    # torch's median is the lower one of two.
    return float(np.median(values.numpy()))


def _share_below(value: Tensor, others: Tensor) -> Tensor:
    """Return the part (N,) of ``others`` (N, S) below ``value`` (N, 1); equals count half."""
    below = (others < value).double() + 0.5 * (others == value).double()
    return below.mean(1)


def _sequences(model: WorldModel, data: CheckData, starts: np.ndarray) -> Tensor:
    """Return the normalised blocks (N, S, HORIZON, F*A) recorded from starts (N, S) on."""
    first = starts[:, :, None, None] + np.arange(HORIZON)[:, None] * model.frame_skip
    ticks = first + np.arange(model.frame_skip)
    commands = data.cache.actions[ticks].astype(np.float32)
    commands[~data.cache.action_valid[ticks]] = np.nan
    return model.normalise_actions(torch.from_numpy(commands).to(model.action_mean.device))


def _limits(model: WorldModel, contract: Contract) -> tuple[Tensor, Tensor]:
    """Return the contract's limits (F*A,) in normalised action space."""
    lower, upper, _, _ = contract.action_limits()
    mean, std = model.action_mean.cpu(), model.action_std.cpu()
    return tuple(
        ((torch.as_tensor(np.asarray(limit), dtype=torch.float32) - mean) / std).repeat(
            model.frame_skip
        )
        for limit in (lower, upper)
    )


def _spread(starts: np.ndarray, most: int) -> np.ndarray:
    if len(starts) <= most:
        return starts
    return starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
