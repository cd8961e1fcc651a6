"""One small dataset and one cache folder for all training tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lewm_core.commands.train import main
from test.training.spots import write_settings, write_spots


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset of bags; frames are cached beside it, also by processes that tests start."""
    folder = tmp_path_factory.mktemp("spots")
    before = os.environ.get("LEWM_CACHE_DIR")
    os.environ["LEWM_CACHE_DIR"] = str(folder / "cache")
    yield write_spots(folder / "data")
    if before is None:
        del os.environ["LEWM_CACHE_DIR"]
    else:
        os.environ["LEWM_CACHE_DIR"] = before


@pytest.fixture(scope="session")
def trained(spots: Path, tmp_path_factory) -> Path:
    """A run of the first stage alone; its folder."""
    folder = tmp_path_factory.mktemp("trained")
    settings = write_settings(folder / "spots.yaml", steps=150)
    arguments = ["--data", str(spots), "--config", str(settings), "--out", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that weights can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
