"""From a preset's solver settings to the solver, and which preset suits a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lewm_core.errors import PlanningError
from lewm_core.model.fast_rollout import FastRollout
from lewm_core.model.world_model import WorldModel
from lewm_core.planning.adam import Adam
from lewm_core.planning.cem import CEM
from lewm_core.planning.config import Precision
from lewm_core.planning.icem import ICEM
from lewm_core.planning.mppi import MPPI
from lewm_core.planning.objectives import ObjectiveConfig, make_objective
from lewm_core.planning.proposal import ProposalSolver
from lewm_core.planning.protocols import Dynamics, Objective, device_of
from lewm_core.planning.solver import BaseSolver, SolverSettings

#: The solver of every kind of settings.
_SOLVERS: dict[type[SolverSettings], type[BaseSolver]] = {
    solver.settings: solver for solver in (CEM, ICEM, MPPI, Adam, ProposalSolver)
}


def solver_settings() -> dict[str, type[SolverSettings]]:
    """Return the settings of every kind of solver by the kind's name."""
    return {settings.model_fields["kind"].default: settings for settings in _SOLVERS}


def make_solver(
    model: Dynamics,
    config: SolverSettings,
    action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
    precision: Precision = "float32",
    rate_limits: Sequence[float] | None = None,
    objective: Objective | ObjectiveConfig | None = None,
) -> BaseSolver:
    """Build the solver that ``config.kind`` names.

    Args:
        model: The dynamics; with a learned proposal where the solver begins with one.
        config: The ``solver`` part of a planner preset.
        action_limits: ``(lower (A,), upper (A,))`` in physical units; None: free.
        precision: Of the matrix products in rollouts of candidates.
        rate_limits: ``(A,)`` greatest change from one control step to the next, in physical units.
        objective: What to minimise, or the ``objective`` part of a preset; None: the paper's, the
            squared distance of the last state to the goal.

    Raises:
        PlanningError: The model has no proposal but the solver needs one, is in training mode, or
            the limits do not fit its actions.
    """
    if isinstance(model, WorldModel):
        if model.training:
            raise PlanningError("the world model is in training mode; call model.eval() first")
        model = FastRollout(model, rollout_dtype(precision, device_of(model)))
    if isinstance(objective, ObjectiveConfig):
        objective = make_objective(objective, model)
    return _SOLVERS[type(config)](model, config, objective, action_limits, rate_limits)


def rollout_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type of the products: for ``auto`` bfloat16 where the processor computes in it."""
    if precision != "auto":
        return getattr(torch, precision)
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


#: Name that stands for the preset that suits the checkpoint.
AUTO = "auto"


def planner_for(model: Dynamics, name: str | Path = AUTO) -> str | Path:
    """Return the preset to plan with.

    Args:
        model: To plan with.
        name: A preset's name or file, returned as it is; ``auto``: ``default`` for a model with a
            learned proposal, else ``search``, a search that a CPU can do in real time.
    """
    if str(name) != AUTO:
        return name
    return "search" if getattr(model, "proposal", None) is None else "default"
