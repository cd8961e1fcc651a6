"""``lewm-train`` as its users run it: killed, interrupted, resumed, and given wrong things."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lewm_core.commands.train import main
from lewm_core.training.metrics import read_metrics
from test.helpers import wait_until
from test.training.spots import write_settings

ROOT = Path(__file__).parents[2]


def command(spots: Path, settings: Path, out: Path, *more: str) -> list[str]:
    return [
        "--data",
        str(spots),
        "--config",
        str(settings),
        "--out",
        str(out),
        *more,
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lewm_core.commands.train", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def last_step(out: Path) -> int:
    return max((row["step"] for row in read_metrics(out)), default=0)


def weights(out: Path) -> dict:
    return load_file(out / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    """160 steps: long enough to be hit in the middle."""
    return write_settings(
        tmp_path_factory.mktemp("settings") / "spots.yaml", steps=160, checkpoint_every=20
    )


@pytest.fixture(scope="module")
def straight(spots, settings, tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("straight") / "run"
    process = start(command(spots, settings, out))
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return out


def assert_same_weights(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert value.equal(found[name]), name


def test_killed_and_resumed_it_ends_with_the_same_weights(spots, settings, straight, tmp_path):
    out = tmp_path / "run"
    process = start(command(spots, settings, out))
    try:
        wait_until(lambda: last_step(out) >= 50, 90, "the run made no steps")
    finally:
        process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert last_step(out) < 160
    process = start(command(spots, settings, out, "--resume"))
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert_same_weights(straight, out)
    steps = [row["step"] for row in read_metrics(out) if row["kind"] == "train"]
    assert steps == list(range(5, 161, 5))


def test_sigint_saves_and_stops_and_the_rest_can_follow(spots, settings, straight, tmp_path):
    out = tmp_path / "run"
    process = start(command(spots, settings, out))
    try:
        wait_until(lambda: last_step(out) >= 30, 90, "the run made no steps")
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the state is saved, --resume continues" in text
    assert "Traceback" not in text
    process = start(command(spots, settings, out, "--resume"))
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert_same_weights(straight, out)


def test_the_end_of_a_run_tells_what_it_is_worth(spots, tmp_path, capsys):
    settings = write_settings(tmp_path / "spots.yaml", steps=20)
    report = tmp_path / "report.json"
    arguments = command(spots, settings, tmp_path / "run", "--json", str(report), "loss.knots=9")
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for words in ("knots: 9", "frames/s", "peak memory", "probes, R²", "checkpoint: "):
        assert words in text
    values = json.loads(report.read_text())
    assert values["step"] == 20
    assert values["peak_memory_mib"] > 50
    for key in ("frames_per_s", "minutes", "probe_r2_a", "probe_r2_linear_a", "effective_rank"):
        assert isinstance(values[key], float), key
    assert Path(values["checkpoint"], "model.json").exists()


def test_overrides_may_follow_the_data(spots, tmp_path, capsys):
    settings = write_settings(tmp_path / "spots.yaml", steps=5)
    arguments = [
        "--config",
        str(settings),
        "--out",
        str(tmp_path / "run"),
        "--data",
        str(spots),
        "loss.knots=9",
        "seed=3",
    ]
    assert main(arguments) == 0
    assert "seed: 3" in capsys.readouterr().out


def error_line(capsys, arguments: list[str]) -> str:
    """Run; expect exit status 1 and one line on standard error that is the error."""
    assert main(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    errors = [line for line in lines if line.startswith("lewm-train: error: ")]
    assert len(errors) == 1
    assert not any("Traceback" in line for line in lines)
    return errors[0]


def test_wrong_input_is_one_line_and_writes_nothing(spots, tmp_path, capsys):
    settings = write_settings(tmp_path / "spots.yaml")
    out = tmp_path / "run"
    cases = [
        (command(spots, settings, out, "loss.wieght=1"), "did you mean 'weight'?"),
        (command(spots, settings, out, "fast"), "is not key=value"),
        (command(tmp_path / "nowhere", settings, out), "does not exist"),
        (command(spots, tmp_path / "no.yaml", out), "no such file"),
        (command(spots, settings, out, "--contract", "pusht"), "push_t"),
        (command(spots, settings, out, "held_out_fraction=1e-9"), "held_out_fraction"),
        (command(spots, settings, out, "clip_length=60"), "record longer"),
        (command(spots, settings, out, "device=cuda:99"), "device=c"),
    ]
    for arguments, words in cases:
        assert words in error_line(capsys, arguments)
        assert not out.exists() or not any(out.iterdir()), arguments


def test_data_without_a_contract_ask_for_one(spots, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(spots, bare)
    (bare / "contract.yaml").unlink()
    settings = write_settings(tmp_path / "spots.yaml")
    line = error_line(capsys, command(bare, settings, tmp_path / "run"))
    assert "no contract.yaml" in line and "--contract" in line


def test_a_used_folder_is_refused_and_left_as_it_was(spots, straight, tmp_path, capsys, settings):
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert "add --resume" in error_line(capsys, command(spots, settings, out))
    other = command(spots, settings, out, "--resume", "loss.weight=0.1")
    assert "loss.weight: 0.5 in the run, 0.1 now" in error_line(capsys, other)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert after == before
