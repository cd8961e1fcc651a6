"""Checkpoints: a folder with ``model.safetensors``, ``model.json`` and a card, ``README.md``.

``model.json`` says in words a human can read all that is needed to run the weights beside it:

- ``format_version``: 1.
- ``model``: the `ModelConfig` (image size, history, frame skip, sizes of the networks).
- ``proposal``: the `ProposalConfig` of the learned proposal whose weights lie beside the model's,
  or null; older checkpoints do without the key.
- ``normalisation``: ``action_mean`` and ``action_std`` in the contract's units, ``image_mean`` and
  ``image_std`` of pictures in 0..1; for models that are given state fields, ``state_mean`` and
  ``state_std`` in the contract's units.
- ``contract``: the robot's contract the data were recorded under, or null.
- ``training``: how it was trained (steps, seed, versions, ``trained_episodes``,
  ``held_out_episodes``, ...).
- ``latent``: measures of the latent space, such as ``one_block_distance``, the median squared
  distance between states one block apart.

Nothing is ever unpickled. A checkpoint that was changed, cut short or mixed from two is refused
with a line that names the file and the key.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lewm_core.errors import CheckpointError, ConfigError
from lewm_core.model.config import IMAGE_MEAN, IMAGE_STD, ModelConfig, ProposalConfig
from lewm_core.model.proposal import make_proposal
from lewm_core.model.world_model import WorldModel
from lewm_core.paths import checkpoint_path
from lewm_core.reading import read_json_mapping
from lewm_core.validation import explain

FORMAT_VERSION = 1
_ConfigT = TypeVar("_ConfigT", bound=BaseModel)
WEIGHTS, SETTINGS, CARD = "model.safetensors", "model.json", "README.md"

#: Numbers in the weights of a model: 55 times the published one. Checked before any is allocated.
MOST_PARAMETERS = 1_000_000_000
_KEYS = ("format_version", "model", "normalisation", "contract", "training", "latent")
_OPTIONAL_KEYS = ("proposal",)


def save_checkpoint(
    folder: str | Path,
    model: WorldModel,
    contract: dict[str, Any] | None,
    metadata: dict[str, Any],
    card: str,
) -> Path:
    """Write a checkpoint in one piece: after a crash there is the old one, the new one, or none.

    Args:
        folder: The checkpoint's folder. A checkpoint that is there already is replaced; any other
            folder is left alone.
        model: What to write, with its action statistics, and its proposal if it has one.
        contract: The robot's contract as a dictionary.
        metadata: JSON values. ``metadata["latent"]`` becomes the ``latent`` part, the rest the
            ``training`` part; `load_checkpoint` puts them together again.
        card: What a human should know, in Markdown; front matter is put before it.

    Returns:
        The folder.

    Raises:
        CheckpointError: The folder holds something else, or a value is not JSON.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise CheckpointError(
            f"{folder}: exists and is not a checkpoint (no {SETTINGS}); choose another folder"
        )
    settings = json.dumps(_settings(folder, model, contract, metadata), indent=2, allow_nan=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within one file system.
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
        save_file(weights, new / WEIGHTS, metadata={"format": "pt"})
        (new / SETTINGS).write_text(settings + "\n", encoding="utf-8")
        (new / CARD).write_text(_front_matter(model.config) + card.strip() + "\n", encoding="utf-8")
        new.chmod(0o755)
        for name in (WEIGHTS, SETTINGS, CARD):
            (new / name).chmod(0o644)
            _flush(new / name)
        _replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _flush(folder.parent)
    return folder


def load_checkpoint(path: str | Path) -> WorldModel:
    """Open a checkpoint; the model comes back in eval mode on the CPU.

    Args:
        path: The folder, or the name of a shipped checkpoint, such as ``push_t-nano``.

    Returns:
        The model. ``model.contract`` is the contract or None; ``model.metadata`` the training
        part, with the latent part under ``latent``.

    Raises:
        CheckpointError: Missing, damaged, or of another format; the message names file and key.
    """
    folder = _find(path)
    file = folder / SETTINGS
    settings = _read_settings(file)
    config = _read_config(file, settings["model"], ModelConfig, "model")
    proposal = None
    if settings.get("proposal") is not None:
        proposal = _read_config(file, settings["proposal"], ProposalConfig, "proposal")
    weights = _read_weights(folder / WEIGHTS, config, proposal)
    model = _build(config, proposal)
    model.load_state_dict(weights)
    _check_normalisation(file, settings["normalisation"], model)
    model.contract = settings["contract"]
    model.metadata = {**settings["training"], "latent": settings["latent"]}
    return model.eval()


def _settings(
    folder: Path, model: WorldModel, contract: dict[str, Any] | None, metadata: dict[str, Any]
) -> dict[str, Any]:
    settings = {
        "format_version": FORMAT_VERSION,
        "model": model.config.model_dump(mode="json"),
        "proposal": model.proposal and model.proposal.config.model_dump(mode="json"),
        "normalisation": _normalisation(model),
        "contract": contract,
        "training": {key: value for key, value in metadata.items() if key != "latent"},
        "latent": metadata.get("latent", {}),
    }
    for key, value in settings.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / SETTINGS}: {key} cannot be written as JSON: {error}"
            ) from error
    return settings


