"""Bags of several cameras: aligned to one grid, side by side in the frame cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lewm_core.data.alignment import align_episode
from lewm_core.data.bags import BagReader, BagWriter
from lewm_core.data.cache import FrameCache, build_cache
from lewm_core.data.clips import ClipSampler
from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences, require_contract
from lewm_core.data.images import prepare_picture
from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import BagError, ContractError
from lewm_core.model.checkpoint import load_checkpoint
from lewm_core.model.config import InputsConfig, KeypointEncoderConfig, ModelConfig
from test.data.synthetic import MS, image_message, picture, small_contract, stamped

TICKS = 11
#: Pictures of the side camera have numbers from here on.
SIDE = 100


def two_cameras() -> Contract:
    values = small_contract().to_dict()
    side = {**values["cameras"][0], "name": "side", "topic": "/side", "size": [4, 4]}
    values["cameras"].append(side)
    values["states"][0]["fields"][1]["proprioceptive"] = True
    return Contract.from_dict(values)


CONTRACT = two_cameras()


def write(
    path: Path,
    side_ms: dict[int, float] | None,
    top_ms: dict[int, float] | None = None,
    contract: Contract = CONTRACT,
) -> Path:
    """Write a bag; numbers of pictures to their times. Commands and states at every tick."""
    top_ms = {tick: 100.0 * tick for tick in range(TICKS)} if top_ms is None else top_ms
    entries = []
    for topic, times, size, first in (
        ("/camera", top_ms, (8, 6), 0),
        ("/side", side_ms or {}, (4, 4), SIDE),
    ):
        for number, at_ms in times.items():
            at = 1_000_000_000 + round(at_ms * MS)
            entries.append((at, topic, image_message(picture(first + number, size), at)))
    for tick in range(TICKS):
        at = 1_000_000_000 + tick * 100 * MS
        command = stamped(contract.action.message, at)
        entries.append((at, "/command", command))
        state = stamped("sensor_msgs/msg/JointState", at)
        state.position = np.array([tick, 10.0 * tick])
        entries.append((at, "/state", state))
    with BagWriter(path) as writer:
        for topic, kind in contract.topic_types().items():
            if topic != "/side" or side_ms is not None:
                writer.add_topic(topic, kind)
        for at, topic, message in sorted(entries, key=lambda entry: entry[0]):
            writer.write(topic, at, message)
    return path


def every_tick(shift_ms: float = 0.0) -> dict[int, float]:
    return {tick: 100.0 * tick + shift_ms for tick in range(TICKS)}


def build(tmp_path: Path, bag: Path, *cameras: str) -> FrameCache:
    return build_cache(bag, CONTRACT, 4, cache_dir=tmp_path / "cache", cameras=cameras)


def seen(number: int, size: tuple[int, int]) -> np.ndarray:
    return prepare_picture(picture(number, size), None, 4)


def test_every_tick_has_the_nearest_picture_of_each_camera(tmp_path: Path) -> None:
    with BagReader(write(tmp_path / "bag", every_tick(shift_ms=-30.0))) as reader:
        (episode,) = align_episode(reader, CONTRACT)
    # The grid is that of the first camera; pictures of 70, 170, ... ms belong to 100, 200, ...
    np.testing.assert_array_equal(episode.frame_index, range(TICKS))
    np.testing.assert_array_equal(episode.further_index[:, 0], range(TICKS))


def test_a_tick_that_lacks_a_picture_of_one_camera_has_none(tmp_path: Path) -> None:
    times = every_tick()
    del times[3], times[4]
    times[7] += 60.0  # nearer to tick 8, which has one of its own
    cache = build(tmp_path, write(tmp_path / "bag", times), "top", "side")
    complete = [tick for tick in range(TICKS) if tick not in (3, 4, 7)]
    np.testing.assert_array_equal(np.flatnonzero(cache.frame_index >= 0), complete)
    assert cache.frames.shape == (len(complete), 6, 4, 4)
    for tick in complete:
        row = cache.frames[cache.frame_index[tick]]
        np.testing.assert_array_equal(row[:3], seen(tick, (8, 6)))
        np.testing.assert_array_equal(row[3:], seen(SIDE + tick, (4, 4)))


def test_a_slow_camera_gives_its_picture_to_the_ticks_near_it(tmp_path: Path) -> None:
    times = {tick: 100.0 * tick + 50.0 for tick in range(0, TICKS - 1, 2)}
    cache = build(tmp_path, write(tmp_path / "bag", times), "top", "side")
    for tick in range(TICKS - 1):
        row = cache.frames[cache.frame_index[tick]]
        np.testing.assert_array_equal(row[3:], seen(SIDE + tick // 2 * 2, (4, 4)))


def test_cameras_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", every_tick(shift_ms=20.0))
    there, back = build(tmp_path, bag, "top", "side"), build(tmp_path, bag, "side", "top")
    assert [camera.name for camera in back.contract.cameras] == ["side", "top"]
    np.testing.assert_array_equal(there.frames[:, :3], back.frames[:, 3:])
    np.testing.assert_array_equal(there.frames[:, 3:], back.frames[:, :3])
    alone = build(tmp_path, bag, "side")
    np.testing.assert_array_equal(alone.frames, back.frames[:, :3])


def test_without_names_the_first_camera_is_all_there_is(tmp_path: Path) -> None:
    """Also where a bag has nothing of the others."""
    whole, lacking = write(tmp_path / "whole", every_tick()), write(tmp_path / "lacking", None)
    first = build(tmp_path, whole)
    assert first.frames.shape == (TICKS, 3, 4, 4)
    np.testing.assert_array_equal(first.frames, build(tmp_path, lacking).frames)
    np.testing.assert_array_equal(first.frames, build(tmp_path, whole, "top").frames)
    with pytest.raises(BagError, match="lacking: no messages on /side"):
        build(tmp_path, lacking, "top", "side")


def test_pictures_that_do_not_fit_into_memory_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write(tmp_path / "bag", every_tick(shift_ms=-20.0))
    kept = build_cache(bag, CONTRACT, 4, tmp_path / "kept", cameras=("top", "side"))
    monkeypatch.setattr("lewm_core.data.cache_bag._KEEP_BYTES", 500)
    again = build_cache(bag, CONTRACT, 4, tmp_path / "again", cameras=("top", "side"))
    np.testing.assert_array_equal(kept.frames, again.frames)


def test_an_unknown_camera_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", every_tick())
    with pytest.raises(ContractError, match="no camera 'sid'; did you mean 'side'"):
        build(tmp_path, bag, "sid")


def test_clips_have_all_cameras_and_the_states_that_the_model_is_given(tmp_path: Path) -> None:
    cache = build(tmp_path, write(tmp_path / "bag", every_tick()), "top", "side")
    sampler = ClipSampler(cache, ["bag"], 2, 5, 3, seed=0, inputs=["b"])
    clips = sampler.batch(0)
    assert clips.frames.shape == (3, 2, 6, 4, 4)
    assert clips.inputs is not None
    np.testing.assert_array_equal(clips.inputs[..., 0], clips.states[..., 1])
    mean, deviation = sampler.input_statistics()
    values = 10.0 * np.arange(TICKS)
    np.testing.assert_allclose([mean[0], deviation[0]], [values.mean(), values.std()], rtol=1e-6)
    without = ClipSampler(cache, ["bag"], 2, 5, 3, seed=0)
    assert without.batch(0).inputs is None
    assert [len(part) for part in without.input_statistics()] == [0, 0]


def test_a_field_that_was_never_recorded_cannot_be_given(tmp_path: Path) -> None:
    cache = build(tmp_path, write(tmp_path / "bag", every_tick()))
    cache.states[:, 1] = np.nan
    with pytest.raises(BagError, match="'b' was recorded in no episode"):
        ClipSampler(cache, ["bag"], 2, 5, 3, seed=0, inputs=["b"]).input_statistics()


def test_what_is_proprioceptive_is_no_difference_between_contracts() -> None:
    values = CONTRACT.to_dict()
    del values["states"][0]["fields"][1]["proprioceptive"]
    assert Contract.from_dict(values).proprioceptive_names == []
    assert CONTRACT.proprioceptive_names == ["b"]
    assert contract_differences(Contract.from_dict(values), CONTRACT) == []


@pytest.mark.parametrize("name", ["push_t", "two_room", "reacher", "cube"])
def test_shipped_checkpoints_fit_the_contracts_of_today(name: str) -> None:
    contract = load_checkpoint(f"{name}-nano").contract
    assert contract is not None
    require_contract(contract, load_contract(name), name)
    assert contract_differences(Contract.from_dict(contract), load_contract(name)) == []


def layout_of(contract: Contract, **inputs: Any) -> ObservationLayout:
    encoder = KeypointEncoderConfig(image_size=16, keypoints=2)
    settings = ModelConfig(encoder=encoder, inputs=InputsConfig(**inputs), action_dim=2)
    return ObservationLayout.of(contract, settings)


@pytest.mark.parametrize(
    ("state", "names"), [(False, ()), (True, ("b",)), (("b",), ("b",)), ((), ())]
)
def test_a_model_is_given_what_its_training_says(
    state: bool | tuple[str, ...], names: tuple[str, ...]
) -> None:
    layout = layout_of(CONTRACT, cameras=("side",), state=state)
    assert layout.state_names == names
    pictures = {"side": picture(7, (4, 4)), "top": picture(1)}
    observation = layout.observe(pictures, {"a": 1.0, "b": 2.0})
    expected = prepare_picture(picture(7, (4, 4)), None, 16)
    np.testing.assert_array_equal(observation.picture, expected)
    assert observation.state is None if not names else observation.state.tolist() == [2.0]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (("c",), "has no state field 'c'; it can be a, b"),
        (("a",), "'a' is not proprioceptive"),
    ],
)
def test_what_a_robot_does_not_measure_is_not_given(state: tuple[str, ...], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        layout_of(CONTRACT, state=state)


def test_all_proprioceptive_fields_of_none_is_an_error() -> None:
    with pytest.raises(ContractError, match="no state field of contract 'small' is propriocep"):
        layout_of(small_contract(), state=True)
