"""The loop in this process: it learns, collapses when it should, and stops at NaN."""

from __future__ import annotations

import pytest
import torch

import lewm_core
from lewm_core.evaluation.probes import probe_states
from lewm_core.training.loop import Trainer, TrainingFailed
from lewm_core.training.metrics import read_metrics
from lewm_core.training.run import open_run
from test.training.spots import open_spots

CPU = torch.device("cpu")
RECORD = {"episodes": "abc", "contract": {}}


def train(spots, folder, *overrides, resume=False, command=""):
    """Train in ``folder / "run"``; return the result and the trainer."""
    data, config = open_spots(spots, folder, *overrides)

    def probe(train_z, train_states, held_z, held_states):
        names, units = data.contract.state_names, data.contract.state_units
        return probe_states(train_z, train_states, held_z, held_states, names, units, epochs=20)

    with open_run(folder / "run", config, RECORD, resume) as run:
        trainer = Trainer(data, config, run, CPU, probe=probe, command=command)
        return trainer.train(), trainer


@pytest.fixture(scope="module")
def healthy(spots, tmp_path_factory):
    """A run that is long enough for the spot to be encoded."""
    folder = tmp_path_factory.mktemp("healthy")
    result, trainer = train(
        spots, folder, "steps=300", "batch_size=32", "evaluate_every=200", command="lewm-train x"
    )
    return result, trainer, folder / "run"


def test_a_healthy_run_encodes_the_spot_and_warns_of_nothing(healthy):
    result, _, _ = healthy
    assert result.finished and result.step == 300
    assert result.warnings == []
    health = result.measurement.health
    assert health.effective_rank > 3
    assert 0.5 < health.std_mean < 1.5
    assert all(state.r2 > 0.8 for state in health.states)


def test_it_predicts_better_than_that_nothing_changes(healthy):
    measured = healthy[0].measurement
    assert len(measured.prediction_error) == len(measured.nothing_changes) == 3
    assert measured.prediction_error[0] < 0.5 * measured.nothing_changes[0]
    assert measured.one_block_distance > 0


def test_metrics_have_training_and_evaluation_rows(healthy):
    rows = read_metrics(healthy[2])
    train_rows = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in train_rows] == list(range(5, 301, 5))
    for key in ("total", "prediction", "sigreg", "lr", "grad_norm", "frames_per_s"):
        assert all(row[key] > 0 for row in train_rows)
    assert train_rows[-1]["total"] < train_rows[0]["total"]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    assert [row["step"] for row in evaluations] == [200, 300]
    assert {"effective_rank", "probe_r2_a", "prediction_error_3"} <= evaluations[-1].keys()
    assert (healthy[2] / "curves.png").stat().st_size > 10_000


def test_the_checkpoint_says_how_it_was_made(healthy):
    result, trainer, _ = healthy
    model = lewm_core.load(result.checkpoint)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    metadata = model.metadata
    assert metadata["steps"] == 300
    assert set(metadata["trained_episodes"]).isdisjoint(metadata["held_out_episodes"])
    assert len(metadata["trained_episodes"]) + len(metadata["held_out_episodes"]) == 16
    assert metadata["latent"]["one_block_distance"] == pytest.approx(
        result.measurement.one_block_distance, rel=1e-4
    )
    assert model.contract == trainer.data.contract.to_dict()
    card = (result.checkpoint / "README.md").read_text()
    for words in ("`lewm-train x`", "300 of 300 steps", "effective rank", "MLP probe, a"):
        assert words in card
    assert str(trainer.folder.path.parent) not in card


def test_action_statistics_are_those_of_the_training_episodes(healthy):
    _, trainer, _ = healthy
    mean, std = trainer.data.train_sampler(trainer.config).action_statistics()
    assert trainer.model.action_mean.tolist() == pytest.approx(mean.tolist())
    assert trainer.model.action_std.tolist() == pytest.approx(std.tolist())


def test_without_sigreg_it_collapses_and_the_warning_says_so(spots, tmp_path):
    result, _ = train(spots, tmp_path, "steps=250", "batch_size=32", "loss.weight=0.0")
    (text,) = result.warnings
    assert "collapsed" in text and "raise loss.weight" in text
    rows = read_metrics(tmp_path / "run")
    assert [row["text"] for row in rows if row["kind"] == "warning"] == [text]
    assert rows[-1]["kind"] == "warning"
    losses = [row["prediction"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.02  # and the loss looks better than ever


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(spots, tmp_path):
    with pytest.raises(TrainingFailed, match=r"not finite any more at step \d+.*state \(step"):
        train(
            spots,
            tmp_path,
            "checkpoint_every=1",
            "optimiser.learning_rate=1e30",
            "optimiser.warmup_steps=0",
        )
    model = lewm_core.load(tmp_path / "run" / "checkpoint")
    assert all(bool(torch.isfinite(value).all()) for value in model.parameters())


def test_minutes_end_a_run_with_the_schedule_at_its_end(spots, tmp_path):
    result, _ = train(spots, tmp_path, "steps=100000", "minutes=0.02", "log_every=1")
    assert result.finished
    assert 1 < result.step < 100000
    rates = [row["lr"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert rates[-1] < 0.5 * max(rates)


def test_a_finished_run_can_be_resumed_and_changes_nothing(spots, tmp_path):
    _, first = train(spots, tmp_path)
    _, again = train(spots, tmp_path, resume=True)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_two_pieces_in_one_process_are_the_whole(spots, tmp_path):
    """The state after 10 of 30 steps, continued, is the straight run, bit by bit."""
    (tmp_path / "straight").mkdir()
    (tmp_path / "pieces").mkdir()
    _, straight = train(spots, tmp_path / "straight")
    data, config = open_spots(spots, tmp_path / "pieces")
    with open_run(tmp_path / "pieces" / "run", config, RECORD, resume=False) as run:
        half = Trainer(data, config, run, CPU)

        class StopsAtTen:
            """Data that end after ten batches, as if the process had been killed there."""

            def batch(self, step):
                if step == 10:
                    raise KeyboardInterrupt
                return sampler.batch(step)

        sampler = half._sampler
        half._sampler = StopsAtTen()
        with pytest.raises(KeyboardInterrupt):
            half.train()
    _, whole = train(spots, tmp_path / "pieces", resume=True)
    assert whole.progress.step == 30
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name
    steps = [
        row["step"] for row in read_metrics(tmp_path / "pieces" / "run") if row["kind"] == "train"
    ]
    assert steps == list(range(5, 31, 5))
