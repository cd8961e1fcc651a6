"""Planner presets: one YAML file says how to search and when to search again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from lewm_core.paths import config_path
from lewm_core.planning.adam import AdamConfig
from lewm_core.planning.cem import CEMConfig
from lewm_core.planning.icem import ICEMConfig
from lewm_core.planning.mppi import MPPIConfig
from lewm_core.planning.objectives import ObjectiveConfig
from lewm_core.planning.proposal import ProposalSolverConfig
from lewm_core.validation import read_yaml_mapping, validate

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ControllerConfig(BaseModel):
    """When the controller plans, and from what. Defaults are the paper's.

    Attributes:
        execute_blocks: Blocks of a plan that are executed before another one is wanted.
        warm_start: Begin a search at the previous plan, shifted by the blocks that passed.
        shrink_horizon: Plan to *arrive* at a fixed moment: the horizon counts down until then and
            begins anew. Without it every plan arrives ``horizon`` blocks from its own beginning.
        minimum_horizon: Blocks below which the horizon does not shrink.
        history_frames: Frames of history the model is shown; None: as many as it was trained on.
        history_tolerance: s a frame may lie from a whole block before the newest; None: half a
            control period, as the aligner of bags allows.
        compensate_latency: Let a plan begin with the commands that are executed between its
            picture and the moment it is there, instead of with actions nobody will execute.
        time_limit: s that encoding and search may take; a search ends with the last round that
            fits, and the plan is used as it is. None: all rounds, however long they take.
            ``auto``: what the replanning period of the planner node leaves; elsewhere None.
        release_factor: A reached goal is pursued again when the distance exceeds the tolerance
            by this factor; above 1, so that noise does not switch the motion on and off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    execute_blocks: int = Field(5, ge=1)
    warm_start: bool = False
    shrink_horizon: bool = False
    minimum_horizon: int = Field(1, ge=1)
    history_frames: int | None = Field(None, ge=1, le=64)
    history_tolerance: float | None = Field(None, ge=0, allow_inf_nan=False)
    compensate_latency: bool = False
    time_limit: Literal["auto"] | _Seconds | None = None
    release_factor: float = Field(2.0, ge=1, allow_inf_nan=False)

    @field_validator("time_limit", mode="before")
    @classmethod
    def _limit_said_clearly(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"{value!r} is neither a number of seconds nor auto nor null")
        return value


def _named_kind(value: Any) -> Any:
    """A preset that names no kind of solver means the plain search."""
    return {"kind": "cem", **value} if isinstance(value, dict) else value


SolverConfig = Annotated[
    Annotated[
        CEMConfig | ICEMConfig | MPPIConfig | AdamConfig | ProposalSolverConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_named_kind),
]


Precision = Literal["auto", "float32", "bfloat16"]


#: A goal counts as reached, and the robot holds, within this times the checkpoint's squared latent
#: distance of pictures one block apart, unless somebody says otherwise. Chosen on tuning goals of
#: Push-T (docs/recipes.md): at 0.1 it stops short, without one it passes through.
GOAL_TOLERANCE_FACTOR = 0.06


def goal_tolerance_factor(metadata: Mapping[str, Any]) -> float:
    """Return how much of its distance of one block counts as at a goal for a checkpoint.

    Args:
        metadata: Of the checkpoint; ``latent.goal_tolerance_factor`` is its own, and
            `GOAL_TOLERANCE_FACTOR` serves where it has none.
    """
    own = metadata.get("latent", {}).get("goal_tolerance_factor")
    return GOAL_TOLERANCE_FACTOR if own is None else float(own)


class PlannerConfig(BaseModel):
    """A planner preset, ``config/planner/NAME.yaml``.

    Attributes:
        description: One line for people.
        solver: How to search.
        objective: What to search for.
        controller: When to search.
        precision: Of the matrix products with which candidates are rolled out. ``auto``: bfloat16
            where the processor computes in it, else float32; costs then agree to 1 %.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    solver: SolverConfig = CEMConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    controller: ControllerConfig = ControllerConfig()
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> PlannerConfig:
        if self.controller.execute_blocks > self.solver.horizon:
            raise ValueError(
                f"controller.execute_blocks ({self.controller.execute_blocks}) exceeds "
                f"solver.horizon ({self.solver.horizon})"
            )
        if self.controller.minimum_horizon > self.solver.horizon:
            raise ValueError(
                f"controller.minimum_horizon ({self.controller.minimum_horizon}) exceeds "
                f"solver.horizon ({self.solver.horizon})"
            )
        return self


def load_planner_config(name: str | Path) -> PlannerConfig:
    """Read a planner preset.

    Args:
        name: A YAML file, or the name of a shipped preset: ``default``, ``fast``, ``paper``,
            ``search``.

    Raises:
        ConfigError: One line: the file, the key, what is wrong, the nearest valid key.
    """
    path = config_path("planner", name)
    return validate(PlannerConfig, read_yaml_mapping(path), str(path))
