"""What made a dataset: scene and seeds, as ``lewm-collect`` leaves them in ``dataset.json``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lewm_core.errors import BagError
from lewm_core.reading import read_json_mapping

DATASET_FILE = "dataset.json"

#: How ``lewm-collect`` calls its episodes: scene, who drove, seed, number.
_EPISODE_NAME = re.compile(r"(?P<scene>.+?)(?:_random|_practice)?_s(?P<seed>\d+)_\d{6,}(?:\+\d+)?")


@dataclass(frozen=True)
class Origin:
    """Where episodes come from.

    Attributes:
        name: Of the dataset's folder.
        scene: The simulated scene.
        seeds: Given to ``lewm-collect``, sorted.
    """

    name: str
    scene: str
    seeds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "seeds": list(self.seeds)}


def read_origins(paths: Iterable[Path]) -> list[Origin]:
    """Return what is known of the datasets behind data folders and bags; robots leave nothing.

    Args:
        paths: A ``dataset.json`` is looked for in each folder and in the one around it.

    Raises:
        BagError: The file is there and cannot be read: what was trained on would be forgotten.
    """
    found: dict[Path, Origin] = {}
    for path in paths:
        for folder in (path, path.parent):
            file = folder / DATASET_FILE
            if file.is_file():
                found.setdefault(file.resolve(), _read(file))
                break
    return list(found.values())


def origins_of_names(names: Sequence[str]) -> list[Origin]:
    """Return what the names of ``lewm-collect``'s episodes say, for checkpoints without more."""
    seeds: dict[str, set[int]] = {}
    for name in names:
        match = _EPISODE_NAME.fullmatch(name)
        if match is not None:
            seeds.setdefault(match["scene"], set()).add(int(match["seed"]))
    return [Origin(scene, scene, tuple(sorted(found))) for scene, found in sorted(seeds.items())]


def _read(file: Path) -> Origin:
    mend = "restore the file that lewm-collect wrote"
    content = read_json_mapping(file, BagError, mend)
    try:
        seeds = sorted({int(run["seed"]) for run in content["runs"]})
        return Origin(file.parent.resolve().name, str(content["scene"]), tuple(seeds))
    except (ValueError, KeyError, TypeError) as error:
        raise BagError(
            f"{file}: scene and seeds of the dataset cannot be read ({error!r}); {mend}"
        ) from error
