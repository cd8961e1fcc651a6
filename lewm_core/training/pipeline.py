"""Batches ahead of the model: gathered in a background thread, in an order fixed by the seed.

Reading a batch from the memory-mapped frame cache releases the interpreter lock for most of its
time, so one thread keeps two training threads fed. Batch ``n`` is a function of (seed, n) alone:
a run that was killed asks for the batch of its next step and continues the very same sequence.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Clips(Protocol):
    """A batch of clips, see `lewm_core.data.clips`."""

    frames: Tensor
    actions: Tensor
    inputs: Tensor | None


class Sampler(Protocol):
    """Where batches come from."""

    def batch(self, step: int) -> Clips:
        """Return the batch of a step; the same one whenever it is asked."""
        ...


@dataclass(frozen=True)
class Batch:
    """What one training step needs.

    Attributes:
        step: Number of the step it belongs to.
        frames: (B, T, 3 C, S, S) uint8.
        actions: (B, T, F, A) float32 in physical units, NaN where not recorded.
        inputs: (B, T, P) float32, the state fields that the model is given; None if there are none.
    """

    step: int
    frames: Tensor
    actions: Tensor
    inputs: Tensor | None = None


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class BatchPipeline:
    """Iterator over the batches of steps ``first`` ... ``last - 1``.

    Use as a context manager; leaving it stops the thread.

    Args:
        sampler: Source of the batches.
        first: First step.
        last: One after the last step.
        part: Rows of each batch that this process uses.
        depth: Batches held ready.
        pin: Copy to page-locked memory, so that the transfer to a GPU overlaps with computing.
    """

    def __init__(
        self,
        sampler: Sampler,
        first: int,
        last: int,
        part: slice = slice(None),
        depth: int = 4,
        pin: bool = False,
    ) -> None:
        self._sampler = sampler
        self._steps = range(first, last)
        self._part = part
        self._pin = pin
        self._ready: queue.Queue[Batch | _Failure | None] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="batches", daemon=True)

    def __enter__(self) -> BatchPipeline:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # The thread may wait for room in the queue: make some until it has seen the flag.
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.02)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def _fill(self) -> None:
        try:
            for step in self._steps:
                if self._stopped.is_set():
                    return
                self._put(self._gather(step))
            self._put(None)
        except BaseException as error:  # handed over to the thread that trains
            self._put(_Failure(error))

    def _gather(self, step: int) -> Batch:
        clips = self._sampler.batch(step)
        frames, actions = clips.frames[self._part], clips.actions[self._part]
        inputs = None if clips.inputs is None else clips.inputs[self._part]
        if self._pin:
            actions = actions.pin_memory()
            if inputs is not None:
                inputs = inputs.pin_memory()
            if frames.device.type == "cpu":  # else gathered on the GPU
                frames = frames.pin_memory()
        return Batch(step, frames, actions, inputs)

    def _put(self, item: Batch | _Failure | None) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on ``device``; asynchronously from page-locked memory."""
    if device.type == "cpu":
        return batch
    return Batch(
        batch.step,
        batch.frames.to(device, non_blocking=True),
        batch.actions.to(device, non_blocking=True),
        None if batch.inputs is None else batch.inputs.to(device, non_blocking=True),
    )


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """Return the seed of one step's random numbers: independent streams, no state to save.

    Args:
        seed: Seed of the run.
        step: Number of the step.
        stream: Separates what must not share numbers, such as processes.
    """
    # SplitMix64: neighbouring inputs give unrelated outputs, and it is the same on every machine.
    mask = (1 << 64) - 1
    value = seed & mask
    for word in (step, stream):
        value = (value + 0x9E3779B97F4A7C15 * (word + 1)) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
    return value >> 1
