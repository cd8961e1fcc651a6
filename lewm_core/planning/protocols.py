"""The seams of the planner: dynamics, encoder, objective, solver, clock.

Each is a small `typing.Protocol`, so that a test (or a user) can put a few lines in the place of
a world model. Letters in shapes: B rows planned side by side, S candidates, T frames of history,
F control steps in a block (the frame skip), A numbers in an action, D numbers in a latent state,
E of these that a goal picture says: all of them, unless the model is given more than pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lewm_core.planning.plan import Plan


@runtime_checkable
class Dynamics(Protocol):
    """What a solver needs of a world model. Actions are blocks, normalised as in training."""

    @property
    def history(self) -> int:
        """Most frames that `rollout` takes."""
        ...

    @property
    def frame_skip(self) -> int:
        """Control steps in a block, F."""
        ...

    @property
    def action_dim(self) -> int:
        """Numbers in one action, A."""
        ...

    def rollout(self, z: Tensor, past_actions: Tensor, future_actions: Tensor) -> Tensor:
        """Predict the embeddings after each future block.

        Args:
            z: ``(B, T, D)`` embeddings of frames one block apart, oldest first,
                ``1 <= T <= history``.
            past_actions: ``(B, T - 1, F * A)`` blocks executed between those frames.
            future_actions: ``(B, S, horizon, F * A)`` candidates.

        Returns:
            ``(B, S, horizon, D)``; entry h is the state after block h.
        """
        ...

    def normalise_actions(self, actions: Tensor) -> Tensor:
        """``(..., F, A)`` in physical units to ``(..., F * A)`` normalised; NaN becomes 0."""
        ...

    def denormalise_actions(self, blocks: Tensor) -> Tensor:
        """``(..., F * A)`` normalised to ``(..., F, A)`` in physical units."""
        ...


@runtime_checkable
class EncodingDynamics(Dynamics, Protocol):
    """A world model that also sees: what the receding-horizon controller needs.

    One that is given more than the pictures of one camera says so by `WorldModel`'s attributes
    ``embedding_dim`` (E), ``state_dim`` (P) and ``config.inputs``; without them D is E, P is 0, and
    the contract's first camera is what it sees.
    """

    def encode(self, frames: Tensor, states: Tensor | None = None) -> Tensor:
        """``(B, T, 3 C, H, W)`` uint8 RGB to ``(B, T, D)``; every frame on its own.

        A model that is given state fields takes them as ``states`` ``(B, T, P)``; without, it
        answers with the part that a goal is compared in, ``(B, T, E)``.
        """
        ...


class Candidates(NamedTuple):
    """Futures that an objective is asked about.

    Attributes:
        predicted: ``(B, S, horizon, D)`` states after each block.
        actions: ``(B, S, horizon, F * A)`` blocks, normalised: 1 is the spread of the training
            data.
        before: ``(B, F * A)`` block that was executed last, normalised; None: not known.
    """

    predicted: Tensor
    actions: Tensor
    before: Tensor | None = None


@runtime_checkable
class Objective(Protocol):
    """What a plan is to minimise. Knows states and actions, not the model."""

    def __call__(self, candidates: Candidates, goal: Tensor) -> Tensor:
        """Cost of every candidate.

        Args:
            candidates: S futures of each of B rows.
            goal: ``(B, E)``.

        Returns:
            ``(B, S)``, smaller is better. Entries that are not finite drop their candidate.
        """
        ...


@runtime_checkable
class Solver(Protocol):
    """Finds actions that minimise an objective under some dynamics."""

    @property
    def horizon(self) -> int:
        """Blocks in a plan unless `plan` is told otherwise."""
        ...

    def reset(self) -> None:
        """Forget everything but the settings: the next plans repeat the first ones."""
        ...

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
        """Plan for each of B rows.

        Args:
            history: ``(B, T, D)`` embeddings of the newest frames, one block apart, oldest first.
            goal: ``(B, E)``.
            past_actions: ``(B, T - 1, F * A)`` normalised blocks between those frames; None where
                they are not known (0 is what training puts there).
            horizon: Blocks to plan; None: the solver's own.
            initial_mean: ``(B, at most horizon, F * A)`` where to begin the search (warm start);
                missing blocks begin at 0.
            deadline: s of `time.perf_counter` when the best plan so far is wanted, with the rounds
                that were completed in `Plan.rounds`; a solver does its least even if that takes
                longer. None: as many rounds as the settings say.
            committed: ``(B, n, A)`` normalised: what the first ``n`` control steps will be,
                whatever the plan says, because they are over before it is there. The plan begins
                with them. None: everything is open.

        Raises:
            PlanningError: The input does not fit the model, or no plan was found.
        """
        ...


@runtime_checkable
class Clock(Protocol):
    """Measures how long things take; has no meaning as a date."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back."""
        return time.perf_counter_ns()


def begin_rollout(
    model: Dynamics, history: Tensor, past_actions: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return what maps candidates ``(B, S, horizon, F * A)`` to states ``(B, S, horizon, D)``.

    Dynamics that have a ``begin`` (`lewm_core.model.FastRollout`) compute there, once for all
    rounds of a plan, what does not depend on the candidates.
    """
    begin = getattr(model, "begin", None)
    return partial(model.rollout, history, past_actions) if begin is None else begin(
        history, past_actions
    )


def device_of(model: Any) -> torch.device:
    """Where a model lives: the device of its first parameter or buffer; the CPU if it has none."""
    for list_tensors in ("parameters", "buffers"):
        if hasattr(model, list_tensors):
            for tensor in getattr(model, list_tensors)():
                return tensor.device
    return torch.device("cpu")
