"""From a preset's solver settings to the solver."""

from __future__ import annotations

from collections.abc import Sequence

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
