"""Collecting many episodes: in worker processes, each in a hidden folder first, in place when done.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from numpy.random import SeedSequence

from lewm_core.data.contract import Contract, load_contract

#: Unfinished episodes lie in here, hidden from everything that looks for bags.
PARTIAL = ".partial"
#: s between a worker's looks at whether its parent is there.
_LOOK_S = 0.5


@dataclass(frozen=True)
class CollectionJob:
    """What a worker process needs to know once.

    Attributes:
        scene: Name of the scene.
        out: Dataset folder.
        steps: Control steps of an episode.
        picture_every: Control steps from picture to picture.
        seed: Decides every episode, with its number.
        policy: ``expert``, ``random`` or ``practice``.
        checkpoint: Whose planner drives, for ``practice``.
        planner: Its preset; None: the fastest it has.
        vary: Variations of the scene, drawn for every episode.
        contract: Name or file of the contract; None: the scene's own.
    """

    scene: str
    out: Path
    steps: int
    picture_every: int
    seed: int
    policy: str
    checkpoint: Path | None = None
    planner: str | None = None
    vary: tuple[str, ...] = ()
    contract: str | Path | None = None

    def load_contract(self) -> Contract:
        """Return the contract that episodes are recorded under."""
        return load_contract(self.contract or self.scene)

    def episode_name(self, index: int) -> str:
        """The name decides by its hash whether an episode is held out, so it never repeats."""
        policy = "" if self.policy == "expert" else f"_{self.policy}"
        return f"{self.scene}{policy}_s{self.seed}_{index:06d}"

    def episode(self, index: int) -> Path:
        """Return the folder of an episode's bag."""
        return self.out / self.episode_name(index)

    def missing(self, episodes: int) -> list[int]:
        """Return the numbers of those of the first ``episodes`` that are not there."""
        return [index for index in range(episodes) if not self.episode(index).exists()]


def run_job(
    job: CollectionJob, indices: Sequence[int], workers: int
) -> Generator[int, None, None]:
    """Collect episodes; yields how many more are complete.

    Closing the generator waits for the episodes that are being collected.
    """
    units = _units(job, indices)
    if workers == 1:
        collect = _Worker(job)
        try:
            for unit in units:
                yield collect(unit)
        finally:
            collect.close()
        return
    # Not forked: an OpenGL context must not be shared with a child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (job,)) as executor:
        futures = [executor.submit(_collect_in_worker, unit) for unit in units]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _units(job: CollectionJob, indices: Sequence[int]) -> list[list[int]]:
    """Split episodes into what is collected at once; the same split whatever the workers."""
    if job.policy != "practice":
        return [[index] for index in indices]
    from lewm_core.collection.practice import GROUP

    return [list(unit) for _, unit in groupby(indices, key=lambda index: index // GROUP)]


class _Collector(Protocol):
    """Writes the episodes of a unit."""

    def collect_all(
        self,
        paths: Sequence[Path],
        steps: int,
        picture_every: int,
        seeds: Sequence[SeedSequence],
    ) -> None: ...

    def close(self) -> None: ...


class _Worker:
    """Collects units of episodes: in a hidden folder first, in place when complete."""

    def __init__(self, job: CollectionJob) -> None:
        self._job = job
        self._collector = _practice(job) if job.policy == "practice" else _drive(job)

    def __call__(self, unit: Sequence[int]) -> int:
        job = self._job
        partial = [job.out / PARTIAL / job.episode_name(index) for index in unit]
        for path in partial:
            # Of an earlier run that was killed.
            shutil.rmtree(path, ignore_errors=True)
        seeds = [SeedSequence(job.seed, spawn_key=(index,)) for index in unit]
        self._collector.collect_all(partial, job.steps, job.picture_every, seeds)
        for path, index in zip(partial, unit, strict=True):
            path.rename(job.episode(index))
        return len(unit)

    def close(self) -> None:
        """Free the camera's buffers."""
        self._collector.close()


def _drive(job: CollectionJob) -> _Collector:
    """Return what collects episodes of an expert or of random commands."""
    from lewm_core.collection.random_driver import random_driver
    from lewm_core.collection.recording import EpisodeCollector
    from lewm_core.scenes import make_scene

    scene = make_scene(job.scene, seed=0, vary=job.vary)
    driver = random_driver(scene) if job.policy == "random" else None
    return EpisodeCollector(job.scene, job.load_contract(), scene=scene, driver=driver)


def _practice(job: CollectionJob) -> _Collector:
    """Return what collects episodes of a planner."""
    import torch

    import lewm_core
    from lewm_core.collection.practice import PracticeCollector

    # One for each worker: there are as many workers as cores, and the bytes of an episode must
    # not depend on how many.
    torch.set_num_threads(1)
    assert job.checkpoint is not None
    model = lewm_core.load(job.checkpoint)
    return PracticeCollector(job.scene, job.load_contract(), model, job.planner, job.vary)


_worker: _Worker | None = None


def _start_worker(job: CollectionJob) -> None:
    """Prepare a worker process; the parent alone reacts to SIGINT."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True)
    watch.start()
    _worker = _Worker(job)


def _end_with(parent: int) -> None:
    """End this process soon after its parent: a pool's workers do not notice that it was killed."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def _collect_in_worker(unit: Sequence[int]) -> int:
    assert _worker is not None
    return _worker(unit)
