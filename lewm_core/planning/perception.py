"""Pictures and goals to embeddings, each picture once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.protocols import EncodingDynamics, device_of
from lewm_core.planning.state import Frame, as_picture


def embed_frames(model: EncodingDynamics, frames: list[Frame]) -> int:
    """Encode those frames that have no embedding yet, together, and keep it with them.

    Returns:
        How many these were.

    Raises:
        PlanningError: An embedding is not finite, or the model wants state fields that a frame
            does not have.
    """
    fresh = [frame for frame in frames if frame.embedding is None]
    if not fresh:
        return 0
    embeddings = _encode(
        model, [frame.picture for frame in fresh], _states(model, [frame.state for frame in fresh])
    )
    if not bool(torch.isfinite(embeddings).all()):
        raise PlanningError("the embedding of a picture is not finite")
    for frame, embedding in zip(fresh, embeddings, strict=True):
        frame.embedding = embedding
    return len(fresh)


def embed_goal(model: EncodingDynamics, goal: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return the embedding ``(1, E)`` of a goal.

    Args:
        model: The encoder.
        goal: A picture ``(3 C, S, S)`` uint8, or an embedding ``(E,)`` already.

    Raises:
        PlanningError: Neither of the two, of another size than the model takes, or not finite.
    """
    if goal.ndim == 1:
        embedding = torch.as_tensor(goal, dtype=torch.float32)[None].to(device_of(model))
    else:
        try:
            embedding = _encode(model, [as_picture(goal)])[0]
        except ValueError as error:
            raise PlanningError(f"the goal picture cannot be encoded: {error}") from error
    if not bool(torch.isfinite(embedding).all()):
        raise PlanningError("the embedding of the goal is not finite")
    return embedding


def _states(model: EncodingDynamics, states: list[Tensor | None]) -> Tensor | None:
    """``n`` states ``(P,)`` to ``(n, P)``; None for a model that is given pictures only."""
    wanted = getattr(model, "state_dim", 0)
    if not wanted:
        return None
    given = [state for state in states if state is not None and state.shape == (wanted,)]
    if len(given) < len(states):
        raise PlanningError(
            f"the model is given {wanted} state fields beside every picture, and a picture has none"
        )
    return torch.stack(given)


def _encode(
    model: EncodingDynamics, pictures: list[Tensor], states: Tensor | None = None
) -> Tensor:
    """``n`` pictures ``(3 C, S, S)`` and states ``(n, P)`` to ``(n, 1, D)``."""
    with torch.inference_mode():
        device = device_of(model)
        stacked = torch.stack(pictures)[None].to(device)
        if states is None:
            return model.encode(stacked)[0][:, None]
        return model.encode(stacked, states[None].to(device))[0][:, None]
