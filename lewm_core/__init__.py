"""A world model that a robot trains from its own recordings and plans with in real time.

`load` opens a checkpoint. Sub-packages are imported on first use (``lewm_core.planning.CEM``),
so ``import lewm_core`` is cheap. Nothing in here imports ROS.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from lewm_core.model.world_model import WorldModel

__version__ = "0.1.0"

_PACKAGES = (
    "commands",
    "data",
    "errors",
    "evaluation",
    "model",
    "planning",
    "scenes",
    "training",
)

__all__ = ["__version__", "load"]


def load(path: str | Path) -> WorldModel:
    """Open a checkpoint; the model comes back in eval mode on the CPU.

    Args:
        path: A checkpoint folder, or the name of a shipped one, such as ``push_t-nano``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or of another format.
    """
    from lewm_core.model.checkpoint import load_checkpoint

    return load_checkpoint(path)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
