"""The folder of a dataset: one contract, one folder per episode, nothing overwritten."""

from __future__ import annotations

import re
from pathlib import Path

from lewm_core.data import Contract, contract_differences, load_contract, save_contract
from lewm_core.data.contract import CONTRACT_FILE
from lewm_core.errors import ContractError, UserError

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
