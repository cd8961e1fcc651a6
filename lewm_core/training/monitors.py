"""Does the embedding hold the scene? Measurements on held-out episodes, and warnings in words.

The loss does not tell. Two failures look healthy in it:

* *Collapse*: all pictures get nearly the same embedding, or use few directions of it. Predicting
  is then easy. Seen in the effective rank and the deviation per dimension.
* *Part of the scene is not encoded*: the embedding is well spread, but over functions of what is
  easily predicted; the rest (often the object that matters) is left out. Seen in probes of the
  contract's states, and, where a recording has no states, in how well a coarse picture can be
  drawn from the embedding, region by region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lewm_core.training.config import MonitorConfig
from lewm_core.training.regression import fit_mlp, squared_errors

#: Edge of the coarse picture that is drawn from the embedding, in cells; three regions of two.
GRID = 6

_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "centre", "right")

#: A region that holds less than this part of the picture's variance is not judged: nothing moves
#: there.
QUIET_REGION = 0.03


class StateScore(Protocol):
    """How well one group of states can be read from the embedding.

    Attributes:
        label: Short name for tables.
        fields: The contract's field names.
        r2: R² of a non-linear probe on held-out episodes; NaN where it cannot be measured.
    """

    @property
    def label(self) -> str:
        """Short name for tables."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The contract's field names."""

    @property
    def r2(self) -> float:
        """R² of a non-linear probe on held-out episodes; NaN where it cannot be measured."""


@dataclass
class Health:
    """What was measured at one point of a run.

    Attributes:
        effective_rank: Directions in use, 1 to D.
        std_mean: Mean over the dimensions of their standard deviation; SIGReg aims at 1.
        std_min: The smallest of them.
        states: Probe scores, where the recording has states.
        regions: Region's name -> R² of the coarse picture there; quiet regions are left out.
    """

    effective_rank: float
    std_mean: float
    std_min: float
    states: Sequence[StateScore] = ()
    regions: Mapping[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """Return flat numbers for ``metrics.jsonl``."""
        row = {
            "effective_rank": self.effective_rank,
            "std_mean": self.std_mean,
            "std_min": self.std_min,
        }
        row |= {f"probe_r2_{state.label}": state.r2 for state in self.states}
        row |= {f"region_r2_{name.replace(' ', '_')}": r2 for name, r2 in self.regions.items()}
        return row


def effective_rank(embeddings: Tensor) -> float:
    """Return the exponential of the entropy of the covariance's normalised eigenvalues.

    It is D for an isotropic cloud, k for one that fills k directions evenly, and 1 for a line
    (Roy and Vetterli 2007, applied to the covariance). A cloud without extent has 1.

    Args:
        embeddings: (N, D), N at least 2.
    """
    centred = embeddings.double() - embeddings.double().mean(0, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).clamp_min(0)
    total = eigenvalues.sum()
    if float(total) <= 1e-24:
        return 1.0
    share = eigenvalues / total
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def spread(embeddings: Tensor) -> tuple[float, float]:
    """Return the mean and the smallest standard deviation over the dimensions of (N, D)."""
    std = embeddings.double().std(0, unbiased=False)
    return float(std.mean()), float(std.min())


def coarse_pictures(frames: Tensor) -> Tensor:
    """Return (N, 3 C * GRID * GRID) float: pictures (N, 3 C, S, S) uint8 averaged over a grid."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(frames.float() / 255.0, GRID)
    return coarse.flatten(1)


def region_scores(
    train_embeddings: Tensor,
    train_pictures: Tensor,
    held_out_embeddings: Tensor,
    held_out_pictures: Tensor,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Say how well each region of a coarse picture can be drawn from the embedding.

    Args:
        train_embeddings: (N, D).
        train_pictures: (N, 3 C * GRID * GRID) of `coarse_pictures`.
        held_out_embeddings: (M, D).
        held_out_pictures: (M, 3 C * GRID * GRID).
        seed: Of the MLP that draws.

    Returns:
        Region's name (``"upper left"``, of several cameras ``"camera 2 upper left"``) -> R² on the
        held-out pictures. Regions in which hardly anything changes (`QUIET_REGION`) are left out.
    """
    draw = fit_mlp(train_embeddings, train_pictures, epochs=30, seed=seed)
    residual, total = squared_errors(
        draw(held_out_embeddings), held_out_pictures, train_pictures.double().mean(0)
    )
    residuals = residual.view(-1, 3, GRID, GRID).sum(1)
    totals = total.view(-1, 3, GRID, GRID).sum(1)
    scores: dict[str, float] = {}
    for number, (residual, total) in enumerate(zip(residuals, totals, strict=True), start=1):
        prefix = f"camera {number} " if len(residuals) > 1 else ""
        scores |= {f"{prefix}{name}": r2 for name, r2 in _by_region(residual, total).items()}
    return scores


def _by_region(residual: Tensor, total: Tensor) -> dict[str, float]:
    """R² of the regions of one camera, from errors (GRID, GRID) of its cells."""
    scores = {}
    cells = GRID // len(_ROWS)
    for i, row in enumerate(_ROWS):
        for j, column in enumerate(_COLUMNS):
            here = (slice(i * cells, (i + 1) * cells), slice(j * cells, (j + 1) * cells))
            share = float(total[here].sum() / total.sum().clamp_min(1e-12))
            if share >= QUIET_REGION:
                scores[f"{row} {column}"] = float(1 - residual[here].sum() / total[here].sum())
    return scores


def warnings(health: Health, limits: MonitorConfig, weight: float) -> list[str]:
    """Put into words what is wrong with the representation.

    Args:
        health: The measurements.
        limits: Thresholds.
        weight: lambda of the run, for the advice.

    Returns:
        One sentence or two per finding, the worst first; empty for a healthy representation.
        When it has collapsed, nothing else is said: everything else follows from it.
    """
    if health.effective_rank < limits.effective_rank or health.std_mean < (
        limits.standard_deviation
    ):
        return [
            f"the representation has collapsed (effective rank {health.effective_rank:.1f}, "
            f"standard deviation {health.std_mean:.3f}): all pictures look nearly the same to "
            f"the model; raise loss.weight (lambda, now {weight:g}) or lower "
            "optimiser.learning_rate"
        ]
    found = []
    for state in sorted(health.states, key=lambda state: state.r2):
        if math.isfinite(state.r2) and state.r2 < limits.state_r2:
            verb = "is" if len(state.fields) == 1 else "are"
            found.append(
                f"{', '.join(state.fields)} {verb} not encoded (R² {state.r2:.2f} on held-out "
                "episodes) although the loss looks fine; raise loss.weight (lambda, now "
                f"{weight:g}), train longer, set loss.rollout_steps=4, or use the keypoint "
                "encoder"
            )
    poor = sorted((r2, name) for name, r2 in health.regions.items() if r2 < limits.region_r2)
    if poor:
        names = [name for _, name in poor]
        where = "all over the picture" if len(poor) == len(health.regions) else _listed(names)
        found.append(
            f"what moves {where} is hardly encoded (R² {poor[0][0]:.2f} for a coarse picture drawn "
            f"from the embedding); raise loss.weight (lambda, now {weight:g}), train longer, or "
            "crop the picture to what matters"
        )
    return found


def _listed(names: Sequence[str]) -> str:
    """Return ``"in the upper left and middle left of the picture"``."""
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"in the {text} of the picture"
