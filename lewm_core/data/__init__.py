"""Contracts, bags, aligned episodes, the frame cache and the clips that training draws from it."""

from __future__ import annotations

import importlib
from typing import Any

# Imported on first use: nodes need contracts and pictures, but neither torch nor bags.
_HOMES = {
    "AlignedEpisode": "alignment",
    "BagReader": "bags",
    "BagWriter": "bags",
    "Camera": "contract_parts",
    "ClipSampler": "clips",
    "Clips": "clips",
    "Contract": "contract",
    "FrameCache": "cache",
    "align_episode": "alignment",
    "build_cache": "cache",
    "contract_differences": "contract_comparison",
    "find_bags": "bags",
    "is_held_out": "split",
    "load_contract": "contract",
    "prepare_picture": "images",
    "save_contract": "contract",
    "split_episodes": "split",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
