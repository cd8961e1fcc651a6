"""The learned proposal by itself: a plan without a search."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from lewm_core.planning.problem import Problem
from lewm_core.planning.protocols import begin_rollout
from lewm_core.planning.solver import BaseSolver, SearchState, SolverSettings
from lewm_core.planning.starts import ProposalStartConfig


class ProposalSolverConfig(SolverSettings):
    """Settings of the proposal by itself: it is where others begin."""

    kind: Literal["proposal"] = "proposal"
    horizon: int = Field(8, ge=1, le=1000)
    proposal: ProposalStartConfig = ProposalStartConfig()


class ProposalSolver(BaseSolver):
    """Plans what the proposal says; arguments as `BaseSolver`'s."""

    settings = ProposalSolverConfig
    config: ProposalSolverConfig

    @property
    def rounds(self) -> int:
        """None: nothing is searched for."""
        return 0

    def begin(self, problem: Problem) -> SearchState:
        """Ask the proposal."""
        start = self._start(problem)
        none = torch.zeros((problem.rows,), dtype=torch.int64, device=start.mean.device)
        return SearchState(
            problem, start.mean, start.arrival, none.sum(), none.clone(), none,
            begin_rollout(self.model, problem.history, problem.past_actions),
        )

    def improve(self, state: SearchState, number: int) -> None:
        """Nothing: there are no rounds."""
