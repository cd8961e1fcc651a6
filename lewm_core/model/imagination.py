"""A proposal acting in the world model that it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lewm_core.model.proposal import Proposal
from lewm_core.model.world_model import WorldModel


class Imagined(NamedTuple):
    """What a proposal does in imagination.

    Attributes:
        blocks: (N, horizon, F*A), normalised, inside the limits.
        states: (N, horizon, D), the state predicted after each block.
    """

    blocks: Tensor
    states: Tensor


def imagine(
    model: WorldModel,
    proposal: Proposal,
    z: Tensor,
    past_actions: Tensor,
    goal: Tensor,
    blocks_to_go: Tensor,
    horizon: int,
    limits: tuple[Tensor, Tensor] | None = None,
    committed: Tensor | None = None,
    acting: Sequence[int] | None = None,
) -> Imagined:
    """Let the proposal act in the world model; the blocks to go count down to 1 and stay there.

    Differentiable: gradients reach the proposal through the model's predictions. A clamped action
    passes its gradient on unchanged, so that one beyond the limits can come back.

    Args:
        model: In eval mode.
        proposal: Acts.
        z: (N, T, D), frames one block apart, newest last; T at most ``model.history``.
        past_actions: (N, T-1, F*A), normalised, between those frames.
        goal: (N, E).
        blocks_to_go: (N,) at the beginning.
        horizon: Blocks to act for.
        limits: Lower and upper (F*A,) of a normalised block; None: free.
        committed: (N, n, A), normalised: what the first n control steps are, whatever is proposed.
        acting: How many of the rows act in each block, never more than in the block before: the
            first so many. The others have arrived: their state stays, their block is 0. None: all.
    """
    # What the next block is predicted from: the newest states, and what the blocks behind them do.
    window = list(z.unbind(dim=1))
    past = model.modulations(past_actions)
    effects = [[part[:, i : i + 1] for part in past] for i in range(past_actions.shape[1])]
    blocks: list[Tensor] = []
    states: list[Tensor] = []
    for block in range(horizon):
        rows = len(z) if acting is None else acting[block]
        if rows < len(window[-1]):
            window = [state[:rows] for state in window]
            effects = [[part[:rows] for part in parts] for parts in effects]
        previous = window[-2] if len(window) > 1 else window[-1]
        action = proposal(previous, window[-1], goal[:rows], blocks_to_go[:rows] - block)
        if limits is not None:
            action = action + (torch.clamp(action, *limits) - action).detach()
        if committed is not None:
            decided = committed[:rows].flatten(1)[:, block * action.shape[1] :]
            decided = decided[:, : action.shape[1]]
            action = torch.cat([decided, action[:, decided.shape[1] :]], dim=1)
        effects.append(model.modulations(action[:, None]))
        joined = [torch.cat(parts, dim=1) for parts in zip(*effects, strict=True)]
        following = model.step(torch.stack(window, dim=1), joined, last_only=True)[:, 0]
        window = [*window, following][-model.history :]
        effects = effects[len(effects) + 1 - len(window) :]
        if rows < len(z):
            before = states[-1] if states else z[:, -1]
            following = torch.cat([following, before[rows:]])
            action = torch.cat([action, action.new_zeros(len(z) - rows, action.shape[1])])
        states.append(following)
        blocks.append(action)
    return Imagined(torch.stack(blocks, dim=1), torch.stack(states, dim=1))
