"""A real world model, untrained and tiny, and a solver whose plans can be foretold."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lewm_core.data.contract import load_contract
from lewm_core.errors import PlanningError
from lewm_core.evaluation.planner_setup import PlannerSetup
from lewm_core.model import (
    ActionEncoderConfig,
    KeypointEncoderConfig,
    ModelConfig,
    PredictorConfig,
    ProjectorConfig,
    WorldModel,
)
from lewm_core.planning import ControllerConfig, PlannerConfig
from lewm_core.planning.plan import Plan


def tiny_model(seed: int = 0) -> WorldModel:
    torch.manual_seed(seed)
    model = WorldModel(
        ModelConfig(
            encoder=KeypointEncoderConfig(image_size=32, channels=(4, 8), keypoints=8),
            embedding_dim=8,
            projector=ProjectorConfig(hidden=16),
            action_encoder=ActionEncoderConfig(hidden=16),
            predictor=PredictorConfig(width=16, depth=1, heads=2, head_dim=8, mlp_dim=32),
            action_dim=2,
        )
    )
    model.set_action_statistics([0.0, 0.0], [0.05, 0.05])
    return model.eval()


class FixedCandidates:
    """The best of the same few candidates in every search: rows know nothing of one another."""

    horizon = 3

    def __init__(self, model: WorldModel, fails_for: Tensor | None = None) -> None:
        self.model = model
        self.fails_for = fails_for
        self.rows: list[int] = []
        generator = torch.Generator().manual_seed(1)
        self.candidates = torch.randn(1, 24, 5, model.frame_skip * 2, generator=generator)

    def reset(self) -> None:
        self.rows.clear()

    def plan(self, history, goal, past_actions=None, *, horizon=None, initial_mean=None) -> Plan:
        rows, horizon = history.shape[0], horizon or self.horizon
        self.rows.append(rows)
        if self.fails_for is not None and (goal - self.fails_for).abs().sum(1).min() < 1e-5:
            raise PlanningError("this goal is not to my liking")
        if past_actions is None:
            past_actions = history.new_zeros(
                (rows, history.shape[1] - 1, self.candidates.shape[-1])
            )
        blocks = self.candidates[:, :, :horizon].expand(rows, -1, -1, -1).clone()
        if initial_mean is not None:
            blocks[:, 0] = 0.0
            blocks[:, 0, : initial_mean.shape[1]] = initial_mean
        with torch.inference_mode():
            predicted = self.model.rollout(history, past_actions, blocks)
            cost = (predicted[:, :, -1] - goal[:, None]).square().sum(-1)
            best = cost.argmin(1)
            index = torch.arange(rows)
            actions = self.model.denormalise_actions(blocks[index, best]).flatten(1, 2)
        return Plan(actions.clone(), blocks[index, best].clone(), cost[index, best].clone(),
                    predicted[index, best].clone(), 0, time.perf_counter())


class FixedSetup(PlannerSetup):
    """Its controllers share one `FixedCandidates` in the place of a preset's solver."""

    def controller(self, solver=None):
        solver = solver or FixedCandidates(self.model, getattr(self, "fails_for", None))
        return super().controller(solver)


def fixed_setup(goal_tolerance: float | None = None, **controller) -> FixedSetup:
    config = PlannerConfig(controller=ControllerConfig(**{"execute_blocks": 1, **controller}))
    return FixedSetup(tiny_model(), load_contract("push_t"), config, "fixed", goal_tolerance)
