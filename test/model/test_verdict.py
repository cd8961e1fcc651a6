"""The verdict in a checkpoint: tied to its weights, written in one piece, damaged ones refused."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest

from lewm_core.errors import CheckpointError, ConfigError
from lewm_core.model import WorldModel, load_checkpoint, save_checkpoint
from lewm_core.model.verdict import FILE, Verdict, read_verdict, write_verdict
from test.model.models import keypoint_config

FOUND = Verdict(
    "cannot plan", "it has collapsed", {"std_mean": 0.01, "state_r2": math.nan}, ("bags",),
    "2026-01-02T03:04:05+00:00", "0.1.0",
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model", WorldModel(keypoint_config()), None, {}, "A model.")


def test_what_was_written_is_read_and_the_checkpoint_still_loads(checkpoint: Path) -> None:
    assert read_verdict(checkpoint) is None
    assert write_verdict(checkpoint, FOUND) == checkpoint / FILE
    found = read_verdict(checkpoint)
    assert found is not None
    assert (found.verdict, found.reason, found.data) == ("cannot plan", FOUND.reason, ("bags",))
    # JSON has no NaN: what could not be measured is null.
    assert found.measured == {"std_mean": 0.01, "state_r2": None}
    load_checkpoint(checkpoint)
    assert [path.name for path in checkpoint.iterdir() if path.name.startswith(".")] == []


def test_a_verdict_on_other_weights_is_left_aside_with_a_warning(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_verdict(checkpoint, FOUND)
    stored = (checkpoint / FILE).read_bytes()
    save_checkpoint(checkpoint, WorldModel(keypoint_config()), None, {}, "Another one.")
    assert read_verdict(checkpoint) is None, "training again removes the verdict"
    (checkpoint / FILE).write_bytes(stored)
    with caplog.at_level(logging.WARNING):
        assert read_verdict(checkpoint) is None
    assert "other weights" in caplog.text and FILE in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        (json.dumps({"format_version": 2}), "format_version"),
        (json.dumps({"format_version": 1}), "weights_sha256"),
    ],
)
def test_a_damaged_file_is_refused_by_name(checkpoint: Path, content: str, words: str) -> None:
    (checkpoint / FILE).write_text(content)
    with pytest.raises(CheckpointError, match=words) as refused:
        read_verdict(checkpoint)
    assert str(checkpoint / FILE) in str(refused.value)
    assert "lewm-check" in str(refused.value)


def test_an_unknown_verdict_is_refused(checkpoint: Path) -> None:
    write_verdict(checkpoint, FOUND)
    stored = json.loads((checkpoint / FILE).read_text())
    (checkpoint / FILE).write_text(json.dumps(stored | {"verdict": "perhaps"}))
    with pytest.raises(CheckpointError, match="perhaps"):
        read_verdict(checkpoint)


def test_without_a_checkpoint_there_is_nothing_to_store_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_verdict(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        write_verdict(tmp_path / "empty", FOUND)
