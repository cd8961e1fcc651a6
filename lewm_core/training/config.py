"""Every setting of a training run: a YAML file, then ``key=value`` from the command line.

Paths in keys are dotted: ``loss.weight=0.3``, ``model.encoder.image_size=96``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lewm_core.errors import ConfigError
from lewm_core.model.config import LossConfig, ModelConfig, ProposalConfig
from lewm_core.paths import config_path
from lewm_core.reading import ReadingError, parse_yaml
from lewm_core.validation import read_yaml_mapping, validate

#: Settings that may change when a run is continued: none of them moves a weight.
FREE_ON_RESUME = (
    "threads", "device", "log_every", "checkpoint_every", "evaluate_every", "name",
    "goal_tolerance_factor",
)
#: The same for groups of settings: monitors, and stages that begin after the model's training.
FREE_GROUPS_ON_RESUME = ("monitor", "refinement", "proposal")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimiserConfig(_Config):
    """AdamW and its schedule.

    Attributes:
        learning_rate: Peak, reached after the warm-up.
        weight_decay: Decoupled, on all weights.
        betas: Decay of the first and second moment.
        warmup: Part of the run in which the rate rises from 0; ``warmup_steps`` wins.
        warmup_steps: The same in steps, or null.
        final_fraction: The rate at the end of the cosine, as a part of the peak.
        gradient_clip: Largest norm of the gradient.
    """

    learning_rate: Positive = 5e-5
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    gradient_clip: Positive = 1.0


class MonitorConfig(_Config):
    """What is measured on held-out episodes, and when it is worth a warning (docs/training.md).

    Attributes:
        frames: Frames of training episodes that probes are fitted on while training.
        final_frames: The same at the end of the run.
        clips: Held-out clips on which predictions are measured.
        horizon: Blocks that a prediction is rolled out for.
        warn_after: Part of the run before which nothing is warned of.
        effective_rank: Warn of a collapse below this many directions in use.
        standard_deviation: Warn of a collapse below this mean deviation per dimension.
        state_r2: Warn that a state is not encoded below this R² of the MLP probe.
        region_r2: Warn that a region of the picture is not encoded below this R².
    """

    frames: Annotated[int, Field(ge=64, le=1_000_000)] = 6000
    final_frames: Annotated[int, Field(ge=64, le=1_000_000)] = 20000
    clips: Annotated[int, Field(ge=1, le=100_000)] = 512
    horizon: Annotated[int, Field(ge=1, le=64)] = 5
    warn_after: Annotated[float, Field(ge=0, le=1)] = 0.25
    effective_rank: Annotated[float, Field(ge=1)] = 3.0
    standard_deviation: Annotated[float, Field(ge=0)] = 0.1
    state_r2: float = 0.5
    region_r2: float = 0.5


class RefinementConfig(_Config):
    """The second stage: the predictor goes on learning on frozen embeddings.

    Attributes:
        steps: Optimiser steps.
        batch_size: Windows per step, each of ``history + rollout_steps`` embeddings.
        rollout_steps: Predictions that are fed back.
        learning_rate: Peak; a cosine down to 0 follows.
        weight_decay: Decoupled.
        warmup_steps: In which the rate rises from 0.
        gradient_clip: Largest norm of the gradient.
        time_share: Part of ``minutes`` that this stage gets, where the run is bounded by them.
    """

    steps: Count = 2000
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    rollout_steps: Annotated[int, Field(ge=1, le=64)] = 5
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    gradient_clip: Positive = 1.0
    time_share: Annotated[float, Field(gt=0, lt=1)] = 0.15

    @model_validator(mode="after")
    def _check(self) -> RefinementConfig:
        return _warmup_fits(self)


class ProposalTrainingConfig(_Config):
    """The last stage: a proposal is trained on frozen embeddings (`lewm_core.training.proposal`).

    Attributes:
        network: Sizes.
        steps: Optimiser steps.
        batch_size: States per step of the imitation term.
        learning_rate: Peak; a cosine down to 0 follows.
        weight_decay: Decoupled.
        warmup_steps: In which the rate rises from 0.
        gradient_clip: Largest norm of the gradient.
        near_share: Part of the imitated goals that lie no farther ahead than those of the
            imagination term; the others are uniform up to ``network.longest``.
        imagination_weight: Of the imagination term beside imitation; 0 leaves it out.
        imagination_floor: Mean squared distance per dimension below which an end counts as at the
            goal; about the error of a prediction.
        imagination_horizon: Blocks that goals of the imagination term lie ahead, at most.
        imagination_batch_size: States per step of the imagination term.
        imagination_from: Part of the stage after which the term sets in: before it, the proposal
            knows too little to be worth rolling out.
        time_share: Part of ``minutes`` that this stage gets, where the run is bounded by them.
    """

    network: ProposalConfig = ProposalConfig()
    steps: Count = 2000
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    gradient_clip: Positive = 1.0
    near_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    imagination_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    imagination_floor: Positive = 0.02
    imagination_horizon: Annotated[int, Field(ge=1, le=64)] = 5
    imagination_batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    imagination_from: Annotated[float, Field(ge=0, le=1)] = 0.3
    time_share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _check(self) -> ProposalTrainingConfig:
        return _warmup_fits(self)


_StageT = TypeVar("_StageT", RefinementConfig, ProposalTrainingConfig)


def _warmup_fits(stage: _StageT) -> _StageT:
    if stage.warmup_steps >= stage.steps:
        raise ValueError(
            f"warmup_steps ({stage.warmup_steps}) must be fewer than steps ({stage.steps})"
        )
    return stage


class TrainConfig(_Config):
    """A whole training run.

    Attributes:
        name: Of the preset; goes into the model card.
        model: Architecture; ``action_dim`` comes from the contract.
        loss: The two terms and their weight.
        optimiser: AdamW and its schedule.
        monitor: Measurements and warnings.
        refinement: The stage in which only the predictor learns; null leaves it out.
        proposal: The stage in which a proposal is trained for the model; null leaves it out.
        batch_size: Clips per step, over all processes.
        clip_length: T, frames per clip; at least ``history + 1`` and ``rollout_steps + 1``.
        steps: Optimiser steps of the run; exactly one of ``steps`` and ``epochs`` is set.
        epochs: Passes over the clips.
        minutes: Ends the run early, with the schedules fitted to it, later stages included; null:
            no bound. Such a run is not repeatable, for the speed of the machine enters.
        precision: ``bfloat16`` (autocast), ``float32``, or ``auto``: bfloat16 where the GPU or
            the CPU has instructions for it. On a CPU the later stages compute in float32 anyway.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        compile: ``torch.compile`` of the training step.
        threads: CPU threads; null: all cores that this process may use.
        seed: Of weights, order of clips, dropout and SIGReg's directions.
        held_out_fraction: Part of the episodes kept out, chosen by a hash of their names.
        checkpoint_every: Steps between saves of the state that ``--resume`` continues from.
        evaluate_every: Steps between measurements on held-out episodes.
        log_every: Steps between rows in ``metrics.jsonl``.
        goal_tolerance_factor: Goes into the checkpoint: a goal counts as reached within this times
            its squared latent distance of pictures one block apart; null: the planner's default.
            Where blocks take a robot many times farther than a goal may be missed, it is smaller.
    """

    name: str = "custom"
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    monitor: MonitorConfig = MonitorConfig()
    refinement: RefinementConfig | None = None
    proposal: ProposalTrainingConfig | None = None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    clip_length: Annotated[int, Field(ge=2, le=256)] = 4
    steps: Count | None = None
    epochs: Positive | None = None
    minutes: Positive | None = None
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    compile: bool = False
    threads: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    checkpoint_every: Count = 500
    evaluate_every: Count = 1000
    log_every: Count = 20
    goal_tolerance_factor: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set either steps or epochs, and the other to null")
        if self.clip_length < self.loss.rollout_steps + 1:
            raise ValueError(
                f"clip_length {self.clip_length} is too short for loss.rollout_steps "
                f"{self.loss.rollout_steps}; it needs {self.loss.rollout_steps + 1}"
            )
        if self.later_share >= 1.0:
            raise ValueError("refinement.time_share and proposal.time_share must add up to less "
                             "than 1")
        return self

    @property
    def model_minutes(self) -> float | None:
        """What is left of ``minutes`` for the world model's own training, less later stages."""
        if self.minutes is None:
            return None
        return self.minutes * (1.0 - self.later_share)

    @property
    def later_share(self) -> float:
        """Part of ``minutes`` that is for the stages after the world model's own training."""
        return sum(
            stage.time_share for stage in (self.refinement, self.proposal) if stage is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, as YAML and JSON hold them."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return all settings as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_train_config(
    path: str | Path, overrides: Sequence[str] = (), *, action_dim: int
) -> TrainConfig:
    """Read a preset and apply overrides.

    Args:
        path: A YAML file, or the name of a shipped preset such as ``nano``.
        overrides: ``key=value`` with dotted keys and YAML values.
        action_dim: A, the numbers in one command of the contract.

    Raises:
        ConfigError: The file, a key, or a value cannot be used; the message names it, and the
            nearest key that exists.
    """
    path = config_path("train", path)
    values = read_yaml_mapping(path)
    for override in overrides:
        values = _override(values, override)
    model = values.setdefault("model", {})
    if isinstance(model, dict):
        given = model.setdefault("action_dim", action_dim)
        if given != action_dim:
            raise ConfigError(
                f"{path}: model.action_dim is {given}, but the contract has {action_dim} action "
                "fields; leave model.action_dim out"
            )
    source = str(path) + (f" with {' '.join(overrides)}" if overrides else "")
    return validate(TrainConfig, values, source)


