"""Is the latent space one to plan in? Its spread, and whether distance in it means progress."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lewm_core.model.sigreg import SIGReg
from lewm_core.training.monitors import effective_rank, spread

#: Rows that SIGReg looks at together, as a training batch: its value for states that are *not*
#: Gaussian grows with them, so it can only be compared at one number.
_SIGREG_ROWS = 128
_SIGREG_DIRECTIONS = 512
#: Blocks before a goal over which the distance to it is followed.
STEPS_TO_GO = 8


@dataclass(frozen=True)
class LatentSpread:
    """How the embeddings of held-out pictures are spread.

    Attributes:
        effective_rank: Directions in use, 1 to D.
        std_mean: Mean deviation per dimension; SIGReg aims at 1.
        std_min: The smallest of them.
        direction_variance: (D,) variance along the principal directions, largest first.
        sigreg: SIGReg's value; near 1 for a standard Gaussian.
    """

    effective_rank: float
    std_mean: float
    std_min: float
    direction_variance: list[float]
    sigreg: float


def measure_spread(embeddings: Tensor, seed: int = 0) -> LatentSpread:
    """Measure the spread of embeddings (N, D), N at least 2.

    Args:
        embeddings: Of held-out pictures, float32.
        seed: Of SIGReg's directions and of which rows it looks at together.
    """
    centred = embeddings.double() - embeddings.double().mean(0, keepdim=True)
    variance = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).clamp_min(0).flip(0)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(embeddings), generator=generator)
    count = max(1, len(rows) // _SIGREG_ROWS)
    size = min(_SIGREG_ROWS, len(rows))
    groups = embeddings[rows[: count * size]].view(count, size, -1)
    sigreg = SIGReg(directions=_SIGREG_DIRECTIONS, generator=generator)
    # One group after the other: the phases of all at once would need gigabytes.
    values = [float(sigreg(group)) for group in groups]
    mean_std, smallest_std = spread(embeddings)
    return LatentSpread(
        effective_rank(embeddings),
        mean_std,
        smallest_std,
        variance.tolist(),
        float(np.mean(values)),
    )


def distance_follows_steps(episodes: list[Tensor]) -> float:
    """Say how well the latent distance to a goal ranks the steps that are left to it.

    Every picture of an episode is a goal in turn; the distances of the pictures 1, 2, ...
    `STEPS_TO_GO` blocks before it are compared with those numbers.

    Args:
        episodes: Embeddings (T, D) of each episode's pictures, one block apart.

    Returns:
        Mean of Spearman's rank correlations over all goals, -1 to 1; 0 where all distances are
        the same. NaN if no episode is long enough.
    """
    correlations = []
    for z in episodes:
        if len(z) <= STEPS_TO_GO:
            continue
        windows = z.unfold(0, STEPS_TO_GO + 1, 1).movedim(2, 1)  # (goals, steps + 1, D)
        distance = (windows[:, :-1] - windows[:, -1:]).square().sum(-1).flip(1)
        correlations.append(_spearman_with_order(distance.double().numpy()))
    return float(np.concatenate(correlations).mean()) if correlations else float("nan")


def _spearman_with_order(values: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation (N,) of each row of (N, K) with 0, 1, ... K - 1."""
    # Mean rank among equals: the number below, and half of the others that are equal.
    below = (values[:, None, :] < values[:, :, None]).sum(-1)
    equal = (values[:, None, :] == values[:, :, None]).sum(-1)
    ranks = below + (equal - 1) / 2
    order = np.arange(values.shape[1], dtype=np.float64)
    ranks = ranks - ranks.mean(1, keepdims=True)
    order = order - order.mean()
    scale = np.sqrt((ranks**2).sum(1) * (order**2).sum())
    return np.divide(ranks @ order, scale, out=np.zeros(len(values)), where=scale > 0)
