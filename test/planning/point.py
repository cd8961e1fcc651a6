"""A world whose best plans are known: a point in the plane, moved by its actions.

The "picture" is a (3, S, S) uint8 array that carries the point's position in its first pixels, in
hundredths, so that a controller can be driven through exactly the path that real pictures take.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

OFFSET = 128


def picture_of(position: tuple[float, float] | np.ndarray) -> np.ndarray:
    """``(3, 4, 4)`` uint8 whose first two pixels hold the position, in tenths."""
    picture = np.zeros((3, 4, 4), dtype=np.uint8)
    picture[0, 0, :2] = np.round(np.asarray(position) * 10) + OFFSET
    return picture


class PointModel:
    """``z' = z + sum of the block's actions``; D = A = 2; normalised by mean and std."""

    history = 3
    action_dim = 2

    def __init__(
        self,
        frame_skip: int = 2,
        action_mean: tuple[float, float] = (0.0, 0.0),
        action_std: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.frame_skip = frame_skip
        self.mean = torch.tensor(action_mean)
        self.std = torch.tensor(action_std)
        self.encoded = 0
        self.seen_past: list[Tensor] = []
        self.seen_candidates: list[Tensor] = []

    def encode(self, frames: Tensor) -> Tensor:
        self.encoded += frames.shape[0] * frames.shape[1]
        return (frames[:, :, 0, 0, :2].float() - OFFSET) / 10

    def normalise_actions(self, actions: Tensor) -> Tensor:
        return ((actions - self.mean) / self.std).nan_to_num(nan=0.0, posinf=torch.inf,
                                                             neginf=-torch.inf).flatten(-2)

    def denormalise_actions(self, blocks: Tensor) -> Tensor:
        return blocks.unflatten(-1, (self.frame_skip, 2)) * self.std + self.mean

    def rollout(self, z: Tensor, past_actions: Tensor, future_actions: Tensor) -> Tensor:
        self.seen_past.append(past_actions)
        self.seen_candidates.append(future_actions.clone())
        moves = self.denormalise_actions(future_actions).sum(dim=-2)
        return z[:, None, None, -1] + moves.cumsum(dim=2)
