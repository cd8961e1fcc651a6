"""What the receding-horizon controller remembers and answers with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.plan import Plan


@dataclass(eq=False)
class Frame:
    """A picture ``(3 C, S, S)`` uint8, the state fields then, ``(P,)``, for models that are given
    some, and its embedding ``(1, D)`` once a plan needed it."""

    picture: Tensor
    state: Tensor | None = None
    embedding: Tensor | None = None


@dataclass(eq=False)
class Goal:
    """What is pursued.

    Attributes:
        serial: Tells goals apart, also two with the same picture.
        embedding: ``(1, E)``.
        tolerance: Squared latent distance that counts as reached; None: never reached.
        arrival_ns: When to arrive, for a shrinking horizon; set by the first plan if None.
    """

    serial: int
    embedding: Tensor
    tolerance: float | None
    arrival_ns: int | None

    def renewed(self, serial: int) -> Goal:
        """The same goal, pursued from the beginning."""
        return replace(self, serial=serial, arrival_ns=None)


@dataclass(frozen=True, eq=False)
class ActivePlan:
    """The plan that commands are taken from.

    Attributes:
        plan: Its actions.
        goal_serial: What it is for.
        start_ns: Action 0 is for the control period from here.
        image_ns: Stamp of the newest picture it was made from.
        begun: Whether a command was taken from it.
    """

    plan: Plan
    goal_serial: int
    start_ns: int
    image_ns: int
    begun: bool = False

    def step(self, now_ns: int, period_ns: int) -> int:
        """Index of the action for the control period that begins now; below 0: before it.

        The one most of whose time lies in this period: control periods may begin at any phase of
        the plan, and timers come now a little earlier and now a little later.
        """
        return (now_ns - self.start_ns + period_ns // 2) // period_ns

    def no_action(self, now_ns: int, period_ns: int) -> str:
        """Why there is no action for now; empty if there is one."""
        step = self.step(now_ns, period_ns)
        if step < 0:
            return "plan begins in the future; the clock went back"
        return "plan exhausted" if step >= self.plan.actions.shape[1] else ""

    def may_begin_late(self, now_ns: int, period_ns: int) -> bool:
        """Whether nothing was taken from it yet, though its time has come and is not over."""
        length_ns = self.plan.actions.shape[1] * period_ns
        return not self.begun and period_ns <= now_ns - self.start_ns <= length_ns

    def moved(self, start_ns: int) -> ActivePlan:
        """The same plan, begun at another time."""
        return replace(self, start_ns=start_ns)

    def taken(self) -> ActivePlan:
        """The same plan, once a command was taken from it."""
        return self if self.begun else replace(self, begun=True)


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """What `RecedingHorizonController.prepare` asks a solver for; requests of equal shapes can be
    stacked along the first dimension and searched for together.

    Attributes:
        pursued: The goal it is for.
        history: ``(1, T, D)`` embeddings of the newest frames, one block apart, oldest first.
        past_actions: ``(1, T - 1, F * A)`` normalised blocks between them; None where T is 1.
        horizon: Blocks to plan.
        initial_mean: ``(1, at most horizon, F * A)`` where to begin the search; None: at 0.
        committed: ``(1, n, A)`` normalised actions of the first control steps, which are over
            before the plan is there; None: everything is open.
        start_ns: Stamp of the newest frame, when the plan begins.
        goal_distance: Squared latent distance of that frame to the goal.
        encode_s: Seconds that encoding took.
        encoded_ns: When it was done, by the controller's clock.
    """

    pursued: Goal
    history: Tensor
    past_actions: Tensor | None
    horizon: int
    initial_mean: Tensor | None
    committed: Tensor | None
    start_ns: int
    goal_distance: float
    encode_s: float
    encoded_ns: int

    @property
    def goal(self) -> Tensor:
        """``(1, E)``."""
        return self.pursued.embedding


@dataclass(frozen=True, eq=False)
class Command:
    """What to publish for one control period.

    Attributes:
        values: ``(A,)`` in the contract's units; None when there is nothing safe to publish (a
            field holds at ``"last"``, and nothing was commanded yet).
        hold: Whether this is the hold command.
        reason: Why it holds, for an operator; empty otherwise.
        stamp_ns: The time it is for.
        image_stamp_ns: Stamp of the picture behind the plan; None when holding.
        step: Index of the action in its plan; None when holding.
    """

    values: NDArray[np.float64] | None
    hold: bool
    reason: str
    stamp_ns: int
    image_stamp_ns: int | None = None
    step: int | None = None


@dataclass(frozen=True, eq=False)
class PlanResult:
    """What came of one call of `RecedingHorizonController.replan`.

    Attributes:
        plan: The new plan, which is now followed; None if none was made.
        reason: Why none was made; empty otherwise.
        failed: Whether planning was tried and failed (not merely impossible or not needed).
        start_ns: When the plan's first action is due.
        image_stamp_ns: Stamp of the newest picture it was made from.
        goal_distance: Squared latent distance of that picture to the goal; NaN if unknown.
        predicted_distances: The same, expected after each block of the plan.
        encode_s: Seconds spent on encoding; 0 where all pictures were encoded before.
        plan_s: Seconds spent on the search.
    """

    plan: Plan | None = None
    reason: str = ""
    failed: bool = False
    start_ns: int | None = None
    image_stamp_ns: int | None = None
    goal_distance: float = math.nan
    predicted_distances: tuple[float, ...] = ()
    encode_s: float = 0.0
    plan_s: float = 0.0


def as_picture(picture: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return ``(3 C, S, S)`` uint8 as a tensor, without a copy where it can be written to.

    Raises:
        PlanningError: The shape or type is another.
    """
    if isinstance(picture, np.ndarray) and not picture.flags.writeable:
        picture = picture.copy()  # torch warns about memory it must not write to
    tensor = torch.as_tensor(picture)
    channels = tensor.shape[0] if tensor.dim() == 3 else 0
    if channels == 0 or channels % 3 or tensor.dtype != torch.uint8:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise PlanningError(
            f"a picture must be (3, S, S) uint8, with 3 more channels for each further camera, got "
            f"{tuple(tensor.shape)} {kind}"
        )
    return tensor
