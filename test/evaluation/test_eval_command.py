"""``lewm-eval`` as a user types it, with a real checkpoint that has learnt nothing."""

import json

import cv2
import numpy as np
import pytest

from lewm_core.collection.recording import EpisodeCollector
from lewm_core.commands.collect import main as collect
from lewm_core.commands.eval import main
from lewm_core.commands.train import main as train
from lewm_core.data.contract import load_contract
from lewm_core.evaluation.record import TIMINGS
from lewm_core.model.checkpoint import save_checkpoint
from test.evaluation.models import tiny_model
from test.training.spots import write_settings

#: What DESIGN promises to machines.
STABLE = {"episodes", "success_any", "success_final", "ci95_any", "ci95_final", "baselines",
          "plan_ms_p50", "plan_ms_p95", "plan_ms_p99", "seed", "config", "planner", "protocol",
          "split", "machine", "versions", "checkpoint_sha256"}
FAST = ["--planner", "search", "--set", "solver.candidates=16", "--set", "solver.elites=4",
        "--set", "solver.rounds=2", "--timed-plans", "4"]


def checkpoint(folder, seed=0, **training):
    metadata = {"trained_episodes": ["push_t_s5_000000"], "held_out_episodes": [],
                "latent": {"one_block_distance": 1e-6}, **training}
    return str(save_checkpoint(
        folder, tiny_model(seed), load_contract("push_t").to_dict(), metadata, "A test."
    ))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("runs") / "mine" / "checkpoint")


def run(tmp_path, *arguments, fast=FAST):
    out = tmp_path / "out"
    status = main([*map(str, arguments), *fast, "--out", str(out), "--json",
                   str(tmp_path / "result.json")])
    return status, out


def read(tmp_path):
    return json.loads((tmp_path / "result.json").read_text())


def steady(value):
    """Without what depends on how fast the machine was."""
    if isinstance(value, dict):
        return {key: steady(entry) for key, entry in value.items() if key not in TIMINGS}
    return [steady(entry) for entry in value] if isinstance(value, list) else value


def test_a_run_prints_writes_and_repeats_itself(trained, tmp_path, capsys):
    status, out = run(tmp_path, trained, "--episodes", 3, "--seed", 9, "--batch", 2)
    printed = capsys.readouterr().out
    assert status == 0
    for words in ("mine: goals 25 control steps away, 50 allowed, planner search", "replay",
                  "do nothing", "random", "must really move", "one at a time on cpu with",
                  "3 episodes prove nothing", "settings changed: solver.candidates=16"):
        assert words in printed
    result = read(tmp_path)
    assert STABLE <= result.keys()
    assert result["episodes"] == 3 and result["seed"] == 9 and not result["proves_something"]
    assert result["baselines"]["replay"]["success_any"] == 1.0
    assert set(result["baselines"]) == {"replay", "random", "do_nothing"}
    planner = result["config"]["planners"]["search"]
    assert planner["solver"]["candidates"] == 16
    assert planner["controller"]["execute_blocks"] == 1
    (row,) = result["tables"]
    assert row["plans"] == 30 and row["plans_timed"] == 4
    assert [goal["number"] for goal in row["goals"]] == [0, 1, 2]
    assert row["success_any"] == result["success_any"]
    assert json.loads((out / "result.json").read_text()) == result
    assert cv2.imread(str(out / "summary.png")).shape[1] > 1000
    assert (out / "mine-25.mp4").stat().st_size > 10_000

    run(tmp_path, trained, "--episodes", 3, "--seed", 9, "--batch", 2)
    assert steady(read(tmp_path)) == steady(result)


def test_several_checkpoints_and_their_mean(trained, tmp_path, capsys):
    other = checkpoint(tmp_path / "other", seed=1)
    status, out = run(tmp_path, trained, other, "--episodes", 2, "--protocol", "paper",
                      "--no-video")
    result = read(tmp_path)
    assert status == 0 and "mean" in capsys.readouterr().out
    assert [row["label"] for row in result["tables"]] == ["mine", "other"]
    assert result["success_any"] == np.mean([row["success_any"] for row in result["tables"]])
    assert result["episodes"] == 2 and len(result["checkpoint_sha256"]) == 2
    assert result["config"]["planners"]["search"]["controller"]["execute_blocks"] == 5
    assert not list(out.glob("*.mp4"))


