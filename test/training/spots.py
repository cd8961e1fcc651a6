"""A tiny world for training tests: a bright spot on a grey board that follows velocity commands.

State ``a`` is the spot's x in metres; state ``b`` is its y, declared as an angle in radians so
that probes take its sine and cosine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lewm_core.data.bags import BagWriter
from lewm_core.data.cache import build_cache
from lewm_core.data.contract import Contract, save_contract
from lewm_core.data.frame_cache import FrameCache
from lewm_core.training.config import TrainConfig, load_train_config
from lewm_core.training.data import TrainingData, open_data, resolve
from test.data.synthetic import MS, image_message, small_contract, stamped

SIZE = 16
TICKS = 24

#: Like the preset nano, but for 16 px and seconds.
SETTINGS: dict[str, Any] = {
    "name": "spots",
    "model": {
        "encoder": {"kind": "keypoint", "image_size": SIZE, "channels": [8, 8], "keypoints": 8},
        "embedding_dim": 8,
        "projector": {"hidden": 32},
        "action_encoder": {"hidden": 16},
        "predictor": {
            "width": 16,
            "depth": 1,
            "heads": 2,
            "head_dim": 8,
            "mlp_dim": 32,
            "dropout": 0.1,
            "residual": True,
            "projector": None,
        },
        "history": 2,
        "frame_skip": 1,
    },
    "loss": {"weight": 0.5, "directions": 32, "rollout_steps": 2},
    "optimiser": {"learning_rate": 3e-3, "warmup_steps": 10},
    "monitor": {"frames": 300, "final_frames": 300, "clips": 64, "horizon": 3},
    "batch_size": 16,
    "clip_length": 4,
    "steps": 30,
    "held_out_fraction": 0.25,
    "precision": "float32",
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 10,
    "evaluate_every": 1000,
    "log_every": 5,
}


def spot_contract(**changes: Any) -> Contract:
    """Return the contract of the spot world."""
    return small_contract(cameras__0__size=[SIZE, SIZE], **changes)


def spot_picture(x: float, y: float) -> np.ndarray:
    """Return (SIZE, SIZE, 3) uint8 with a spot at x, y in [-1, 1]."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    distance = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
    bright = 40 + 200 * np.exp(-distance / 0.05)
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=2)


def write_spots(folder: Path, episodes: int = 16, seed: int = 0) -> Path:
    """Write a dataset of bags: a picture, a command and a state at every tick."""
    contract = spot_contract()
    folder.mkdir(parents=True)
    save_contract(contract, folder / "contract.yaml")
    random = np.random.default_rng(seed)
    for number in range(episodes):
        place = random.uniform(-0.6, 0.6, 2)
        with BagWriter(folder / f"spots_{seed}_{number:03d}") as writer:
            for topic, type_name in contract.topic_types().items():
                writer.add_topic(topic, type_name)
            for tick in range(TICKS):
                stamp_ns = tick * 100 * MS
                velocity = random.uniform(-1, 1, 2)
                writer.write("/camera", stamp_ns, image_message(spot_picture(*place), stamp_ns))
                state = stamped("sensor_msgs/msg/JointState", stamp_ns)
                state.position = place.copy()
                writer.write("/state", stamp_ns, state)
                command = stamped(contract.action.message, stamp_ns)
                command.twist.linear.x, command.twist.linear.y = velocity
                writer.write("/command", stamp_ns, command)
                place = np.clip(place + 0.25 * velocity, -0.8, 0.8)
    return folder


def write_settings(path: Path, **changes: Any) -> Path:
    """Write `SETTINGS` with top-level changes as YAML; return the path."""
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return path


def spot_config(folder: Path, *overrides: str) -> TrainConfig:
    """Return the settings of a small run."""
    return load_train_config(write_settings(folder / "spots.yaml"), overrides, action_dim=2)


def open_spots(dataset: Path, folder: Path, *overrides: str) -> tuple[TrainingData, TrainConfig]:
    """Return data and resolved settings; the cache lies where LEWM_CACHE_DIR says."""
    config = spot_config(folder, *overrides)
    data = open_data([dataset], spot_contract(), config)
    return data, resolve(config, data, threads=1, precision="float32", device="cpu")


def spot_cache(dataset: Path) -> FrameCache:
    """Return the frame cache of a dataset."""
    return build_cache([dataset], spot_contract(), SIZE)
