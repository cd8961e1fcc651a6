"""The kinds of files that are fuzzed without ROS: how an input is made, and how it is read."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from support import fuzz_bombs as bombs
from support import fuzz_material as material
from support.fuzz_bag_bombs import BAGS
from support.fuzz_mutations import json_text, mutate_bytes, mutate_tree, yaml_text

import lewm_core
from lewm_core.data.bags import BagReader, bag_notes, find_bags
from lewm_core.data.cache import build_cache, open_cache
from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.images import ENCODINGS, decode_message, prepare_picture
from lewm_core.data.origin import read_origins
from lewm_core.evaluation.provenance import training_origins
from lewm_core.model.verdict import read_verdict
from lewm_core.paths import find_shared
from lewm_core.planning.config import goal_tolerance_factor, load_planner_config
from lewm_core.planning.solvers import make_solver
from lewm_core.reading import parse_json
from lewm_core.training.config import load_train_config
from lewm_core.training.metrics import read_metrics
from lewm_core.training.state import load_state


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: In the table.
        share: Of all inputs, beside the shares of the others.
        make: Writes one mutated input into a folder: (random numbers, folder of whole files,
            folder of the input).
        load: Reads the input in a folder as users' programs do; raises `UserError` to refuse it.
        bombs: Crafted inputs by name; each writes itself into a folder like ``make``.
        set_up: Called once in every worker.
    """

    name: str
    share: float
    make: Callable[[random.Random, Path, Path], None]
    load: Callable[[Path], object]
    bombs: dict[str, Callable[[Path, Path], None]] = field(default_factory=dict)
    set_up: Callable[[], object] | None = None


def write_material(folder: Path) -> None:
    """Write the whole files of all kinds of this module."""
    material.write_checkpoint(folder / "checkpoint")
    material.write_contract(folder / "contract.yaml")
    for name, storage, compression in (
        ("zstd", "mcap", "zstd"), ("plain", "mcap", "none"), ("sqlite", "sqlite3", "none"),
    ):  # fmt: skip
        material.write_bag(folder / "bags" / name, storage, compression)
    shutil.copytree(material.write_cache(folder / "scratch"), folder / "cache")
    material.write_run_state(folder / "state.safetensors")
    for kind, data in material.picture_files().items():
        (folder / f"picture.{kind}").write_bytes(data)


def _mutate_file(rng: random.Random, file: Path) -> None:
    """Mutate a file in its place, as a tree where it is text that holds one."""
    if file.suffix == ".json" and rng.random() < 0.7:
        file.write_text(json_text(rng, mutate_tree(rng, parse_json(file.read_text()))))
    elif file.suffix == ".yaml" and rng.random() < 0.7:
        file.write_text(yaml_text(rng, mutate_tree(rng, yaml.safe_load(file.read_text()))))
    else:
        file.write_bytes(mutate_bytes(rng, file.read_bytes()))


# Checkpoints.


def _make_checkpoint(rng: random.Random, whole: Path, folder: Path) -> None:
    shutil.copytree(whole / "checkpoint", folder / "checkpoint")
    name = rng.choice(("model.json", "model.json", "model.safetensors", "check.json"))
    _mutate_file(rng, folder / "checkpoint" / name)


def _load_checkpoint(folder: Path) -> None:
    model = lewm_core.load(folder / "checkpoint")
    read_verdict(folder / "checkpoint")
    if model.contract is not None:
        Contract.from_dict(model.contract, "contract of the checkpoint")
    goal_tolerance_factor(model.metadata)
    training_origins(model.metadata)
    config = model.config
    size = config.image_size
    frames = torch.zeros((1, 1, config.picture_channels, size, size), dtype=torch.uint8)
    states = torch.zeros((1, 1, model.state_dim)) if model.state_dim else None
    with torch.inference_mode():
        model.encode(frames, states)


# Settings.


def _make_contract(rng: random.Random, whole: Path, folder: Path) -> None:
    shutil.copy(whole / "contract.yaml", folder / "contract.yaml")
    _mutate_file(rng, folder / "contract.yaml")


def _load_contract(folder: Path) -> None:
    contract = load_contract(folder / "contract.yaml")
    contract.action_limits()
    contract.topic_types()


def _make_preset(rng: random.Random, _: Path, folder: Path) -> None:
    file = folder / "preset.yaml"
    shipped = rng.choice(("default", "fast", "paper", "search", ""))
    if shipped:
        shutil.copy(find_shared(f"config/planner/{shipped}.yaml"), file)
    else:
        file.write_text(yaml.safe_dump(material.preset()))
    _mutate_file(rng, file)


def _load_preset(folder: Path) -> None:
    config = load_planner_config(folder / "preset.yaml")
    solver = config.solver.model_copy(update={"proposal": None})
    if solver.kind != "proposal":
        make_solver(material.model(), solver, precision=config.precision,
                    objective=config.objective)  # fmt: skip


def _make_training(rng: random.Random, _: Path, folder: Path) -> None:
    name = rng.choice(("nano", "small", "paper"))
    shutil.copy(find_shared(f"config/train/{name}.yaml"), folder / "train.yaml")
    _mutate_file(rng, folder / "train.yaml")


