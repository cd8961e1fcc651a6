"""Clips: what one training step sees.

A clip is T pictures, F control ticks apart, and the actions between them. F ticks are a "block":
block t of a clip is executed from picture t to picture t+1 (arXiv 2603.19312: frame skip 5).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lewm_core.data.frame_cache import EpisodeIndex, FrameCache
from lewm_core.errors import BagError

_LOGGER = logging.getLogger(__name__)

#: A dimension whose deviation is under this part of its range is constant for all purposes.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Clips:
    """A batch of clips.

    Attributes:
        frames: ``(B, T, 3 C, S, S)`` uint8 RGB; where the sampler's pictures are.
        actions: ``(B, T, F, A)`` float32, in the contract's units; block t leads from frame t to
            t+1. In the last block, actions that were not recorded are NaN.
        states: ``(B, T, S)`` float32 at the frames; NaN where none was recorded.
        inputs: ``(B, T, P)`` float32, those columns of the states that the model is given; None if
            it is given pictures only.
    """

    frames: Tensor
    actions: Tensor
    states: Tensor
    inputs: Tensor | None = None


class ClipSampler:
    """Draws batches of clips from some episodes; the same ones for the same (seed, step).

    Every clip is drawn once before any is drawn again; what does not fill a batch at the end of
    an epoch is left out. Several processes share an epoch by asking for different steps
    (``step * processes + rank``).

    Attributes:
        starts: ``(number_of_clips,)`` first ticks of all clips.
        number_of_clips: How many different clips there are.
    """

    def __init__(
        self,
        cache: FrameCache,
        episodes: Iterable[str],
        clip_length: int,
        frame_skip: int,
        batch_size: int,
        seed: int,
        pictures: Tensor | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        """Find the clips.

        Args:
            cache: All episodes.
            episodes: Names of those to draw from.
            clip_length: T, pictures.
            frame_skip: F, control ticks from picture to picture.
            batch_size: B.
            seed: Of the order.
            pictures: ``(N, 3 C, S, S)`` uint8, the cache's pictures on a GPU; clips are gathered
                there then. None: from the cache.
            inputs: Names of the P state fields that the model is given.

        Raises:
            BagError: No episode has a clip, or an episode is unknown; the message says why.
        """
        if min(clip_length, frame_skip, batch_size) < 1:
            raise ValueError("clip_length, frame_skip and batch_size must be 1 at least")
        self.cache = cache
        self.clip_length = clip_length
        self.frame_skip = frame_skip
        self.batch_size = batch_size
        self.seed = seed
        self._pictures = pictures
        self._inputs = [cache.state_names.index(name) for name in inputs]
        self._ticks = cache.ticks_of(episodes)
        chosen = set(episodes)
        entries = [entry for entry in cache.episodes if entry.name in chosen]
        self.starts = np.concatenate(
            [np.zeros(0, np.int64), *(self._starts_in(entry) for entry in entries)]
        )
        self.number_of_clips = len(self.starts)
        if not self.number_of_clips:
            raise BagError(self._why_none(entries))
        # A block after the last picture may reach into the next episode; it ends there instead.
        self._episode_end = np.zeros(len(cache.frame_index), np.int64)
        for entry in cache.episodes:
            self._episode_end[entry.first : entry.first + entry.count] = entry.first + entry.count
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches until clips come again."""
        return max(1, self.number_of_clips // self.batch_size)

    def batch(self, step: int) -> Clips:
        """Return the batch of a step.

        Args:
            step: 0, 1, 2, ...; any order.
        """
        return self.clips(self.starts[self._choice(step)])

    def clips(self, starts: np.ndarray) -> Clips:
        """Return the clips that begin at some ticks ``(B,)`` of `starts`."""
        cache, length, skip = self.cache, self.clip_length, self.frame_skip
        ticks = starts[:, None] + skip * np.arange(length)
        rows = cache.frame_index[ticks]
        blocks = ticks[:, :, None] + np.arange(skip)
        inside = blocks < self._episode_end[starts][:, None, None]
        blocks = np.where(inside, blocks, starts[:, None, None])
        actions = cache.actions[blocks].astype(np.float32)
        actions[~(inside & cache.action_valid[blocks])] = np.nan
        states = cache.states[ticks].astype(np.float32)
        return Clips(
            self._gather(rows),
            torch.from_numpy(actions),
            torch.from_numpy(states),
            torch.from_numpy(states[..., self._inputs]) if self._inputs else None,
        )

    def _gather(self, rows: np.ndarray) -> Tensor:
        """Return the pictures of rows ``(B, T)`` as ``(B, T, 3 C, S, S)``."""
        if self._pictures is None:
            return torch.from_numpy(np.asarray(self.cache.frames[rows]))
        return self._pictures[torch.from_numpy(rows.astype(np.int64)).to(self._pictures.device)]

    def action_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean ``(A,)`` and standard deviation ``(A,)`` of all valid actions, float32.

        A deviation is never under a thousandth of the field's range: a constant field would
        otherwise turn its noise into the largest input. Such fields are named in a warning.

        Raises:
            BagError: No action of these episodes is valid.
        """
        actions = self.cache.actions[self._ticks][self.cache.action_valid[self._ticks]]
        if not len(actions):
            raise BagError("no command was in force in any episode; see timeout in the contract")
        actions = actions.astype(np.float64)
        lower, upper, _, _ = self.cache.contract.action_limits()
        smallest = _SMALLEST_DEVIATION * (upper - lower)
        deviation = actions.std(axis=0)
        names = self.cache.contract.action_names
        constant = [name for name, small in zip(names, deviation < smallest, strict=True) if small]
        if constant:
            _LOGGER.warning(
                "action field%s %s never change%s in the data: the model cannot learn what they do",
                "" if len(constant) == 1 else "s",
                ", ".join(constant),
                "s" if len(constant) == 1 else "",
            )
        return (
            actions.mean(axis=0).astype(np.float32),
            np.maximum(deviation, smallest).astype(np.float32),
        )

    def input_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean ``(P,)`` and standard deviation ``(P,)`` of the model's inputs, float32.

        A field that never changes has a deviation of 1, so that it is 0 afterwards.

        Raises:
            BagError: A field was never recorded in these episodes.
        """
        values = self.cache.states[self._ticks][:, self._inputs].astype(np.float64)
        for column, index in enumerate(self._inputs):
            if not np.isfinite(values[:, column]).any():
                raise BagError(
                    f"state field {self.cache.state_names[index]!r} was recorded in no episode, "
                    "but the model is to be given it; leave it out of model.inputs.state"
                )
        if not self._inputs:
            return np.zeros(0, np.float32), np.ones(0, np.float32)
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        constant = deviation <= _SMALLEST_DEVIATION * np.abs(mean)
        return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)

    def _choice(self, step: int) -> np.ndarray:
        """Return which clips ``(B,)`` the batch of a step has."""
        epoch, number = divmod(step, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            self._order = epoch, random.permutation(self.number_of_clips)
        begin = number * self.batch_size
        # Fewer clips than a batch has places: they come several times.
        places = np.arange(begin, begin + self.batch_size) % self.number_of_clips
        return self._order[1][places]

    def _starts_in(self, entry: EpisodeIndex) -> np.ndarray:
        """Return the ticks of an episode at which a whole clip begins."""
        span = (self.clip_length - 1) * self.frame_skip
        count = entry.count - span
        if count <= 0:
            return np.zeros(0, np.int64)
        ticks = slice(entry.first, entry.first + entry.count)
        present = self.cache.frame_index[ticks] >= 0
        good = np.ones(count, bool)
        for position in range(self.clip_length):
            begin = position * self.frame_skip
            good &= present[begin : begin + count]
        invalid = np.concatenate([[0], np.cumsum(~self.cache.action_valid[ticks])])
        good &= invalid[span : span + count] == invalid[:count]
        return entry.first + np.flatnonzero(good)

    def _why_none(self, entries: list[EpisodeIndex]) -> str:
        ticks = (self.clip_length - 1) * self.frame_skip + 1
        text = (
            f"no clip of {self.clip_length} pictures, {self.frame_skip} ticks apart, in "
            f"{len(entries)} episodes: "
        )
        longest = max((entry.count for entry in entries), default=0)
        if longest < ticks:
            return text + f"the longest has {longest} ticks, a clip needs {ticks}; record longer"
        present = np.flatnonzero(self.cache.frame_index[self._ticks] >= 0)
        if len(present) > 1:
            apart = float(np.median(np.diff(present)))
            if self.frame_skip % apart:
                return text + (
                    f"pictures come every {apart:g} ticks; make frame_skip a multiple of that"
                )
        valid = float(self.cache.action_valid[self._ticks].mean()) if len(self._ticks) else 0.0
        return text + (
            f"commands are in force at {valid:.0%} of the ticks; check clock and timeout of the "
            "action in the contract"
        )
