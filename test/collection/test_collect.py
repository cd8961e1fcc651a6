"""``lewm-collect``: bags that the reader takes, the same for the same seed, SIGINT, bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm_core.commands.collect import main
from lewm_core.data.alignment import align_episode
from lewm_core.data.bags import BagReader, find_bags
from lewm_core.data.contract import load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.scenes import make_scene
from test.helpers import wait_until

STEPS = 20


def collect(out: Path, *more: str, episodes: int = 3, workers: int = 1) -> int:
    return main(
        ["push_t", "--episodes", str(episodes), "--steps", str(STEPS), "--out", str(out)]
        + ["--workers", str(workers), *more]
    )


def bag_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/*.mcap"))}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("collect") / "push_t"
    assert collect(out, "--seed", "4", "--json", str(out.parent / "result.json")) == 0
    return out


def test_bags_hold_what_the_contract_says(dataset: Path) -> None:
    contract = load_contract("push_t")
    assert contract_differences(load_contract(dataset), contract) == []
    bags = find_bags(dataset)
    assert [bag.name for bag in bags] == [f"push_t_s4_{index:06d}" for index in range(3)]
    for bag in bags:
        reader = BagReader(bag)
        assert reader.topics == contract.topic_types()
        assert reader.message_counts == {
            "/camera/image_raw": 5,
            "/command": STEPS,
            "/scene/state": STEPS + 1,
        }
        assert not reader.truncated


def test_random_commands_are_recorded_under_names_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "random"
    assert collect(out, "--policy", "random", "--seed", "4", episodes=2) == 0
    names = [bag.name for bag in find_bags(out)]
    assert names == ["push_t_random_s4_000000", "push_t_random_s4_000001"]
    episodes = [
        align_episode(BagReader(bag), load_contract("push_t"))[0] for bag in find_bags(out)
    ]
    actions = np.stack([episode.actions[:STEPS] for episode in episodes])
    assert (np.abs(actions) <= 0.15).all()
    # Uniform on +-0.15: a standard deviation of 0.087, and no two steps or episodes alike.
    assert 0.07 < actions.std() < 0.1
    assert len(np.unique(actions)) == actions.size
    assert "--policy random" in json.loads((out / "dataset.json").read_text())["runs"][0]["command"]


def test_recorded_commands_lead_from_state_to_state(dataset: Path) -> None:
    contract = load_contract("push_t")
    scene = make_scene("push_t", seed=0)
    episode = align_episode(BagReader(find_bags(dataset)[1]), contract)[0]
    assert episode.action_valid[:STEPS].all()
    np.testing.assert_array_equal(np.flatnonzero(episode.frame_index >= 0), range(0, STEPS + 1, 5))
    scene.reset(state=episode.states[0])
    for tick in range(STEPS):
        state = scene.step_control(episode.actions[tick])
        np.testing.assert_allclose(state, episode.states[tick + 1], atol=2e-4)


def test_pictures_are_those_of_the_recorded_states(dataset: Path) -> None:
    scene = make_scene("push_t", seed=0)
    reader = BagReader(find_bags(dataset)[0])
    states = {}
    pictures = 0
    for item in reader.messages(["/scene/state", "/camera/image_raw"]):
        if item.topic == "/scene/state":
            states[item.header_ns] = item.message.position
            assert list(item.message.name) == list(scene.state_names)
            continue
        pictures += 1
        message = item.message
        assert (message.width, message.height, message.encoding) == (224, 224, "rgb8")
        picture = message.data.reshape(224, 224, 3)
        expected = scene.render_state(states[item.header_ns], 224, 224)
        # A pixel on an edge may fall on either side after the state's way through the bag.
        assert np.mean(np.any(picture != expected, axis=-1)) < 1e-3
    assert pictures == 5


def test_results_and_how_the_dataset_was_made(dataset: Path) -> None:
    result = json.loads((dataset.parent / "result.json").read_text())
    assert (result["episodes"], result["control_steps"], result["pictures"]) == (3, 60, 15)
    assert result["bytes"] == sum(path.stat().st_size for path in dataset.glob("*/*"))
    made = json.loads((dataset / "dataset.json").read_text())
    assert made["scene"] == "push_t"
    assert made["runs"][0]["seed"] == 4
    assert "lewm-collect push_t --episodes 3" in made["runs"][0]["command"]
    assert set(made["runs"][0]["versions"]) >= {"lewm_core", "mujoco", "numpy"}
    assert sorted(path.name for path in dataset.iterdir() if path.name.startswith(".")) == []


def test_same_seed_same_bytes_whatever_the_workers(dataset: Path, tmp_path: Path) -> None:
    assert collect(tmp_path / "two", "--seed", "4", workers=2) == 0
    assert bag_bytes(tmp_path / "two") == bag_bytes(dataset)
    assert collect(tmp_path / "other", "--seed", "5", episodes=1) == 0
    first = bag_bytes(dataset)["push_t_s4_000000.mcap"]
    other = bag_bytes(tmp_path / "other")["push_t_s5_000000.mcap"]
    assert first != other


def test_append_keeps_what_is_there(tmp_path: Path, dataset: Path) -> None:
    out = tmp_path / "data"
    assert collect(out, "--seed", "4", episodes=1) == 0
    kept = next(out.glob("*/*.mcap")).stat().st_mtime_ns
    assert collect(out, "--seed", "4", "--append") == 0
    assert next(out.glob("*_000000/*.mcap")).stat().st_mtime_ns == kept
    assert bag_bytes(out) == bag_bytes(dataset)
    runs = json.loads((out / "dataset.json").read_text())["runs"]
    assert [run["episodes"] for run in runs] == [1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_sigint_leaves_complete_episodes(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "lewm_core.commands.collect", "push_t", "--episodes", "5000"]
        + ["--steps", "50", "--out", str(out), "--workers", str(workers)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(
            lambda: len(list(out.glob("push_t_*"))) >= 3 or process.poll() is not None,
            120,
            "no episode was written",
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    bags = find_bags(out)
    assert 3 <= len(bags) < 5000
    assert all((bag / "metadata.yaml").is_file() for bag in bags)
    assert all(BagReader(bag).message_counts["/command"] == 50 for bag in bags)
    assert not (out / ".partial").exists()
    assert json.loads((out / "dataset.json").read_text())["runs"][0]["interrupted"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pusht", "--episodes", "1"], "did you mean push_t?"),
        (["push_t", "--episodes", "0"], "--episodes must be at least 1"),
        (["push_t", "--episodes", "1", "--picture-every", "0"], "--picture-every must be"),
        (["push_t", "--episodes", "1", "--seed", "-2"], "--seed must not be negative"),
    ],
)
def test_bad_arguments_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    out = tmp_path / "data"
    assert main([*arguments, "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert words in message and len(message.strip().splitlines()) == 1
    assert not out.exists()


def test_folders_with_something_in_them_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert collect(tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert collect(tmp_path, "--append") == 1
    assert "no dataset to append to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert collect(tmp_path / "notes.txt") == 1
    assert "is a file" in capsys.readouterr().err


def test_append_to_another_contract_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: Path
) -> None:
    text = (dataset / "contract.yaml").read_text()
    (tmp_path / "contract.yaml").write_text(text.replace("upper: 0.15", "upper: 0.25"))
    assert collect(tmp_path, "--append") == 1
    assert "action.fields[0].upper" in capsys.readouterr().err


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, death: signal.Signals) -> None:
    out = tmp_path / "push_t"
    process = subprocess.Popen(
        [sys.executable, "-m", "lewm_core.commands.collect", "push_t", "--episodes", "100000"]
        + ["--workers", "2", "--out", str(out)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: any(out.glob("push_t_*")), 60, "no episode was collected")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
    finally:
        process.send_signal(death)
        process.wait(timeout=20)
    wait_until(
        lambda: not any(Path(f"/proc/{child}").exists() for child in children),
        20,
        f"processes {children} went on",
    )
    # What was complete is kept, and the next run goes on from there.
    kept = sum(1 for _ in out.glob("push_t_*"))
    assert kept >= 1
    assert collect(out, "--append", episodes=1) == 0
