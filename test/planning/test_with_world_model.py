"""The planner with a real, untrained WorldModel: shapes, determinism, agreement with the model."""

import numpy as np
import pytest
import torch

from lewm_core.data.contract import load_contract
from lewm_core.errors import PlanningError
from lewm_core.model import (
    ActionEncoderConfig,
    KeypointEncoderConfig,
    ModelConfig,
    PredictorConfig,
    ProjectorConfig,
    WorldModel,
)
from lewm_core.planning import (
    CEM,
    Candidates,
    CEMConfig,
    EncodingDynamics,
    GoalDistance,
    PlannerConfig,
    RecedingHorizonController,
    load_planner_config,
)

STEP = 100_000_000


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=KeypointEncoderConfig(image_size=32, channels=(4, 8), keypoints=8),
        embedding_dim=8,
        projector=ProjectorConfig(hidden=16),
        action_encoder=ActionEncoderConfig(hidden=16),
        predictor=PredictorConfig(width=16, depth=1, heads=2, head_dim=8, mlp_dim=32,
                                  projector=None),
        action_dim=2,
    )
    model = WorldModel(config)
    # AdaLN-zero begins with the identity, where no action matters; this one must listen.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.set_action_statistics([0.01, -0.02], [0.05, 0.08])
    return model.eval()


def pictures(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 3, 32, 32), dtype=np.uint8)


def test_a_world_model_fits_the_protocol(model):
    assert isinstance(model, EncodingDynamics)


def test_cost_and_prediction_of_a_plan_are_the_models_own(model):
    z = model.encode(torch.from_numpy(pictures(3))[None]).detach()
    goal = model.encode(torch.from_numpy(pictures(1, seed=1))[None])[:, 0].detach()
    past = 0.1 * torch.randn(1, 2, 10)
    limits = ((-0.15, -0.15), (0.15, 0.15))
    plan = CEM(model, CEMConfig(candidates=64, rounds=8, elites=8), action_limits=limits).plan(
        z, goal, past
    )
    assert plan.actions.shape == (1, 25, 2)
    assert bool((plan.actions.abs() <= 0.15 + 1e-6).all())
    blocks = model.normalise_actions(plan.actions.unflatten(1, (5, 5)))
    predicted = model.rollout(z, past, blocks[:, None])[:, 0]
    torch.testing.assert_close(plan.predicted, predicted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        plan.cost, (predicted[:, -1] - goal).square().sum(dim=-1), atol=1e-4, rtol=1e-4
    )
    nothing = torch.zeros(1, 1, 5, 10)
    still = GoalDistance()(Candidates(model.rollout(z, past, nothing), nothing), goal)
    assert plan.cost[0] < still[0, 0]


def test_rows_of_a_batch_are_planned_side_by_side(model):
    z = model.encode(torch.from_numpy(pictures(4))[:, None]).detach()
    plan = CEM(model, CEMConfig(candidates=32, rounds=3, elites=4)).plan(z, z.flip(0)[:, 0])
    assert plan.actions.shape == (4, 25, 2) and plan.cost.shape == (4,)


def drive(model: WorldModel) -> np.ndarray:
    config = load_planner_config("search")
    controller = RecedingHorizonController.from_contract(model, load_contract("push_t"), config)
    controller.set_goal(pictures(1, seed=9)[0])
    values = []
    for k, picture in enumerate(pictures(22)):
        controller.observe(k * STEP, picture)
        if controller.wants_plan(k * STEP):
            result = controller.replan(k * STEP)
            assert result.plan is not None, result.reason
        command = controller.command(k * STEP)
        assert not command.hold, command.reason
        values.append(command.values)
    return np.stack(values)


def test_the_nano_preset_drives_within_the_contract_and_repeats_itself(model):
    first = drive(model)
    assert np.all(np.abs(first) <= 0.15)
    assert first.std() > 0.01
    assert np.array_equal(first, drive(model))


def test_the_preset_of_the_paper_runs_too(model):
    config = PlannerConfig(
        solver=CEMConfig(candidates=300, rounds=2, elites=30),
        controller=load_planner_config("paper").controller,
    )
    controller = RecedingHorizonController.from_contract(model, load_contract("push_t"), config)
    controller.set_goal(pictures(1)[0])
    controller.observe(0, pictures(1)[0])
    result = controller.replan(0)
    assert result.plan is not None and result.goal_distance == pytest.approx(0.0, abs=1e-6)


def test_a_goal_of_another_size_is_refused_in_one_line(model):
    controller = RecedingHorizonController.from_contract(model, load_contract("push_t"))
    with pytest.raises(PlanningError, match="goal picture cannot be encoded.*32"):
        controller.set_goal(np.zeros((3, 64, 64), dtype=np.uint8))


def test_weights_that_are_not_finite_end_in_hold(model):
    import copy

    broken = copy.deepcopy(model)
    controller = RecedingHorizonController.from_contract(broken, load_contract("push_t"))
    controller.set_goal(pictures(1)[0])
    controller.observe(0, pictures(1)[0])
    with torch.no_grad():
        next(broken.predictor.parameters()).fill_(torch.nan)
    result = controller.replan(0)
    assert result.failed and "only 0 of 300 candidates" in result.reason
    command = controller.command(0)
    assert command.hold and command.values.tolist() == [0.0, 0.0]


def test_a_contract_with_other_actions_is_refused(model):
    contract = load_contract("push_t")
    fields = contract.action.fields
    third = fields[0].model_copy(update={"name": "third", "selector": "twist.angular.z"})
    action = contract.action.model_copy(update={"fields": (*fields, third)})
    with pytest.raises(PlanningError, match="3 action fields, the model 2"):
        RecedingHorizonController.from_contract(
            model, contract.model_copy(update={"action": action})
        )
