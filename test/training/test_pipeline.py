"""Batches ahead of the model: in order, errors passed on, the thread stopped."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from lewm_core.training.pipeline import BatchPipeline, step_seed


class CountingSampler:
    """Batches that tell their step; one step may fail."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.asked: list[int] = []

    def batch(self, step: int) -> SimpleNamespace:
        self.asked.append(step)
        if step == self.fails_at:
            raise OSError("the disk is gone")
        rows = torch.arange(4).view(4, 1, 1, 1, 1) + 10 * step
        values = rows[..., 0].float()
        return SimpleNamespace(
            frames=rows.to(torch.uint8), actions=values, inputs=values[..., 0] if step else None
        )


def test_batches_come_in_order_from_the_first_step():
    sampler = CountingSampler()
    with BatchPipeline(sampler, 3, 9, depth=2) as batches:
        steps = [(batch.step, int(batch.frames[0])) for batch in batches]
    assert steps == [(step, 10 * step) for step in range(3, 9)]
    assert sampler.asked == list(range(3, 9))


def test_a_process_gets_its_part_of_the_rows():
    with BatchPipeline(CountingSampler(), 1, 2, part=slice(2, 4)) as batches:
        batch = next(iter(batches))
    assert batch.frames.flatten().tolist() == [12, 13]
    assert batch.inputs.flatten().tolist() == [12.0, 13.0]
    assert batch.actions.flatten().tolist() == [12.0, 13.0]


def test_an_error_of_the_thread_arrives_where_batches_are_used():
    seen = []
    with (
        pytest.raises(OSError, match="the disk is gone"),
        BatchPipeline(CountingSampler(fails_at=2), 0, 9) as batches,
    ):
        for batch in batches:
            seen.append(batch.step)
    assert seen == [0, 1]


def test_leaving_early_ends_the_thread_and_it_runs_no_further_ahead_than_it_may():
    sampler = CountingSampler()
    with BatchPipeline(sampler, 0, 1000, depth=3) as batches:
        next(iter(batches))
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]
    assert len(sampler.asked) < 20


def test_seeds_of_steps_and_streams_differ_and_repeat():
    seeds = {
        step_seed(seed, step, stream)
        for seed in range(4)
        for step in range(50)
        for stream in range(3)
    }
    assert len(seeds) == 4 * 50 * 3
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)
