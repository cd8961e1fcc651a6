"""The proposal network, what it does in imagination, and its place in a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

import lewm_core
from lewm_core.errors import CheckpointError
from lewm_core.model import FastRollout, Proposal, ProposalConfig, WorldModel, save_checkpoint
from lewm_core.model.fast_proposal import FastProposal
from lewm_core.model.imagination import imagine
from test.model.models import keypoint_config, mlp_config, trained_looking


@pytest.fixture(params=[keypoint_config(), mlp_config()], ids=["attention", "mlp"])
def model(request) -> WorldModel:
    model = trained_looking(request.param)
    torch.manual_seed(3)
    model.proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=2, longest=6)).eval()
    torch.nn.init.normal_(model.proposal.output.weight)
    return model


def scene(rows: int, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn(rows, frames, 8, generator=generator),
        torch.randn(rows, frames - 1, 10, generator=generator),
        torch.randn(rows, 8, generator=generator),
    )


def test_a_new_proposal_is_nearly_the_mean_action_whatever_it_sees():
    proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=2))
    z, _, goal = scene(5, 1)
    assert proposal(z[:, 0], z[:, 0], goal, torch.arange(5)).abs().max() < 0.2


def test_blocks_to_go_beyond_the_longest_count_as_the_longest(model):
    z, _, goal = scene(3, 1)
    propose = model.proposal
    longest = propose(z[:, 0], z[:, 0], goal, torch.tensor([6, 1, 6]))
    clamped = propose(z[:, 0], z[:, 0], goal, torch.tensor([60, -4, 6]))
    assert torch.equal(longest, clamped)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_imagination_is_the_models_own_rollout_of_what_was_proposed(model, frames):
    z, past, goal = scene(4, frames)
    to_go = torch.tensor([5, 3, 1, 2])
    with torch.no_grad():
        imagined = imagine(model, model.proposal, z, past, goal, to_go, horizon=5)
        rolled = model.rollout(z, past, imagined.blocks[:, None])[:, 0]
    torch.testing.assert_close(imagined.states, rolled)
    previous = z[:, -2] if frames > 1 else z[:, -1]
    torch.testing.assert_close(
        imagined.blocks[:, 0], model.proposal(previous, z[:, -1], goal, to_go)
    )
    torch.testing.assert_close(
        imagined.blocks[:, 1],
        model.proposal(z[:, -1], imagined.states[:, 0], goal, to_go - 1),
    )


@pytest.mark.parametrize("frames", [1, 3])
def test_rows_that_have_arrived_stay_and_the_others_act_as_without_them(model, frames):
    z, past, goal = scene(4, frames)
    to_go = torch.tensor([4, 3, 2, 1])
    committed = torch.full((4, 3, 2), 0.3)
    with torch.no_grad():
        every = imagine(
            model, model.proposal, z, past, goal, to_go, 4, committed=committed
        )
        some = imagine(
            model, model.proposal, z, past, goal, to_go, 4, committed=committed,
            acting=[4, 3, 2, 1],
        )
    for row, arrival in enumerate(to_go.tolist()):
        torch.testing.assert_close(some.blocks[row, :arrival], every.blocks[row, :arrival])
        torch.testing.assert_close(some.states[row, :arrival], every.states[row, :arrival])
        assert not some.blocks[row, arrival:].any()
        assert (some.states[row, arrival:] == some.states[row, arrival - 1]).all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_fast_ways_imagine_the_same(model, frames):
    """Proposal and rollout with fused maps beside the reference."""
    proposal = model.proposal
    with torch.no_grad():
        for parameter in proposal.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z, past, goal = scene(5, frames)
    to_go = torch.tensor([5, 4, 3, 2, 1])
    limits = (torch.full((10,), -1.0), torch.full((10,), 1.0))
    for acting in (None, [5, 4, 3, 2, 1]):
        given = (z, past, goal, to_go, 5, limits)
        with torch.no_grad():
            reference = imagine(model, proposal, *given, acting=acting)
            fast = imagine(FastRollout(model), FastProposal(proposal), *given, acting=acting)
        torch.testing.assert_close(fast.blocks, reference.blocks, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fast.states, reference.states, atol=1e-4, rtol=1e-4)


def test_imagined_actions_keep_the_limits_and_gradients_pass_them(model):
    z, past, goal = scene(4, 2)
    limits = (torch.full((10,), -0.1), torch.full((10,), 0.1))
    to_go = torch.full((4,), 3)
    imagined = imagine(model, model.proposal, z, past, goal, to_go, 3, limits)
    assert imagined.blocks.abs().max() <= 0.1 + 1e-6
    assert (imagined.blocks.abs() > 0.0999).float().mean() > 0.5, "the limits are reached here"
    imagined.states[:, -1].square().sum().backward()
    assert model.proposal.output.weight.grad.abs().max() > 0


def test_a_checkpoint_keeps_its_proposal(model, tmp_path):
    loaded = lewm_core.load(save_checkpoint(tmp_path / "model", model, None, {}, "# A model"))
    assert loaded.proposal.config == model.proposal.config
    assert not loaded.proposal.training
    for name, value in model.proposal.state_dict().items():
        assert torch.equal(loaded.proposal.state_dict()[name], value)


def test_a_checkpoint_without_a_proposal_has_none(tmp_path):
    model = trained_looking(keypoint_config())
    folder = save_checkpoint(tmp_path / "model", model, None, {}, "# A model")
    assert lewm_core.load(folder).proposal is None
    settings = json.loads((folder / "model.json").read_text())
    del settings["proposal"]  # as checkpoints were before there were proposals
    (folder / "model.json").write_text(json.dumps(settings))
    assert lewm_core.load(folder).proposal is None


@pytest.mark.parametrize(
    ("proposal", "words"),
    [
        (
            {"width": 16, "depth": 2, "longst": 6},
            "proposal: unknown key 'longst'; did you mean 'longest'?",
        ),
        ({"width": 32, "depth": 2, "longest": 6}, "proposal.input"),
        (3, "proposal must be an object"),
    ],
)
def test_a_proposal_that_does_not_fit_is_refused(model, tmp_path, proposal, words):
    folder = save_checkpoint(tmp_path / "model", model, None, {}, "# A model")
    settings = json.loads((folder / "model.json").read_text())
    settings["proposal"] = proposal
    (folder / "model.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError) as caught:
        lewm_core.load(folder)
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)
