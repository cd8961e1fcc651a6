"""Clips and the split: every clip is whole, drawn once an epoch, and the same again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from lewm_core.data.cache import build_cache
from lewm_core.data.clips import ClipSampler
from lewm_core.data.frame_cache import FrameCache
from lewm_core.data.split import is_held_out, split_episodes
from lewm_core.errors import BagError, UserError
from lewm_core.training.data import pictures_on
from test.data.synthetic import MS, small_contract, write_bag, write_episode

CONTRACT = small_contract()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FrameCache:
    """Three episodes of 41 ticks, a picture every 5: 9 pictures each."""
    folder = tmp_path_factory.mktemp("clips")
    bags = [write_episode(folder / f"episode_{number}", CONTRACT, ticks=41) for number in range(3)]
    return build_cache(bags, CONTRACT, 4, cache_dir=folder / "cache")


def sampler(cache: FrameCache, **changes: int) -> ClipSampler:
    values = {"clip_length": 4, "frame_skip": 5, "batch_size": 4, "seed": 0} | changes
    return ClipSampler(cache, [entry.name for entry in cache.episodes], **values)


def test_a_clip_is_what_was_recorded(cache: FrameCache) -> None:
    source = sampler(cache)
    assert source.number_of_clips == 3 * 6
    clips = source.clips(np.array([41 + 10]))
    assert clips.frames.shape == (1, 4, 3, 4, 4)
    assert clips.actions.shape == (1, 4, 5, 2)
    assert clips.states.shape == (1, 4, 2)
    assert clips.frames[0, :, 0, 0, 0].tolist() == [2, 3, 4, 5]
    expected = np.arange(10, 30).reshape(4, 5) / 1000
    np.testing.assert_allclose(clips.actions[0, :, :, 0].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(clips.states[0, :, 0].numpy(), [0.01, 0.015, 0.02, 0.025], rtol=1e-6)


def test_the_last_block_does_not_reach_into_the_next_episode(cache: FrameCache) -> None:
    clips = sampler(cache).clips(np.array([25]))  # pictures at 25, 30, 35, 40 of 41 ticks
    actions = clips.actions[0, :, :, 0]
    assert not actions[:3].isnan().any()
    assert actions[3, 0].item() == pytest.approx(0.04)
    assert actions[3, 1:].isnan().all()


def test_every_clip_comes_once_an_epoch_and_again_the_same(cache: FrameCache) -> None:
    source = sampler(cache, batch_size=6)
    assert source.batches_per_epoch == 3
    epochs = [
        np.concatenate([source._choice(step) for step in range(3 * epoch, 3 * epoch + 3)])
        for epoch in range(2)
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(18))
    assert not np.array_equal(epochs[0], epochs[1])
    again = sampler(cache, batch_size=6)
    for step in (4, 0, 2):
        np.testing.assert_array_equal(source.batch(step).frames, again.batch(step).frames)
    other = sampler(cache, batch_size=6, seed=1)
    assert not np.array_equal(other._choice(0), source._choice(0))


def test_a_batch_larger_than_all_clips_is_filled(cache: FrameCache) -> None:
    source = sampler(cache, batch_size=50)
    assert source.batch(3).frames.shape[0] == 50
    assert set(source._choice(0)) == set(range(18))


def test_only_the_given_episodes_are_drawn_from(cache: FrameCache) -> None:
    source = ClipSampler(cache, ["episode_1"], 4, 5, 2, 0)
    assert source.starts.min() == 41
    assert source.starts.max() < 82
    with pytest.raises(BagError, match="no episode 'episode_7'"):
        ClipSampler(cache, ["episode_7"], 4, 5, 2, 0)


def test_holes_and_invalid_commands_are_in_no_clip(tmp_path: Path) -> None:
    stamps = [tick * 100 * MS for tick in range(30) if tick != 12]
    sent = [(tick * 100 * MS, 0.5, 0.0) for tick in range(30) if not 20 <= tick < 25]
    contract = small_contract(action__timeout=0.1)
    bag = write_bag(tmp_path / "e", contract, stamps, sent)
    cache = build_cache(bag, contract, 4, cache_dir=tmp_path / "cache")
    # The command of tick 19 is in force at tick 20 still; 21 to 24 have none.
    np.testing.assert_array_equal(np.flatnonzero(~cache.action_valid), [21, 22, 23, 24])
    source = ClipSampler(cache, ["e"], 3, 2, 4, 0)
    expected = [
        start
        for start in range(26)
        if 12 not in (start, start + 2, start + 4)
        and not set(range(start, start + 4)) & {21, 22, 23, 24}
    ]
    np.testing.assert_array_equal(source.starts, expected)


def test_statistics_of_the_given_episodes_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = np.arange(41)
    for name, scale in (("small", 0.1), ("large", 0.8)):
        x = scale * np.sin(ticks)
        sent = [(int(tick) * 100 * MS, float(x[tick]), 0.25) for tick in ticks]
        write_bag(tmp_path / name, CONTRACT, [int(tick) * 100 * MS for tick in ticks], sent)
    cache = build_cache(
        [tmp_path / "small", tmp_path / "large"], CONTRACT, 4, cache_dir=tmp_path / "cache"
    )
    with caplog.at_level(logging.WARNING):
        mean, deviation = ClipSampler(cache, ["small"], 2, 1, 1, 0).action_statistics()
    x = 0.1 * np.sin(ticks)
    np.testing.assert_allclose(mean, [x.mean(), 0.25], rtol=1e-5)
    # y is constant: its deviation is a thousandth of the range from -1 to 1.
    np.testing.assert_allclose(deviation, [x.std(), 0.002], rtol=1e-5)
    assert mean.dtype == deviation.dtype == np.float32
    assert "action field y never changes" in caplog.text


def test_why_there_is_no_clip(cache: FrameCache, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="longest has 41 ticks, a clip needs 46"):
        sampler(cache, clip_length=10)
    with pytest.raises(BagError, match="pictures come every 5 ticks.*multiple"):
        sampler(cache, frame_skip=3)
    stamps = [tick * 100 * MS for tick in range(20)]
    bag = write_bag(tmp_path / "e", CONTRACT, stamps, [(0, 0.0, 0.0)])
    lonely = build_cache(bag, CONTRACT, 4, cache_dir=tmp_path / "cache")
    with pytest.raises(BagError, match="commands are in force at 20% of the ticks"):
        sampler(lonely, clip_length=2)


def test_the_split_is_by_name_for_ever() -> None:
    names = [f"episode_{number:05d}" for number in range(2000)]
    trained, held_out = split_episodes(names, 0.1)
    assert sorted([*trained, *held_out]) == names
    assert 150 < len(held_out) < 250
    # Known answers: a change of the rule would leak held-out episodes into training.
    assert [number for number in range(20) if is_held_out(f"episode_{number:05d}")] == [0, 9, 10]
    assert all(is_held_out(name, 0.2) for name in held_out)
    assert all(is_held_out(f"{name}+1") for name in held_out)
    assert not any(is_held_out(f"{name}+3") for name in trained)


def test_a_split_with_an_empty_side_says_so() -> None:
    trained = [f"e{number}" for number in range(50) if not is_held_out(f"e{number}")][:3]
    with pytest.raises(UserError, match="none of the 3 episodes is held out"):
        split_episodes(trained)
    with pytest.raises(UserError, match="all 3 episodes are held out"):
        split_episodes(trained, 0.9999999)


def test_pictures_held_elsewhere_give_the_same_clips(cache: FrameCache) -> None:
    """The GPU's path, with the CPU as the device: gathered from one tensor of all pictures."""
    names = [entry.name for entry in cache.episodes]
    pictures = pictures_on(cache, torch.device("cpu"))
    held = ClipSampler(cache, names, 4, 5, 4, 0, pictures)
    for step in range(3):
        from_cache, from_tensor = sampler(cache).batch(step), held.batch(step)
        assert torch.equal(from_cache.frames, from_tensor.frames)
        np.testing.assert_array_equal(from_cache.actions, from_tensor.actions)
