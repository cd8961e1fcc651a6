"""The loss against what its words say, and what it teaches a small model."""

from __future__ import annotations

import pytest
import torch

from lewm_core.model import LewmLoss, LossConfig, SIGReg, WorldModel, lewm_loss
from test.model.models import keypoint_config, some_frames, trained_looking, vit_config


def some_actions(batch: int, length: int) -> torch.Tensor:
    return torch.randn(batch, length, 5, 2, generator=torch.Generator().manual_seed(3))


def seeded_sigreg() -> SIGReg:
    return SIGReg(directions=32, generator=torch.Generator().manual_seed(4))


def loss_of(model: WorldModel, length: int, **settings):
    frames = some_frames(model.config, 4, length)
    return lewm_loss(model, seeded_sigreg(), frames, some_actions(4, length), **settings)


@pytest.mark.parametrize("config", [keypoint_config(), vit_config()], ids=["keypoint", "vit"])
def test_the_papers_loss_on_the_papers_clip(config):
    """Four frames, history three: mean((pred - next)^2) + lambda SIGReg, nothing else."""
    model = trained_looking(config)
    with torch.no_grad():
        terms = loss_of(model, 4, weight=0.09)
        z = model.encode(some_frames(config, 4, 4))
        blocks = model.normalise_actions(some_actions(4, 4))
        prediction = (model.predict(z[:, :3], blocks[:, :3]) - z[:, 1:]).square().mean()
        sigreg = seeded_sigreg()(z.transpose(0, 1))
    torch.testing.assert_close(terms.prediction, prediction)
    torch.testing.assert_close(terms.sigreg, sigreg)
    torch.testing.assert_close(terms.total, prediction + 0.09 * sigreg)
    torch.testing.assert_close(terms.embeddings, z)


def test_longer_clips_are_overlapping_windows():
    model = trained_looking(keypoint_config())
    with torch.no_grad():
        terms = loss_of(model, 6)
        z = model.encode(some_frames(model.config, 4, 6))
        blocks = model.normalise_actions(some_actions(4, 6))
        errors = [
            model.predict(z[:, at : at + 3], blocks[:, at : at + 3]) - z[:, at + 1 : at + 4]
            for at in range(3)
        ]
    torch.testing.assert_close(terms.prediction, torch.stack(errors).square().mean())


@pytest.mark.parametrize(("length", "steps"), [(5, 4), (5, 2), (8, 3), (3, 2)])
def test_a_rollout_adds_the_errors_of_fed_back_predictions(length, steps):
    model = trained_looking(keypoint_config())
    start = min(3, length - steps)
    with torch.no_grad():
        terms = loss_of(model, length, rollout_steps=steps)
        one_step = loss_of(model, length).prediction
        z = model.encode(some_frames(model.config, 4, length))
        blocks = model.normalise_actions(some_actions(4, length))
        imagined = model.rollout(
            z[:, :start],
            blocks[:, : start - 1],
            blocks[:, None, start - 1 : start - 1 + steps],
        )[:, 0]
        errors = (imagined - z[:, start : start + steps]).square().mean((0, 2))
    expected = torch.cat([one_step[None], errors[1:]]).mean()
    torch.testing.assert_close(terms.prediction, expected)


def encoder_gradient(stop_gradient: bool) -> torch.Tensor:
    model = trained_looking(keypoint_config())
    terms = loss_of(model, 4, weight=0.0, stop_gradient=stop_gradient)
    terms.total.backward()
    assert not terms.embeddings.requires_grad
    return model.encoder.convolutions[0].weight.grad


def test_the_target_trains_the_encoder_unless_it_is_stopped():
    """The method has no stop-gradient; the switch for comparing it really changes something."""
    free, stopped = encoder_gradient(False), encoder_gradient(True)
    assert stopped.abs().max() > 0
    assert (free - stopped).abs().max() > 0.1 * free.abs().max()


def test_the_last_block_is_not_looked_at_and_missing_commands_are_allowed():
    model = trained_looking(keypoint_config())
    frames, actions = some_frames(model.config, 2, 4), some_actions(2, 4)
    actions[:, -1] = torch.nan
    actions[0, 1, 2] = torch.nan
    with torch.no_grad():
        missing = lewm_loss(model, seeded_sigreg(), frames, actions)
        actions[:, -1] = 5.0
        actions[0, 1, 2] = model.action_mean
        filled = lewm_loss(model, seeded_sigreg(), frames, actions)
    assert torch.equal(missing.total, filled.total)
    assert missing.total.isfinite()


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (4, 4), (4, 0)])
def test_clips_that_are_too_short_are_refused(length, steps):
    with pytest.raises(ValueError, match=f"clips of {length} frames are too short"):
        loss_of(WorldModel(keypoint_config()), length, rollout_steps=steps)


def test_actions_of_other_clips_are_refused():
    model = WorldModel(keypoint_config())
    with pytest.raises(ValueError, match=r"expected \(4, 3, F, A\)"):
        lewm_loss(model, seeded_sigreg(), some_frames(model.config, 4, 3), some_actions(4, 2))


def moving_square(batch: int, length: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Pictures of a square that goes where its commands send it, commands, and its places."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(batch, length, 5, 2, generator=generator) - 0.5
    places = torch.rand(batch, 1, 2, generator=generator) * 8 + 12
    steps = torch.cat([places, 1.5 * actions[:, :-1].sum(2)], dim=1)
    places = steps.cumsum(1).clamp(4, 28)
    axis = torch.arange(32) + 0.5
    near = (axis - places[..., None]).abs().sub(3).neg().clamp(0, 1)
    shape = near[..., 0, None, :] * near[..., 1, :, None]
    frames = (shape * 255).to(torch.uint8)[:, :, None].expand(-1, -1, 3, -1, -1)
    return frames.contiguous(), actions, places


def test_a_short_training_learns_where_things_are_and_where_they_go():
    """150 steps from pixels: the latent says where the square is and follows its commands."""
    torch.manual_seed(0)
    encoder = keypoint_config().encoder.model_copy(update={"image_size": 32})
    model = WorldModel(keypoint_config(encoder=encoder, embedding_dim=4)).train()
    loss = LewmLoss(model, LossConfig(weight=0.1, directions=32))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    # The rate must fall: batch statistics of the eval mode lag behind weights that move fast.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 150)
    for step in range(150):
        frames, actions, _ = moving_square(48, 4, step)
        optimiser.zero_grad()
        loss(frames, actions).total.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    frames, actions, places = moving_square(400, 4, 12345)
    with torch.no_grad():
        terms = loss(frames, actions)
        other_commands = loss(frames, actions.roll(1, dims=0))
        z = terms.embeddings
        standing_still = (z[:, 1:] - z[:, :-1]).square().mean()
    assert terms.prediction < 0.7 * standing_still
    assert terms.prediction < 0.7 * other_commands.prediction
    # A linear probe, fitted on one half of the clips and judged on the other.
    inputs = torch.cat([z, torch.ones(400, 4, 1)], -1)
    fitted = torch.linalg.lstsq(inputs[:200].flatten(0, 1), places[:200].flatten(0, 1)).solution
    error = inputs[200:].flatten(0, 1) @ fitted - places[200:].flatten(0, 1)
    explained = 1 - error.var(0) / places[200:].flatten(0, 1).var(0)
    assert explained.min() > 0.85, explained