def _normalisation(model: WorldModel) -> dict[str, list[float]]:
    """What a model subtracts and divides by."""
    values = {
        "action_mean": model.action_mean.tolist(),
        "action_std": model.action_std.tolist(),
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }
    if model.state_dim:
        values |= {
            "state_mean": model.state_mean.tolist(),
            "state_std": model.state_std.tolist(),
        }
    return values


def _front_matter(config: ModelConfig) -> str:
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            "library_name: lewm_ros",
            "pipeline_tag: robotics",
            "tags: [world-model, jepa, lewm, robotics, planning]",
            f"image_size: {config.image_size}",
            f"encoder: {config.encoder.kind}",
            f"history: {config.history}",
            f"frame_skip: {config.frame_skip}",
            "---",
            "",
            "",
        ]
    )


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / SETTINGS).is_file() or not any(folder.iterdir()))


def _replace(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``, so that there is a whole checkpoint at any time."""
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):
        shutil.rmtree(new)
    else:
        # A folder cannot be renamed onto one that holds something. Killed between these two
        # lines, the former checkpoint is left under the name of ``old``.
        old = new.with_suffix(".old")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where kernel or file system cannot (Linux can)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    return renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def _flush(path: Path) -> None:
    """Make sure that a file or the entries of a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _find(path: str | Path) -> Path:
    given = Path(path).expanduser()
    if given.is_file():
        raise CheckpointError(
            f"{given}: is a file; give the folder that holds {SETTINGS} and {WEIGHTS}"
        )
    try:
        folder = checkpoint_path(path)
    except ConfigError as error:
        raise CheckpointError(f"{error}; give the folder that lewm-train wrote") from error
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name}: missing; a checkpoint folder holds {SETTINGS} and {WEIGHTS}"
            )
    return folder


def _read_settings(file: Path) -> dict[str, Any]:
    settings = read_json_mapping(file, CheckpointError, "copy it again")
    version = settings.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: format_version is {version!r}, this version of lewm_core reads "
            f"{FORMAT_VERSION}; install the version that wrote it or train again"
        )
    for key in _KEYS:
        if key not in settings:
            raise CheckpointError(f"{file}: the key {key} is missing; copy or export it again")
    known = (*_KEYS, *_OPTIONAL_KEYS)
    for key in settings:
        if key not in known:
            raise CheckpointError(f"{file}: unknown key {key}; known are {', '.join(known)}")
    for key in ("model", "normalisation", "training", "latent"):
        if not isinstance(settings[key], dict):
            raise CheckpointError(f"{file}: {key} must be an object")
    for key in ("contract", "proposal"):
        if not isinstance(settings.get(key), dict | None):
            raise CheckpointError(f"{file}: {key} must be an object or null")
    _check_records(file, settings["training"], settings["latent"])
    return settings


