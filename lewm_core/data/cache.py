"""The frame cache: every picture of a dataset decoded and resized once, kept as a memory map.

Building reads all bags in parallel; opening what was built before takes milliseconds. Nothing in
a cache is pickled, so that a cache from elsewhere can do no harm.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.data.bags import DamagedBagError, find_bags
from lewm_core.data.cache_bag import Piece
from lewm_core.data.cache_build import read_bags, survey_bags
from lewm_core.data.contract import CONTRACT_FILE, Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.data.frame_cache import EpisodeIndex, FrameCache, join_caches
from lewm_core.data.locks import hold_lock
from lewm_core.errors import BagError, ContractError, UserError
from lewm_core.reading import ReadingError, parse_json, read_bounded_text

_LOGGER = logging.getLogger(__name__)

#: Counts up when the files of a cache or the way they are made change.
_FORMAT = 1
_INDEX, _FRAMES, _TICKS = "index.json", "frames.npy", "ticks.npz"
_TICK_ARRAYS = ("frame_index", "actions", "action_valid", "states")
_ROWS_AT_ONCE = 4096
#: Bytes of the index, which names every episode.
_LARGEST_INDEX = 256 * 2**20
#: Never fill a disk to the brim.
_SPARE_BYTES = 256 * 1024**2

Progress = Callable[[int, int], None]


def default_cache_dir() -> Path:
    """Return where caches are kept: ``LEWM_CACHE_DIR``, or ``lewm_ros`` in the user's cache."""
    given = os.environ.get("LEWM_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lewm_ros" / "frames"


def build_cache(
    paths: str | Path | Iterable[str | Path],
    contract: Contract,
    image_size: int,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    cameras: Sequence[str] = (),
) -> FrameCache:
    """Return the frame cache of some bags; build it unless the same was built before.

    Every folder among the paths has a cache of its own, so that what is added to a training in a
    new folder is all that has to be read; bags named one by one share one.

    Args:
        paths: Bags and folders of bags, see `find_bags`.
        contract: Which topics; must be the one the bags were recorded with.
        image_size: S, px.
        cache_dir: Where caches are kept; default: `default_cache_dir`.
        progress: Called with (done, all) bags.
        workers: Processes; default: one per core, none extra for a handful of bags.
        cameras: Names of those whose pictures are wanted, in this order; none: the contract's
            first.

    Raises:
        BagError: No bags, bags without the contract's topics, damaged ones only.
        ContractError: The bags lie in a dataset of another contract, differing keys are named; or
            the contract has no such camera.
        ImageError: A picture cannot be decoded, or has another size than the contract says.
        UserError: The disk has no room.
    """
    groups = _group_bags([paths] if isinstance(paths, str | Path) else list(paths))
    for bags in groups:
        check_recorded_contracts(bags, contract)
    contract = contract.seen_through(cameras)
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    caches: list[FrameCache] = []
    damaged: list[DamagedBagError] = []
    for bags in groups:
        try:
            caches.append(_cache_of(bags, contract, image_size, folder, progress, workers))
        except DamagedBagError as error:
            damaged.append(error)
    if not caches:
        raise damaged[0]
    for error in damaged:
        # As for a damaged bag among good ones of one folder.
        _LOGGER.warning("left out: %s", error)
    return join_caches(caches)


def _group_bags(paths: list[str | Path]) -> list[list[Path]]:
    """Split the bags under some paths into one list for each folder of bags, each bag once."""
    groups: dict[Path | None, list[Path]] = {}
    seen: set[Path] = set()
    for path in map(Path, paths):
        bags = find_bags(path)
        group = groups.setdefault(None if bags == [path] else path, [])
        group += [bag for bag in bags if bag not in seen]
        seen.update(bags)
    return [bags for bags in groups.values() if bags]


def _cache_of(
    bags: list[Path],
    contract: Contract,
    image_size: int,
    folder: Path,
    progress: Progress | None,
    workers: int | None,
) -> FrameCache:
    target = folder / _key(bags, contract, image_size)
    if not (target / _INDEX).exists():
        # Whoever comes second waits, and finds the work done; a killed builder frees the lock.
        with hold_lock(folder / f"{target.name}.lock"):
            if not (target / _INDEX).exists():
                _build(bags, contract, image_size, target, progress, workers)
    return open_cache(target)


def open_cache(folder: str | Path) -> FrameCache:
    """Open a finished cache folder.

    Raises:
        BagError: It is not a cache, or one of another version.
    """
    folder = Path(folder)
    try:
        index = parse_json(read_bounded_text(folder / _INDEX, _LARGEST_INDEX))
        if index["format"] != _FORMAT:
            raise BagError(f"{folder} is a frame cache of another version; delete it")
        contract = Contract.from_dict(index["contract"], f"{folder / _INDEX}")
        arrays = _read_ticks(folder / _TICKS)
        cache = FrameCache(
            folder,
            contract,
            index["image_size"],
            [EpisodeIndex(**entry) for entry in index["episodes"]],
            np.load(folder / _FRAMES, mmap_mode="r", allow_pickle=False),
            arrays["frame_index"],
            arrays["actions"],
            arrays["action_valid"],
            arrays["states"],
            contract.state_names,
        )
        cache.check()
        return cache
    except (
        OSError, EOFError, ValueError, LookupError, TypeError, NotImplementedError, ReadingError,
        zipfile.BadZipFile, SyntaxError, tokenize.TokenError,
    ) as error:
        # The last two are of numpy, which reads an array's header as Python's literals.
        raise BagError(f"{folder} is not a frame cache ({error}); delete it") from error


def _read_ticks(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the ticks, which are stored as they are: a packed one may be a bomb.

    Raises:
        ValueError: An array is packed.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} of {path.name} is packed")
    with np.load(path, allow_pickle=False) as ticks:
        return {name: ticks[name] for name in _TICK_ARRAYS}


def check_recorded_contracts(bags: Iterable[Path], contract: Contract) -> None:
    """Refuse bags that lie beside a ``contract.yaml`` that differs from ``contract``.

    Raises:
        ContractError: Names the file and the differing keys.
    """
    for folder in dict.fromkeys(bag.parent for bag in bags):
        recorded = folder / CONTRACT_FILE
        if not recorded.is_file():
            continue
        differences = contract_differences(load_contract(recorded), contract, recordings=True)
        if differences:
            raise ContractError(
                f"{folder} was recorded with another contract ({recorded.name} there != the one "
                f"in use): {'; '.join(differences)}. Use the recorded contract"
            )


def _key(bags: list[Path], contract: Contract, image_size: int) -> str:
    """Hash all that decides what is in the cache."""
    values = contract.to_dict()
    del values["name"], values["description"]
    files = []
    for bag in bags:
        for file in sorted(bag.iterdir()) if bag.is_dir() else [bag]:
            if file.is_file() and (file == bag or file.suffix in {".mcap", ".db3", ".zstd"}):
                status = file.stat()
                files.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    text = json.dumps([_FORMAT, image_size, values, files], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:24]


def _build(
    bags: list[Path],
    contract: Contract,
    image_size: int,
    target: Path,
    progress: Progress | None,
    workers: int | None,
) -> None:
    """Build in a folder beside ``target`` and rename it: a cache is there in full or not at all."""
    for stale in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    survey = survey_bags(bags, contract)
    rows = sum(entry.pictures for entry in survey)
    channels = 3 * len(contract.cameras)
    _check_room(target.parent, rows * channels * image_size * image_size)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        frames = np.lib.format.open_memmap(
            scratch / _FRAMES, "w+", np.uint8, (rows, channels, image_size, image_size)
        )
        del frames
        pieces = read_bags(survey, contract, image_size, scratch / _FRAMES, progress, workers)
        used = _close_ranks(scratch / _FRAMES, pieces)
        _write_ticks(scratch, pieces)
        _write_index(scratch, pieces, contract, image_size)
        try:
            scratch.rename(target)
        except OSError:
            # On file systems without locks two may build; the first one wins.
            if not (target / _INDEX).exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _LOGGER.info("%d pictures of %d bags are cached in %s", used, len(survey), target)


def _close_ranks(path: Path, pieces: list[Piece]) -> int:
    """Move the rows that are used to the front, cut the file, and renumber the pieces' frames.

    A camera faster than the control rate has more pictures than ticks, and how many are used is
    known only after a bag was read. Returns the number of rows used.
    """
    frames = np.load(path, mmap_mode="r+", allow_pickle=False)
    size = frames.shape[1:]
    offset = frames.offset
    row_bytes = int(np.prod(size))
    used = 0
    for piece in pieces:
        count = piece.used
        if count and piece.row != used:
            # Towards the front and in order, so that nothing is overwritten before it has moved.
            for begin in range(0, count, _ROWS_AT_ONCE):
                end = min(begin + _ROWS_AT_ONCE, count)
                frames[used + begin : used + end] = frames[piece.row + begin : piece.row + end]
        piece.renumber(used)
        used += count
    total = frames.shape[0]
    frames.flush()
    del frames
    if used < total:
        header = np.lib.format.header_data_from_array_1_0(np.zeros((0, *size), np.uint8))
        header["shape"] = (used, *size)
        with path.open("r+b") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            if stream.tell() != offset:
                raise UserError(f"{path}: numpy changed its file header; report this")
            stream.truncate(offset + used * row_bytes)
    return used


def _write_ticks(folder: Path, pieces: list[Piece]) -> None:
    episodes = [episode for piece in pieces for episode in piece.episodes]
    np.savez(
        folder / _TICKS,
        frame_index=np.concatenate([episode.frame_index for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        action_valid=np.concatenate([episode.action_valid for episode in episodes]),
        states=np.concatenate([episode.states for episode in episodes]),
    )


def _write_index(folder: Path, pieces: list[Piece], contract: Contract, image_size: int) -> None:
    first = 0
    episodes: list[dict[str, Any]] = []
    for piece in pieces:
        for episode in piece.episodes:
            count = episode.number_of_ticks
            episodes.append(asdict(EpisodeIndex(episode.name, episode.path, first, count)))
            first += count
    index = {
        "format": _FORMAT,
        "image_size": image_size,
        "contract": contract.to_dict(),
        "episodes": episodes,
    }
    (folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise UserError(
            f"{folder} has {free / 1024**3:.1f} GiB free, the frame cache needs "
            f"{needed / 1024**3:.1f} GiB; make room, or set LEWM_CACHE_DIR to a larger disk"
        )
