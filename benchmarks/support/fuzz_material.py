"""Small whole files of every kind, which the fuzzer mutates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lewm_core.data.bag_writer import BagWriter
from lewm_core.data.cache import build_cache
from lewm_core.data.contract import Contract, save_contract
from lewm_core.data.messages import make_message
from lewm_core.model import (
    ActionEncoderConfig,
    KeypointEncoderConfig,
    ModelConfig,
    PredictorConfig,
    ProjectorConfig,
    WorldModel,
)
from lewm_core.model.checkpoint import save_checkpoint
from lewm_core.model.verdict import Verdict, write_verdict
from lewm_core.training.state import Progress, save_state

#: Size of the camera's pictures, px, and edge of the model's.
WIDTH, HEIGHT, IMAGE_SIZE = 8, 6, 16
_TICKS = 21
_PERIOD_NS = 100_000_000


def contract() -> Contract:
    """Return a contract of one camera, two velocities and one state."""
    limits = {"lower": -1.0, "upper": 1.0, "rate_limit": 10.0, "hold": 0.0, "unit": "m/s"}
    return Contract.from_dict(
        {
            "name": "small", "control_rate": 10.0, "max_gap": 1.0,
            "cameras": [{"name": "top", "topic": "/camera", "message": "sensor_msgs/msg/Image",
                         "size": [WIDTH, HEIGHT], "crop": [0, 0, 6, 6]}],
            "action": {
                "topic": "/command", "message": "geometry_msgs/msg/TwistStamped",
                "fields": [{"name": "x", "selector": "twist.linear.x", **limits},
                           {"name": "y", "selector": "twist.linear.y", **limits}],
            },
            "states": [{"name": "scene", "topic": "/state", "message": "sensor_msgs/msg/JointState",
                        "fields": [{"name": "a", "selector": "position[0]", "unit": "m"}]}],
        }
    )  # fmt: skip


def model() -> WorldModel:
    """Return a world model of 8 thousand parameters, always the same."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=KeypointEncoderConfig(image_size=IMAGE_SIZE, channels=(4, 8), keypoints=6),
        embedding_dim=8,
        projector=ProjectorConfig(hidden=24),
        action_encoder=ActionEncoderConfig(hidden=24),
        predictor=PredictorConfig(
            width=16, depth=2, heads=2, head_dim=8, mlp_dim=32, dropout=0.0, residual=True,
            projector=None,
        ),
        action_dim=2,
    )  # fmt: skip
    return WorldModel(config).eval()


def write_checkpoint(folder: Path) -> None:
    """Write a checkpoint with a verdict."""
    source = {"name": "bags", "scene": "push_t", "seeds": [1]}
    metadata = {
        "trained_episodes": ["push_t_s1_000000"], "held_out_episodes": ["push_t_s1_000001"],
        "data_sources": [source], "latent": {"one_block_distance": 1.5},
    }  # fmt: skip
    save_checkpoint(folder, model(), contract().to_dict(), metadata, "A small model.")
    verdict = Verdict("can plan", "all is well", {"figure": 1.0}, ["bags"], "2026-01-01", "1")
    write_verdict(folder, verdict)


def write_bag(path: Path, storage: str = "mcap", compression: str = "zstd") -> None:
    """Write a bag of two seconds; its metadata.yaml comes with it."""
    robot = contract()
    rng = np.random.default_rng(0)
    with BagWriter(path, storage=storage, compression=compression) as writer:  # type: ignore[arg-type]
        for topic, type_name in robot.topic_types().items():
            writer.add_topic(topic, type_name)
        for tick in range(_TICKS):
            stamp_ns = 10**9 + tick * _PERIOD_NS
            for topic, type_name in robot.topic_types().items():
                message = make_message(type_name)
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
                if topic == "/camera":
                    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                    message.height, message.width, message.step = HEIGHT, WIDTH, 3 * WIDTH
                    message.encoding, message.data = "rgb8", pixels.reshape(-1)
                elif topic == "/state":
                    message.position = np.array([tick / 10])
                else:
                    message.twist.linear.x = tick / 100
                writer.write(topic, stamp_ns, message)


def write_cache(folder: Path) -> Path:
    """Build a frame cache and return its folder."""
    write_bag(folder / "bag")
    return build_cache(folder / "bag", contract(), IMAGE_SIZE, folder / "caches").folder


def write_run_state(path: Path) -> None:
    """Write the state that ``lewm-train --resume`` continues from."""
    network = model()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    save_state(path, Progress(10, 1.0, 100), network, optimiser)


def write_contract(path: Path) -> None:
    """Write the contract as YAML."""
    save_contract(contract(), path)


def picture_files() -> dict[str, bytes]:
    """Return a PNG and a JPEG of the camera's size."""
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return {
        kind: bytes(cv2.imencode(f".{kind}", pixels)[1]) for kind in ("png", "jpeg")
    }


def preset() -> dict[str, Any]:
    """Return a planner preset that names most keys."""
    return {
        "description": "A search.",
        "solver": {"kind": "cem", "horizon": 5, "candidates": 64, "rounds": 4, "elites": 8,
                   "initial_std": 1.0, "min_std": 0.0, "blocks_per_round": 100, "seed": 0},
        "objective": {"running_weight": 0.0, "discount": 1.0, "smoothness": 0.1, "excess": 0.1},
        "controller": {"execute_blocks": 1, "warm_start": True, "history_frames": 3,
                       "time_limit": "auto", "release_factor": 2.0},
        "precision": "float32",
    }  # fmt: skip
