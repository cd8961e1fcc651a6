"""``lewm-train --refine``: later stages on a checkpoint that is there already, with more data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import lewm_core
from lewm_core.commands.train import main
from test.training.spots import write_settings, write_spots
from test.training.test_stages import PROPOSAL, REFINEMENT


@pytest.fixture
def base(trained: Path) -> Path:
    """A checkpoint of the first stage alone."""
    return trained / "checkpoint"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return write_settings(tmp_path / "later.yaml", refinement=REFINEMENT, proposal=PROPOSAL)


def test_predictor_and_proposal_learn_on_and_nothing_is_forgotten(
    base: Path, spots: Path, settings: Path, tmp_path: Path, capsys
) -> None:
    more = write_spots(tmp_path / "more", episodes=8, seed=7)
    out, result = tmp_path / "refined", tmp_path / "result.json"
    arguments = ["--refine", str(base), "--data", str(spots), str(more), "--config", str(settings)]
    assert main([*arguments, "--out", str(out), "--json", str(result)]) == 0
    assert "later stages, minutes" in capsys.readouterr().out
    figures = json.loads(result.read_text())
    assert figures["steps_refinement"] == 60 and figures["steps_proposal"] == 250
    assert "step" not in figures  # no first stage, no steps of it

    before, after = lewm_core.load(base), lewm_core.load(out / "checkpoint")
    assert before.proposal is None and after.proposal is not None
    for name, value in before.state_dict().items():
        frozen = name.startswith(("encoder", "projector", "action_mean", "action_std"))
        if frozen:
            assert torch.equal(value, after.state_dict()[name]), name
    changed = before.state_dict()["action_encoder.embed.0.weight"]
    assert not torch.equal(changed, after.state_dict()["action_encoder.embed.0.weight"])

    old, new = before.metadata, after.metadata
    assert set(new["trained_episodes"]) > set(old["trained_episodes"])
    assert not set(new["trained_episodes"]) & set(new["held_out_episodes"])
    assert new["data"] == ["data", "more"]
    assert new["steps"] == old["steps"] and new["minutes"] == old["minutes"]
    assert new["former_stages"][0]["base"]["checkpoint"] == "checkpoint"
    assert new["stages"]["steps_proposal"] == 250

    # A later round goes on from this proposal: with a rate of nearly nothing it stays what it was.
    third = tmp_path / "third"
    assert main([
        "--refine", str(out / "checkpoint"), "--data", str(spots), "--config", str(settings),
        "--out", str(third), "refinement=null", "proposal.steps=20",
        "proposal.learning_rate=1e-9",
    ]) == 0
    later = lewm_core.load(third / "checkpoint").proposal.state_dict()
    for name, value in after.proposal.state_dict().items():
        torch.testing.assert_close(later[name], value, rtol=0, atol=1e-6)

    # The same run again ends alike; another checkpoint is another run.
    assert main([*arguments, "--out", str(out), "--resume"]) == 0
    again = lewm_core.load(out / "checkpoint").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in after.state_dict().items())
    arguments[1] = str(out / "checkpoint")
    capsys.readouterr()
    assert main([*arguments, "--out", str(out), "--resume"]) == 1
    assert "another checkpoint to refine" in capsys.readouterr().err


def test_the_architecture_is_the_checkpoints(base: Path, spots: Path, tmp_path: Path) -> None:
    """The preset's own model is of no account: a checkpoint has one already."""
    settings = write_settings(tmp_path / "later.yaml", refinement=REFINEMENT, proposal=PROPOSAL)
    settings.write_text(settings.read_text().replace("width: 16", "width: 64"))
    out = tmp_path / "refined"
    arguments = ["--refine", str(base), "--data", str(spots), "--config", str(settings)]
    assert main([*arguments, "--out", str(out), "proposal.steps=20"]) == 0
    after = lewm_core.load(out / "checkpoint")
    assert after.config == lewm_core.load(base).config
    assert after.metadata["settings"]["model"]["predictor"]["width"] == 16


@pytest.mark.parametrize("override", ["model.predictor.width=64", "steps=5", "loss.weight=1"])
def test_settings_without_effect_are_refused(
    base: Path, spots: Path, settings: Path, tmp_path: Path, capsys, override: str
) -> None:
    assert main([
        "--refine", str(base), "--data", str(spots), "--config", str(settings), "--out",
        str(tmp_path / "run"), override,
    ]) == 1
    key = override.partition("=")[0]
    assert f"{key} has no effect with --refine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("no stage", "neither a refinement nor a proposal stage"),
        ("no checkpoint", "no such checkpoint folder"),
        ("contract", "another contract"),
    ],
)
def test_what_cannot_be_refined_is_named(
    base: Path, spots: Path, settings: Path, tmp_path: Path, capsys, wrong: str, words: str
) -> None:
    checkpoint = base
    if wrong == "no stage":
        settings = write_settings(tmp_path / "first.yaml")
    if wrong == "no checkpoint":
        checkpoint = tmp_path / "missing"
    if wrong == "contract":
        checkpoint = tmp_path / "other"
        shutil.copytree(base, checkpoint)
        file = checkpoint / "model.json"
        content = json.loads(file.read_text())
        content["contract"]["control_rate"] *= 2
        file.write_text(json.dumps(content))
    assert main([
        "--refine", str(checkpoint), "--data", str(spots), "--config", str(settings), "--out",
        str(tmp_path / "run"),
    ]) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
