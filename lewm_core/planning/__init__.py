"""Planning with a world model: objectives, solvers, the receding-horizon controller."""

from lewm_core.planning.adam import Adam, AdamConfig
from lewm_core.planning.cem import CEM, CEMConfig
from lewm_core.planning.config import ControllerConfig, PlannerConfig, load_planner_config
from lewm_core.planning.controller import RecedingHorizonController
from lewm_core.planning.history import CommandLog, FrameHistory
from lewm_core.planning.icem import ICEM, ICEMConfig
from lewm_core.planning.limits import ActionLimits
from lewm_core.planning.mppi import MPPI, MPPIConfig
from lewm_core.planning.objectives import (
    ActionExcess,
    ActionSmoothness,
    GoalDistance,
    ObjectiveConfig,
    SubgoalDistance,
    WeightedSum,
    make_objective,
)
from lewm_core.planning.plan import Plan
from lewm_core.planning.proposal import ProposalSolver, ProposalSolverConfig
from lewm_core.planning.protocols import (
    Candidates,
    Clock,
    Dynamics,
    EncodingDynamics,
    Objective,
    Solver,
)
from lewm_core.planning.solvers import make_solver, planner_for, solver_settings
from lewm_core.planning.starts import ProposalStartConfig
from lewm_core.planning.state import Command, PlanRequest, PlanResult

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "ActionExcess",
    "ActionLimits",
    "ActionSmoothness",
    "Adam",
    "AdamConfig",
    "CEMConfig",
    "Candidates",
    "Clock",
    "Command",
    "CommandLog",
    "ControllerConfig",
    "Dynamics",
    "EncodingDynamics",
    "FrameHistory",
    "GoalDistance",
    "ICEMConfig",
    "MPPIConfig",
    "Objective",
    "ObjectiveConfig",
    "Plan",
    "PlanRequest",
    "PlanResult",
    "PlannerConfig",
    "ProposalSolver",
    "ProposalSolverConfig",
    "ProposalStartConfig",
    "RecedingHorizonController",
    "Solver",
    "SubgoalDistance",
    "WeightedSum",
    "load_planner_config",
    "make_objective",
    "make_solver",
    "planner_for",
    "solver_settings",
]
