"""``lewm-collect``: scripted experts drive a scene; writes the same bags as the recorder node."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError
from lewm_core.reading import read_json_mapping

_DATASET_FILE = "dataset.json"

#: What drives; anything else names a checkpoint.
_POLICIES = ("expert", "random")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser(
        "lewm-collect",
        "Let a scene's scripted expert, or a planner, act and write what a camera and a recorder "
        "would have seen: one bag (MCAP) per episode, in parallel. The same seed gives the same "
        "episodes, whatever the number of workers. SIGINT keeps the episodes that are complete.",
        "lewm-collect push_t --episodes 200 --out data/push_t --seed 1\n"
        "  lewm-collect push_t --episodes 200 --out data/practice --seed 2 --policy push_t-nano",
    )
    parser.add_argument("scene", help="name of the scene, for example push_t")
    parser.add_argument("--episodes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="dataset folder")
    parser.add_argument("--steps", type=int, default=250, help="control steps each (default 250)")
    parser.add_argument("--seed", type=int, default=0, help="decides every episode (default 0)")
    parser.add_argument(
        "--policy",
        default="expert",
        metavar="expert|random|CHECKPOINT",
        help="who drives: the scene's expert; uniform random commands, which teach little; or the "
        "planner of a checkpoint, which practises on goals ahead of it (default expert)",
    )
    parser.add_argument(
        "--planner",
        metavar="PRESET",
        help="with --policy CHECKPOINT: the planner preset that drives, a name or a file (default: "
        "the learned proposal by itself, the fastest)",
    )
    parser.add_argument(
        "--vary",
        default="",
        metavar="NAME,...",
        help="variations drawn for every episode, with commas between: colour, light, camera, "
        "size, friction, mass (default: none)",
    )
    parser.add_argument(
        "--contract",
        metavar="NAME|FILE",
        help="contract to record under, such as one with more cameras (default: the scene's own)",
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

    from lewm_core.collection.jobs import PARTIAL, CollectionJob, run_job
    from lewm_core.collection.recording import check_scene_contract
    from lewm_core.data.contract import CONTRACT_FILE, load_contract, save_contract
    from lewm_core.data.observation import render_cameras
    from lewm_core.paths import checkpoint_path
    from lewm_core.scenes import make_scene
    from lewm_core.scenes.variations import check_variations

    for name in ("episodes", "steps", "workers", "picture_every"):
        value = getattr(options, name)
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, got {options.seed}")
    # Before anything is written: does the scene exist, can it be drawn, does its contract fit?
    vary = check_variations(filter(None, options.vary.split(",")))
    scene = make_scene(options.scene, seed=0, vary=vary)
    contract = load_contract(options.contract or options.scene)
    check_scene_contract(scene, options.scene, contract)
    render_cameras(scene, contract.cameras)
    scene.close()
    checkpoint = None
    if options.policy not in _POLICIES:
        checkpoint = checkpoint_path(options.policy)
        _check_practice(checkpoint, options, contract)
    elif options.planner is not None:
        raise UserError(
            f"--planner {options.planner}: no planner drives with --policy {options.policy}; give "
            "--policy CHECKPOINT"
        )
    _prepare_folder(options.out, contract, options.append)

    job = CollectionJob(
        options.scene,
        options.out,
        options.steps,
        options.picture_every,
        options.seed,
        options.policy if checkpoint is None else "practice",
        checkpoint,
        options.planner,
        vary,
        options.contract,
    )
    wanted = job.missing(options.episodes)
    kept = options.episodes - len(wanted)
    save_contract(contract, options.out / CONTRACT_FILE)
    (options.out / PARTIAL).mkdir(exist_ok=True)
    began = time.monotonic()
    interrupted = False
    progress = tqdm(total=len(wanted), unit="episode", desc=options.scene, disable=None)
    results = run_job(job, wanted, min(options.workers, max(1, len(wanted))))
    try:
        for more in results:
            progress.update(more)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        results.close()
        progress.close()
        shutil.rmtree(options.out / PARTIAL, ignore_errors=True)
    seconds = time.monotonic() - began
    # Workers finish the episode they are at after SIGINT, so the folder is what counts.
    done = sum(job.episode(index).exists() for index in wanted)
    result = {
        "scene": options.scene,
        "seed": options.seed,
        "policy": options.policy if checkpoint is None else checkpoint.resolve().name,
        "planner": options.planner,
        "vary": ",".join(vary),
        "contract": options.contract,
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
        for file in job.episode(index).glob("*")
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


def _check_practice(checkpoint: Path, options: argparse.Namespace, contract: Any) -> None:
    """Find out here, before anything is written, whether a checkpoint can drive the scene.

    Raises:
        UserError: It cannot: another contract, no such planner, a picture too seldom.
    """
    import lewm_core
    from lewm_core.collection.practice import PracticeCollector, check_picture_every

    model = lewm_core.load(checkpoint)
    check_picture_every(model, options.picture_every)
    PracticeCollector(options.scene, contract, model, options.planner).close()


def _prepare_folder(out: Path, contract: Any, append: bool) -> None:
    """Make the dataset folder, or check that it may be added to.

    Raises:
        UserError: It holds something, or, with ``append``, another contract.
    """
    from lewm_core.data.contract import CONTRACT_FILE, load_contract
    from lewm_core.data.contract_comparison import contract_differences

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


def _write_dataset_file(out: Path, result: dict[str, Any]) -> None:
    """Add this run to ``dataset.json``: how the dataset was made."""
    import gymnasium
    import mujoco
    import numpy

    import lewm_core

    path = out / _DATASET_FILE
    dataset: dict[str, Any] = {"scene": result["scene"], "runs": []}
    if path.exists():
        dataset = read_json_mapping(path, UserError, "move it away, or give another --out")
        if not isinstance(dataset.get("runs"), list):
            raise UserError(f"{path}: runs must be a list; move it away, or give another --out")
    kept = ("seed", "episodes", "steps", "picture_every", "interrupted")
    dataset["runs"].append(
        {
            "command": (
                f"lewm-collect {result['scene']} --episodes {result['episodes_wanted']} "
                f"--steps {result['steps']} --seed {result['seed']} "
                f"--picture-every {result['picture_every']} --out {out.name}"
                + ("" if result["policy"] == "expert" else f" --policy {result['policy']}")
                + ("" if result["planner"] is None else f" --planner {result['planner']}")
                + (f" --vary {result['vary']}" if result["vary"] else "")
                + (f" --contract {Path(result['contract']).name}" if result["contract"] else "")
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
