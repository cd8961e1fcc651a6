"""The world model: sizes, causality, what AdaLN-zero starts as, and errors."""

from __future__ import annotations

import pytest
import torch

from lewm_core.model import ModelConfig, WorldModel
from test.model.models import (
    keypoint_config,
    mlp_config,
    some_frames,
    trained_looking,
    vit_config,
)

CONFIGS = {"keypoint": keypoint_config(), "mlp": mlp_config(), "vit": vit_config()}


@pytest.fixture(params=CONFIGS, scope="module")
def model(request) -> WorldModel:
    return trained_looking(CONFIGS[request.param])


def some_states(model: WorldModel, *shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, model.embedding_dim, generator=generator)


def some_blocks(model: WorldModel, *shape: int, seed: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, model.config.block_dim, generator=generator)


def test_the_published_architecture_has_the_published_number_of_parameters():
    """18.0 M, the number of the released model, whose state has 303 tensors.

    timm keeps query, key and value of a layer in one matrix and one bias, the released encoder
    in three of each: 12 layers x 4 = 48 tensors more. Our two action statistics come on top.
    """
    model = WorldModel(ModelConfig(action_dim=2))
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
    }
    assert counts == {
        "encoder": 5_501_376,
        "projector": 792_768,
        "action_encoder": 156_206,
        "predictor": 10_791_360,
        "prediction_projector": 792_768,
    }
    assert sum(counts.values()) == 18_034_478
    assert len(model.state_dict()) == 303 - 48 + 2


def test_encode_gives_one_state_per_picture(model):
    frames = some_frames(model.config, 2, 3)
    with torch.no_grad():
        z = model.encode(frames)
    assert z.shape == (2, 3, model.embedding_dim)
    assert z.dtype == torch.float32
    assert z.std() > 0


def test_a_picture_is_encoded_alike_in_any_company(model):
    frames = some_frames(model.config, 3, 2)
    with torch.no_grad():
        together = model.encode(frames)
        alone = torch.stack([model.encode(clip[None])[0] for clip in frames])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_pictures_are_normalised_per_colour():
    """The first layer sees (x / 255 - mean) / std of ImageNet, red first."""
    model = trained_looking(keypoint_config())
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = some_frames(model.config, 1, 1)
    model.encode(frames)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], ((frames / 255 - mean) / std)[0], rtol=1e-5, atol=1e-5)


def test_autocast_gives_float32_states_near_the_exact_ones(model):
    frames = some_frames(model.config, 2, 3)
    with torch.no_grad():
        exact = model.encode(frames)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.encode(frames)
            predicted = model.predict(rounded, some_blocks(model, 2, 3))
    assert rounded.dtype == predicted.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.1 * exact.std()


@pytest.mark.parametrize("changed", [1, 2])
@pytest.mark.parametrize("what", ["frame", "action"])
def test_the_future_never_changes_an_earlier_prediction(model, what, changed):
    z, blocks = some_states(model, 2, 3), some_blocks(model, 2, 3)
    other_z, other_blocks = z.clone(), blocks.clone()
    # Not the same for all numbers of a state: layer norms do not see a common shift.
    other = other_z if what == "frame" else other_blocks
    other[:, changed] += torch.linspace(-1, 1, other.shape[-1])
    with torch.no_grad():
        before, after = model.predict(z, blocks), model.predict(other_z, other_blocks)
    assert torch.equal(before[:, :changed], after[:, :changed])
    difference = (before[:, changed:] - after[:, changed:]).abs().amax(dim=-1)
    assert (difference > 1e-6).all(), "from the change on, all predictions depend on it"


def test_no_gradient_reaches_the_future(model):
    z = some_states(model, 1, 3).requires_grad_()
    blocks = some_blocks(model, 1, 3).requires_grad_()
    model.predict(z, blocks)[:, 1].square().sum().backward()
    for gradient in (z.grad, blocks.grad):
        assert gradient[:, :2].abs().amax(dim=-1).min() > 0
        assert not gradient[:, 2].any()


