"""The frame cache: right pictures at the right ticks, built once, by one of several processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm_core.data.bags import BagWriter
from lewm_core.data.cache import FrameCache, build_cache, open_cache
from lewm_core.data.contract import save_contract
from lewm_core.data.images import prepare_picture
from lewm_core.errors import BagError, ContractError, ImageError, UserError
from test.data.synthetic import (
    MS,
    SECOND,
    image_message,
    picture,
    small_contract,
    stamped,
    write_bag,
    write_episode,
)

ROOT = Path(__file__).parents[2]
CONTRACT = small_contract()


def build(tmp_path: Path, paths: Path | list[Path], **options: object) -> FrameCache:
    contract = options.pop("contract", CONTRACT)
    return build_cache(paths, contract, 4, cache_dir=tmp_path / "cache", **options)  # type: ignore


def dataset(folder: Path, episodes: int = 3, ticks: int = 21) -> Path:
    for number in range(episodes):
        write_episode(folder / f"episode_{number}", CONTRACT, ticks=ticks)
    save_contract(CONTRACT, folder / "contract.yaml")
    return folder


def test_pictures_lie_at_their_ticks(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    cache = build(
        tmp_path, dataset(tmp_path / "data"), progress=lambda *done: calls.append(done)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [(e.name, e.first, e.count) for e in cache.episodes] == [
        ("episode_0", 0, 21), ("episode_1", 21, 21), ("episode_2", 42, 21),
    ]
    assert cache.frames.shape == (15, 3, 4, 4)
    assert cache.frames.dtype == np.uint8
    for episode in cache.episodes:
        ticks = np.arange(episode.first, episode.first + episode.count)
        rows = cache.frame_index[ticks]
        np.testing.assert_array_equal(np.flatnonzero(rows >= 0), [0, 5, 10, 15, 20])
        for number, row in enumerate(rows[rows >= 0]):
            np.testing.assert_array_equal(
                cache.frames[row], prepare_picture(picture(number), None, 4)
            )
        np.testing.assert_allclose(cache.actions[ticks, 0], np.arange(21) / 1000, rtol=1e-6)
    assert cache.action_valid.all()
    assert cache.state_names == ["a", "b"]
    assert cache.contract == CONTRACT
    np.testing.assert_array_equal(cache.ticks_of(["episode_2"]), np.arange(42, 63))
    with pytest.raises(BagError, match="no episode 'nobody'"):
        cache.ticks_of(["nobody"])


def test_a_second_call_reads_nothing(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    first = build(tmp_path, data)
    calls: list[tuple[int, int]] = []
    second = build(tmp_path, data, progress=lambda *done: calls.append(done))
    assert calls == []
    assert second.folder == first.folder
    # Another size, another contract or another bag is another cache.
    assert build_cache(data, CONTRACT, 6, cache_dir=tmp_path / "cache").folder != first.folder
    write_episode(data / "episode_9", CONTRACT)
    assert build(tmp_path, data).folder != first.folder
    assert sorted(path.name for path in (tmp_path / "cache").glob(".*")) == []


def test_only_what_is_new_is_read_where_folders_are_joined(tmp_path: Path) -> None:
    first, second = dataset(tmp_path / "first"), dataset(tmp_path / "second", episodes=2)
    alone = build(tmp_path, first), build(tmp_path, second)
    calls: list[tuple[int, int]] = []
    joined = build(tmp_path, [first, second], progress=lambda *done: calls.append(done))
    assert calls == []
    np.testing.assert_array_equal(
        joined.frames[np.arange(len(joined.frames))],
        np.concatenate([cache.frames for cache in alone]),
    )
    assert joined.frames.shape == (len(joined.frames), 3, 4, 4)
    assert len(joined.episodes) == sum(len(cache.episodes) for cache in alone)
    for number, cache in enumerate(alone):
        for episode in cache.episodes:
            there = next(entry for entry in joined.episodes if entry.bag == episode.bag)
            ours = slice(there.first, there.first + there.count)
            theirs = slice(episode.first, episode.first + episode.count)
            for name in ("actions", "action_valid", "states"):
                np.testing.assert_array_equal(
                    getattr(joined, name)[ours], getattr(cache, name)[theirs], err_msg=str(number)
                )
            rows, own = joined.frame_index[ours], cache.frame_index[theirs]
            np.testing.assert_array_equal(rows >= 0, own >= 0)
            np.testing.assert_array_equal(
                joined.frames[rows[rows >= 0].reshape(1, -1)][0], cache.frames[own[own >= 0]]
            )
    # A bag that is named twice is there once, and bags named one by one share a cache.
    again = build(tmp_path, [first, second, first / "episode_0"])
    assert len(again.episodes) == len(joined.episodes)
    assert isinstance(build(tmp_path, sorted(first.glob("episode_*"))).frames, np.ndarray)


def test_a_damaged_bag_beside_a_good_folder_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one inside the folder is; alone it is an error."""
    good, bad = dataset(tmp_path / "good"), write_episode(tmp_path / "killed", CONTRACT)
    for file in bad.glob("*"):
        file.write_bytes(b"") if file.suffix == ".mcap" else file.unlink()
    joined = build(tmp_path, [good, bad])
    assert len(joined.episodes) == len(build(tmp_path, good).episodes)
    assert "left out" in caplog.text and "killed" in caplog.text
    with pytest.raises(BagError, match="killed"):
        build(tmp_path, bad)


