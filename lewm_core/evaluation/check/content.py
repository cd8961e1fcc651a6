"""Is the scene in the embedding? Probes of states, and a coarse picture drawn from it.

Where the contract names state topics and the bags have them, probes say what is encoded. Without,
the picture has to do: a coarse picture is drawn from the embedding, and from a *reference* that is
known to hold what is visible, the principal components of the pictures themselves, as many as the
embedding has dimensions. A region that can be drawn from the reference and not from the embedding
holds something that the model left out, however small a part of the picture it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lewm_core.evaluation.probes import ProbeScore, probe_states
from lewm_core.training.measure import LabelledFrames
from lewm_core.training.monitors import coarse_pictures, region_scores

#: Edge of the pictures whose principal components are the reference.
_REFERENCE_EDGE = 16
#: A region that the reference cannot draw either says nothing about the model.
_DRAWABLE = 0.3


@dataclass(frozen=True)
class Content:
    """What can be read from the embedding, on episodes that the probes were not fitted on.

    Attributes:
        states: Linear and MLP probes; empty where the bags have no states.
        regions: Region of the picture -> R² of the coarse picture drawn from the embedding.
        reference: The same, drawn from the pictures' principal components.
    """

    states: Sequence[ProbeScore]
    regions: dict[str, float]
    reference: dict[str, float]

    def region_share(self) -> dict[str, float]:
        """Return region -> R² of the embedding over that of the reference."""
        return {
            name: r2 / self.reference[name]
            for name, r2 in self.regions.items()
            if self.reference.get(name, 0.0) >= _DRAWABLE
        }


def measure_content(
    fitted_z: Tensor,
    fitted: LabelledFrames,
    scored_z: Tensor,
    scored: LabelledFrames,
    state_names: Sequence[str],
    state_units: Sequence[str],
    seed: int = 0,
) -> Content:
    """Fit probes on some frames and score them on others.

    Args:
        fitted_z: (N, D) embeddings.
        fitted: The N frames, in the order of their episodes.
        scored_z: (M, D) embeddings.
        scored: The M frames, of other episodes.
        state_names: Of the columns of the frames' states.
        state_units: Their units.
        seed: Of the MLPs.
    """
    states: Sequence[ProbeScore] = ()
    if fitted.states.shape[1] and bool(torch.isfinite(fitted.states).any()):
        states = probe_states(
            fitted_z, fitted.states, scored_z, scored.states, state_names, state_units, seed=seed
        )
    drawn, truth = coarse_pictures(fitted.frames), coarse_pictures(scored.frames)
    regions = region_scores(fitted_z, drawn, scored_z, truth, seed=seed)
    components = _PrincipalComponents(fitted.frames, fitted_z.shape[1], seed)
    reference = region_scores(
        components(fitted.frames), drawn, components(scored.frames), truth, seed=seed
    )
    return Content(states, regions, reference)


class _PrincipalComponents:
    """The map from pictures (N, 3, S, S) to their first principal components (N, K)."""

    def __init__(self, frames: Tensor, number: int, seed: int) -> None:
        pictures = _small(frames)
        self._mean = pictures.mean(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            number = min(number, *pictures.shape)
            _, _, self._directions = torch.svd_lowrank(pictures - self._mean, q=number, niter=4)

    def __call__(self, frames: Tensor) -> Tensor:
        return (_small(frames) - self._mean) @ self._directions


def _small(frames: Tensor) -> Tensor:
    """Return pictures (N, 3, S, S) uint8 as rows (N, 3 * E * E) float."""
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(part.float() / 255.0, _REFERENCE_EDGE).flatten(1)
        for part in frames.split(1024)
    ]
    return torch.cat(parts)
