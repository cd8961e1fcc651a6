"""From a preset's solver settings to the solver, and which preset suits a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lewm_core.planning.cem import CEM, CEMConfig
from lewm_core.planning.config import SolverConfig
from lewm_core.planning.proposal import ProposalSolver
from lewm_core.planning.protocols import Dynamics


def make_solver(
    model: Dynamics,
    config: SolverConfig,
    action_limits: tuple[Sequence[float], Sequence[float]] | None = None,
) -> CEM:
    """Build the solver that ``config.kind`` names.

    Args:
        model: The dynamics; with a learned proposal where the solver begins with one.
        config: The ``solver`` part of a planner preset.
        action_limits: ``(lower (A,), upper (A,))`` in physical units; None: free.

    Raises:
        PlanningError: The model has no proposal but the solver needs one, or the limits do not
            fit its actions.
    """
    if isinstance(config, CEMConfig):
        return CEM(model, config, action_limits=action_limits)
    return ProposalSolver(model, config, action_limits=action_limits)


#: Name that stands for the preset that suits the checkpoint.
AUTO = "auto"


def planner_for(model: Dynamics, name: str | Path = AUTO) -> str | Path:
    """Return the preset to plan with.

    Args:
        model: To plan with.
        name: A preset's name or file, returned as it is; ``auto``: ``proposal+cem`` for a model
            with a learned proposal, else ``nano``, a search that a CPU can do in real time.
    """
    if str(name) != AUTO:
        return name
    return "nano" if getattr(model, "proposal", None) is None else "proposal+cem"
