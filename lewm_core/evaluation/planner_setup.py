"""A planner that is evaluated: model, contract, preset, and what the protocol changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import CheckpointError, ConfigError
from lewm_core.evaluation.policies import PlannerPolicy
from lewm_core.planning import (
    PlannerConfig,
    RecedingHorizonController,
    load_planner_config,
    planner_for,
    solver_settings,
)
from lewm_core.reading import ReadingError, parse_yaml
from lewm_core.validation import validate

if TYPE_CHECKING:
    from lewm_core.data.contract import Contract
    from lewm_core.evaluation.protocols import EvaluationProtocol
    from lewm_core.model.world_model import WorldModel
    from lewm_core.planning.protocols import Solver


@dataclass(frozen=True, eq=False)
class PlannerSetup:
    """Makes controllers that are all alike, as the planner node makes its own.

    Attributes:
        model: In eval mode.
        contract: The checkpoint's.
        config: The preset, with the protocol's changes in it.
        name: Of the preset.
        goal_tolerance: Squared latent distance that counts as reached; None: pursued to the end.
    """

    model: WorldModel
    contract: Contract
    config: PlannerConfig
    name: str
    goal_tolerance: float | None = None

    def controller(self, solver: Solver | None = None) -> RecedingHorizonController:
        """Return a controller; ``solver`` is shared with others, None: one of its own."""
        return RecedingHorizonController.from_contract(
            self.model,
            self.contract,
            self.config,
            goal_tolerance=self.goal_tolerance,
            solver=solver,
        )

    def policy(self) -> PlannerPolicy:
        """Return the policy that drives one goal after the other."""
        return PlannerPolicy(self.controller(), self.layout, "planner")

    @property
    def layout(self) -> ObservationLayout:
        """What the model is given."""
        return ObservationLayout.of(self.contract, self.model.config)


def make_setup(
    model: WorldModel,
    contract: Contract,
    planner: str | Path | None,
    protocol: EvaluationProtocol,
    *,
    settings: Sequence[str] = (),
    goal_tolerance_factor: float | None = None,
) -> PlannerSetup:
    """Put a planner together.

    Args:
        model: In eval mode.
        contract: The checkpoint's.
        planner: A preset's name or file; None: what suits the model (`planner_for`).
        protocol: Fixes some settings of the controller.
        settings: ``key=value`` with dotted keys and YAML values, put in place of the preset's;
            the protocol's come after them.
        goal_tolerance_factor: A goal counts as reached, and the robot holds, within this times
            the checkpoint's ``latent.one_block_distance``, as in the planner node; None: the
            goal is pursued until the budget is over.

    Raises:
        ConfigError: Unknown preset or key.
        CheckpointError: A tolerance is wanted and the checkpoint has no ``one_block_distance``.
    """
    name = str(planner_for(model, planner or "auto"))
    config = change_settings(load_planner_config(name), settings)
    tolerance = None
    if goal_tolerance_factor is not None:
        block = model.metadata.get("latent", {}).get("one_block_distance")
        if block is None:
            raise CheckpointError(
                "model.json has no latent.one_block_distance, which a goal tolerance is measured "
                "in; give --goal-tolerance-factor 0"
            )
        tolerance = goal_tolerance_factor * block
    return PlannerSetup(model, contract, protocol.apply(config), Path(name).stem, tolerance)


def change_settings(config: PlannerConfig, settings: Sequence[str]) -> PlannerConfig:
    """Return a preset with some settings put in place of others.

    Another ``solver.kind`` keeps what both kinds have, and begins with its own defaults otherwise.

    Args:
        config: The preset.
        settings: Such as ``solver.rounds=3``.

    Raises:
        ConfigError: Not ``key=value``, or a key or value that a preset cannot have.
    """
    if not settings:
        return config
    values: dict[str, Any] = config.model_dump()
    given: set[str] = set()
    for setting in settings:
        key, separator, text = setting.partition("=")
        *owners, last = key.strip().split(".")
        if not separator or not last:
            raise ConfigError(f"setting {setting!r} is not key=value; write solver.rounds=3")
        owner = values
        for part in owners:
            owner = owner.setdefault(part, {})
            if not isinstance(owner, dict):
                raise ConfigError(f"setting {setting!r}: {part!r} holds no further keys")
        try:
            owner[last] = parse_yaml(text)
        except ReadingError as error:
            raise ConfigError(f"setting {setting!r}: {text!r} is not a YAML value") from error
        if owners == ["solver"]:
            given.add(last)
    kind = solver_settings().get(values["solver"]["kind"])
    if kind is not None and kind is not type(config.solver):
        values["solver"] = {
            key: value
            for key, value in values["solver"].items()
            if key in given or key in kind.model_fields
        }
    return validate(PlannerConfig, values, f"planner with {' '.join(settings)}")
