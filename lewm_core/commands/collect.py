"""``lewm-collect``: scripted experts drive a scene; writes the same bags as the recorder node."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError

#: Unfinished episodes lie in here, hidden from everything that looks for bags.
_PARTIAL = ".partial"
_DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class _Job:
    """What a worker process needs to know once."""

    scene: str
    out: Path
    steps: int
    picture_every: int
    seed: int
    policy: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser(
        "lewm-collect",
        "Let a scene's scripted expert act and write what a camera and a recorder would have "
        "seen: one bag (MCAP) per episode, in parallel. The same seed gives the same episodes, "
        "whatever the number of workers. SIGINT keeps the episodes that are complete.",
        "lewm-collect push_t --episodes 200 --out data/push_t --seed 1",
    )
    parser.add_argument("scene", help="name of the scene, for example push_t")
    parser.add_argument("--episodes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="dataset folder")
    parser.add_argument("--steps", type=int, default=250, help="control steps each (default 250)")
    parser.add_argument("--seed", type=int, default=0, help="decides every episode (default 0)")
    parser.add_argument(
        "--policy",
        choices=("expert", "random"),
        default="expert",
        help="who drives: the scene's expert, or uniform random commands, which teach little "
        "(default expert)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument(
        "--picture-every",
        type=int,
        default=5,
        metavar="STEPS",
        help="control steps from picture to picture; the model's frame skip (default 5)",
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add to a dataset of the same contract; episodes of this seed that it has are kept",
    )
    return run_command(parser, _collect, arguments)


def _collect(options: argparse.Namespace) -> dict[str, Any]:
    # The libraries behind these are slow to import and not needed for --help.
    from tqdm import tqdm

    from lewm_core.data.contract import CONTRACT_FILE, load_contract, save_contract
    from lewm_core.scenes import make_scene
    from lewm_core.scenes.recording import check_scene_contract

    for name in ("episodes", "steps", "workers", "picture_every"):
        value = getattr(options, name)
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, got {options.seed}")
    # Before anything is written: does the scene exist, can it be drawn, does its contract fit?
    scene = make_scene(options.scene, seed=0)
    contract = load_contract(options.scene)
    check_scene_contract(scene, options.scene, contract)
    scene.render(*contract.camera.size)
    scene.close()
    _prepare_folder(options.out, contract, options.append)

    job = _Job(
        options.scene,
        options.out,
        options.steps,
        options.picture_every,
        options.seed,
        options.policy,
    )
    wanted = [
        index
        for index in range(options.episodes)
        if not (options.out / _episode_name(job, index)).exists()
    ]
    kept = options.episodes - len(wanted)
    save_contract(contract, options.out / CONTRACT_FILE)
    (options.out / _PARTIAL).mkdir(exist_ok=True)
    began = time.monotonic()
    interrupted = False
    progress = tqdm(total=len(wanted), unit="episode", desc=options.scene, disable=None)
    results = _run(job, wanted, min(options.workers, max(1, len(wanted))))
    try:
        for _ in results:
            progress.update()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        results.close()
        progress.close()
        shutil.rmtree(options.out / _PARTIAL, ignore_errors=True)
    seconds = time.monotonic() - began
    # Workers finish the episode they are at after SIGINT, so the folder is what counts.
    done = sum((options.out / _episode_name(job, index)).exists() for index in wanted)
    result = {
        "scene": options.scene,
        "seed": options.seed,
        "policy": options.policy,
        "episodes": done,
        "episodes_kept": kept,
        "episodes_wanted": options.episodes,
        "steps": options.steps,
        "picture_every": options.picture_every,
        "control_steps": done * options.steps,
        "pictures": done * (options.steps // options.picture_every + 1),
        "workers": options.workers,
        "seconds": round(seconds, 3),
        "control_steps_per_s": round(done * options.steps / max(seconds, 1e-9), 1),
        "interrupted": interrupted,
    }
    _write_dataset_file(options.out, result)
    size = sum(
        file.stat().st_size
        for index in wanted
        for file in (options.out / _episode_name(job, index)).glob("*")
    )
    result["bytes"] = size
    print(
        f"{done} episodes, {result['control_steps']} control steps, {result['pictures']} "
        f"pictures, {size / 1e6:.1f} MB in {seconds:.1f} s -> {options.out}"
        + (f" ({kept} were there already)" if kept else "")
    )
    if interrupted:
        raise KeyboardInterrupt
    return result


def _episode_name(job: _Job, index: int) -> str:
    """The name decides by its hash whether an episode is held out, so it never repeats."""
    policy = "" if job.policy == "expert" else f"_{job.policy}"
    return f"{job.scene}{policy}_s{job.seed}_{index:06d}"


def _prepare_folder(out: Path, contract: Any, append: bool) -> None:
    """Make the dataset folder, or check that it may be added to.

    Raises:
        UserError: It holds something, or, with ``append``, another contract.
    """
    from lewm_core.data.contract import CONTRACT_FILE, contract_differences, load_contract

    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a folder")
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    if not append:
        raise UserError(
            f"{out} is not empty; give another --out, or --append to add to the dataset in it"
        )
    if not (out / CONTRACT_FILE).exists():
        raise UserError(f"{out} has no {CONTRACT_FILE}, so is no dataset to append to")
    differences = contract_differences(load_contract(out), contract)
    if differences:
        raise UserError(
            f"{out / CONTRACT_FILE} differs from the scene's contract ({differences[0]}); "
            "give another --out"
        )


def _run(job: _Job, indices: Sequence[int], workers: int) -> Generator[int, None, None]:
    """Collect the episodes; yields the number of pictures of each as it is complete.

    Closing the generator waits for the episodes that are being collected.
    """
    if workers == 1:
        collect = _Worker(job)
        try:
            for index in indices:
                yield collect(index)
        finally:
            collect.close()
        return
    # Not forked: an OpenGL context must not be shared with a child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (job,)) as executor:
        futures = [executor.submit(_collect_in_worker, index) for index in indices]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """Collects single episodes: in a hidden folder first, in place when complete."""

    def __init__(self, job: _Job) -> None:
        from lewm_core.data.contract import load_contract
        from lewm_core.scenes import make_scene
        from lewm_core.scenes.recording import EpisodeCollector, random_driver

        self._job = job
        scene = make_scene(job.scene, seed=0)
        driver = random_driver(scene) if job.policy == "random" else None
        self._collector = EpisodeCollector(
            job.scene, load_contract(job.scene), scene=scene, driver=driver
        )

    def __call__(self, index: int) -> int:
        from numpy.random import SeedSequence

        job = self._job
        name = _episode_name(job, index)
        partial = job.out / _PARTIAL / name
        # Of an earlier run that was killed.
        shutil.rmtree(partial, ignore_errors=True)
        seed = SeedSequence(job.seed, spawn_key=(index,))
        pictures = self._collector.collect(partial, job.steps, job.picture_every, seed)
        partial.rename(job.out / name)
        return pictures

    def close(self) -> None:
        """Free the camera's buffers."""
        self._collector.close()


