"""The world model: encoder, projector, predictor, loss, and checkpoint files.

Names are loaded on first use, so that a program which only reads a configuration does not pay
for importing torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ActionEncoderConfig": "config",
    "KeypointEncoderConfig": "config",
    "LossConfig": "config",
    "MlpPredictorConfig": "config",
    "ModelConfig": "config",
    "PredictorConfig": "config",
    "ProjectorConfig": "config",
    "Proposal": "proposal",
    "ProposalConfig": "config",
    "VitEncoderConfig": "config",
    "FastRollout": "fast_rollout",
    "LewmLoss": "loss",
    "LossTerms": "loss",
    "lewm_loss": "loss",
    "SIGReg": "sigreg",
    "WorldModel": "world_model",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
