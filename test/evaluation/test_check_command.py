"""``lewm-check`` as its users run it, on a checkpoint that was really trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lewm_core.commands.check import main
from lewm_core.evaluation.check.data import open_check_data
from lewm_core.evaluation.check.thresholds import THRESHOLDS
from lewm_core.model import load_checkpoint
from lewm_core.model.verdict import FILE, read_verdict
from lewm_core.training.measure import LabelledFrames
from test.evaluation.checkpoints import collect_episodes, train_without_sigreg


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``data`` (trained on), ``fresh`` data, and ``run``, which cannot plan."""
    folder = tmp_path_factory.mktemp("check")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEWM_CACHE_DIR", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        collect_episodes(folder / "data", seed=1)
        collect_episodes(folder / "fresh", seed=2)
        train_without_sigreg(folder / "data", folder / "run")
        yield folder


def check(checkpoint: Path, data: Path, *more: str) -> int:
    return main([str(checkpoint), "--data", str(data), "--goals", "8", *more])


def test_a_model_without_sigreg_cannot_plan_and_the_verdict_is_stored(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(world / "run/checkpoint", tmp_path / "model"))
    result = tmp_path / "check.json"
    assert check(checkpoint, world / "fresh", "--json", str(result)) == 0
    printed = capsys.readouterr().out
    assert "verdict: cannot plan" in printed and "16 held-out episodes" in printed
    report = json.loads(result.read_text())
    assert report["verdict"] == "cannot plan" and report["data"] == ["fresh"]
    assert all(row.key in report and row.label in printed for row in THRESHOLDS)
    assert report["prediction_error_5"] is not None and len(report["direction_variance"]) == 32
    assert {"probe_r2_angle", "probe_r2_linear_angle", "sigreg"} <= report.keys()
    stored = read_verdict(checkpoint)
    assert stored is not None
    assert (stored.verdict, stored.reason) == (report["verdict"], report["reason"])
    assert stored.measured["true_rank"] == report["true_rank"]
    load_checkpoint(checkpoint)


def test_the_same_seed_gives_the_same_figures_and_only_held_out_episodes_count(
    world: Path, tmp_path: Path
) -> None:
    reports = []
    for number in range(2):
        result = tmp_path / f"{number}.json"
        arguments = ("--no-store", "--json", str(result))
        assert check(world / "run/checkpoint", world / "data", *arguments) == 0
        reports.append(json.loads(result.read_text()))
    for report in reports:
        del report["date"]
    assert reports[0] == reports[1]
    metadata = load_checkpoint(world / "run/checkpoint").metadata
    assert reports[0]["episodes"] == len(metadata["held_out_episodes"])
    assert reports[0]["episodes_excluded"] == len(metadata["trained_episodes"])
    assert not (world / "run/checkpoint" / FILE).exists()
    assert any("fewer than 20" in text for text in reports[0]["warnings"])


@pytest.mark.parametrize("name", ["data", "fresh"])
def test_probes_are_scored_on_held_out_pictures_and_fitted_on_trained_ones_where_there_are(
    world: Path, name: str
) -> None:
    model = load_checkpoint(world / "run/checkpoint")
    data = open_check_data("run", model, [world / name])
    fitted, scored = data.probe_frames(40)
    rows = {
        episode: set(data.cache.frame_index[data.cache.ticks_of([episode])].tolist()) - {-1}
        for episode in (*data.episodes, *data.trained)
    }
    held_out = set().union(*(rows[episode] for episode in data.episodes))

    def rows_of(frames: LabelledFrames) -> set[int]:
        pictures = data.cache.frames
        return {
            row
            for row in set().union(*rows.values())
            if any(np.array_equal(pictures[row], frame) for frame in frames.frames.numpy())
        }

    assert rows_of(scored) <= held_out
    assert bool(rows_of(fitted) & held_out) == (name == "fresh")
    assert len(fitted.frames) == (60 if name == "data" else 24)


def test_require_makes_the_verdict_an_exit_status_and_still_writes_the_result(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "check.json"
    arguments = ("--no-store", "--require", "can plan", "--json", str(result))
    assert check(world / "run/checkpoint", world / "fresh", *arguments) == 1
    assert "required 'can plan'" in capsys.readouterr().err
    assert json.loads(result.read_text())["verdict"] == "cannot plan"


def test_data_that_were_all_trained_on_are_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = load_checkpoint(world / "run/checkpoint").metadata
    trained = tmp_path / "trained"
    trained.mkdir()
    for name in metadata["trained_episodes"]:
        shutil.copytree(world / "data" / name, trained / name)
    assert check(world / "run/checkpoint", trained) == 1
    error = capsys.readouterr().err
    assert "no held-out episode" in error and error.count("\n") == 1
    for name in metadata["held_out_episodes"][:1]:
        shutil.copytree(world / "data" / name, trained / name)
    assert check(world / "run/checkpoint", trained) == 1
    assert "a check needs 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--data", "."], "nowhere"),
        (["push_t-nano", "--data", "no_such_data"], "no_such_data does not exist"),
        (["push_t-nano", "--data", ".", "--goals", "0"], "--goals"),
        (["push_t-nano", "--data", ".", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "lewm-check push_t-nano" in capsys.readouterr().out


def test_states_that_no_goal_depends_on_are_told_and_not_judged(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(*more: str) -> dict:
        result = tmp_path / "check.json"
        arguments = ("--no-store", "--json", str(result), *more)
        assert check(world / "run/checkpoint", world / "fresh", *arguments) == 0
        return json.loads(result.read_text())

    whole, without = report(), report("--leave-out", "block_x,block_y,block_angle")
    assert without["probe_r2_block"] == whole["probe_r2_block"]
    assert whole["state_r2"] == min(
        whole["probe_r2_agent"], whole["probe_r2_block"], whole["probe_r2_angle"]
    )
    assert without["state_r2"] == whole["probe_r2_agent"] > whole["state_r2"]
    assert without["reason"].endswith("; not judged: block_x, block_y, block_angle")
    capsys.readouterr()
    wrong = check(world / "run/checkpoint", world / "fresh", "--leave-out", "block_angel")
    assert wrong == 1
    assert "did you mean 'block_angle'?" in capsys.readouterr().err
