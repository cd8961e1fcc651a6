"""Episodes as a trained encoder sees them: the data of the stages that follow the world model.

Once the encoder is frozen, every picture has one embedding. Computed once, they turn minutes of
convolutions into a table in memory, and a training step into matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lewm_core.data.frame_cache import FrameCache
from lewm_core.errors import BagError
from lewm_core.model.world_model import WorldModel

#: Pictures encoded at once.
_CHUNK = 1024


@dataclass(frozen=True)
class EmbeddedEpisodes:
    """Embeddings and actions of some episodes, addressed by control tick.

    F: control steps in a block. A tick's neighbours at a distance of whole blocks are its past and
    its future.

    Attributes:
        z: ``(n, D)`` float32, one row per picture.
        row: ``(K,)`` int64; the tick's row in ``z``, -1 where it has no picture.
        blocks: ``(K, F * A)`` float32, the normalised block that begins at the tick; commands
            that were not recorded are 0.
        ahead: ``(K,)`` int64; blocks that follow the tick, each with its picture; -1 where the
            tick itself has none.
        behind: ``(K,)`` int64; the same before it.
        frame_skip: F.
    """

    z: Tensor
    row: Tensor
    blocks: Tensor
    ahead: Tensor
    behind: Tensor
    frame_skip: int

    def ticks(self, behind: int, ahead: int) -> Tensor:
        """Return the ticks ``(n,)`` with so many blocks behind and ahead of them.

        Raises:
            BagError: There is none: all episodes are too short.
        """
        ticks = ((self.behind >= behind) & (self.ahead >= ahead)).nonzero()[:, 0]
        if not len(ticks):
            raise BagError(
                f"no episode has {behind + ahead + 1} pictures one block apart; record longer "
                "episodes, or shorten what is trained on"
            )
        return ticks

    def states(self, ticks: Tensor, offsets: Tensor) -> Tensor:
        """Return embeddings ``(n, k, D)`` at ``ticks`` ``(n,)`` plus ``offsets`` ``(n or 1, k)``
        in blocks; the pictures must be there."""
        return self.z[self.row[ticks[:, None] + offsets * self.frame_skip]]

    def actions(self, ticks: Tensor, offsets: Tensor) -> Tensor:
        """Return the blocks ``(n, k, F * A)`` that begin there."""
        return self.blocks[ticks[:, None] + offsets * self.frame_skip]


def embed_episodes(
    model: WorldModel, cache: FrameCache, names: Iterable[str], device: torch.device
) -> EmbeddedEpisodes:
    """Encode every picture of some episodes once.

    Args:
        model: In eval mode, on ``device``.
        cache: All episodes.
        names: Of those to encode.
        device: Where the result lies.
    """
    columns = [cache.state_names.index(name) for name in model.config.inputs.state_names]
    ticks = cache.ticks_of(names)
    rows = np.full(len(cache.frame_index), -1, np.int64)
    seen = ticks[cache.frame_index[ticks] >= 0]
    rows[seen] = np.arange(len(seen))
    pictures = cache.frame_index[seen]
    parts = []
    with torch.inference_mode():
        for begin in range(0, len(pictures), _CHUNK):
            chunk = np.asarray(cache.frames[pictures[begin : begin + _CHUNK]])
            frames = torch.from_numpy(chunk)[None].to(device)
            given = None
            if columns:
                values = cache.states[seen[begin : begin + _CHUNK]][:, columns]
                given = torch.from_numpy(values.astype(np.float32))[None].to(device)
            parts.append(model.encode(frames, given)[0])
    z = torch.cat(parts) if parts else torch.zeros((0, model.latent_dim), device=device)
    ahead, behind = _neighbours(cache, set(names), rows >= 0, model.frame_skip)
    return EmbeddedEpisodes(
        z.clone(),  # out of inference mode: training needs an ordinary tensor
        torch.from_numpy(rows).to(device),
        _blocks(model, cache, device),
        torch.from_numpy(ahead).to(device),
        torch.from_numpy(behind).to(device),
        model.frame_skip,
    )


def _neighbours(
    cache: FrameCache, names: set[str], has_picture: np.ndarray, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count for every tick the blocks that follow and precede it without a gap."""
    ahead = np.full(len(has_picture), -1, np.int64)
    behind = np.full(len(has_picture), -1, np.int64)
    for episode in cache.episodes:
        if episode.name not in names:
            continue
        there = has_picture[episode.first : episode.first + episode.count]
        after, before = ahead[episode.first :], behind[episode.first :]
        for phase in range(min(skip, len(there))):
            line = slice(phase, len(there), skip)
            after[line] = _run_lengths(there[line][::-1])[::-1]
            before[line] = _run_lengths(there[line])
    return ahead, behind


def _run_lengths(there: np.ndarray) -> np.ndarray:
    """``[1, 1, 0, 1]`` to ``[0, 1, -1, 0]``: how many of their kind directly precede."""
    places = np.arange(len(there))
    last_gap = np.maximum.accumulate(np.where(there, -1, places))
    return np.where(there, places - last_gap - 1, -1)


def _blocks(model: WorldModel, cache: FrameCache, device: torch.device) -> Tensor:
    """Normalised blocks ``(K, F * A)``; ticks beyond the end of the data count as missing."""
    skip = model.frame_skip
    actions = np.where(cache.action_valid[:, None], cache.actions, np.nan)
    padding = np.full((skip - 1, actions.shape[1]), np.nan, np.float32)
    padded = torch.from_numpy(np.concatenate([actions, padding]).astype(np.float32))
    with torch.no_grad():
        return model.normalise_actions(padded.to(device).unfold(0, skip, 1).transpose(1, 2))
