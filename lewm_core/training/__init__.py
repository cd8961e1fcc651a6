"""Training: settings, the loop, and the monitors that say what the loss does not."""

from __future__ import annotations

from lewm_core.training.config import TrainConfig, load_train_config

__all__ = ["TrainConfig", "load_train_config"]
