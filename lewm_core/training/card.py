"""The words that travel with a checkpoint: metadata for machines, a model card for people."""

from __future__ import annotations

import math
from typing import Any

import torch

import lewm_core
from lewm_core.training.config import TrainConfig
from lewm_core.training.data import TrainingData
from lewm_core.training.machine import describe_machine
from lewm_core.training.measure import Measurement
from lewm_core.training.state import Progress


def checkpoint_metadata(
    data: TrainingData,
    config: TrainConfig,
    progress: Progress,
    measured: Measurement | None,
    device: torch.device,
    frames_per_s: float,
) -> dict[str, Any]:
    """Return what ``model.json`` says about the training; JSON values only.

    ``latent`` holds the scale of the latent space: ``one_block_distance`` is the median squared
    distance, summed over its dimensions, of embeddings one block apart on held-out episodes;
    ``goal_tolerance_factor`` how much of it counts as at a goal, where the settings say so.
    """
    metadata: dict[str, Any] = {
        "preset": config.name,
        "steps": progress.step,
        "steps_planned": config.steps,
        "minutes": round(progress.elapsed_s / 60, 2),
        "frames": progress.frames,
        "frames_per_s": _finite(frames_per_s),
        "seed": config.seed,
        "precision": config.precision,
        "threads": config.threads,
        "machine": describe_machine(device),
        "versions": {"lewm_core": lewm_core.__version__, "torch": torch.__version__},
        "data": data.sources,
        "data_sources": [origin.to_dict() for origin in data.origins],
        "frames_recorded": len(data.cache.frames),
        "trained_episodes": data.trained,
        "held_out_episodes": data.held_out,
        "settings": config.to_dict(),
        "latent": {},
        "evaluation": {},
    }
    if measured is not None:
        row = finite_row(measured.row())
        metadata["evaluation"] = row
        metadata["latent"] = {
            key: row[key] for key in ("one_block_distance", "effective_rank", "std_mean", "std_min")
        }
    if config.goal_tolerance_factor is not None:
        metadata["latent"]["goal_tolerance_factor"] = config.goal_tolerance_factor
    return metadata


def model_card(metadata: dict[str, Any], command: str) -> str:
    """Return the card in Markdown.

    Args:
        metadata: Of `checkpoint_metadata`.
        command: The command line that trained it; no paths outside the working directory.
    """
    settings = metadata["settings"]
    lines = [
        f"# LeWM world model, preset `{metadata['preset']}`",
        "",
        "A joint-embedding predictive world model (LeWorldModel, arXiv 2603.19312), trained end to "
        "end from pixels. Open it with `lewm_core.load(FOLDER)`; everything that is needed to run "
        "it is in `model.json`.",
        "",
        "## Training",
        "",
        f"- Data: {', '.join(metadata['data'])}: {metadata['frames_recorded']} pictures, "
        f"{len(metadata['trained_episodes'])} episodes trained on, "
        f"{len(metadata['held_out_episodes'])} held out",
        f"- Command: `{command}`" if command else "",
        f"- {metadata['steps']} of {metadata['steps_planned']} steps, "
        f"{metadata['minutes']:.1f} minutes, seed {metadata['seed']}",
        *_rounds(metadata),
        f"- Machine: {metadata['machine']}; {_plural(metadata['threads'], 'thread')}, "
        f"{metadata['precision']}" + _speed(metadata["frames_per_s"]),
        f"- Loss: prediction ({settings['loss']['rollout_steps']} steps rolled out) + "
        f"{settings['loss']['weight']:g} x SIGReg ({settings['loss']['directions']} directions)",
        f"- Versions: lewm_core {metadata['versions']['lewm_core']}, "
        f"torch {metadata['versions']['torch']}",
        "",
    ]
    if metadata["evaluation"]:
        lines += _evaluation(metadata["evaluation"])
    return "\n".join(lines)


def _rounds(metadata: dict[str, Any]) -> list[str]:
    """One line for the later stages of every round, the first one first."""
    rounds = [*metadata.get("former_stages", ()), metadata]
    if not metadata.get("stages"):
        return []
    lines = []
    for number, entry in enumerate(rounds, start=1):
        stages = entry.get("stages", {})
        parts = [
            f"{name} {stages[f'minutes_{name}']:.1f} minutes"
            + (f" ({stages[f'steps_{name}']} steps)" if f"steps_{name}" in stages else "")
            for name in ("embedding", "refinement", "proposal")
            if f"minutes_{name}" in stages
        ]
        which = f"Later stages, round {number}" if len(rounds) > 1 else "Later stages"
        lines.append(f"- {which}, on {', '.join(entry['data'])}: {', '.join(parts)}")
    return lines


def _evaluation(row: dict[str, float | None]) -> list[str]:
    lines = [
        "## On held-out episodes",
        "",
        "| measured | value |",
        "|---|---|",
        f"| effective rank of the embedding | {_number(row['effective_rank'], 1)} |",
        f"| mean standard deviation per dimension | {_number(row['std_mean'], 3)} |",
        f"| median squared distance, one block apart | {_number(row['one_block_distance'], 3)} |",
    ]
    for key, value in row.items():
        if key.startswith("prediction_error_"):
            block = key.rsplit("_", 1)[1]
            still = _number(row.get(f"nothing_changes_{block}"), 3)
            ahead = f"error {_plural(block, 'block')} ahead over variance"
            lines.append(f"| {ahead} ('nothing changes': {still}) | {_number(value, 3)} |")
    for key, value in row.items():
        if key.startswith("probe_r2_"):
            name = key.removeprefix("probe_r2_")
            lines.append(f"| R² of an MLP probe, {name} | {_number(value, 3)} |")
    return [*lines, ""]


def _plural(count: int | str, noun: str) -> str:
    return f"{count} {noun}" + ("" if int(count) == 1 else "s")


def _speed(frames_per_s: float | None) -> str:
    return f", {frames_per_s:.0f} frames/s" if frames_per_s else ""


def _number(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def finite_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return flat figures as JSON holds them: floats rounded, None where they are not finite."""
    return {
        key: _finite(value) if isinstance(value, float) else value for key, value in row.items()
    }


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
