"""Reads bags into the frame cache: aligned, decoded, resized; in several processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lewm_core.data.bags import DamagedBagError, peek_bag, require_topics
from lewm_core.data.cache_bag import Piece, SurveyedBag, read_or_leave_out
from lewm_core.data.cache_worker import read_in_processes
from lewm_core.data.contract import Contract

_LOGGER = logging.getLogger(__name__)

#: Starting a process costs about as much as reading this many bags of 50 pictures.
_BAGS_PER_WORKER = 12


def survey_bags(bags: Sequence[Path], contract: Contract) -> list[SurveyedBag]:
    """Check all bags against the contract before any is read, and count their pictures.

    A damaged bag among good ones (a recorder was killed) is left out with a warning.

    Raises:
        BagError: A bag lacks the contract's topics, or no bag can be read.
    """
    survey: list[SurveyedBag] = []
    damaged: list[DamagedBagError] = []
    row = 0
    for bag in bags:
        try:
            topics, counts = peek_bag(bag)
        except DamagedBagError as error:
            damaged.append(error)
            continue
        require_topics(bag, topics, counts, contract)
        pictures = counts[contract.camera.topic]
        survey.append(SurveyedBag(bag, pictures, row))
        row += pictures
    if not survey:
        raise damaged[0]
    for error in damaged:
        _LOGGER.warning("left out: %s", error)
    return survey


def read_bags(
    survey: Sequence[SurveyedBag],
    contract: Contract,
    image_size: int,
    frames_path: Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> list[Piece]:
    """Read bags into an ``.npy`` file that is there already.

    Args:
        survey: The bags and the rows set aside for them.
        contract: Which topics.
        image_size: S, px.
        frames_path: ``(N, 3 C, S, S)`` uint8.
        progress: Called with (done, all) bags.
        workers: Processes; default: one per core, none extra for a handful of bags.

    Returns:
        One piece per bag that can be read, in the order of ``survey``.

    Raises:
        BagError: A bag cannot be aligned.
        ImageError: A picture cannot be decoded, or has another size than the contract says.
    """
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)), len(survey) // _BAGS_PER_WORKER)
    pieces: dict[int, Piece] = {}
    damaged: list[DamagedBagError] = []
    for number, piece in (
        _read_here(survey, contract, image_size, frames_path)
        if workers < 2
        else read_in_processes(survey, contract, image_size, frames_path, workers)
    ):
        if isinstance(piece, DamagedBagError):
            damaged.append(piece)
            _LOGGER.warning("left out: %s", piece)
        else:
            pieces[number] = piece
        if progress is not None:
            progress(len(pieces) + len(damaged), len(survey))
    if not pieces:
        raise damaged[0]
    return [pieces[number] for number in sorted(pieces)]


def _read_here(
    survey: Sequence[SurveyedBag], contract: Contract, image_size: int, frames_path: Path
) -> Iterator[tuple[int, Piece | DamagedBagError]]:
    for number, entry in enumerate(survey):
        yield number, read_or_leave_out(entry, contract, image_size, frames_path)
