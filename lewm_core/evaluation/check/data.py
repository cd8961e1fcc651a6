"""Which episodes a checkpoint may be checked on: those it was never trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.data.cache import build_cache
from lewm_core.data.clips import ClipSampler
from lewm_core.data.contract import Contract
from lewm_core.data.frame_cache import FrameCache
from lewm_core.errors import BagError, UserError
from lewm_core.model.world_model import WorldModel
from lewm_core.training.data import find_contract
from lewm_core.training.measure import LabelledFrames, pick_frames

#: Blocks that predictions are rolled out for: the horizon of the planner.
HORIZON = 5
#: Fewer episodes than this cannot be parted into some to fit probes on and some to score them on.
FEWEST_EPISODES = 4
#: Below this many a verdict depends on which episodes they happen to be.
FEW_EPISODES = 20
#: Part of the held-out episodes that probes are fitted on, where no others are there for it.
_FITTED = 0.6
#: Pictures of training episodes that probes are fitted on, for each that they are scored on.
_FITTED_PER_SCORED = 3


@dataclass(frozen=True)
class CheckData:
    """Episodes that the checkpoint has not seen.

    Attributes:
        cache: Frames, actions and states of all episodes of the data.
        contract: What they were recorded under.
        episodes: Names of the episodes that are used.
        trained: Names of the others: the model was trained on them.
        sources: Names of the folders or files, without their paths.
        clips: Clips of ``history + HORIZON`` frames of the episodes.
    """

    cache: FrameCache
    contract: Contract
    episodes: list[str]
    trained: list[str]
    sources: list[str]
    clips: ClipSampler

    @property
    def excluded(self) -> int:
        """How many episodes are left out of what is measured."""
        return len(self.trained)

    def probe_frames(self, most: int) -> tuple[LabelledFrames, LabelledFrames]:
        """Return frames to fit probes on and frames to score them on, of different episodes.

        A probe is fitted on the episodes that the model was trained on, if some are there: what is
        the same for an episode, such as where a door is, shows as many values as there are
        episodes, and a hundred held-out ones are too few to learn to read it from. It is scored on
        held-out ones only.

        Args:
            most: Upper bound on both together, where all are held out; else half of it is scored.
        """
        if len(self.trained) > len(self.episodes):
            scored = most // 2
            return (
                self._frames(self.trained, _FITTED_PER_SCORED * scored),
                self._frames(self.episodes, scored),
            )
        fitted = max(2, round(_FITTED * len(self.episodes)))
        return (
            self._frames(self.episodes[:fitted], round(_FITTED * most)),
            self._frames(self.episodes[fitted:], round((1 - _FITTED) * most)),
        )

    def episode_frames(self, most_episodes: int) -> list[np.ndarray]:
        """Return rows of ``cache.frames`` of some episodes, one block apart, in their order."""
        step = self.clips.frame_skip
        chosen = []
        for name in _spread(self.episodes, most_episodes):
            ticks = self.cache.ticks_of([name])
            with_picture = np.flatnonzero(self.cache.frame_index[ticks] >= 0)
            if not len(with_picture):
                continue
            rows = self.cache.frame_index[ticks[with_picture[0] :: step]]
            chosen.append(rows[rows >= 0])
        return chosen

    def _frames(self, names: Sequence[str], most: int) -> LabelledFrames:
        return pick_frames(self.cache, self.cache.ticks_of(names), most)


def open_check_data(
    checkpoint: str | Path, model: WorldModel, paths: Sequence[Path], cache_dir: Path | None = None
) -> CheckData:
    """Read bags and choose the episodes that the checkpoint was not trained on.

    Args:
        checkpoint: For messages.
        model: As loaded; ``metadata`` says what it was trained on, ``contract`` how to read.
        paths: Dataset folders, bag folders or bag files.
        cache_dir: Of the frame cache; default: the user's.

    Raises:
        UserError: The bags cannot be read, were recorded under another contract, or hold no (or
            too few) episodes that the model was not trained on.
    """
    contract = (
        Contract.from_dict(model.contract, f"contract in {checkpoint}")
        if model.contract is not None
        else find_contract(paths)
    )
    inputs = model.config.inputs
    cache = build_cache(
        paths, contract, model.config.image_size, cache_dir, cameras=inputs.cameras
    )
    names = [episode.name for episode in cache.episodes]
    usable = unseen_episodes(names, model.metadata, checkpoint)
    if len(usable) < FEWEST_EPISODES:
        raise UserError(
            f"{_listed(paths)}: only {len(usable)} of {len(names)} episodes were held out of the "
            f"training of {checkpoint}; a check needs {FEWEST_EPISODES} at least: give more bags"
        )
    try:
        clips = ClipSampler(
            cache,
            usable,
            model.history + HORIZON,
            model.frame_skip,
            batch_size=128,
            seed=0,
            inputs=inputs.state_names,
        )
    except BagError as error:
        raise BagError(
            f"the held-out episodes cannot be planned in: {error} (history {model.history} and "
            f"{HORIZON} blocks ahead)"
        ) from error
    if len(np.unique(episodes_of(cache, clips.starts))) < 2:
        raise BagError(
            f"{_listed(paths)}: only one held-out episode is long enough for "
            f"{model.history} pictures and {HORIZON} blocks; give more or longer bags"
        )
    sources = [Path(path).resolve().name for path in paths]
    held_out = set(usable)
    trained = [name for name in names if name not in held_out]
    return CheckData(cache, contract, usable, trained, sources, clips)


def unseen_episodes(
    names: Iterable[str], metadata: Mapping[str, Any], checkpoint: str | Path
) -> list[str]:
    """Return the episodes that a checkpoint was not trained on, in the order given.

    Pieces of one recording (``NAME``, ``NAME+1``) stay together: their pictures are too much
    alike for one to be held out while the other is trained on.

    Args:
        names: Of the episodes in the data.
        metadata: Of the checkpoint; ``trained_episodes`` is what counts. Data in which none of
            its episodes appears may be used whole.
        checkpoint: For the message.

    Raises:
        UserError: There is none, or the checkpoint does not say what it was trained on.
    """
    trained = metadata.get("trained_episodes")
    if not isinstance(trained, list):
        raise UserError(
            f"{checkpoint}: model.json has no training.trained_episodes, so nobody can tell which "
            "episodes it was trained on; write an empty list there if none of the data was"
        )
    seen = {_recording(str(name)) for name in trained}
    unique = list(dict.fromkeys(names))
    unseen = [name for name in unique if _recording(name) not in seen]
    if not unseen:
        raise UserError(
            f"no held-out episode: {checkpoint} was trained on all {len(unique)} episodes of the "
            "data, and on those every model looks good; record or collect fresh ones"
        )
    return unseen


def episodes_of(cache: FrameCache, ticks: np.ndarray) -> np.ndarray:
    """Return the numbers (N,) of the episodes that ticks (N,) of a cache belong to."""
    first = np.array([episode.first for episode in cache.episodes])
    return np.searchsorted(first, ticks, side="right") - 1


def _recording(name: str) -> str:
    return re.sub(r"\+\d+$", "", name)


def _spread(names: Sequence[str], most: int) -> list[str]:
    """Return up to ``most`` names, evenly spread."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)