def _load_training(folder: Path) -> None:
    load_train_config(folder / "train.yaml", action_dim=2)


# Bags.


def _make_bag(rng: random.Random, whole: Path, folder: Path) -> None:
    shutil.copytree(whole / "bags" / rng.choice(("zstd", "plain", "plain", "sqlite")),
                    folder / "bag")  # fmt: skip
    storage = next(file for file in (folder / "bag").iterdir() if file.suffix != ".yaml")
    target = folder / "bag" / f"bag{storage.suffix}"
    storage.rename(target)
    metadata = folder / "bag" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(storage.name, target.name))
    choice = rng.random()
    if choice < 0.3:
        _mutate_file(rng, metadata)
        return
    if choice < 0.6:
        metadata.unlink()
    _mutate_file(rng, target)


def _load_bag(folder: Path) -> None:
    for bag in find_bags(folder / "bag"):
        bag_notes(bag)
        with BagReader(bag) as reader:
            for _ in reader.messages():
                pass
    build_cache(folder / "bag", material.contract(), material.IMAGE_SIZE, folder / "caches",
                workers=1)  # fmt: skip


def _make_dataset(rng: random.Random, _: Path, folder: Path) -> None:
    dataset = {"scene": "push_t", "runs": [{"command": "lewm-collect", "seed": 1, "episodes": 2}]}
    (folder / "dataset.json").write_text(json_text(rng, mutate_tree(rng, dataset)))


def _load_dataset(folder: Path) -> None:
    read_origins([folder])


# What a run leaves behind.


def _make_cache(rng: random.Random, whole: Path, folder: Path) -> None:
    shutil.copytree(whole / "cache", folder / "cache")
    _mutate_file(rng, folder / "cache" / rng.choice(("index.json", "frames.npy", "ticks.npz")))


def _load_cache(folder: Path) -> None:
    cache = open_cache(folder / "cache")
    np.asarray(cache.frames[cache.frame_index[cache.frame_index >= 0]])
    cache.ticks_of([episode.name for episode in cache.episodes])


def _make_state(rng: random.Random, whole: Path, folder: Path) -> None:
    shutil.copy(whole / "state.safetensors", folder / "state.safetensors")
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "total": 0.5}\n' * 3)
    _mutate_file(rng, folder / rng.choice(("state.safetensors", "metrics.jsonl")))


def _load_state(folder: Path) -> None:
    model = material.model()
    load_state(folder / "state.safetensors", model,
               torch.optim.AdamW(model.parameters(), lr=1e-3))  # fmt: skip
    read_metrics(folder)


# Pictures, as the messages of rosbags hold them.


def _make_picture(rng: random.Random, whole: Path, folder: Path) -> None:
    if rng.random() < 0.5:
        data = (whole / f"picture.{rng.choice(('png', 'jpeg'))}").read_bytes()
        (folder / "compressed").write_bytes(mutate_bytes(rng, data))
        return
    width, height = material.WIDTH, material.HEIGHT
    encoding = rng.choice([*ENCODINGS, "bayer_rggb8", "", "x" * 10_000])
    channels = ENCODINGS.get(encoding, 3)
    fields = {"encoding": encoding, "width": width, "height": height, "step": width * channels,
              "is_bigendian": 0}  # fmt: skip
    key = rng.choice(("width", "height", "step", "none"))
    if key != "none":
        fields[key] = rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, width - 1, 10**6))
    (folder / "raw.json").write_text(json_text(random.Random(0), fields))
    size = rng.choice((0, 1, width * height * channels - 1, width * height * channels, 10**6))
    (folder / "raw").write_bytes(bytes(size))


def _load_picture(folder: Path) -> None:
    if (folder / "compressed").exists():
        message = SimpleNamespace(data=(folder / "compressed").read_bytes())
    else:
        fields: dict[str, Any] = parse_json((folder / "raw.json").read_text())
        message = SimpleNamespace(**fields, data=(folder / "raw").read_bytes())
    prepare_picture(decode_message(message), None, material.IMAGE_SIZE)


KINDS = (
    Kind("checkpoint", 4.0, _make_checkpoint, _load_checkpoint, bombs.CHECKPOINTS),
    Kind("contract", 3.0, _make_contract, _load_contract, bombs.in_file("contract.yaml")),
    Kind("planner preset", 3.0, _make_preset, _load_preset, bombs.in_file("preset.yaml")),
    Kind("training preset", 2.0, _make_training, _load_training, bombs.in_file("train.yaml")),
    Kind("bag", 5.0, _make_bag, _load_bag, BAGS),
    Kind("dataset.json", 0.5, _make_dataset, _load_dataset, bombs.in_json("dataset.json")),
    Kind("frame cache", 1.5, _make_cache, _load_cache, bombs.CACHES),
    Kind("resume state", 1.5, _make_state, _load_state, bombs.STATES),
    Kind("picture", 3.0, _make_picture, _load_picture, bombs.PICTURES),
)