def test_a_fast_camera_leaves_no_unused_rows(tmp_path: Path) -> None:
    """30 Hz on a 10 Hz grid: two pictures in three are never looked at."""
    bags = []
    for number in range(3):
        stamps = [SECOND + round(k * SECOND / 30) for k in range(31)]
        sent = [(SECOND + tick * 100 * MS, 0.0, 0.0) for tick in range(11)]
        bags.append(write_bag(tmp_path / f"e{number}", CONTRACT, stamps, sent))
    cache = build(tmp_path, bags)
    assert cache.frames.shape[0] == 33
    np.testing.assert_array_equal(cache.frame_index, np.arange(33))
    red = cache.frames[:, 0].reshape(33, -1)
    np.testing.assert_array_equal(red, np.repeat(np.tile(3 * np.arange(11), 3), 16).reshape(33, 16))
    assert (cache.folder / "frames.npy").stat().st_size == 128 + 33 * 3 * 4 * 4


def test_processes_give_the_same_as_one(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", episodes=4)
    alone = build_cache(data, CONTRACT, 4, cache_dir=tmp_path / "one", workers=1)
    shared = build_cache(data, CONTRACT, 4, cache_dir=tmp_path / "two", workers=2)
    np.testing.assert_array_equal(alone.frames, shared.frames)
    np.testing.assert_array_equal(alone.frame_index, shared.frame_index)
    assert alone.episodes == shared.episodes


def test_a_script_without_a_main_guard_may_use_processes(tmp_path: Path) -> None:
    """Also one that comes by standard input; its text must not run a second time."""
    data = dataset(tmp_path / "data", episodes=3)
    program = (
        "from lewm_core.data import build_cache, load_contract\n"
        f"cache = build_cache({str(data)!r}, load_contract({str(data)!r}), 4,"
        f" cache_dir={str(tmp_path / 'cache')!r}, workers=2)\n"
        "print(len(cache.frames))\n"
    )
    output = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert output == "15\n"


def test_an_error_in_a_process_is_the_same_error(tmp_path: Path) -> None:
    bags = [write_episode(tmp_path / f"e{number}", CONTRACT) for number in range(4)]
    wrong = small_contract(cameras__0__size=[16, 6])
    with pytest.raises(ImageError, match="e[0-3]: /camera: pictures are 8 x 6 px.*mend size"):
        build(tmp_path, bags, contract=wrong, workers=2)


def test_a_process_that_dies_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = [write_episode(tmp_path / f"e{number}", CONTRACT) for number in range(2)]
    monkeypatch.setattr("lewm_core.data.cache_worker.sys.executable", "/bin/false")
    with pytest.raises(UserError, match="a process that reads bags ended with status"):
        build(tmp_path, bags, workers=2)


def test_compressed_pictures_crop_and_sqlite3(tmp_path: Path) -> None:
    contract = small_contract(
        cameras__0__message="sensor_msgs/msg/CompressedImage", cameras__0__crop=[2, 1, 4, 4]
    )
    bag = write_bag(tmp_path / "e", contract, [0, 500 * MS], [(0, 0.0, 0.0)], storage="sqlite3")
    cache = build(tmp_path, bag, contract=contract)
    for number in range(2):
        np.testing.assert_array_equal(
            cache.frames[number], picture(number)[1:5, 2:6].transpose(2, 0, 1)
        )


def test_large_bags_are_read_in_a_second_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path / "data", episodes=1)
    kept = build_cache(data, CONTRACT, 4, cache_dir=tmp_path / "kept")
    monkeypatch.setattr("lewm_core.data.cache_bag._KEEP_BYTES", 100)
    again = build_cache(data, CONTRACT, 4, cache_dir=tmp_path / "again")
    np.testing.assert_array_equal(kept.frames, again.frames)


