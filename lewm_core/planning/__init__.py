"""Planning with a world model: objectives, solvers, the receding-horizon controller."""

from lewm_core.planning.cem import CEM, CEMConfig
from lewm_core.planning.config import ControllerConfig, PlannerConfig, load_planner_config
from lewm_core.planning.controller import RecedingHorizonController
from lewm_core.planning.history import CommandLog, FrameHistory
from lewm_core.planning.limits import ActionLimits
from lewm_core.planning.objective import GoalDistance
from lewm_core.planning.plan import Plan
from lewm_core.planning.proposal import (
    ProposalCEMConfig,
    ProposalSolver,
    ProposalSolverConfig,
)
from lewm_core.planning.protocols import Clock, Dynamics, EncodingDynamics, Objective, Solver
from lewm_core.planning.solvers import make_solver, planner_for
from lewm_core.planning.state import Command, PlanRequest, PlanResult

__all__ = [
    "CEM",
    "ActionLimits",
    "CEMConfig",
    "Clock",
    "Command",
    "CommandLog",
    "ControllerConfig",
    "Dynamics",
    "EncodingDynamics",
    "FrameHistory",
    "GoalDistance",
    "Objective",
    "Plan",
    "PlanRequest",
    "PlanResult",
    "PlannerConfig",
    "ProposalCEMConfig",
    "ProposalSolver",
    "ProposalSolverConfig",
    "RecedingHorizonController",
    "Solver",
    "load_planner_config",
    "make_solver",
    "planner_for",
]
