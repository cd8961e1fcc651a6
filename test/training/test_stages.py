"""The stages after the world model: embeddings, refinement, proposal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lewm_core
from lewm_core.commands.train import main
from lewm_core.errors import BagError, ConfigError
from lewm_core.model import WorldModel
from lewm_core.model.proposal import Proposal
from lewm_core.training.config import ProposalTrainingConfig, RefinementConfig
from lewm_core.training.embeddings import embed_episodes
from lewm_core.training.proposal import _Goals, score_proposal, train_proposal
from lewm_core.training.refinement import refine_predictor, window_error
from lewm_core.training.stages import block_limits
from test.training.spots import TICKS, open_spots, spot_config, write_settings

CPU = torch.device("cpu")
REFINEMENT = {"steps": 60, "batch_size": 32, "rollout_steps": 3, "warmup_steps": 5}
PROPOSAL = {
    "network": {"width": 32, "depth": 1, "longest": 6},
    "steps": 250,
    "batch_size": 64,
    "imagination_batch_size": 32,
    "imagination_horizon": 3,
    "warmup_steps": 5,
}


@pytest.fixture
def model(trained: Path) -> WorldModel:
    return lewm_core.load(trained / "checkpoint")


@pytest.fixture
def data(spots: Path, tmp_path: Path):
    return open_spots(spots, tmp_path)[0]


def test_embeddings_lie_where_their_ticks_say(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    tick = int(data.cache.ticks_of(data.trained[:1])[5])
    picture = torch.from_numpy(np.array(data.cache.frames[data.cache.frame_index[tick]]))
    with torch.no_grad():
        expected = model.encode(picture[None, None])[0, 0]
        action = np.array(data.cache.actions[tick : tick + 1])
        block = model.normalise_actions(torch.from_numpy(action))
    ticks = torch.tensor([tick])
    here = torch.zeros(1, 1, dtype=torch.int64)
    torch.testing.assert_close(episodes.states(ticks, here)[0, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(episodes.actions(ticks, here)[0, 0], block)


def test_neighbours_are_counted_within_an_episode_only(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    for episode in data.cache.episodes:
        ahead = episodes.ahead[episode.first : episode.first + episode.count].tolist()
        if episode.name in data.trained:
            assert ahead == list(range(TICKS - 1, -1, -1))
        else:
            assert ahead == [-1] * TICKS
    assert torch.equal(
        episodes.behind[episodes.behind >= 0], episodes.ahead[episodes.ahead >= 0].flip(0)
    )


def test_a_gap_ends_what_is_ahead(model, data):
    gap = data.cache.frame_index.copy()
    first = data.cache.episodes[0]
    assert first.name in data.trained
    gap[first.first + 10] = -1
    cache = type(data.cache)(**{**vars(data.cache), "frame_index": gap})
    episodes = embed_episodes(model, cache, data.trained, CPU)
    ahead = episodes.ahead[first.first : first.first + TICKS].tolist()
    assert ahead[:11] == [*range(9, -1, -1), -1]
    assert ahead[11] == TICKS - 12
    assert int(episodes.behind[first.first + 12]) == 1


def test_episodes_that_are_too_short_are_named_as_such(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    with pytest.raises(BagError, match="no episode has 31 pictures one block apart"):
        episodes.ticks(10, 20)


def test_refinement_betters_held_out_predictions_and_leaves_the_encoder(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    held_out = embed_episodes(model, data.cache, data.held_out, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def error() -> float:
        ticks = held_out.ticks(model.history - 1, 3)
        offsets = torch.arange(1 - model.history, 4)[None]
        with torch.no_grad():
            return float(window_error(
                model, held_out.states(ticks, offsets), held_out.actions(ticks, offsets[:, :-1])
            ))

    first = error()
    steps = refine_predictor(model, episodes, RefinementConfig(**REFINEMENT), seed=0)
    assert steps == 60
    assert error() < 0.95 * first
    for name, value in model.state_dict().items():
        frozen = name.startswith(("encoder", "projector", "action_mean", "action_std"))
        assert torch.equal(value, before[name]) == frozen or "num_batches" in name, name


def test_the_window_error_is_that_of_the_models_own_rollout(model):
    torch.manual_seed(0)
    z = torch.randn(3, model.history + 3, model.embedding_dim)
    actions = torch.randn(3, model.history + 2, model.config.block_dim)
    history = model.history
    with torch.no_grad():
        one_step = (model.predict(z[:, :history], actions[:, :history])
                    - z[:, 1 : history + 1]).square().mean()
        rolled = model.rollout(
            z[:, :history], actions[:, : history - 1], actions[:, None, history - 1 :]
        )[:, 0]
        expected = (one_step + (rolled - z[:, history:]).square().mean()) / 2
        torch.testing.assert_close(window_error(model, z, actions), expected)


def test_a_proposal_gets_nearer_to_goals_it_has_not_seen(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    held_out = embed_episodes(model, data.cache, data.held_out, CPU)
    limits = block_limits(model, data)
    config = ProposalTrainingConfig(**PROPOSAL)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    proposal = train_proposal(model, episodes, config, seed=0, limits=limits)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    score = score_proposal(model, proposal, held_out, limits, horizon=3, number=128)
    assert score.imitation_error < 0.8
    assert sum(score.end_distance) < 0.7 * sum(score.start_distance)
    again = train_proposal(model, episodes, config, seed=0, limits=limits)
    assert all(torch.equal(a, b) for a, b in zip(
        proposal.parameters(), again.parameters(), strict=True))


def test_goals_are_drawn_near_as_often_as_asked(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    shares = {}
    for near_share in (0.0, 0.6, 1.0):
        ticks, to_go = _Goals(episodes, 0, 12, 0, near=3, near_share=near_share).draw(4000)
        assert (to_go >= 1).all() and (to_go <= episodes.ahead[ticks]).all()
        shares[near_share] = float((to_go <= 3).float().mean())
    assert shares[1.0] == 1.0
    assert shares[0.6] == pytest.approx(0.6 + 0.4 * shares[0.0], abs=0.04)


def test_a_proposal_goes_on_from_another_of_its_sizes(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    limits = block_limits(model, data)
    first = train_proposal(
        model, episodes, ProposalTrainingConfig(**PROPOSAL), seed=0, limits=limits
    )
    weights = {name: value.clone() for name, value in first.state_dict().items()}
    still = ProposalTrainingConfig(**PROPOSAL | {"learning_rate": 1e-9, "steps": 6})

    def most_moved(start: Proposal | None) -> float:
        proposal = train_proposal(
            model, episodes, still, seed=1, limits=limits, start=start
        )
        return max(float((value - weights[name]).abs().max())
                   for name, value in proposal.state_dict().items())

    assert most_moved(first) < 1e-6
    assert most_moved(None) > 1e-2
    assert all(torch.equal(value, weights[name]) for name, value in first.state_dict().items())
    wider = ProposalTrainingConfig(
        **PROPOSAL | {"network": {"width": 48, "depth": 1, "longest": 6}, "steps": 6}
    )
    proposal = train_proposal(model, episodes, wider, seed=1, limits=limits, start=first)
    assert proposal.config.width == 48


def test_imagination_brings_the_end_nearer_than_imitation_alone(model, data):
    episodes = embed_episodes(model, data.cache, data.trained, CPU)
    held_out = embed_episodes(model, data.cache, data.held_out, CPU)
    limits = block_limits(model, data)
    ends = {}
    for weight in (0.0, 0.3):
        config = ProposalTrainingConfig(**PROPOSAL, imagination_weight=weight)
        proposal = train_proposal(model, episodes, config, seed=0, limits=limits)
        ends[weight] = score_proposal(
            model, proposal, held_out, limits, horizon=3, number=128
        ).end_distance[-1]
    assert ends[0.3] < ends[0.0]


def test_the_command_runs_all_stages_and_a_resumed_run_ends_alike(spots, tmp_path, capsys):
    settings = write_settings(
        tmp_path / "spots.yaml", steps=40, refinement=REFINEMENT, proposal=PROPOSAL
    )
    arguments = ["--data", str(spots), "--config", str(settings), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["steps_refinement"] == 60
    assert result["steps_proposal"] == 250
    assert "later stages, minutes: embedding" in capsys.readouterr().out
    model = lewm_core.load(tmp_path / "run" / "checkpoint")
    assert model.proposal.config.longest == 6
    assert model.metadata["stages"]["proposal_end_distance_1"] > 0
    # A run that was killed in a later stage begins that stage anew, with the same end.
    assert main([*arguments, "--resume"]) == 0
    again = lewm_core.load(tmp_path / "run" / "checkpoint")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_run_that_ended_may_be_given_a_proposal_later(spots, tmp_path):
    settings = write_settings(tmp_path / "spots.yaml", steps=20)
    arguments = ["--data", str(spots), "--config", str(settings), "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    before = lewm_core.load(tmp_path / "run" / "checkpoint")
    assert before.proposal is None
    network = "proposal={network: {width: 16}, steps: 20, warmup_steps: 5, batch_size: 32}"
    assert main([*arguments, "--resume", network]) == 0
    after = lewm_core.load(tmp_path / "run" / "checkpoint")
    assert after.proposal.config.width == 16
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_minutes_are_shared_among_the_stages(tmp_path):
    config = spot_config(tmp_path, "minutes=10", "refinement={time_share: 0.2}",
                         "proposal={time_share: 0.3}")
    assert config.model_minutes == pytest.approx(5.0)
    assert spot_config(tmp_path, "proposal={time_share: 0.3}").model_minutes is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("refinement={stepz: 3}", "refinement.stepz"),
        ("refinement={steps: 3}", "warmup_steps (100) must be fewer than steps (3)"),
        ("proposal={network: {longest: 0}}", "proposal.network.longest"),
    ],
)
def test_wrong_settings_are_named(tmp_path, override, words):
    with pytest.raises(ConfigError) as caught:
        spot_config(tmp_path, override)
    assert words in str(caught.value)


def test_shares_that_leave_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="must add up to less than 1"):
        spot_config(tmp_path, "refinement={time_share: 0.5}", "proposal={time_share: 0.5}")


@pytest.mark.parametrize("preset", ["nano", "small", "paper"])
def test_every_preset_trains_a_few_steps_through_all_its_stages(spots, tmp_path, preset):
    """What a machine with a GPU is meant for runs here too, if nobody waits for it."""
    short = ["refinement={steps: 3, warmup_steps: 1, batch_size: 8, rollout_steps: 1}"]
    if preset != "nano":
        short = []
    out = tmp_path / "run"
    assert main([
        "--data", str(spots), "--config", preset, "--out", str(out), "steps=2", "batch_size=2",
        "monitor.frames=64", "monitor.final_frames=64", "monitor.clips=4", "threads=1",
        "clip_length=4", "loss.rollout_steps=1", "proposal.steps=3", "proposal.warmup_steps=1",
        "proposal.batch_size=8", "proposal.imagination_batch_size=4", *short,
    ]) == 0
    model = lewm_core.load(out / "checkpoint")
    assert model.proposal is not None
    assert model.metadata["stages"]["steps_proposal"] == 3