def _check_records(file: Path, training: dict[str, Any], latent: dict[str, Any]) -> None:
    """Refuse records that commands and the planner would stumble over; the rest is for people."""
    for key in ("trained_episodes", "held_out_episodes"):
        names = training.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{file}: training.{key} must be a list of episode names")
    sources = training.get("data_sources", [])
    if not isinstance(sources, list) or not all(map(_is_source, sources)):
        raise CheckpointError(
            f"{file}: training.data_sources must be a list of objects with name, scene and seeds"
        )
    for key in ("one_block_distance", "goal_tolerance_factor"):
        value = latent.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise CheckpointError(f"{file}: latent.{key} must be a number or null")
        if value is not None and value < 0:
            raise CheckpointError(f"{file}: latent.{key} is {value}, it must be 0 or more")


def _is_source(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("seeds"), list):
        return False
    named = isinstance(entry.get("name"), str) and isinstance(entry.get("scene"), str)
    return named and all(isinstance(seed, int) for seed in entry["seeds"])


def _read_config(
    file: Path, settings: dict[str, Any], kind: type[_ConfigT], key: str
) -> _ConfigT:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise CheckpointError(explain(error, kind, f"{file}: {key}")) from error


def _build(config: ModelConfig, proposal: ProposalConfig | None) -> WorldModel:
    model = WorldModel(config)
    if proposal is not None:
        model.proposal = make_proposal(config, proposal)
    return model


def _read_weights(
    file: Path, config: ModelConfig, proposal: ProposalConfig | None
) -> dict[str, Tensor]:
    """Read the tensors that a model of ``config`` has, no more, no fewer, of the same shapes."""
    # Without memory behind it, so that sizes are compared before any of them is allocated.
    with torch.device("meta"):
        expected = _build(config, proposal).state_dict()
    asked = sum(tensor.numel() for tensor in expected.values())
    if asked > MOST_PARAMETERS:
        raise CheckpointError(
            f"{file.with_name(SETTINGS)}: model asks for {asked:,} parameters, "
            f"{MOST_PARAMETERS:,} are allowed"
        )
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            names = set(stored.keys())
            for name in sorted(expected.keys() - names):
                raise CheckpointError(f"{file}: tensor {name} is missing; {_MIXED}")
            for name in sorted(names - expected.keys()):
                raise CheckpointError(f"{file}: tensor {name} is not part of the model; {_MIXED}")
            for name, wanted in expected.items():
                shape = tuple(stored.get_slice(name).get_shape())
                if shape != tuple(wanted.shape):
                    raise CheckpointError(
                        f"{file}: tensor {name} has shape {shape}, expected "
                        f"{tuple(wanted.shape)}; {_MIXED}"
                    )
            tensors = {name: stored.get_tensor(name) for name in expected}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a complete safetensors file ({error}); copy it again"
        ) from error
    for name, tensor in tensors.items():
        wanted_type = expected[name].dtype
        if tensor.is_floating_point() != wanted_type.is_floating_point:
            raise CheckpointError(
                f"{file}: tensor {name} is {tensor.dtype}, expected {wanted_type}; {_MIXED}"
            )
    return tensors


_MIXED = f"{WEIGHTS} and {SETTINGS} must come from the same training"


def _check_normalisation(file: Path, stated: dict[str, Any], model: WorldModel) -> None:
    """Refuse statistics that cannot be or that contradict the weights' own."""
    used = _normalisation(model)
    for key, values in used.items():
        given = stated.get(key)
        if not (
            isinstance(given, list)
            and len(given) == len(values)
            and all(isinstance(number, int | float) for number in given)
            and all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(given, values, strict=True))
        ):
            raise CheckpointError(
                f"{file}: normalisation.{key} is {given}, but the weights were trained with "
                f"{values}; restore the original file"
            )
    for what in ("action", "state"):
        mean, std = used.get(f"{what}_mean", []), used.get(f"{what}_std", [])
        if not all(map(math.isfinite, mean)) or not all(
            math.isfinite(value) and value > 0 for value in std
        ):
            raise CheckpointError(
                f"{file}: normalisation.{what}_mean and {what}_std must be finite and {what}_std "
                "above 0; train again"
            )
