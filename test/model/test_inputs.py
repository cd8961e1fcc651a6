"""Models that are given several cameras, and the robot's own state."""

import pytest
import torch

from lewm_core.model.checkpoint import load_checkpoint, save_checkpoint
from lewm_core.model.config import InputsConfig, ProposalConfig
from lewm_core.model.encoder import SideBySide
from lewm_core.model.imagination import imagine
from lewm_core.model.loss import lewm_loss
from lewm_core.model.proposal import make_proposal
from lewm_core.model.sigreg import SIGReg
from lewm_core.model.world_model import WorldModel, goal_difference
from test.model.models import keypoint_config, vit_config

TWO = ("front", "wrist")
STATE = ("gripper", "height")


def pictures(channels, size, batch=4, length=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def states(batch=4, length=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, length, 2), generator=generator)


def model_of(make_config=keypoint_config, **inputs):
    torch.manual_seed(0)
    return WorldModel(make_config(inputs=inputs))


@pytest.mark.parametrize("make_config", [keypoint_config, vit_config])
@pytest.mark.parametrize("fusion", ["embeddings", "images"])
def test_two_cameras_are_one_state_and_both_count(make_config, fusion):
    model = model_of(make_config, cameras=TWO, fusion=fusion).eval()
    assert isinstance(model.encoder, SideBySide) == (fusion == "embeddings")
    frames = pictures(6, model.config.image_size)
    z = model.encode(frames)
    assert z.shape == (4, 4, model.embedding_dim) and model.latent_dim == model.embedding_dim
    for camera in (slice(0, 3), slice(3, 6)):
        changed = frames.clone()
        changed[:, :, camera] = 255 - changed[:, :, camera]
        assert not torch.allclose(model.encode(changed), z, atol=1e-4)
    with pytest.raises(ValueError, match="expected"):
        model.encode(frames[:, :, :3])


def test_each_camera_of_side_by_side_encoders_is_seen_by_its_own():
    model = model_of(cameras=TWO, fusion="embeddings").eval()
    frames = pictures(6, model.config.image_size)
    prepared = model._normalise_pictures(frames.flatten(0, 1))
    features = model.encoder(prepared)
    half = features.shape[1] // 2
    for number, encoder in enumerate(model.encoder.encoders):
        own = encoder(prepared[:, 3 * number : 3 * number + 3])
        torch.testing.assert_close(features[:, number * half : (number + 1) * half], own)


def test_pictures_of_two_cameras_are_normalised_alike():
    one, two = model_of(), model_of(cameras=TWO)
    frames = pictures(3, one.config.image_size).flatten(0, 1)
    alone = one._normalise_pictures(frames)
    both = two._normalise_pictures(torch.cat([frames, frames], dim=1))
    torch.testing.assert_close(both[:, :3], alone)
    torch.testing.assert_close(both[:, 3:], alone)


def test_state_fields_stand_behind_the_embedding_standardised():
    model = model_of(state=STATE).eval()
    model.set_state_statistics([1.0, -2.0], [2.0, 0.5])
    frames, measured = pictures(3, model.config.image_size), states()
    z = model.encode(frames, measured)
    assert z.shape[-1] == model.latent_dim == model.embedding_dim + 2
    torch.testing.assert_close(z[..., : model.embedding_dim], model.encode(frames))
    expected = (measured - torch.tensor([1.0, -2.0])) / torch.tensor([2.0, 0.5])
    torch.testing.assert_close(z[..., -2:], expected)
    measured[0, 0, 1] = torch.nan
    assert model.encode(frames, measured)[0, 0, -1] == 0.0
    with pytest.raises(ValueError, match="states"):
        model.encode(frames, measured[..., :1])


def test_statistics_of_states_are_checked():
    model = model_of(state=STATE)
    with pytest.raises(ValueError, match="state std must be above 0"):
        model.set_state_statistics([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="expected \\(2,\\)"):
        model.set_state_statistics([0.0], [1.0])


def test_the_loss_predicts_the_state_and_regularises_the_pictures_only():
    model = model_of(state=STATE).train()
    frames, measured = pictures(3, model.config.image_size, batch=8), states(batch=8)
    actions = torch.zeros(8, 4, model.frame_skip, model.action_dim)

    def terms(values):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        sigreg = SIGReg(directions=16, generator=generator)
        return lewm_loss(model, sigreg, frames, actions, values)

    first, other = terms(measured), terms(measured * 5.0)
    assert other.prediction > first.prediction
    torch.testing.assert_close(first.sigreg, other.sigreg)
    assert first.embeddings.shape[-1] == model.latent_dim


def test_a_goal_is_compared_with_what_pictures_say():
    state, goal = torch.tensor([[1.0, 2.0, 7.0]]), torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(goal_difference(state, goal), torch.tensor([[1.0, 0.0]]))


def test_a_proposal_for_such_a_model_acts_in_it():
    model = model_of(state=STATE).eval()
    proposal = make_proposal(model.config, ProposalConfig(width=16, depth=1)).eval()
    z = torch.randn(3, 1, model.latent_dim)
    goal = torch.randn(3, model.embedding_dim)
    past = torch.zeros(3, 0, model.config.block_dim)
    imagined = imagine(model, proposal, z, past, goal, torch.full((3,), 2), 2)
    assert imagined.states.shape == (3, 2, model.latent_dim)
    assert imagined.blocks.shape == (3, 2, model.config.block_dim)


@pytest.mark.parametrize("fusion", ["embeddings", "images"])
def test_a_checkpoint_remembers_what_it_is_given(tmp_path, fusion):
    model = model_of(cameras=TWO, fusion=fusion, state=STATE).eval()
    model.set_state_statistics([1.0, -2.0], [2.0, 0.5])
    model.proposal = make_proposal(model.config, ProposalConfig(width=16, depth=1)).eval()
    folder = save_checkpoint(tmp_path / "checkpoint", model, None, {}, "card")
    back = load_checkpoint(folder)
    assert back.config.inputs == InputsConfig(cameras=TWO, fusion=fusion, state=STATE)
    frames, measured = pictures(6, model.config.image_size), states()
    torch.testing.assert_close(back.encode(frames, measured), model.encode(frames, measured))
    settings = (folder / "model.json").read_text()
    (folder / "model.json").write_text(settings.replace("-2.0", "-3.0"))
    with pytest.raises(Exception, match="state_mean"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"cameras": ("front", "front")}, "cameras must differ"),
        ({"state": ("height", "height")}, "state must differ"),
    ],
)
def test_names_must_differ(inputs, said):
    with pytest.raises(ValueError, match=said):
        InputsConfig(**inputs)


def test_which_fields_must_be_known_before_a_model_is_built():
    with pytest.raises(ValueError, match="name the fields"):
        model_of(state=True)
