"""The folder of a run: who may use it, and what lies where.

``config.yaml`` all settings; ``run.json`` data, contract and command; ``last/`` the state that
``--resume`` continues from; ``checkpoint/`` what `lewm_core.load` opens; ``metrics.jsonl``,
``tensorboard/`` and ``curves.png`` what happened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_core.errors import ConfigError
from lewm_core.reading import read_json_mapping
from lewm_core.training.config import TrainConfig, config_differences
from lewm_core.validation import read_yaml_mapping, validate

_LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """All settings of the run."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """Data, contract and command of the run."""
        return self.path / "run.json"

    @property
    def state(self) -> Path:
        """What ``--resume`` continues from."""
        return self.path / "last" / "state.safetensors"

    @property
    def checkpoint(self) -> Path:
        """What `lewm_core.load` opens."""
        return self.path / "checkpoint"


@contextmanager
def open_run(
    path: Path,
    config: TrainConfig,
    record: dict[str, Any],
    resume: bool,
    *,
    leads: bool = True,
) -> Iterator[RunFolder]:
    """Claim a folder for a run, and hold it until the end of the block.

    Args:
        path: The folder; made if it is missing.
        config: All settings, resolved.
        record: What else must agree when a run is continued (``episodes``, ``contract``,
            ``base``), and what is only told (``command``, ``data``).
        resume: Continue the run that lies there, if one does.
        leads: False in the processes that only help: they check and write nothing.

    Raises:
        ConfigError: The folder holds another run or other files, belongs to a process that is
            still training, or the settings differ from those of the run to continue.
    """
    folder = RunFolder(path)
    if not leads:
        yield folder
        return
    if not folder.config.exists() and path.exists() and _other_files(path):
        raise ConfigError(f"{path} holds other files; choose another --out")
    if folder.config.exists():
        if not resume:
            raise ConfigError(
                f"{path} already holds a run; add --resume to continue it, or choose another --out"
            )
        _check_same(folder, config, record)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{path} is in use by another lewm-train; wait for it, or choose another --out"
            ) from None
        _write(folder.record, json.dumps(record, indent=2) + "\n")
        for left_over in path.glob(f".{folder.checkpoint.name}.*"):
            shutil.rmtree(left_over, ignore_errors=True)  # of a save that was killed
        # Last: this file is what marks the folder as a run.
        _write(folder.config, config.to_yaml())
        yield folder


def episodes_digest(trained: Sequence[str], held_out: Sequence[str]) -> str:
    """Return a short hash of which episodes are on which side."""
    text = json.dumps([list(trained), list(held_out)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_run_config(path: Path) -> TrainConfig:
    """Return the settings of the run in a folder.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    folder = RunFolder(path)
    return validate(TrainConfig, read_yaml_mapping(folder.config), str(folder.config))


def _check_same(folder: RunFolder, config: TrainConfig, record: dict[str, Any]) -> None:
    differences = config_differences(read_run_config(folder.path), config)
    if differences:
        raise ConfigError(
            f"{folder.path} holds a run with other settings ({'; '.join(differences)}); "
            "use its settings with --resume, or choose another --out"
        )
    before = read_json_mapping(folder.record, ConfigError, "choose another --out")
    for key, what in (
        ("episodes", "other episodes"),
        ("contract", "another contract"),
        ("base", "another checkpoint to refine"),
    ):
        if before.get(key) != record.get(key):
            raise ConfigError(
                f"{folder.path} holds a run on {what}; give the same --data (and --refine) with "
                "--resume, or choose another --out"
            )


def _other_files(path: Path) -> bool:
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; --out must name a folder")
    # A run that was killed before it wrote its settings leaves these two and nothing of worth.
    return any(entry.name not in (_LOCK, "run.json") for entry in path.iterdir())


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
