"""Checkpoint folders: what goes in comes out, and what is wrong is named in one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lewm_core
from lewm_core.errors import CheckpointError
from lewm_core.model import WorldModel, load_checkpoint, save_checkpoint
from test.helpers import wait_until
from test.model.models import keypoint_config, some_frames, trained_looking, vit_config

CONTRACT = {"name": "push_t", "control_rate": 10.0}
METADATA = {
    "steps": 12,
    "trained_episodes": ["a", "b"],
    "held_out_episodes": ["c"],
    "latent": {"one_block_distance": 0.25},
}


def saved(folder: Path, model: WorldModel | None = None) -> Path:
    model = model or trained_looking(keypoint_config())
    return save_checkpoint(folder, model, CONTRACT, METADATA, "# A model\n\nFor tests.")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(tmp_path / "checkpoint")


def change_settings(folder: Path, change) -> None:
    file = folder / "model.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))


def change_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize("config", [keypoint_config(), vit_config()], ids=["keypoint", "vit"])
def test_a_loaded_model_is_the_saved_one(tmp_path, config):
    model = trained_looking(config)
    model.set_action_statistics([0.01, -0.3], [0.07, 1 / 3])
    loaded = lewm_core.load(saved(tmp_path / "new" / "model", model))
    assert loaded.config == config
    assert loaded.contract == CONTRACT
    assert loaded.metadata == METADATA
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    frames = some_frames(config, 1, 3)
    future = torch.randn(1, 4, 5, config.block_dim)
    with torch.no_grad():
        z = model.encode(frames)
        assert torch.equal(loaded.encode(frames), z)
        past = torch.zeros(1, 2, config.block_dim)
        assert torch.equal(loaded.rollout(z, past, future), model.rollout(z, past, future))


def test_settings_and_card_are_for_human_eyes(checkpoint):
    assert sorted(file.name for file in checkpoint.iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    settings = json.loads((checkpoint / "model.json").read_text())
    assert settings["format_version"] == 1
    assert settings["model"]["history"] == 3
    assert settings["model"]["encoder"]["image_size"] == 16
    assert settings["normalisation"]["action_std"] == [1.0, 1.0]
    assert settings["contract"] == CONTRACT
    assert settings["training"]["trained_episodes"] == ["a", "b"]
    assert settings["latent"] == {"one_block_distance": 0.25}
    assert (checkpoint / "model.json").read_text().count("\n") > 40
    card = (checkpoint / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert card.endswith("---\n\n# A model\n\nFor tests.\n")


def test_saving_again_replaces_all_of_it(checkpoint):
    (checkpoint / "left_over.txt").write_text("from another run")
    second = trained_looking(keypoint_config(embedding_dim=5), seed=1)
    saved(checkpoint, second)
    assert load_checkpoint(checkpoint).config.embedding_dim == 5
    assert not (checkpoint / "left_over.txt").exists()
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists and is not a checkpoint"):
        saved(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), torch.zeros(1)])
def test_metadata_that_is_not_json_leaves_the_old_checkpoint(checkpoint, value):
    model = trained_looking(keypoint_config(embedding_dim=5))
    with pytest.raises(CheckpointError, match=r"model.json: training cannot be written as JSON"):
        save_checkpoint(checkpoint, model, CONTRACT, {"loss": value}, "")
    assert load_checkpoint(checkpoint).config.embedding_dim == 8
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    code = (
        "import sys; from pathlib import Path\n"
        "from test.model.models import keypoint_config, trained_looking\n"
        "from test.model.test_checkpoint import saved\n"
        "model = trained_looking(keypoint_config())\n"
        "while True: saved(Path(sys.argv[1]), model); print('saved', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(20):
            assert process.stdout.readline() == "saved\n"
        # In the middle of writing: a folder beside the checkpoint is being filled.
        wait_until(lambda: list(tmp_path.glob(".checkpoint.*")), 30, "no saving was under way")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert load_checkpoint(folder).metadata == METADATA


def expect_error(path: Path | str, *parts: str) -> None:
    """Loading fails with one line that holds all ``parts``."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_missing_checkpoint_is_named(tmp_path, monkeypatch):
    expect_error(tmp_path / "nowhere", str(tmp_path / "nowhere"), "no such checkpoint folder")
    monkeypatch.chdir(tmp_path)
    expect_error("push_t-nowhere", "push_t-nowhere", "shipped", "lewm-train")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    expect_error(checkpoint, f"{checkpoint / name}: missing")
    expect_error(checkpoint / "README.md", "is a file; give the folder")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\x00\xff", "format_version"),
        ("[]", "expected an object"),
        ('{"format_version": 99}', "format_version is 99, this version of lewm_core reads 1"),
        ("{}", "format_version is None"),
    ],
)
def test_settings_that_cannot_be_read_are_named(checkpoint, text, part):
    file = checkpoint / "model.json"
    if text.startswith("\x00"):
        file.write_bytes(b"\x00\xff\xfe")
        part = "not valid JSON"
    else:
        file.write_text(text)
    expect_error(checkpoint, str(file), part)


