"""``lewm-collect --policy CHECKPOINT``: a planner drives, and the bags say what came of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lewm_core
from lewm_core.collection import practice
from lewm_core.collection.practice import PracticeCollector
from lewm_core.commands.collect import main
from lewm_core.data.alignment import align_episode
from lewm_core.data.bags import BagReader, find_bags
from lewm_core.data.contract import load_contract
from lewm_core.data.origin import origins_of_names
from lewm_core.paths import checkpoint_path
from lewm_core.scenes import make_scene

STEPS = 62  # not a whole number of blocks


def collect(out: Path, *more: str, workers: int = 1, episodes: int = 3) -> int:
    return main(
        ["push_t", "--policy", "push_t-nano", "--episodes", str(episodes), "--out", str(out)]
        + ["--steps", str(STEPS), "--seed", "6", "--workers", str(workers), *more]
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("practice") / "push_t"
    assert collect(out, "--json", str(out.parent / "result.json")) == 0
    return out


def episodes_of(dataset: Path) -> list:
    contract = load_contract("push_t")
    return [align_episode(BagReader(bag), contract)[0] for bag in find_bags(dataset)]


def test_bags_are_an_experts_but_for_who_drove(dataset: Path) -> None:
    names = [bag.name for bag in find_bags(dataset)]
    assert names == [f"push_t_practice_s6_{index:06d}" for index in range(3)]
    assert origins_of_names(names)[0].seeds == (6,)
    for bag in find_bags(dataset):
        reader = BagReader(bag)
        assert reader.topics == load_contract("push_t").topic_types()
        assert list(reader.message_counts.values()) == [13, STEPS, STEPS + 1]
    result = json.loads((dataset.parent / "result.json").read_text())
    assert (result["policy"], result["episodes"]) == ("push_t-nano", 3)
    made = json.loads((dataset / "dataset.json").read_text())
    assert "--policy push_t-nano" in made["runs"][0]["command"]


def test_commands_lead_from_state_to_state(dataset: Path) -> None:
    """The expert's ways ahead leave no trace in what is recorded."""
    scene = make_scene("push_t", seed=0)
    for episode in episodes_of(dataset):
        assert len(episode.states) >= STEPS and episode.action_valid[:STEPS].all()
        np.testing.assert_array_equal(
            np.flatnonzero(episode.frame_index >= 0), range(0, STEPS + 1, 5)
        )
        scene.reset(state=episode.states[0])
        for tick in range(len(episode.states) - 1):
            state = scene.step_control(episode.actions[tick])
            np.testing.assert_allclose(state, episode.states[tick + 1], atol=5e-4)


def test_same_seed_same_bytes_whatever_the_workers(
    dataset: Path, tmp_path: Path
) -> None:
    assert collect(tmp_path / "two", workers=2) == 0
    for ours, theirs in zip(find_bags(tmp_path / "two"), find_bags(dataset), strict=True):
        assert [f.read_bytes() for f in sorted(ours.glob("*.mcap"))] == [
            f.read_bytes() for f in sorted(theirs.glob("*.mcap"))
        ]


def test_another_planner_drives_elsewhere_and_again_the_same(
    dataset: Path, tmp_path: Path
) -> None:
    for name in ("once", "again"):
        assert collect(tmp_path / name, "--planner", "default") == 0
    made = json.loads((tmp_path / "once" / "dataset.json").read_text())
    assert made["runs"][0]["command"].endswith("--policy push_t-nano --planner default")
    folders = (tmp_path / "once", tmp_path / "again", dataset)
    searched, again, proposed = (
        np.concatenate([episode.actions[:STEPS] for episode in episodes_of(folder)])
        for folder in folders
    )
    np.testing.assert_array_equal(searched, again)
    assert not np.array_equal(searched, proposed)


def test_the_planner_gets_nearer_to_the_goals_it_is_given(tmp_path: Path) -> None:
    """Not every time, or there would be no need to practise; but it drives with a purpose."""
    model = lewm_core.load("push_t-nano")
    collector = PracticeCollector("push_t", load_contract("push_t"), model)
    before, after = [], []
    choose = collector._choose_goal

    def spy(episode: practice._Episode) -> None:
        if episode.goal is not None:
            after.append(float((episode.states[-1] - episode.goal).square().sum()))
        choose(episode)
        goal = torch.from_numpy(episode.fresh_goal.picture)[None, None]
        here = episode.states[-1] if episode.states else None
        if here is not None:
            with torch.no_grad():
                before.append(float((model.encode(goal)[0, 0] - here).square().sum()))

    collector._choose_goal = spy  # type: ignore[method-assign]
    seeds = [np.random.SeedSequence(3, spawn_key=(index,)) for index in range(8)]
    collector.collect_all([tmp_path / f"{index}" for index in range(8)], 150, 5, seeds)
    collector.close()
    assert len(after) >= 8
    assert np.median(after) < 0.2 * np.median(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--picture-every", "10"], "--picture-every 10: the planner needs a picture every 5"),
        (["--policy", "push_t-nono"], "push_t-nono: no such checkpoint folder"),
        (["--policy", "expert", "--planner", "paper"], "--planner paper: no planner drives"),
        (["--planner", "defualt"], "defualt"),
    ],
)
def test_what_cannot_practise_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    assert collect(tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_contract_is_refused_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint_path("push_t-nano"), other)
    settings = json.loads((other / "model.json").read_text())
    settings["contract"]["control_rate"] = 20.0
    (other / "model.json").write_text(json.dumps(settings))
    assert collect(tmp_path / "out", "--policy", str(other)) == 1
    error = capsys.readouterr().err
    assert "another contract" in error and "control_rate" in error
    assert not (tmp_path / "out").exists()