def config_differences(before: TrainConfig, after: TrainConfig) -> list[str]:
    """Return the settings that keep ``after`` from continuing a run of ``before``.

    Returns:
        Lines such as ``"loss.weight: 0.5 in the run, 0.3 now"``, without `FREE_ON_RESUME` and
        `FREE_GROUPS_ON_RESUME`: a run that ended may be given a proposal later.
    """
    old, new = _flat(before.to_dict()), _flat(after.to_dict())
    return [
        f"{key}: {old.get(key)!r} in the run, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if key not in FREE_ON_RESUME
        and key.split(".")[0] not in FREE_GROUPS_ON_RESUME
        and old.get(key) != new.get(key)
    ]


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(
            f"override {override!r} is not key=value; write for example loss.weight=0.3"
        )
    try:
        value = parse_yaml(text)
    except ReadingError as error:
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value") from error
    values = copy.deepcopy(values)
    owner = values
    for part in parts[:-1]:
        inner = owner.get(part)
        if inner is None:
            # A group that the preset leaves out: named, it has its defaults and what is set.
            inner = owner[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {part!r} holds no further keys")
        owner = inner
    if parts[-1] in owner or parts[-1] not in ("steps", "epochs"):
        owner[parts[-1]] = value
    else:
        # One of the pair is always set by the preset: naming the other one replaces it.
        owner.pop("epochs" if parts[-1] == "steps" else "steps", None)
        owner[parts[-1]] = value
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
