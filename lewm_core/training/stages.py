"""What follows the world model's own training: refinement of the predictor, then the proposal.

Both work on embeddings of a frozen encoder, take minutes, and are a function of (settings, seed,
weights at the end of the first stage). A run that is killed in one of them and continued with
``resume`` begins that stage anew and ends with the same weights.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lewm_core.errors import BagError
from lewm_core.model.checkpoint import save_checkpoint
from lewm_core.model.world_model import WorldModel
from lewm_core.training.card import finite_row, model_card
from lewm_core.training.config import TrainConfig
from lewm_core.training.data import TrainingData
from lewm_core.training.embeddings import embed_episodes
from lewm_core.training.machine import stage_autocast
from lewm_core.training.measure import Measurement, StateProbe, measure
from lewm_core.training.progress import StageProgress
from lewm_core.training.proposal import ProposalScore, score_proposal, train_proposal
from lewm_core.training.refinement import refine_predictor
from lewm_core.training.run import RunFolder

_log = logging.getLogger(__name__)

#: Apart from the seeds of the first stage, which are (seed, step).
_REFINEMENT_SEED, _PROPOSAL_SEED = 1_000_003, 2_000_003


@dataclass
class StagesResult:
    """How the stages ended.

    Attributes:
        minutes: Of each, by name: ``embedding``, ``refinement``, ``proposal``.
        steps: Optimiser steps of each that makes some.
        measurement: Of the refined model on held-out episodes; None if it was not refined.
        score: Of the proposal on held-out episodes; None if there is none.
    """

    minutes: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    measurement: Measurement | None = None
    score: ProposalScore | None = None

    def row(self) -> dict[str, Any]:
        """Flat figures for ``--json``."""
        row: dict[str, Any] = {f"minutes_{name}": round(v, 3) for name, v in self.minutes.items()}
        row |= {f"steps_{name}": steps for name, steps in self.steps.items()}
        if self.score is not None:
            row |= self.score.row()
        return row


def run_stages(
    model: WorldModel,
    data: TrainingData,
    config: TrainConfig,
    folder: RunFolder,
    device: torch.device,
    probe: StateProbe | None,
    metadata: dict[str, Any],
    command: str,
    *,
    alone: bool = False,
) -> StagesResult:
    """Run what ``config`` asks for and write the checkpoint anew.

    Args:
        model: At the end of its own training; refined in place, and given its proposal.
        data: The same episodes.
        config: All settings, resolved.
        folder: Its checkpoint is replaced.
        device: Where to compute.
        probe: Scores states; None measures without.
        metadata: Of the checkpoint so far; extended in place.
        command: For the model card.
        alone: No first stage went before, so all of ``config.minutes`` is for these.

    Raises:
        BagError: No episode is long enough.
        FloatingPointError: A loss is not finite; the checkpoint of the stage before is kept.
    """
    result = StagesResult()
    model.eval()
    autocast = stage_autocast(config.precision, device)
    begun = time.monotonic()
    episodes = embed_episodes(model, data.cache, data.trained, device)
    result.minutes["embedding"] = (time.monotonic() - begun) / 60
    if config.refinement is not None:
        begun = time.monotonic()
        with StageProgress("refinement") as report:
            result.steps["refinement"] = refine_predictor(
                model,
                episodes,
                config.refinement,
                seed=config.seed + _REFINEMENT_SEED,
                autocast=autocast,
                deadline=_deadline(config, config.refinement.time_share, begun, alone),
                report=report,
            )
        result.minutes["refinement"] = (time.monotonic() - begun) / 60
        fitted, scored, clips = data.measurement_frames(config, final=True)
        result.measurement = measure(model, fitted, scored, clips, config.monitor, probe)
        metadata["evaluation"] |= finite_row(result.measurement.row())
        _save(model, data, folder, metadata, result, command)
    if config.proposal is not None:
        begun = time.monotonic()
        limits = block_limits(model, data)
        with StageProgress("proposal") as report:
            model.proposal = train_proposal(
                model,
                episodes,
                config.proposal,
                seed=config.seed + _PROPOSAL_SEED,
                limits=limits,
                autocast=autocast,
                deadline=_deadline(config, config.proposal.time_share, begun, alone),
                report=report,
                start=model.proposal,
            )
        result.steps["proposal"] = report.steps
        result.minutes["proposal"] = (time.monotonic() - begun) / 60
        _save(model, data, folder, metadata, result, command)
        held_out = embed_episodes(model, data.cache, data.held_out, device)
        try:
            result.score = score_proposal(model, model.proposal, held_out, limits)
        except BagError as error:
            # What was trained is kept; only its score is not known.
            _log.warning("the proposal is not scored on held-out episodes: %s", error)
        _save(model, data, folder, metadata, result, command)
    return result


def block_limits(model: WorldModel, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Return the contract's action limits as normalised blocks, lower and upper ``(F * A,)``."""
    lower, upper, *_ = data.contract.action_limits()
    device = model.action_mean.device

    def block(limit: Any) -> Tensor:
        values = torch.as_tensor(limit, dtype=torch.float32, device=device)
        with torch.no_grad():
            return model.normalise_actions(values.expand(model.frame_skip, -1))

    return block(lower), block(upper)


def _deadline(config: TrainConfig, share: float, begun: float, alone: bool) -> float | None:
    if config.minutes is None:
        return None
    return begun + 60 * config.minutes * share / (config.later_share if alone else 1.0)


def _save(
    model: WorldModel,
    data: TrainingData,
    folder: RunFolder,
    metadata: dict[str, Any],
    result: StagesResult,
    command: str,
) -> None:
    metadata["stages"] = finite_row(result.row())
    save_checkpoint(
        folder.checkpoint,
        model,
        data.contract.to_dict(),
        metadata,
        model_card(metadata, command),
    )
