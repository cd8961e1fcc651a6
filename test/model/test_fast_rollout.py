"""The fast rollout gives the numbers of the reference, from less work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lewm_core.model import FastRollout, ModelConfig, WorldModel, load_checkpoint
from lewm_core.model import fused_linear as implementation
from lewm_core.planning import CEM, CEMConfig, PlannerConfig, make_solver
from lewm_core.planning.solvers import rollout_dtype
from lewm_core.scenes import make_scene

REPOSITORY = Path(__file__).parents[2]

SMALL = {"kind": "keypoint", "image_size": 32, "channels": (4, 8), "keypoints": 4}
TRANSFORMER = {"width": 24, "depth": 3, "heads": 2, "head_dim": 16, "mlp_dim": 48}
ARCHITECTURES = {
    "published": {"predictor": TRANSFORMER | {"projector": {"hidden": 32}}},
    "another width, layer norm": {
        "predictor": TRANSFORMER | {"width": 16, "projector": {"hidden": 32, "norm": "layer"}},
    },
    "residual, no projector": {
        "predictor": TRANSFORMER | {"projector": None, "residual": True},
    },
    "one layer, history of one": {
        "predictor": TRANSFORMER | {"depth": 1, "projector": {"hidden": 8, "norm": "none"}},
        "history": 1,
    },
    "longer history": {"predictor": TRANSFORMER | {"projector": None}, "history": 5},
    "mlp": {"predictor": {"kind": "mlp", "width": 32, "depth": 2}},
    "mlp with projector, history of one": {
        "predictor": {"kind": "mlp", "width": 32, "depth": 2, "residual": False,
                      "projector": {"hidden": 16}},
        "history": 1,
    },
    "state fields": {
        "predictor": {"kind": "mlp", "width": 32, "depth": 2},
        "inputs": {"state": ("x", "y")},
    },
}


def make_model(name: str) -> WorldModel:
    """A model none of whose weights is still where a layer begins as the identity."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"encoder": SMALL, "embedding_dim": 24, "projector": {"hidden": 16}, "action_dim": 2,
         "frame_skip": 2, **ARCHITECTURES[name]}
    )
    model = WorldModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model