def delete(*keys: str):
    def change(settings):
        for key in keys[:-1]:
            settings = settings[key]
        del settings[keys[-1]]

    return change


def put(value, *keys: str):
    def change(settings):
        for key in keys[:-1]:
            settings = settings[key]
        settings[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (delete("contract"), ("the key contract is missing",)),
        (put(1, "extra"), ("unknown key extra",)),
        (put([], "contract"), ("contract must be an object or null",)),
        (put(None, "latent"), ("latent must be an object",)),
        (put(3, "model", "histroy"), ("model", "'histroy'", "'history'")),
        (put("resnet", "model", "encoder", "kind"), ("model", "encoder")),
        (put(10**9, "model", "embedding_dim"), ("embedding_dim", "16384")),
        (put(12000, "model", "embedding_dim"), ("model.safetensors", "shape", "12000")),
        (put(4, "model", "history"), ("tensor predictor.positions has shape (1, 3, 8)",)),
        (put([1.0, 2.0], "normalisation", "action_mean"), ("normalisation.action_mean",)),
        (put("much", "normalisation", "action_std"), ("normalisation.action_std",)),
        (put([0.5, 0.5, 0.5], "normalisation", "image_mean"), ("normalisation.image_mean",)),
        (delete("normalisation", "image_std"), ("normalisation.image_std",)),
    ],
)
def test_settings_that_are_wrong_are_named(checkpoint, change, parts):
    change_settings(checkpoint, change)
    expect_error(checkpoint, *parts)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (delete("predictor.norm.weight"), "tensor predictor.norm.weight is missing"),
        (put(torch.zeros(3), "surplus"), "tensor surplus is not part of the model"),
        (
            put(torch.zeros(3), "predictor.norm.weight"),
            "tensor predictor.norm.weight has shape (3,), expected (16,)",
        ),
        (
            put(torch.zeros(16, dtype=torch.int64), "predictor.norm.weight"),
            "tensor predictor.norm.weight is torch.int64, expected torch.float32",
        ),
    ],
)
def test_tensors_that_are_wrong_are_named(checkpoint, change, part):
    change_weights(checkpoint, change)
    expect_error(checkpoint, str(checkpoint / "model.safetensors"), part)


def test_statistics_that_cannot_be_are_named(checkpoint):
    change_weights(checkpoint, put(torch.zeros(2), "action_std"))
    change_settings(checkpoint, put([0.0, 0.0], "normalisation", "action_std"))
    expect_error(checkpoint, "action_std above 0")


def test_a_truncated_file_is_named(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    expect_error(checkpoint, str(file), "not a complete safetensors file")


class Trap:
    """Something that acts when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_pickle_is_refused_and_never_run(checkpoint, tmp_path):
    file = checkpoint / "model.safetensors"
    torch.save({"weights": Trap(tmp_path / "ran")}, file)
    expect_error(checkpoint, str(file), "not a complete safetensors file")
    assert not (tmp_path / "ran").exists()
