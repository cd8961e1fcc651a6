"""Who drives a scene, and the bags of it: the scripted expert, random commands, a planner.

>>> from lewm_core.collection import EpisodeCollector
>>> from lewm_core.data.contract import load_contract
>>> collector = EpisodeCollector("push_t", load_contract("push_t"))
"""

from __future__ import annotations

from lewm_core.collection.random_driver import RandomDriver, random_driver
from lewm_core.collection.recording import (
    EpisodeCollector,
    EpisodeRecorder,
    check_scene_contract,
)

__all__ = [
    "EpisodeCollector",
    "EpisodeRecorder",
    "RandomDriver",
    "check_scene_contract",
    "random_driver",
]
