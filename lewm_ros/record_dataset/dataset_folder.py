"""The folder of a dataset: one contract, one folder per episode, nothing overwritten."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lewm_core.data import Contract, contract_differences, load_contract, save_contract
from lewm_core.data.contract import CONTRACT_FILE
from lewm_core.errors import ContractError, UserError
from lewm_ros.record_dataset.episode_file import REPORT_FILE, write_report

#: What an episode may be called by; empty: nothing. See also ``EpisodeEvent.msg``.
LABELS = ("success", "failure", "discard", "")

_STORAGE_SUFFIXES = (".mcap", ".db3")

#: Characters of an episode's name; file systems take 255 bytes, and storage files add to it.
_LONGEST_NAME = 128


def prepare_folder(out: Path, contract: Contract) -> None:
    """Make the dataset's folder, or check that it can be continued.

    Raises:
        UserError: If it holds something else or a dataset of another contract.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"out {out} is a file: give a folder")
    own = out / CONTRACT_FILE
    if own.exists():
        differences = contract_differences(load_contract(own), contract)
        if differences:
            raise ContractError(
                f"{own} differs from the contract given ({'; '.join(differences)}): record into "
                "another out"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(f"out {out} is not empty and has no {CONTRACT_FILE}: choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    save_contract(contract, own)


def free_folder(out: Path, name: str, prefix: str) -> Path:
    """Return a folder for an episode that does not exist yet."""
    # Whoever may publish an event names the episode: of the name, what is safe in a path is kept.
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "_", name[:_LONGEST_NAME]).strip("._-")
    if clean:
        folder, again = out / clean, 2
        while folder.exists():
            folder, again = out / f"{clean}-{again}", again + 1
        return folder
    numbers = [
        int(match[1])
        for path in out.glob(f"{prefix}*")
        if (match := re.fullmatch(re.escape(prefix) + r"(\d+)", path.name))
    ]
    return out / f"{prefix}{max(numbers, default=-1) + 1:06d}"


def find_episode(out: Path, name: str) -> Path:
    """Return the folder of a recorded episode.

    Args:
        out: Folder of the dataset.
        name: Of the episode; empty: the one that was written last.

    Raises:
        UserError: There is no such episode; in particular for whatever lies outside of the dataset.
    """
    episodes = {storage.parent.name: storage for storage in _storage_files(out)}
    if name:
        if name not in episodes:
            raise UserError(f"{out} has no episode {name!r}: give the name of its folder")
        return out / name
    if not episodes:
        raise UserError(f"{out} has no episode yet")
    # Not by the folders' time: it changes when an episode is labelled.
    return max(episodes.values(), key=lambda file: (file.stat().st_mtime_ns, file.name)).parent


def label_folder(folder: Path, label: str) -> None:
    """Write a label into the report of an episode that is over.

    An episode whose recorder was killed has no report: it gets one with nothing but the label.

    Raises:
        UserError: The report cannot be read.
        OSError: The disk refuses; the report is as it was.
    """
    path = folder / REPORT_FILE
    report = {"episode": folder.name}
    if path.exists():
        try:
            report = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{path} is not a recorder's report ({error}): remove it") from error
    write_report(folder, {**report, "label": label})


def remove_episode(folder: Path) -> None:
    """Delete an episode, such that nobody reads a half of it.

    Raises:
        OSError: It cannot be deleted.
    """
    # Readers of datasets leave hidden folders out.
    hidden = folder.with_name(f".{folder.name}.discarded")
    if hidden.exists():
        shutil.rmtree(hidden)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _storage_files(out: Path) -> Iterator[Path]:
    """Yield the storage file of every episode; links lead out of the dataset and do not count."""
    for folder in out.iterdir():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            files = [file for file in folder.iterdir() if file.suffix in _STORAGE_SUFFIXES]
            if files:
                yield max(files)
