"""``lewm-eval``: how often does a checkpoint reach its goals? Closed loop, with an interval."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError

if TYPE_CHECKING:
    from lewm_core.evaluation.evaluate import Candidate, EvaluationRequest, Table

EXAMPLE = """lewm-eval push_t-nano --scene push_t --episodes 200 --seed 80000
  lewm-eval runs/nano/checkpoint --protocol far --planner fast --json far.json
  lewm-eval runs/a/checkpoint runs/b/checkpoint runs/c/checkpoint   # each, and the mean
  lewm-eval push_t-nano --split tuning --set solver.rounds=3        # choosing a setting
  lewm-eval push_t-nano --data data/push_t                          # held-out recordings"""

#: Far from the seeds that people collect data with, which are refused.
DEFAULT_SEED = 80_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; return the exit status."""
    parser = make_parser(
        "lewm-eval",
        "Drive a simulated scene to goal pictures with a checkpoint's planner, and count. Prints "
        "success with its 95 % interval, the same goals under replay of the recorded actions, "
        "random actions and doing nothing, and how long a plan takes. Writes JSON, a picture and "
        "videos. docs/evaluation.md says what the figures mean.",
        EXAMPLE,
    )
    parser.add_argument(
        "checkpoint", nargs="+", help="folders or shipped names; several: each, and the mean"
    )
    parser.add_argument("--scene", help="default: the one the checkpoint's contract is named after")
    parser.add_argument(
        "--episodes", type=int, default=200, metavar="N", help="goals (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="of the goals (default %(default)s)"
    )
    parser.add_argument(
        "--protocol", default="mpc", help="paper, mpc or far (default %(default)s)"
    )
    parser.add_argument(
        "--planner",
        metavar="NAME|FILE",
        help="preset, or a file (without: 'default' for a checkpoint with a learned proposal, else "
        "'search')",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="put a setting in place of the preset's, such as solver.rounds=3; may be repeated",
    )
    parser.add_argument(
        "--split",
        default="reporting",
        help="reporting, or tuning: goals for choosing settings, of another stream "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="take starts and goals from the held-out episodes of these recordings",
    )
    parser.add_argument(
        "--vary",
        default="",
        metavar="NAME,...",
        help="variations of the scene drawn for every goal, with commas between: colour, light, "
        "camera, size, friction, mass (default: none)",
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds from the moment a picture is taken until the planner has it; whole control "
        "periods count (default %(default)s)",
    )
    parser.add_argument(
        "--goal-tolerance-factor",
        type=float,
        metavar="F",
        help="hold within F times the latent distance of one block, as the planner node does; 0: "
        "pursue every goal until the budget is over (default: the protocol's)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="B",
        help="episodes that advance together (default: 10 on a CPU, 100 on a GPU)",
    )
    parser.add_argument(
        "--timed-plans",
        type=int,
        default=100,
        metavar="N",
        help="plans that are timed, one at a time (default %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of the model on a CPU (default: as torch and OMP_NUM_THREADS decide)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, auto (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the files (default runs/eval/NAME)"
    )
    parser.add_argument("--no-video", action="store_true", help="write no video")
    # So that --data and checkpoints may stand in any order.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    return run_command(parser, run, arguments)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate; return what ``--json`` writes."""
    # torch and MuJoCo take seconds to import: not for --help or a misspelt option.
    import torch

    from lewm_core.evaluation.evaluate import evaluate, load_candidates
    from lewm_core.evaluation.lock_step import DEFAULT_BATCH, DEFAULT_BATCH_GPU
    from lewm_core.evaluation.record import make_record
    from lewm_core.scenes import make_scene
    from lewm_core.training.machine import choose_device

    device = choose_device(arguments.device)
    if arguments.batch is None:
        arguments.batch = DEFAULT_BATCH if device.type == "cpu" else DEFAULT_BATCH_GPU
    request = _request(arguments)
    request.check()
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}, must not be negative")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    candidates = load_candidates(arguments.checkpoint, device)
    request = _with_scene(request, candidates)
    scene = make_scene(request.scene, vary=request.vary)
    try:
        with _Progress() as progress:
            tables = evaluate(request, candidates, scene, progress)
        record = make_record(request, tables)
        _print(record)
        folder = arguments.out or Path("runs/eval") / _name(candidates, record)
        record["out"] = str(folder)
        _write(folder, record, tables, scene, not arguments.no_video)
    finally:
        scene.close()
    return record


