"""What lies where: the bags of a folder, their storage files, and what ``metadata.yaml`` says."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lewm_core.errors import BagError, one_line
from lewm_core.reading import LARGEST_YAML, ReadingError, parse_yaml, read_bounded_text

_LOGGER = logging.getLogger(__name__)
_SUFFIXES = (".mcap", ".db3")


def find_bags(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the bags under some paths, sorted by path, each once.

    Args:
        paths: Bag folders, bare ``.mcap`` or ``.db3`` files, or folders of them at any depth.
            Hidden folders are left out: half-finished work lies there.

    Raises:
        BagError: A path does not exist, or there is no bag under it.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for path in map(Path, given):
        if not path.exists():
            raise BagError(f"{path} does not exist; give a bag, or a folder of bags")
        under = list(_bags_under(path))
        if not under:
            raise BagError(f"{path} holds no bag: no metadata.yaml, no .mcap and no .db3 file")
        found.update(dict.fromkeys(under))
    return list(found)


def _bags_under(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix in _SUFFIXES:
            yield path
        return
    if (path / "metadata.yaml").is_file():
        yield path
        return
    files = storage_files(path)
    # Without metadata.yaml (a killed recorder), the names tell whether these files are one bag.
    parts = re.compile(re.escape(path.name) + r"(_\d+)?")
    if files and all(parts.fullmatch(file.stem) for file in files):
        yield path
        return
    yield from files
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            yield from _bags_under(folder)


def storage_files(folder: Path) -> list[Path]:
    """Return the storage files of a folder; the parts of a split bag in their order."""
    files = [file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    return sorted(
        files,
        key=lambda file: [
            int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)
        ],
    )


def bag_notes(path: str | Path) -> dict[str, str]:
    """Return the ``custom_data`` that a bag's writer left in ``metadata.yaml``; often nothing."""
    information = read_metadata(Path(path)) or {}
    notes = information.get("custom_data")
    if not isinstance(notes, dict):
        return {}
    return {str(key): str(value) for key, value in notes.items()}


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return what a bag folder's ``metadata.yaml`` says; None if there is none, or a broken one."""
    file = path / "metadata.yaml"
    if not path.is_dir() or not file.is_file():
        return None
    try:
        # Every bag of a dataset is looked at, so this has to be quick.
        loaded = parse_yaml(read_bounded_text(file, LARGEST_YAML), quick=True)
        information = loaded["rosbag2_bagfile_information"]
        if not isinstance(information["relative_file_paths"], list):
            raise TypeError("relative_file_paths is not a list")
        return information
    except (ReadingError, KeyError, TypeError) as error:
        _LOGGER.warning(
            "%s cannot be read (%s); the files beside it are", file, one_line(error)[:200]
        )
        return None
