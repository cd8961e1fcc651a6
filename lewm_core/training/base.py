"""The checkpoint that a run goes on from: ``lewm-train --refine CHECKPOINT``.

Its encoder stands still and the first stage is left out; predictor and proposal go on learning on
whatever data are given now, such as bags of the checkpoint's own driving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lewm_core
from lewm_core.data.contract import Contract
from lewm_core.data.contract_comparison import require_contract
from lewm_core.errors import ConfigError
from lewm_core.model.verdict import weights_digest
from lewm_core.model.world_model import WorldModel
from lewm_core.paths import checkpoint_path
from lewm_core.training.config import TrainConfig
from lewm_core.training.data import TrainingData

#: Settings of the model and of the stage that --refine leaves out.
_FIRST_STAGE = (
    "model", "loss", "optimiser", "batch_size", "clip_length", "steps", "epochs", "compile",
    "checkpoint_every", "evaluate_every", "log_every",
)


def load_base(checkpoint: str | Path, contract: Contract) -> WorldModel:
    """Load the checkpoint to go on from.

    Raises:
        ConfigError: There is no such checkpoint.
        CheckpointError: It is damaged.
        ContractError: It was trained under another contract than the data were recorded under.
    """
    model = lewm_core.load(checkpoint_path(checkpoint))
    require_contract(model.contract, contract, str(checkpoint))
    return model


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse settings on the command line that a run without a first stage does not use.

    Raises:
        ConfigError: Names the first one.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.split(".")[0] in _FIRST_STAGE:
            raise ConfigError(
                f"{key} has no effect with --refine: architecture and first stage are the "
                "checkpoint's; leave it out, or train anew without --refine"
            )


def base_config(config: TrainConfig, model: WorldModel) -> TrainConfig:
    """Return the settings with the checkpoint's architecture in the place of the preset's.

    Raises:
        ConfigError: The settings have no stage that would do anything.
    """
    if config.refinement is None and config.proposal is None:
        raise ConfigError(
            f"preset {config.name!r} has neither a refinement nor a proposal stage, so --refine "
            "would do nothing; use preset nano"
        )
    return config.model_copy(update={"model": model.config})


def base_record(checkpoint: str | Path) -> dict[str, str]:
    """Return which weights a run goes on from; a resumed run must have the same."""
    folder = checkpoint_path(checkpoint)
    return {"checkpoint": folder.resolve().name, "weights_sha256": weights_digest(folder)}


def continued_metadata(
    metadata: Mapping[str, Any],
    data: TrainingData,
    config: TrainConfig,
    record: Mapping[str, str],
) -> dict[str, Any]:
    """Return the checkpoint's metadata as they go on: nothing it was trained on is forgotten.

    Args:
        metadata: Of the checkpoint; what it says about its first stage still holds.
        data: Of this run.
        config: Of this run.
        record: Of `base_record`.
    """
    trained = _union(metadata.get("trained_episodes", ()), data.trained)
    known = set(trained)
    origins = [*metadata.get("data_sources", ()), *(o.to_dict() for o in data.origins)]
    before = {
        "base": dict(record),
        "data": list(metadata.get("data", ())),
        "settings": metadata.get("settings", {}),
        "stages": metadata.get("stages", {}),
    }
    latent = dict(metadata.get("latent", {}))
    if config.goal_tolerance_factor is not None:
        latent["goal_tolerance_factor"] = config.goal_tolerance_factor
    return {
        **metadata,
        "latent": latent,
        "data": _union(metadata.get("data", ()), data.sources),
        "data_sources": [o for i, o in enumerate(origins) if o not in origins[:i]],
        "frames_recorded": len(data.cache.frames),
        "trained_episodes": trained,
        "held_out_episodes": [
            name
            for name in _union(metadata.get("held_out_episodes", ()), data.held_out)
            if name not in known
        ],
        "settings": config.to_dict(),
        "evaluation": dict(metadata.get("evaluation", {})),
        "former_stages": [*metadata.get("former_stages", ()), before],
    }


def _union(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))
