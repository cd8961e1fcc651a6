"""What a run trains on: a frame cache, the contract, and the two sides of the split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lewm_core.data.cache import build_cache
from lewm_core.data.clips import ClipSampler
from lewm_core.data.contract import CONTRACT_FILE, Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.data.frame_cache import FrameCache
from lewm_core.data.observation import given_state
from lewm_core.data.origin import Origin, read_origins
from lewm_core.data.split import split_episodes
from lewm_core.errors import BagError, ContractError
from lewm_core.training.config import TrainConfig
from lewm_core.training.measure import LabelledFrames, pick_frames

_log = logging.getLogger(__name__)

#: Seed of the order of held-out clips: the same clips are measured whatever the run's seed.
_HELD_OUT_SEED = 0

#: Part of a GPU's free memory that pictures may take; the rest is for the training itself.
_PICTURES_SHARE = 0.4
#: Pictures copied at once.
_CHUNK = 8192


@dataclass
class TrainingData:
    """The data of one run.

    Attributes:
        cache: Frames, actions and states of all episodes.
        contract: What they were recorded under.
        trained: Names of the episodes that are trained on.
        held_out: Names of the episodes that are only measured on.
        sources: Names of the folders or files they came from, without their paths.
        origins: Scene and seeds of the collected datasets among them.
    """

    cache: FrameCache
    contract: Contract
    trained: list[str]
    held_out: list[str]
    sources: list[str]
    origins: list[Origin] = field(default_factory=list)

    def train_sampler(self, config: TrainConfig) -> ClipSampler:
        """Return the source of training clips.

        Raises:
            BagError: No training episode is long enough for one clip.
        """
        return self._sampler(
            self.trained, config, config.clip_length, config.seed, pictures=self._pictures
        )

    def keep_pictures_on(self, device: torch.device) -> bool:
        """Copy all pictures to a GPU with room for them; return whether training reads them there.

        Gathering a batch from the memory map and sending it takes one CPU core longer than a
        small model's step takes a GPU; from the GPU's own memory it takes next to nothing.
        """
        if device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(device)
        if int(np.prod(self.cache.frames.shape)) > _PICTURES_SHARE * free:
            return False
        self._pictures = pictures_on(self.cache, device)
        return True

    def held_out_sampler(self, config: TrainConfig) -> ClipSampler:
        """Return clips of ``history + horizon`` held-out frames; fewer where episodes are short.

        Raises:
            BagError: No held-out episode is long enough for a prediction of one block.
        """
        history = config.model.history
        for horizon in range(config.monitor.horizon, 0, -1):
            try:
                sampler = self._sampler(
                    self.held_out, config, history + horizon, _HELD_OUT_SEED, batch_size=128
                )
            except BagError:
                if horizon == 1:
                    raise
                continue
            if horizon < config.monitor.horizon:
                _log.warning(
                    "held-out episodes are short: predictions are measured %d blocks ahead "
                    "instead of %d",
                    horizon,
                    config.monitor.horizon,
                )
            return sampler
        raise BagError("monitor.horizon must be 1 at least")

    def measurement_frames(
        self, config: TrainConfig, final: bool
    ) -> tuple[LabelledFrames, LabelledFrames, ClipSampler]:
        """Return frames to fit probes on, frames to score them on, and clips to predict.

        The two small sets used while training are read once and kept.
        """
        most = config.monitor.final_frames if final else config.monitor.frames
        if most not in self._picked:
            self._picked = {
                most: (
                    self._frames(self.trained, most),
                    self._frames(self.held_out, max(32, most // 2)),
                    self.held_out_sampler(config),
                )
            }
        return self._picked[most]

    def __post_init__(self) -> None:
        self._picked: dict[int, tuple[LabelledFrames, LabelledFrames, ClipSampler]] = {}
        self._pictures: Tensor | None = None

    def _frames(self, names: Sequence[str], most: int) -> LabelledFrames:
        return pick_frames(self.cache, self.cache.ticks_of(names), most)

    def _sampler(
        self,
        names: Sequence[str],
        config: TrainConfig,
        clip_length: int,
        seed: int,
        batch_size: int | None = None,
        pictures: Tensor | None = None,
    ) -> ClipSampler:
        return ClipSampler(
            self.cache,
            names,
            clip_length,
            config.model.frame_skip,
            batch_size or config.batch_size,
            seed,
            pictures,
            config.model.inputs.state_names,
        )


def pictures_on(cache: FrameCache, device: torch.device) -> Tensor:
    """Return all pictures of a cache ``(N, 3 C, S, S)``, uint8, in the memory of a device."""
    pictures = torch.empty(tuple(cache.frames.shape), dtype=torch.uint8, device=device)
    for first in range(0, len(pictures), _CHUNK):
        part = torch.from_numpy(np.asarray(cache.frames[first : first + _CHUNK]))
        pictures[first : first + len(part)] = part.to(device)
    return pictures


def find_contract(paths: Sequence[Path], given: str | Path | None = None) -> Contract:
    """Return the contract of the data.

    Args:
        paths: Data folders and bags; a contract is looked for in each folder and in the one
            around it.
        given: A contract's path or name that wins.

    Raises:
        ContractError: There is none, or two data folders disagree.
    """
    if given is not None:
        return load_contract(given)
    found: tuple[Path, Contract] | None = None
    for path in paths:
        here = [
            folder / CONTRACT_FILE
            for folder in (path, path.parent)
            if (folder / CONTRACT_FILE).is_file()
        ]
        if not here:
            continue
        contract = load_contract(here[0])
        if found is None:
            found = here[0], contract
            continue
        differences = contract_differences(found[1], contract)
        if differences:
            raise ContractError(
                f"{here[0]} differs from {found[0]} ({'; '.join(differences)}); train on data of "
                "one contract, or give --contract"
            )
    if found is None:
        places = ", ".join(str(path) for path in paths)
        raise ContractError(f"no {CONTRACT_FILE} in {places}; give --contract FILE or NAME")
    return found[1]


def open_data(
    paths: Sequence[Path],
    contract: Contract,
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Read the bags once into the frame cache, and split the episodes.

    Args:
        paths: Dataset folders, bag folders or bag files.
        contract: What they were recorded under.
        config: Cameras, image size and held-out part.
        progress: Called with (done, all) bags while the cache is built.

    Raises:
        UserError: No bags, bags without the contract's topics, no held-out episode, or the model
            is to be given what the contract does not have.
    """
    inputs = config.model.inputs
    given_state(contract, inputs)
    cache = build_cache(
        paths, contract, config.model.image_size, cameras=inputs.cameras, progress=progress
    )
    names = [episode.name for episode in cache.episodes]
    trained, held_out = split_episodes(names, config.held_out_fraction)
    return TrainingData(
        cache,
        contract,
        list(trained),
        list(held_out),
        [Path(path).name for path in paths],
        read_origins(paths),
    )


def resolve(
    config: TrainConfig, data: TrainingData, *, threads: int, precision: str, device: str
) -> TrainConfig:
    """Return the settings with everything decided that the preset left open.

    Args:
        config: As loaded.
        data: Decides how many steps an epoch has; its contract, which state fields the model is
            given.
        threads: CPU threads, where none are set.
        precision: In the place of ``auto``.
        device: In the place of ``auto``.
    """
    values = config.to_dict()
    values |= {
        "threads": config.threads or threads,
        "precision": precision,
        "device": device,
    }
    state = given_state(data.contract, config.model.inputs)
    values["model"]["inputs"]["state"] = list(state) or False
    if config.steps is None:
        clips = data.train_sampler(config).number_of_clips
        values["steps"] = max(1, round((config.epochs or 1) * clips / config.batch_size))
        values["epochs"] = None
    return TrainConfig.model_validate(values)
