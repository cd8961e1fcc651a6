"""A proposal acting in the world model that it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

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


class Actor(Protocol):
    """Predicts block by block for N rows.

    Attributes:
        states: The newest ``(N, D)``, oldest first: two of them, or one where no more are known.
    """

    states: list[Tensor]

    def keep(self, rows: int) -> None:
        """Let only the first rows act on."""
        ...

    def act(self, block: Tensor) -> Tensor:
        """Predict the states ``(N, D)`` behind normalised blocks ``(N, F*A)``."""
        ...


class ModuleActor:
    """Acts in the world model itself; gradients flow. See `Actor`.

    Args:
        model: In eval mode.
        z: (N, T, D), frames one block apart, newest last; T at most ``model.history``.
        past_actions: (N, T-1, F*A), normalised, between those frames.
    """

    def __init__(self, model: WorldModel, z: Tensor, past_actions: Tensor) -> None:
        self._model = model
        # The window: states, and what the blocks that leave them do.
        self.states = list(z.unbind(dim=1))
        past = model.modulations(past_actions)
        self._effects = [
            [part[:, i : i + 1] for part in past] for i in range(past_actions.shape[1])
        ]

    def keep(self, rows: int) -> None:
        """Let only the first rows act on."""
        self.states = [state[:rows] for state in self.states]
        self._effects = [[part[:rows] for part in parts] for parts in self._effects]

    def act(self, block: Tensor) -> Tensor:
        """Predict the states ``(N, D)`` behind normalised blocks ``(N, F*A)``."""
        history = self._model.history
        self._effects = [*self._effects, self._model.modulations(block[:, None])][-history:]
        states = self.states[-history:]
        joined = [torch.cat(parts, dim=1) for parts in zip(*self._effects, strict=True)]
        following = self._model.step(torch.stack(states, dim=1), joined, last_only=True)[:, 0]
        self.states = [*states, following]
        return following


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
    begin = getattr(model, "begin_acting", None)
    actor: Actor = (begin or partial(ModuleActor, model))(z, past_actions)
    blocks: list[Tensor] = []
    states: list[Tensor] = []
    for block in range(horizon):
        rows = len(z) if acting is None else acting[block]
        if rows < len(actor.states[-1]):
            actor.keep(rows)
        # Where there is no state before this one, it stands for it.
        action = proposal(
            actor.states[-2:][0], actor.states[-1], goal[:rows], blocks_to_go[:rows] - block
        )
        if limits is not None:
            action = action + (torch.clamp(action, *limits) - action).detach()
        if committed is not None:
            decided = committed[:rows].flatten(1)[:, block * action.shape[1] :]
            decided = decided[:, : action.shape[1]]
            action = torch.cat([decided, action[:, decided.shape[1] :]], dim=1)
        following = actor.act(action)
        if rows < len(z):
            before = states[-1] if states else z[:, -1]
            following = torch.cat([following, before[rows:]])
            action = torch.cat([action, action.new_zeros(len(z) - rows, action.shape[1])])
        states.append(following)
        blocks.append(action)
    return Imagined(torch.stack(blocks, dim=1), torch.stack(states, dim=1))
