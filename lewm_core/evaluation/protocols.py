"""Evaluation protocols by name: how far away goals are, how long it may take, when is replanned.

A protocol is a sentence about the *task* and about what it fixes in the planner's preset; all
else is the preset's. Both are named in every result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lewm_core.errors import UserError
from lewm_core.planning.config import PlannerConfig
from lewm_core.validation import suggestion


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is asked of a planner.

    Attributes:
        name: For tables.
        description: One sentence.
        distances: Control steps between start and goal; one table each.
        budget_factor: Control steps allowed, as a multiple of the distance.
        controller: Settings of `ControllerConfig` that the protocol fixes.
        whole_plans: All blocks of a plan are executed before the next plan is made.
        count_down: The horizon counts down to a moment of arrival, unless the solver chooses one
            by itself. One that always ends as many blocks from now never arrives.
        holds_at_goal: The planner holds where the goal is reached, by the checkpoint's tolerance;
            otherwise goals are pursued until the budget is over.
    """

    name: str
    description: str
    distances: tuple[int, ...]
    budget_factor: float = 2.0
    controller: Mapping[str, Any] = field(default_factory=dict)
    whole_plans: bool = False
    count_down: bool = False
    holds_at_goal: bool = False

    def budget_steps(self, distance: int) -> int:
        """Control steps allowed for a goal ``distance`` control steps away."""
        return max(1, round(self.budget_factor * distance))

    def overrides(self, config: PlannerConfig) -> dict[str, Any]:
        """Settings of the preset's ``controller`` that this protocol puts others in place of.

        Returns:
            Name to the value in force; empty where the preset says so already.
        """
        wanted = dict(self.controller)
        if self.whole_plans:
            wanted["execute_blocks"] = config.solver.horizon
        if self.count_down and config.solver.proposal is None:
            wanted["shrink_horizon"] = True
        present = config.controller.model_dump()
        return {name: value for name, value in wanted.items() if present[name] != value}

    def apply(self, config: PlannerConfig) -> PlannerConfig:
        """Return the preset as this protocol runs it."""
        controller = config.controller.model_copy(update=self.overrides(config))
        return config.model_copy(update={"controller": controller})


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            name="paper",
            description="goals 25 control steps away, 50 allowed; every block of a plan is "
            "executed before the next plan, which begins anew (arXiv 2603.19312)",
            distances=(25,),
            # A fixed horizon and no memory of the plan before, as published.
            controller={"warm_start": False, "shrink_horizon": False},
            whole_plans=True,
        ),
        EvaluationProtocol(
            name="mpc",
            description="goals 25 control steps away, 50 allowed; replanned every block, "
            "towards a moment of arrival; held where the goal is reached",
            distances=(25,),
            controller={"execute_blocks": 1},
            count_down=True,
            holds_at_goal=True,
        ),
        EvaluationProtocol(
            name="far",
            description="goals 50, 75 and 100 control steps away, twice that allowed; replanned "
            "every block, towards a moment of arrival; held where the goal is reached",
            distances=(50, 75, 100),
            controller={"execute_blocks": 1},
            count_down=True,
            holds_at_goal=True,
        ),
    )
}


def known_protocols() -> list[str]:
    """Return the names that `load_protocol` takes."""
    return list(PROTOCOLS)


def load_protocol(name: str) -> EvaluationProtocol:
    """Return a protocol by its name.

    Raises:
        UserError: Unknown; the message lists the known ones.
    """
    if name not in PROTOCOLS:
        raise UserError(
            f"unknown protocol {name!r}; known protocols: {', '.join(PROTOCOLS)}; "
            f"{suggestion(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]
