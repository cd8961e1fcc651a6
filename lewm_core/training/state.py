"""The state that ``--resume`` continues from: one safetensors file, replaced as a whole.

Weights, buffers, the optimiser's moments and the counters lie in a single file, so that there is
never a moment at which a killed process leaves half a state behind: the new file is written
beside the old one and then takes its name. Random numbers need no saving, for those of a step are
a function of (seed, step) (`lewm_core.training.pipeline.step_seed`).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lewm_core.errors import CheckpointError
from lewm_core.reading import ReadingError, parse_json

#: Raised when the layout of the file changes.
FORMAT_VERSION = 1

_MODEL = "model."
_OPTIMISER = "optimiser."


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps made; also the number of the next step.
        elapsed_s: Seconds spent training, over all resumptions.
        frames: Pictures that went through the model.
    """

    step: int = 0
    elapsed_s: float = 0.0
    frames: int = 0


def save_state(
    path: Path, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state to ``path``, in one piece.

    Raises:
        OSError: The disk is full or the folder cannot be written; an older state stays whole.
    """
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{_OPTIMISER}{name}/{key}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"format_version": str(FORMAT_VERSION), "progress": json.dumps(asdict(progress))}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(save(tensors, metadata=header))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Read the state at ``path`` into ``model`` and ``optimiser``.

    Returns:
        How far the run had come.

    Raises:
        CheckpointError: The file is damaged, or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            expected = _shapes(model)
            for name in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(name).get_shape())
                if shape not in expected.get(name.partition("/")[0], ()):
                    raise CheckpointError(
                        f"{path} belongs to another model: tensor {name} of shape {shape} is not "
                        "part of this one; start the run anew in another folder"
                    )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete the folder to start the run anew"
        ) from error
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has format {header.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; start the run anew in another folder"
        )
    weights = {
        name.removeprefix(_MODEL): value
        for name, value in tensors.items()
        if name.startswith(_MODEL)
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} belongs to another model: {error}") from error
    for name, parameter in model.named_parameters():
        prefix = f"{_OPTIMISER}{name}/"
        moments = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if moments:
            optimiser.state[parameter] = {
                key: _laid_out_like(parameter, value) for key, value in moments.items()
            }
    return _progress(path, header.get("progress", ""))


def _shapes(model: nn.Module) -> dict[str, set[tuple[int, ...]]]:
    """Return the shapes that a tensor of the file may have, by its name up to a slash.

    A moment has its parameter's shape; AdamW's step counter has none.
    """
    shapes = {_MODEL + name: {tuple(value.shape)} for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        shapes[_OPTIMISER + name] = {tuple(parameter.shape), ()}
    return shapes


def _progress(path: Path, text: str) -> Progress:
    try:
        values = parse_json(text)
        return Progress(int(values["step"]), float(values["elapsed_s"]), int(values["frames"]))
    except (ReadingError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say how far the run had come ({error}); start the run anew in "
            "another folder"
        ) from error


def _laid_out_like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Return a moment in the memory layout of its parameter; the step counter as it is.

    The fused optimiser walks through both as they lie in memory: a moment of a weight with the
    channels last that comes back with the channels first would silently meet the wrong weights.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