def test_every_layer_starts_as_the_identity():
    """AdaLN-zero: whatever the action, a new layer hands its tokens on."""
    model = WorldModel(vit_config()).eval()
    tokens = torch.randn(4, 3, 12)
    conditions = torch.randn(4, 3, 12)
    for layer, modulation in zip(
        model.predictor.layers, model.predictor.modulations(conditions), strict=True
    ):
        assert not modulation.any()
        assert torch.equal(layer(tokens, modulation), tokens)


@pytest.mark.parametrize("config", [keypoint_config(), mlp_config()], ids=["attention", "mlp"])
def test_a_new_residual_model_predicts_that_nothing_changes(config):
    model = WorldModel(config).eval()
    z = some_states(model, 2, 3)
    assert torch.equal(model.predict(z, some_blocks(model, 2, 3)), z)


def test_the_last_prediction_alone_is_that_of_all(model):
    z, blocks = some_states(model, 2, 3), some_blocks(model, 2, 3)
    with torch.no_grad():
        modulations = model.modulations(blocks)
        last = model.step(z, modulations, last_only=True)
        torch.testing.assert_close(last, model.step(z, modulations)[:, -1:])


def test_a_predictor_that_names_no_kind_is_the_published_one():
    """Checkpoints from before there was a choice."""
    settings = keypoint_config().model_dump()
    del settings["predictor"]["kind"]
    assert ModelConfig.model_validate(settings) == keypoint_config()


def test_a_residual_model_of_equal_widths_can_still_learn_any_change():
    predictor = keypoint_config().predictor.model_copy(update={"width": 8})
    model = WorldModel(keypoint_config(predictor=predictor)).eval()
    z = some_states(model, 2, 3)
    assert torch.equal(model.predict(z, some_blocks(model, 2, 3)), z)
    assert model.predictor.output.weight.shape == (8, 8)


@pytest.mark.parametrize("known", [1, 2, 3])
def test_rollout_feeds_predictions_back(model, known):
    """Every candidate's rollout is what calling predict step by step gives."""
    z, past = some_states(model, 2, known), some_blocks(model, 2, known - 1)
    future = some_blocks(model, 2, 4, 5, seed=3)
    with torch.no_grad():
        imagined = model.rollout(z, past, future)
        assert imagined.shape == (2, 4, 5, model.embedding_dim)
        for candidate in range(4):
            states, blocks = z, torch.cat([past, future[:, candidate]], dim=1)
            for step in range(5):
                window = slice(max(0, known + step - model.history), known + step)
                following = model.predict(states[:, window], blocks[:, window])[:, -1:]
                states = torch.cat([states, following], dim=1)
            torch.testing.assert_close(
                imagined[:, candidate], states[:, known:], rtol=1e-4, atol=1e-5
            )


def test_later_actions_never_change_earlier_imagination(model):
    z, past = some_states(model, 1, 3), some_blocks(model, 1, 2)
    future = some_blocks(model, 1, 2, 5)
    other = future.clone()
    other[:, :, 3] += torch.linspace(-1, 1, other.shape[-1])
    with torch.no_grad():
        before, after = model.rollout(z, past, future), model.rollout(z, past, other)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().amax(dim=-1).min() > 1e-5


def test_candidates_and_scenes_do_not_mix(model):
    z, past = some_states(model, 2, 2), some_blocks(model, 2, 1)
    future = some_blocks(model, 2, 3, 4)
    with torch.no_grad():
        everything = model.rollout(z, past, future)
        one = model.rollout(z[1:], past[1:], future[1:, 2:])
    torch.testing.assert_close(everything[1:, 2:], one, rtol=1e-4, atol=1e-5)


def test_rollout_lets_gradients_reach_the_actions(model):
    future = some_blocks(model, 1, 2, 3).requires_grad_()
    imagined = model.rollout(some_states(model, 1, 1), some_blocks(model, 1, 0), future)
    imagined[:, :, -1].square().sum().backward()
    assert future.grad.abs().amax(dim=-1).min() > 0


