"""From requests of controllers to a solver's call: of one, or of several side by side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lewm_core.planning.plan import Plan
from lewm_core.planning.protocols import Solver
from lewm_core.planning.state import PlanRequest


def search(
    solver: Solver, requests: Sequence[PlanRequest], deadline: float | None = None
) -> Plan:
    """Search for the plans of B requests of equal shapes, as the B rows of one call.

    A solver that knows neither deadline nor committed actions serves where there are none.

    Args:
        solver: Finds the actions.
        requests: Of equal `shapes`.
        deadline: See `Solver.plan`.

    Raises:
        PlanningError: The solver found no plan for some row.
    """
    first = requests[0]
    further: dict[str, Any] = {}
    if deadline is not None:
        further["deadline"] = deadline
    if first.committed is not None:
        further["committed"] = _joined([request.committed for request in requests])
    return solver.plan(
        torch.cat([request.history for request in requests]),
        torch.cat([request.goal for request in requests]),
        _joined([request.past_actions for request in requests]),
        horizon=first.horizon,
        initial_mean=_joined([request.initial_mean for request in requests]),
        **further,
    )


def shapes(request: PlanRequest) -> Hashable:
    """What must agree for requests to be searched for together."""
    tensors = (request.history, request.past_actions, request.initial_mean, request.committed)
    return (request.horizon, *(None if part is None else tuple(part.shape) for part in tensors))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
