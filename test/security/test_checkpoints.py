"""Checkpoints, pictures and resume files of a stranger."""

from __future__ import annotations

import json
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

import lewm_core
from lewm_core.data.images import decode_compressed
from lewm_core.errors import CheckpointError, ConfigError, ImageError
from lewm_core.model import save_checkpoint
from lewm_core.training.metrics import read_metrics
from lewm_core.training.state import Progress, load_state, save_state
from test.model.models import keypoint_config


@pytest.fixture
def checkpoint(tmp_path):
    model = lewm_core.model.WorldModel(keypoint_config()).eval()
    return save_checkpoint(tmp_path / "checkpoint", model, None, {}, "card")


HUGE = {
    "kind": "transformer", "width": 16384, "depth": 128, "heads": 256, "head_dim": 16384,
    "mlp_dim": 16384,
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("model", {"predictor": HUGE}, "parameters, 1,000,000,000 are allowed"),
        (
            "model",
            {"encoder": {"kind": "vit", "image_size": 2048, "patch_size": 1, "width": 3}},
            "4194304 patches, 16384 are allowed",
        ),
        (
            "model",
            {"encoder": {"kind": "keypoint", "image_size": 2048, "channels": [16384, 8]}},
            "67108864 are allowed",
        ),
        ("latent", {"goal_tolerance_factor": "abc"}, "latent.goal_tolerance_factor must be"),
        ("latent", {"one_block_distance": -1}, "latent.one_block_distance is -1"),
        ("training", {"trained_episodes": 7}, "training.trained_episodes must be"),
        ("training", {"data_sources": [{"name": "x"}]}, "training.data_sources must be"),
    ],
)
def test_settings_that_ask_for_too_much_are_refused(checkpoint, part, values, message):
    file = checkpoint / "model.json"
    settings = json.loads(file.read_text())
    settings[part].update(values)
    file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="model.json: .*" + message):
        lewm_core.load(checkpoint)


def png(width: int, height: int, further: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + further + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_pictures_are_refused_by_their_headers():
    with pytest.raises(ImageError, match="100000 x 100000 px; more than 64 megapixels"):
        decode_compressed(png(100_000, 100_000))
    whole = bytes(cv2.imencode(".jpeg", np.zeros((6, 8, 3), np.uint8))[1])
    place = whole.index(b"\xff\xc0") + 5
    large = whole[:place] + struct.pack(">HH", 65535, 65535) + whole[place + 4 :]
    with pytest.raises(ImageError, match="65535 x 65535 px"):
        decode_compressed(large)
    with pytest.raises(ImageError, match="neither JPEG nor PNG"):
        decode_compressed(b"RIFF\x24\0\0\0WEBPVP8X" + b"\xff" * 20)
    with pytest.raises(ImageError, match="67108865 bytes, 67108864 are allowed"):
        decode_compressed(bytes(64 * 2**20 + 1))


def test_a_state_of_another_shape_is_refused_before_it_is_loaded(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3)).sum().backward()
    optimiser.step()
    path = tmp_path / "state.safetensors"
    save_state(path, Progress(1, 2.0, 3), model, optimiser)
    assert load_state(path, model, optimiser) == Progress(1, 2.0, 3)
    other = torch.nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match="state.safetensors belongs to another model"):
        load_state(path, other, torch.optim.AdamW(other.parameters()))


def test_rows_that_are_no_rows_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": "x"}\n' + "[" * 10_000 + "\n7\n")
    assert read_metrics(tmp_path) == [{"step": 1}]
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="metrics.jsonl"):
        read_metrics(tmp_path)
