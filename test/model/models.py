"""Small models that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lewm_core.model import (
    ActionEncoderConfig,
    KeypointEncoderConfig,
    MlpPredictorConfig,
    ModelConfig,
    PredictorConfig,
    ProjectorConfig,
    VitEncoderConfig,
    WorldModel,
)


def keypoint_config(**changes: Any) -> ModelConfig:
    """A model for a CPU at 16 px, like the preset nano but smaller."""
    settings: dict[str, Any] = {
        "encoder": KeypointEncoderConfig(image_size=16, channels=(4, 8), keypoints=6),
        "embedding_dim": 8,
        "projector": ProjectorConfig(hidden=24),
        "action_encoder": ActionEncoderConfig(hidden=24),
        "predictor": PredictorConfig(
            width=16, depth=2, heads=2, head_dim=8, mlp_dim=32, dropout=0.0, residual=True,
            projector=None,
        ),
        "action_dim": 2,
    }
    return ModelConfig(**{**settings, **changes})


def vit_config(**changes: Any) -> ModelConfig:
    """The paper's architecture with every size cut down."""
    settings: dict[str, Any] = {
        "encoder": VitEncoderConfig(
            image_size=28, patch_size=14, width=12, depth=2, heads=3, mlp_dim=24
        ),
        "embedding_dim": 12,
        "projector": ProjectorConfig(hidden=24),
        "action_encoder": ActionEncoderConfig(hidden=24),
        "predictor": PredictorConfig(
            width=12, depth=3, heads=4, head_dim=6, mlp_dim=24,
            projector=ProjectorConfig(hidden=24),
        ),
        "action_dim": 2,
    }
    return ModelConfig(**{**settings, **changes})


def mlp_config(**changes: Any) -> ModelConfig:
    """As `keypoint_config`, with the predictor that has no attention."""
    predictor = MlpPredictorConfig(width=16, depth=2)
    return keypoint_config(**{"predictor": predictor, **changes})


def trained_looking(config: ModelConfig, seed: int = 0) -> WorldModel:
    """A model in eval mode none of whose weights is zero: nothing is hidden by a closed gate."""
    torch.manual_seed(seed)
    model = WorldModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def some_frames(config: ModelConfig, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random pictures (B, T, 3, H, W), uint8."""
    size = config.image_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (batch, length, 3, size, size), dtype=torch.uint8, generator=generator
    )