def _request(arguments: argparse.Namespace) -> EvaluationRequest:
    from lewm_core.evaluation.evaluate import EvaluationRequest
    from lewm_core.evaluation.protocols import load_protocol
    from lewm_core.planning import load_planner_config
    from lewm_core.scenes.variations import check_variations

    protocol = load_protocol(arguments.protocol)
    if arguments.planner is not None:
        load_planner_config(arguments.planner)  # a wrong name is told before anything is loaded
    for path in arguments.data:
        if not path.exists():
            raise UserError(f"{path} does not exist; --data takes dataset folders or bags")
    return EvaluationRequest(
        scene=arguments.scene or "",
        protocol=protocol,
        episodes=arguments.episodes,
        seed=arguments.seed,
        split=arguments.split,
        planner=arguments.planner,
        settings=tuple(arguments.settings),
        data=tuple(arguments.data),
        batch=arguments.batch,
        goal_tolerance_factor=arguments.goal_tolerance_factor,
        timed_plans=arguments.timed_plans,
        vary=check_variations(filter(None, arguments.vary.split(","))),
        delay_s=arguments.delay,
    )


def _with_scene(request: EvaluationRequest, candidates: Sequence[Candidate]) -> EvaluationRequest:
    """Fill in the scene where none was named: a scene's contract has its name."""
    from dataclasses import replace

    from lewm_core.scenes import known_scenes

    if request.scene:
        return request
    name = candidates[0].contract.name
    if name not in known_scenes():
        raise UserError(
            f"{candidates[0].given}: its contract is named {name!r}, which is no scene; give "
            f"--scene, one of {', '.join(known_scenes())}"
        )
    return replace(request, scene=name)


def _print(record: dict[str, Any]) -> None:
    from lewm_core.evaluation import tables

    print(tables.heading(record))
    for row in record["tables"]:
        print(f"\n{tables.table_text(row)}")
        print(tables.plan_times_text(row, record["threads"], record["device"]))
    if len(record["tables"]) > 1:
        print("\nall tables")
        print("\n".join(tables.mean_text(record["tables"], record)))
    for text in tables.warnings(record):
        print(f"warning: {text}")


def _write(
    folder: Path, record: dict[str, Any], tables: Sequence[Table], scene: Any, video: bool
) -> None:
    from lewm_core.evaluation.figure import draw_summary
    from lewm_core.evaluation.showcase import write_showcase

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(record, indent=2) + "\n")
    title = (
        f"{record['scene']}, protocol {record['protocol']}, planner {record['planner']}, "
        f"{record['split']} goals of seed {record['seed']}"
    )
    picture = draw_summary(folder / "summary.png", title, tables, scene.criterion)
    names = ["result.json", picture.name]
    for table in tables if video else ():
        path = folder / f"{table.candidate.label}-{table.task.distance}.mp4"
        names.append(write_showcase(path, table, scene).name)
    print(f"\n{folder}: {', '.join(names)}")


def _name(candidates: Sequence[Candidate], record: dict[str, Any]) -> str:
    others = f"+{len(candidates) - 1}" if len(candidates) > 1 else ""
    planner = record["planner"].replace(", ", "+")
    name = f"{candidates[0].label}{others}-{record['protocol']}-{planner}"
    return name if record["split"] == "reporting" else f"{name}-{record['split']}"


class _Progress:
    """A bar for each thing that is done, on standard error; silent where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, what: str, done: int, number: int) -> None:
        from tqdm import tqdm

        if self._bar is None or what != self._what:
            self._close()
            self._bar = tqdm(total=number, desc=what, disable=None, leave=False)
            self._what = what
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