def test_checkpoints_with_tolerances_of_their_own_are_not_put_into_one_table(
    trained, tmp_path, capsys
):
    latent = {"one_block_distance": 1e-6, "goal_tolerance_factor": 0.005}
    other = checkpoint(tmp_path / "other", seed=1, latent=latent)
    status, _ = run(tmp_path, trained, other, "--episodes", 1, "--no-video")
    assert status == 1 and "have goal tolerances of their own" in capsys.readouterr().err
    arguments = ("--episodes", 1, "--no-video", "--goal-tolerance-factor", 0.01)
    status, _ = run(tmp_path, trained, other, *arguments)
    assert status == 0 and read(tmp_path)["config"]["goal_tolerance_factor"] == 0.01
    status, _ = run(tmp_path, other, "--episodes", 1, "--no-video")
    assert status == 0 and read(tmp_path)["config"]["goal_tolerance_factor"] == 0.005


def test_far_is_three_tables(trained, tmp_path):
    status, _ = run(tmp_path, trained, "--episodes", 1, "--protocol", "far", "--no-video")
    result = read(tmp_path)
    assert status == 0 and result["distances"] == [50, 75, 100]
    assert [row["budget_steps"] for row in result["tables"]] == [100, 150, 200]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "papers"], "unknown protocol 'papers'; known protocols: paper, mpc, far"),
        (["--scene", "push"], "unknown scene 'push'; known scenes: cube, cube_double, push_t"),
        (["--planner", "serch"], "serch: no such file, and no preset of config/planner"),
        (["--split", "test"], "known splits: reporting, tuning"),
        (["--episodes", "0"], "episodes is 0"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--seed", "5"], "was trained on dataset 'push_t', collected from push_t with seed 5"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(trained, tmp_path, capsys, arguments, words):
    fast = [] if "--planner" in arguments else FAST
    assert run(tmp_path, trained, *arguments, fast=fast)[0] == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error and error.startswith("lewm-eval: error:")
    assert not (tmp_path / "result.json").exists()


def test_a_checkpoint_that_does_not_know_its_data_is_evaluated_with_a_warning(tmp_path, capsys):
    unknown = checkpoint(tmp_path / "unknown", trained_episodes=[])
    assert run(tmp_path, unknown, "--episodes", 1, "--no-video")[0] == 0
    assert "does not say which episodes it was trained on" in capsys.readouterr().out
    assert read(tmp_path)["training_data_known"] is False


def test_recorded_episodes_only_where_they_were_held_out(tmp_path, capsys):
    data = tmp_path / "data"
    collector = EpisodeCollector("push_t", load_contract("push_t"))
    names = [f"push_t_s5_{index:06d}" for index in range(3)]
    for index, name in enumerate(names):
        collector.collect(data / name, 60, 5, np.random.SeedSequence(5, spawn_key=(index,)))
    collector.close()
    split = {"trained_episodes": names[:1], "held_out_episodes": names[1:]}
    mine = checkpoint(tmp_path / "mine", **split)
    episodes = set()
    for which in ("reporting", "tuning"):
        if run(tmp_path, mine, "--data", data, "--episodes", 3, "--split", which,
               "--no-video")[0] == 0:
            printed = capsys.readouterr().out
            assert "3 episodes were asked for" in printed and "run again from their seed" in printed
            (row,) = read(tmp_path)["tables"]
            episodes |= {goal["episode"].split(",")[0] for goal in row["goals"]}
    assert episodes == set(names[1:])

    none = checkpoint(tmp_path / "none", trained_episodes=names, held_out_episodes=[])
    (tmp_path / "result.json").unlink()
    assert run(tmp_path, none, "--data", data)[0] == 1
    assert "none of its 3 episodes was held out" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


def test_what_was_collected_and_trained_is_refused_under_its_seed(tmp_path, capsys, monkeypatch):
    """The whole way: the dataset says how it was made, the checkpoint remembers it."""
    monkeypatch.setenv("LEWM_CACHE_DIR", str(tmp_path / "cache"))
    data, out = tmp_path / "pushes", tmp_path / "run"
    assert collect(["push_t", "--episodes", "24", "--steps", "40", "--seed", "31", "--workers",
                    "1", "--out", str(data)]) == 0
    settings = write_settings(tmp_path / "tiny.yaml", steps=2)
    assert train(["--data", str(data), "--config", str(settings), "--out", str(out),
                  "model.frame_skip=5"]) == 0
    trained = str(out / "checkpoint")
    sources = json.loads((out / "checkpoint" / "model.json").read_text())["training"]
    assert sources["data_sources"] == [{"name": "pushes", "scene": "push_t", "seeds": [31]}]
    capsys.readouterr()
    assert run(tmp_path, trained, "--seed", 31)[0] == 1
    assert "was trained on dataset 'pushes', collected from push_t with seed 31" in (
        capsys.readouterr().err
    )
    assert run(tmp_path, trained, "--seed", 32, "--episodes", 1, "--no-video")[0] == 0
