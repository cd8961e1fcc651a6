"""What a frame cache is once it is there: pictures, actions and states by tick; several as one.

`lewm_core.data.cache` makes and opens them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lewm_core.data.contract import Contract
from lewm_core.errors import BagError


@dataclass(frozen=True)
class EpisodeIndex:
    """Where one episode lies in the cache.

    Attributes:
        name: Of the episode.
        bag: Path of its bag.
        first: Its first tick.
        count: Number of its ticks.
    """

    name: str
    bag: str
    first: int
    count: int


@dataclass(frozen=True)
class FrameCache:
    """All episodes of a dataset, ticks one after the other.

    Attributes:
        folder: Where it is kept.
        contract: Of the bags, with the cameras only that the frames are of, in their order.
        image_size: S, px.
        episodes: In the order of the bags.
        frames: ``(N, 3 C, S, S)`` uint8, RGB, the pictures of the C cameras one after the other:
            a memory map, or several of them as one.
        frame_index: ``(K,)`` int32; row of the tick's picture in ``frames``, -1 where none.
        actions: ``(K, A)`` float32, in the contract's units; NaN where not valid.
        action_valid: ``(K,)`` bool.
        states: ``(K, S)`` float32; NaN where none was recorded.
        state_names: Of the columns of ``states``.
    """

    folder: Path
    contract: Contract
    image_size: int
    episodes: list[EpisodeIndex]
    frames: np.ndarray | JoinedFrames
    frame_index: np.ndarray
    actions: np.ndarray
    action_valid: np.ndarray
    states: np.ndarray
    state_names: list[str]

    def check(self) -> None:
        """Refuse arrays that do not belong together, of a cache that was read from a disk.

        Raises:
            ValueError: Names the first of them.
        """
        size = self.image_size
        ticks, actions = len(self.frame_index), len(self.contract.action.fields)
        wanted = {
            "frames": ((len(self.frames), 3 * len(self.contract.cameras), size, size), "uint8"),
            "frame_index": ((ticks,), "int32"),
            "actions": ((ticks, actions), "float32"),
            "action_valid": ((ticks,), "bool"),
            "states": ((ticks, len(self.state_names)), "float32"),
        }
        for name, (shape, dtype) in wanted.items():
            found = getattr(self, name)
            if found.shape != shape or found.dtype != dtype:
                raise ValueError(f"{name} is {found.dtype} {found.shape}, not {dtype} {shape}")
        if ticks and not -1 <= self.frame_index.min() <= self.frame_index.max() < len(self.frames):
            raise ValueError("frame_index leads out of the frames")
        for episode in self.episodes:
            if not 0 <= episode.first <= episode.first + episode.count <= ticks:
                raise ValueError(f"episode {episode.name!r} leads out of the ticks")

    def ticks_of(self, names: Iterable[str]) -> np.ndarray:
        """Return the ticks ``(n,)`` of some episodes, in order.

        Raises:
            BagError: There is no episode of a name.
        """
        wanted = set(names)
        unknown = wanted - {episode.name for episode in self.episodes}
        if unknown:
            raise BagError(f"there is no episode {sorted(unknown)[0]!r} in the data")
        parts = [
            np.arange(episode.first, episode.first + episode.count)
            for episode in self.episodes
            if episode.name in wanted
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class JoinedFrames:
    """The pictures of several caches, as if they lay behind one another; read by row numbers."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._parts = parts
        self._first = np.cumsum([0, *(len(part) for part in parts)])
        self.shape = (int(self._first[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: ArrayLike | slice) -> np.ndarray:
        """Return the pictures of rows of any shape."""
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows)
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for first, part in zip(self._first, self._parts, strict=False):
            here = (rows >= first) & (rows < first + len(part))
            if here.any():
                found[here] = part[rows[here] - first]
        return found


def join_caches(caches: list[FrameCache]) -> FrameCache:
    """Return several caches of one contract and size as one.

    Args:
        caches: At least one. What is joined has the folder of the first.
    """
    if len(caches) == 1:
        return caches[0]
    episodes: list[EpisodeIndex] = []
    index: list[np.ndarray] = []
    ticks = rows = 0
    for cache in caches:
        episodes += [replace(entry, first=entry.first + ticks) for entry in cache.episodes]
        index.append(np.where(cache.frame_index >= 0, cache.frame_index + rows, -1))
        ticks += len(cache.frame_index)
        rows += len(cache.frames)
    return replace(
        caches[0],
        episodes=episodes,
        frames=JoinedFrames([cache.frames for cache in caches]),
        frame_index=np.concatenate(index).astype(np.int32),
        actions=np.concatenate([cache.actions for cache in caches]),
        action_valid=np.concatenate([cache.action_valid for cache in caches]),
        states=np.concatenate([cache.states for cache in caches]),
    )