def test_two_processes_side_by_side(tmp_path: Path) -> None:
    """Both get the same whole cache; one of them builds it."""
    data = dataset(tmp_path / "data", episodes=6)
    program = (
        "import sys; from lewm_core.data import build_cache, load_contract\n"
        "calls = []\n"
        "cache = build_cache(sys.argv[1], load_contract(sys.argv[1]), 4, cache_dir=sys.argv[2],"
        " workers=1, progress=lambda *done: calls.append(done))\n"
        "print(len(calls), int(cache.frames.sum()), cache.folder.name)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(data), str(tmp_path / "cache")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(int(result[0]) for result in results) == [0, 0, 6]
    assert len({tuple(result[1:]) for result in results}) == 1


def test_sigint_stops_a_build_and_leaves_nothing_half_finished(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", episodes=40)
    program = (
        "import sys\n"
        "from lewm_core.data import build_cache, load_contract\n"
        "build_cache(sys.argv[1], load_contract(sys.argv[1]), 4, cache_dir=sys.argv[2],"
        " workers=2, progress=lambda *done: print(done, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(data), str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "(1, 40)"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("KeyboardInterrupt") == 1, errors
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_reading_bags_needs_neither_torch_nor_ros() -> None:
    program = (
        "import sys, lewm_core.data.cache, lewm_core.data.images\n"
        "print([name for name in ('torch', 'rclpy', 'mujoco') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert output.strip() == "[]"


def test_a_build_that_was_killed_is_done_again(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    folder = build(tmp_path, data).folder
    stale = folder.parent / f".{folder.name}-killed"
    shutil.copytree(folder, stale)
    (folder / "index.json").unlink()
    shutil.rmtree(folder)
    assert build(tmp_path, data).frames.shape[0] == 15
    assert not stale.exists()


def test_bags_of_another_contract_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    other = small_contract(action__fields=[
        {**CONTRACT.to_dict()["action"]["fields"][0], "upper": 2.0},
        CONTRACT.to_dict()["action"]["fields"][1],
    ])
    with pytest.raises(ContractError) as caught:
        build(tmp_path, data, contract=other)
    assert str(data) in str(caught.value)
    assert "action.fields[0].upper: 1.0 != 2.0" in str(caught.value)


def test_damaged_bags_among_good_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "data", episodes=2)
    (data / "episode_7").mkdir()
    (data / "episode_7" / "episode_7.mcap").touch()
    # Its metadata.yaml looks fine; only reading tells.
    broken = write_episode(data / "episode_8", CONTRACT)
    (broken / "episode_8.mcap").write_bytes(b"\x89MCAP0\r\n and then nothing")
    with caplog.at_level(logging.WARNING):
        cache = build(tmp_path, data)
    assert [episode.name for episode in cache.episodes] == ["episode_0", "episode_1"]
    assert cache.frames.shape[0] == 10
    assert "left out" in caplog.text
    assert "episode_7.mcap is empty" in caplog.text
    assert "episode_8.mcap cannot be read" in caplog.text
    with pytest.raises(BagError, match=r"episode_7\.mcap is empty"):
        build(tmp_path, data / "episode_7")
    with pytest.raises(BagError, match=r"episode_8\.mcap cannot be read"):
        build(tmp_path, data / "episode_8")


def test_a_bag_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    bag = write_episode(tmp_path / "data" / "episode_0", CONTRACT)
    whole = build(tmp_path, bag)
    path = bag / "episode_0.mcap"
    path.write_bytes(path.read_bytes()[:-30])
    cut = build(tmp_path, bag)
    np.testing.assert_array_equal(whole.frames, cut.frames)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    def bag_with(name: str, encoding: str, size: tuple[int, int] = (8, 6)) -> Path:
        with BagWriter(tmp_path / name) as writer:
            for topic, type_name in CONTRACT.topic_types().items():
                writer.add_topic(topic, type_name)
            message = image_message(picture(0, size), 0)
            message.encoding = encoding
            writer.write("/camera", 0, message)
            writer.write("/command", 0, stamped("geometry_msgs/msg/TwistStamped", 0))
        return tmp_path / name

    with pytest.raises(ImageError, match="strange: /camera: unknown encoding 'yuv422'.*rgb8"):
        build(tmp_path, bag_with("strange", "yuv422"))
    with pytest.raises(ImageError, match="16 x 6 px, the contract's camera 'top' says 8 x 6"):
        build(tmp_path, bag_with("large", "rgb8", (16, 6)))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"], (
        "nothing half-finished is left behind"
    )


def test_metadata_that_promises_too_few_pictures(tmp_path: Path) -> None:
    bag = write_episode(tmp_path / "e", CONTRACT)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 9", "message_count: 2"))
    with pytest.raises(BagError, match=r"tells of 2 pictures.*delete that file"):
        build(tmp_path, bag)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "lewm_core.data.cache.shutil.disk_usage", lambda _: usage._replace(free=1000)
    )
    with pytest.raises(UserError, match="0.0 GiB free.*LEWM_CACHE_DIR"):
        build(tmp_path, dataset(tmp_path / "data"))


def test_folders_that_are_no_cache(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="is not a frame cache"):
        open_cache(tmp_path)
    folder = build(tmp_path, dataset(tmp_path / "data")).folder
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(BagError, match="another version"):
        open_cache(folder)
