"""A proposal acting in the world model that it was trained for."""

from __future__ import annotations

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
    """
    states = list(z.unbind(dim=1))
    modulations = [[part[:, i : i + 1] for part in model.modulations(past_actions)]
                   for i in range(past_actions.shape[1])]
    known = len(states)
    blocks = []
    for block in range(horizon):
        previous = states[-2] if len(states) > 1 else states[-1]
        action = proposal(previous, states[-1], goal, blocks_to_go - block)
        if limits is not None:
            action = action + (torch.clamp(action, *limits) - action).detach()
        if committed is not None:
            decided = committed.flatten(1)[:, block * action.shape[1] :][:, : action.shape[1]]
            action = torch.cat([decided, action[:, decided.shape[1] :]], dim=1)
        blocks.append(action)
        modulations.append(model.modulations(action[:, None]))
        start = max(0, len(states) - model.history)
        window = [
            torch.cat(parts, dim=1) for parts in zip(*modulations[start:], strict=True)
        ]
        following = model.step(torch.stack(states[start:], dim=1), window, last_only=True)
        states.append(following[:, 0])
    return Imagined(torch.stack(blocks, dim=1), torch.stack(states[known:], dim=1))