_worker: _Worker | None = None


def _start_worker(job: _Job) -> None:
    """Prepare a worker process; the parent alone reacts to SIGINT."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = _Worker(job)


def _collect_in_worker(index: int) -> int:
    assert _worker is not None
    return _worker(index)


def _write_dataset_file(out: Path, result: dict[str, Any]) -> None:
    """Add this run to ``dataset.json``: how the dataset was made."""
    import gymnasium
    import mujoco
    import numpy

    import lewm_core

    path = out / _DATASET_FILE
    dataset: dict[str, Any] = {"scene": result["scene"], "runs": []}
    if path.exists():
        dataset = json.loads(path.read_text())
    kept = ("seed", "episodes", "steps", "picture_every", "interrupted")
    dataset["runs"].append(
        {
            "command": (
                f"lewm-collect {result['scene']} --episodes {result['episodes_wanted']} "
                f"--steps {result['steps']} --seed {result['seed']} "
                f"--picture-every {result['picture_every']} --out {out.name}"
                + ("" if result["policy"] == "expert" else f" --policy {result['policy']}")
            ),
            **{key: result[key] for key in kept},
            "versions": {
                "lewm_core": lewm_core.__version__,
                "mujoco": mujoco.__version__,
                "gymnasium": gymnasium.__version__,
                "numpy": numpy.__version__,
                "python": sys.version.split()[0],
            },
        }
    )
    written = path.with_suffix(".json.tmp")
    written.write_text(json.dumps(dataset, indent=2) + "\n")
    written.replace(path)


if __name__ == "__main__":
    sys.exit(main())