def test_rollout_refuses_a_model_in_training_mode():
    model = WorldModel(keypoint_config())
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        model.rollout(
            some_states(model, 1, 1), some_blocks(model, 1, 0), some_blocks(model, 1, 2, 3)
        )


def test_actions_are_normalised_per_dimension_and_back(model):
    model.set_action_statistics([0.1, -0.2], [0.5, 2.0])
    actions = torch.randn(4, 3, 5, 2)
    blocks = model.normalise_actions(actions)
    assert blocks.shape == (4, 3, 10)
    expected_x = (actions[0, 0, :, 0] - 0.1) / 0.5
    torch.testing.assert_close(blocks[0, 0, 0::2], expected_x)
    torch.testing.assert_close(blocks[0, 0, 1::2], (actions[0, 0, :, 1] + 0.2) / 2)
    torch.testing.assert_close(model.denormalise_actions(blocks), actions)


def test_a_missing_command_is_the_mean_command(model):
    model.set_action_statistics([0.1, -0.2], [0.5, 2.0])
    actions = torch.ones(1, 1, 5, 2)
    actions[0, 0, 3:] = torch.nan
    blocks = model.normalise_actions(actions)
    assert (blocks[0, 0, 6:] == 0).all()
    assert (blocks[0, 0, :6] != 0).all()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0], r"shape \(1,\), expected \(2,\)"),
        ([0.0, 0.0], [1.0, 0.0], "above 0"),
        ([0.0, float("nan")], [1.0, 1.0], "action mean is not finite"),
    ],
)
def test_statistics_that_cannot_be_are_refused(model, mean, std, message):
    with pytest.raises(ValueError, match=message):
        model.set_action_statistics(mean, std)


def test_wrong_pictures_are_refused(model):
    size = model.config.image_size
    frames = some_frames(model.config, 1, 1)
    with pytest.raises(ValueError, match=rf"expected \(any, any, 3, {size}, {size}\)"):
        model.encode(frames[..., :-1])
    with pytest.raises(ValueError, match="frames has shape"):
        model.encode(frames[0])
    with pytest.raises(ValueError, match="torch.float32, expected torch.uint8"):
        model.encode(frames.float())


def test_wrong_states_and_actions_are_refused(model):
    z, blocks = some_states(model, 1, 4), some_blocks(model, 1, 4)
    with pytest.raises(ValueError, match="4 states, expected 1 to history=3"):
        model.predict(z, blocks)
    with pytest.raises(ValueError, match="0 states, expected 1 to history=3"):
        model.predict(z[:, :0], blocks[:, :0])
    with pytest.raises(ValueError, match=r"actions has shape \(1, 2, 10\), expected \(1, 3, 10\)"):
        model.predict(z[:, :3], blocks[:, :2])
    with pytest.raises(ValueError, match=r"actions has shape \(1, 3, 9\)"):
        model.predict(z[:, :3], blocks[:, :3, :9])
    with pytest.raises(ValueError, match="z has shape"):
        model.predict(z[:, :3, :-1], blocks[:, :3])
    future = some_blocks(model, 1, 2, 5)
    with pytest.raises(ValueError, match=r"past_actions has shape .* expected \(1, 1, 10\)"):
        model.rollout(z[:, :2], blocks[:, :2], future)
    with pytest.raises(ValueError, match="future_actions has shape"):
        model.rollout(z[:, :2], blocks[:, :1], future[..., :9])
    with pytest.raises(ValueError, match="expected 1 to history=3"):
        model.rollout(z, blocks[:, :3], future)
    with pytest.raises(ValueError, match=r"expected \(\.\.\., F=5, A=2\)"):
        model.normalise_actions(torch.zeros(1, 1, 10))
    with pytest.raises(ValueError, match="blocks has shape"):
        model.denormalise_actions(torch.zeros(1, 1, 9))