def make_inputs(model: WorldModel, rows: int, known: int, horizon: int = 7) -> tuple:
    block = model.config.block_dim
    return (
        torch.randn(rows, known, model.latent_dim),
        torch.randn(rows, known - 1, block),
        torch.randn(rows, 11, horizon, block),
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rows", [1, 2])
def test_float32_gives_the_states_of_the_reference(name: str, rows: int) -> None:
    model = make_model(name)
    for known in range(1, model.history + 1):
        inputs = make_inputs(model, rows, known)
        with torch.no_grad():
            expected = model.rollout(*inputs)
        torch.testing.assert_close(FastRollout(model).rollout(*inputs), expected,
                                   rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bfloat16_gives_costs_within_one_percent(name: str) -> None:
    model = make_model(name)
    inputs = make_inputs(model, 1, model.history, horizon=5)
    goal = torch.randn(model.latent_dim)
    with torch.no_grad():
        expected = (model.rollout(*inputs)[:, :, -1] - goal).square().sum(-1)
    fast = FastRollout(model, torch.bfloat16).rollout(*inputs)
    assert fast.dtype == torch.float32
    cost = (fast[:, :, -1] - goal).square().sum(-1)
    # Small widths average less rounding away than the published one does.
    torch.testing.assert_close(cost, expected, rtol=2e-2, atol=0.0)


def test_what_was_begun_serves_any_number_of_candidates() -> None:
    model = make_model("published")
    z, past, future = make_inputs(model, 2, 3)
    rollout = FastRollout(model).begin(z, past)
    whole = rollout(future)
    torch.testing.assert_close(rollout(future[:, 4:6]), whole[:, 4:6])
    torch.testing.assert_close(rollout(future[:, :, :3]), whole[:, :, :3])
    torch.testing.assert_close(rollout(future), whole)


def test_tokens_that_candidates_share_are_not_computed_for_each() -> None:
    """Products grow with the candidates' own tokens only, and those of a round are fewer."""
    model = make_model("published")
    z, past, future = make_inputs(model, 1, 3, horizon=1)
    rollout = FastRollout(model).begin(z, past)
    rows: list[int] = []
    original = implementation.FusedLinear.__call__

    def counting(self, x, activation="none"):
        rows.append(x.numel() // x.shape[-1])
        return original(self, x, activation)

    implementation.FusedLinear.__call__ = counting
    try:
        rollout(future)
    finally:
        implementation.FusedLinear.__call__ = original
    assert max(rows) == future.shape[1]  # one token per candidate, although it looks back on two


def test_without_onednn_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("published")
    inputs = make_inputs(model, 1, 2)
    expected = FastRollout(model).rollout(*inputs)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = FastRollout(model)
    assert plain._steps.head.first.packed is None
    torch.testing.assert_close(plain.rollout(*inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scene", ["push_t", "two_room", "reacher", "cube"])
def test_on_trained_weights_bfloat16_chooses_the_elites_of_float32(scene: str) -> None:
    model = load_checkpoint(REPOSITORY / "checkpoints" / f"{scene}-nano").eval()
    size = model.config.encoder.image_size
    physics = make_scene(scene)
    generator = torch.Generator().manual_seed(0)
    for seed in range(3):
        pictures = []
        for reset in (7000 + 2 * seed, 7001 + 2 * seed):
            physics.reset(seed=reset)
            pictures.append(torch.from_numpy(physics.render(size, size).copy()))
        with torch.no_grad():
            z, goal = model.encode(torch.stack(pictures).permute(0, 3, 1, 2)[:, None])
        blocks = torch.randn(1, 300, 5, model.config.block_dim, generator=generator)
        costs = [
            (FastRollout(model, dtype).begin(z[None], blocks[:, 0, :0])(blocks)[0, :, -1] - goal)
            .square()
            .sum(-1)
            for dtype in (torch.float32, torch.bfloat16)
        ]
        expected, found = (c.topk(30, largest=False).indices for c in costs)
        assert len(set(expected.tolist()) & set(found.tolist())) >= 28
        torch.testing.assert_close(costs[0][found].mean(), costs[0][expected].mean(), rtol=1e-3,
                                   atol=0.0)  # fmt: skip
    physics.close()


def test_it_refuses_what_the_reference_refuses() -> None:
    model = make_model("published")
    z, past, future = make_inputs(model, 1, 3)
    fast = FastRollout(model)
    with pytest.raises(ValueError, match="z holds 4 states, expected 1 to history=3"):
        fast.rollout(torch.cat([z, z[:, :1]], dim=1), past, future)
    with pytest.raises(ValueError, match="past_actions has shape"):
        fast.rollout(z, past[:, :1], future)
    with pytest.raises(ValueError, match="future_actions has shape"):
        fast.rollout(z, past, future[..., :3])
    model.train()
    with pytest.raises(ValueError, match="eval mode"):
        fast.rollout(z, past, future)
    with pytest.raises(ValueError, match="eval mode"):
        FastRollout(model)


@pytest.mark.parametrize("name", ["published", "mlp"])
def test_a_search_finds_the_same_plan(name: str) -> None:
    model = make_model(name)
    z, past, _ = make_inputs(model, 2, 3)
    goal = torch.randn(2, model.embedding_dim)
    config = CEMConfig(candidates=40, rounds=3, elites=6, horizon=4)
    expected = CEM(model, config).plan(z, goal, past)
    found = CEM(FastRollout(model), config).plan(z, goal, past)
    torch.testing.assert_close(found.blocks, expected.blocks, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.cost, expected.cost, rtol=1e-3, atol=1e-4)


def test_solvers_of_presets_use_it_in_the_precision_that_they_name() -> None:
    model = make_model("mlp")
    config = PlannerConfig.model_validate({"precision": "bfloat16"})
    solver = make_solver(model, config.solver, precision=config.precision)
    assert isinstance(solver.model, FastRollout)
    assert solver.model.dtype == torch.bfloat16
    assert make_solver(model, PlannerConfig().solver).model.dtype == torch.float32
    assert rollout_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
