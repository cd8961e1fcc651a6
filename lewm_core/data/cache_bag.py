"""One bag into the frame cache: aligned, its pictures decoded and resized into their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lewm_core.data.alignment import AlignedEpisode, EpisodeStreams, align_streams, read_streams
from lewm_core.data.bags import BagReader, DamagedBagError, RawMessage
from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import Camera
from lewm_core.data.images import decode_message, prepare_picture
from lewm_core.errors import BagError, ImageError

#: Up to here a bag's picture messages stay in memory between aligning and decoding.
_KEEP_BYTES = 128 * 1024**2


@dataclass(frozen=True)
class SurveyedBag:
    """A bag that will be read.

    Attributes:
        path: Of the bag.
        pictures: How many pictures it has of the first camera.
        row: First row of the frames that is set aside for it.
    """

    path: Path
    pictures: int
    row: int


@dataclass
class Piece:
    """What became of one bag.

    Attributes:
        row: First row of the frames it was written to.
        used: How many rows it used.
        episodes: Aligned; their ``frame_index`` counts from ``row``.
    """

    row: int
    used: int
    episodes: list[AlignedEpisode]

    def renumber(self, row: int) -> None:
        """Let ``frame_index`` count from the first row of all: the bag's frames are at ``row``."""
        self.row = row
        for episode in self.episodes:
            index = episode.frame_index
            episode.frame_index = np.where(index >= 0, index + row, -1).astype(np.int32)


def read_or_leave_out(
    entry: SurveyedBag, contract: Contract, image_size: int, frames_path: Path
) -> Piece | DamagedBagError:
    """Read a bag; a damaged one is handed back as the error that says so."""
    try:
        return read_bag(entry, contract, image_size, frames_path)
    except DamagedBagError as error:
        return error


def read_bag(
    entry: SurveyedBag, contract: Contract, image_size: int, frames_path: Path
) -> Piece:
    """Align one bag, and decode the pictures that are used into their rows.

    A row holds one picture of every camera of the contract.

    Raises:
        BagError: The bag cannot be aligned.
        ImageError: A picture cannot be decoded, or has another size than the contract says.
    """
    with BagReader(entry.path) as reader:
        streams = read_streams(reader, contract, _KEEP_BYTES)
        episodes = align_streams(streams, contract)
        numbers = np.concatenate([episode.frame_index for episode in episodes])
        further = np.concatenate([episode.further_index for episode in episodes])
        further = further[numbers >= 0]
        wanted, ticks = np.unique(numbers[numbers >= 0], return_index=True)
        if len(wanted) > entry.pictures:
            raise BagError(
                f"{entry.path}: metadata.yaml tells of {entry.pictures} pictures, but there are "
                "more; delete that file, the bag is read without it"
            )
        frames = np.load(frames_path, mmap_mode="r+", allow_pickle=False)
        for index, camera in enumerate(contract.cameras):
            chosen = wanted if index == 0 else further[ticks, index - 1]
            channels = slice(3 * index, 3 * index + 3)
            order = np.argsort(chosen, kind="stable")
            for number, message in _messages(reader, streams, contract, index, chosen):
                picture = _picture(reader, message, camera, image_size)
                # A slow camera's picture may belong to several rows.
                first, end = np.searchsorted(chosen, [number, number + 1], sorter=order)
                frames[entry.row + order[first:end], channels] = picture
    row_of = np.full(len(streams.picture_stamps_ns[0]) + 1, -1, dtype=np.int32)
    row_of[wanted] = np.arange(len(wanted), dtype=np.int32)
    for episode in episodes:
        # -1, no picture, reads the last entry, which is -1.
        episode.frame_index = row_of[episode.frame_index]
    return Piece(entry.row, len(wanted), episodes)


def _messages(
    reader: BagReader,
    streams: EpisodeStreams,
    contract: Contract,
    camera: int,
    wanted: np.ndarray,
) -> Iterator[tuple[int, RawMessage]]:
    """Yield the wanted picture messages of a camera with their numbers, each once; from memory
    where they were kept."""
    chosen = sorted(set(wanted.tolist()))
    if streams.pictures is not None:
        yield from ((number, streams.pictures[camera][number]) for number in chosen)
        return
    left = set(chosen)
    for number, message in enumerate(reader.raw([contract.cameras[camera].topic])):
        if number in left:
            yield number, message


def _picture(
    reader: BagReader, message: RawMessage, camera: Camera, image_size: int
) -> np.ndarray:
    """Return one picture as the model sees it, ``(3, S, S)`` uint8."""
    try:
        picture = decode_message(reader.decode(message.type_name, message.data))
        height, width = picture.shape[:2]
        if (width, height) != camera.size:
            raise ImageError(
                f"pictures are {width} x {height} px, the contract's camera {camera.name!r} says "
                f"{camera.size[0]} x {camera.size[1]}; mend size (and crop) in the contract"
            )
        return prepare_picture(picture, camera.crop, image_size)
    except ImageError as error:
        raise ImageError(f"{reader.path}: {camera.topic}: {error}") from error
    except BagError as error:
        raise BagError(f"{error} ({camera.topic})") from error
