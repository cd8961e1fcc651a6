"""Measure a model on held-out episodes while it trains: predictions, spread, probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lewm_core.model.world_model import WorldModel
from lewm_core.training.config import MonitorConfig
from lewm_core.training.monitors import (
    Health,
    StateScore,
    coarse_pictures,
    effective_rank,
    region_scores,
    spread,
)
from lewm_core.training.pipeline import Clips

#: (train_embeddings (N, D), train_states (N, S), held_out_embeddings (M, D),
#: held_out_states (M, S)) -> scores. Handed in by the command: training knows no probes.
StateProbe = Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[StateScore]]


class ClipSource(Protocol):
    """The sampler of held-out clips."""

    number_of_clips: int

    def batch(self, step: int) -> Clips:
        """Return a batch of clips, (B, T, 3 C, S, S) and (B, T, F, A)."""
        ...


class Frames(Protocol):
    """The part of a frame cache that is needed here, see `lewm_core.data.cache`."""

    frames: np.ndarray
    frame_index: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class LabelledFrames:
    """Pictures of some episodes and the states at their ticks, in the order of recording.

    Attributes:
        frames: (N, 3 C, S, S) uint8.
        states: (N, S) float32, NaN where none was recorded.
    """

    frames: Tensor
    states: Tensor


@dataclass
class Measurement:
    """All that was measured at one point of a run.

    Attributes:
        health: Spread and probes.
        prediction_error: Mean squared error over variance, for 1, 2, ... blocks ahead.
        nothing_changes: The same for a predictor that repeats the last embedding.
        one_block_distance: Median squared distance of embeddings one block apart, summed over
            the E dimensions of a goal: the scale that the planner's goal tolerance is measured in.
    """

    health: Health
    prediction_error: list[float] = field(default_factory=list)
    nothing_changes: list[float] = field(default_factory=list)
    one_block_distance: float = float("nan")

    def row(self) -> dict[str, float]:
        """Return flat numbers for ``metrics.jsonl``."""
        row = self.health.row()
        for block, value in enumerate(self.prediction_error, start=1):
            row[f"prediction_error_{block}"] = value
        for block, value in enumerate(self.nothing_changes, start=1):
            row[f"nothing_changes_{block}"] = value
        row["one_block_distance"] = self.one_block_distance
        return row


def pick_frames(cache: Frames, ticks: np.ndarray, most: int) -> LabelledFrames:
    """Take up to ``most`` pictures, evenly spread over the given ticks.

    Args:
        cache: The frame cache.
        ticks: Numbers of ticks in the cache, in order; those without a picture are passed over.
        most: Upper bound on the number of pictures.
    """
    ticks = ticks[cache.frame_index[ticks] >= 0]
    if len(ticks) > most:
        ticks = ticks[np.linspace(0, len(ticks) - 1, most).round().astype(np.int64)]
    frames = np.asarray(cache.frames[cache.frame_index[ticks]])
    states = np.asarray(cache.states[ticks], dtype=np.float32).reshape(len(ticks), -1)
    return LabelledFrames(torch.from_numpy(frames), torch.from_numpy(states))


@torch.no_grad()
def embed(model: WorldModel, frames: Tensor, batch_size: int = 512) -> Tensor:
    """Return embeddings (N, E) float32 on the CPU of pictures (N, 3 C, S, S) uint8.

    State fields that the model is given beside them are left out: what is measured is what the
    pictures became.
    """
    device = next(model.parameters()).device
    parts = [
        model.encode(part[:, None].to(device))[:, 0].float().cpu()
        for part in frames.split(batch_size)
    ]
    return torch.cat(parts)


@torch.no_grad()
def measure_predictions(
    model: WorldModel, source: ClipSource, clips: int
) -> tuple[list[float], list[float], float]:
    """Roll held-out clips out and compare with what happened.

    Args:
        model: In eval mode.
        source: Clips of ``history + horizon`` frames.
        clips: How many to use; fewer if there are fewer.

    Returns:
        Error over variance per block ahead, the same for "nothing changes", and the median
        squared distance of embeddings one block apart.
    """
    device = next(model.parameters()).device
    history = model.config.history
    wanted = min(clips, source.number_of_clips)
    errors: list[Tensor] = []
    unchanged: list[Tensor] = []
    steps_apart: list[Tensor] = []
    seen: list[Tensor] = []
    used = 0
    step = 0
    while used < wanted:
        batch = source.batch(step)
        step += 1
        rows = min(len(batch.frames), wanted - used)
        used += rows
        frames = batch.frames[:rows].to(device)
        actions = model.normalise_actions(batch.actions[:rows].to(device))
        inputs = None if batch.inputs is None else batch.inputs[:rows].to(device)
        z = model.encode(frames, inputs).float()
        last = frames.shape[1] - 1
        past, future = actions[:, : history - 1], actions[:, None, history - 1 : last]
        predicted = model.rollout(z[:, :history], past, future)[:, 0].float()
        target = z[:, history:]
        errors.append(((predicted - target) ** 2).mean(-1).cpu())
        unchanged.append(((z[:, history - 1 : history] - target) ** 2).mean(-1).cpu())
        seen_apart = (z[:, 1:] - z[:, :-1])[..., : model.embedding_dim]
        steps_apart.append((seen_apart**2).sum(-1).flatten().cpu())
        seen.append(z.flatten(0, 1).cpu())
    variance = torch.cat(seen).var(0, unbiased=False).mean().clamp_min(1e-12)
    return (
        (torch.cat(errors).mean(0) / variance).tolist(),
        (torch.cat(unchanged).mean(0) / variance).tolist(),
        float(torch.cat(steps_apart).median()),
    )


def measure(
    model: WorldModel,
    train_frames: LabelledFrames,
    held_out_frames: LabelledFrames,
    held_out_clips: ClipSource,
    limits: MonitorConfig,
    probe: StateProbe | None,
) -> Measurement:
    """Measure everything; the model is left in the mode it came in.

    Args:
        model: The model.
        train_frames: Frames that probes are fitted on.
        held_out_frames: Frames that everything is scored on.
        held_out_clips: Clips of ``history + horizon`` frames.
        limits: Number of clips.
        probe: Scores states; None where the recording has none.
    """
    was_training = model.training
    model.eval()
    try:
        train_z = embed(model, train_frames.frames)
        held_z = embed(model, held_out_frames.frames)
        mean_std, smallest_std = spread(held_z)
        health = Health(effective_rank(held_z), mean_std, smallest_std)
        if probe is not None and train_frames.states.shape[1]:
            health.states = probe(train_z, train_frames.states, held_z, held_out_frames.states)
        health.regions = region_scores(
            train_z,
            coarse_pictures(train_frames.frames),
            held_z,
            coarse_pictures(held_out_frames.frames),
        )
        errors, unchanged, distance = measure_predictions(model, held_out_clips, limits.clips)
    finally:
        model.train(was_training)
    return Measurement(health, errors, unchanged, distance)
