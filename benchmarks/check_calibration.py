"""Where do the thresholds of ``lewm-check`` come from? Checkpoints that plan, and ones that do not.

Collects data and trains what is missing (everything a recipe needs is in `RECIPES`), drives every
checkpoint in closed loop on goals of the tuning split, runs the check on it, and prints one table:
success, every figure, the verdict. A checkpoint that plans and is called *cannot plan*, or the
other way round, ends it with exit status 1.

    lewm-collect push_t --episodes 4000 --seed 1 --out data/push_t
    python benchmarks/check_calibration.py --data data/push_t --out runs/calibration \\
        --also push_t-nano runs/another/checkpoint --json calibration.json

What was done before is found again in ``--out``; delete a folder there to do it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

import lewm_core
from lewm_core.collection import EpisodeCollector, random_driver
from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import CONTRACT_FILE, Contract, load_contract, save_contract
from lewm_core.evaluation.check import run_check
from lewm_core.evaluation.check.thresholds import THRESHOLDS, judge
from lewm_core.evaluation.closed_loop import (
    goals_from_expert,
    summarise,
)
from lewm_core.evaluation.lock_step import drive_goals
from lewm_core.evaluation.planner_setup import PlannerSetup
from lewm_core.evaluation.report import describe_machine
from lewm_core.model.verdict import weights_digest
from lewm_core.paths import checkpoint_path
from lewm_core.planning import load_planner_config
from lewm_core.scenes import make_scene
from lewm_core.scenes.push_t.geometry import draw_state, pusher_clearance
from lewm_core.scenes.push_t.scene import PushTScene

#: Control steps to reach a goal that is 25 away.
BUDGET = 50
#: Success from which a checkpoint counts as one that plans, and up to which as one that does not.
PLANS, FAILS = 0.45, 0.2
TRUTHS = ("plans", "in the middle", "does not plan")
#: m, m, rad: where the block of the data set "parked" always stands, in a corner of the board.
PARKED = (0.15, 0.15, 0.8)


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is made.

    Attributes:
        name: Of its folder.
        kind: What it stands for, in the table.
        data: ``expert``, ``random`` (uniform commands) or ``parked`` (the block never moves).
        overrides: Of the preset ``nano``.
        later: Overrides of its later stages; by default there are none.
    """

    name: str
    kind: str
    data: str
    overrides: tuple[str, ...]
    later: tuple[str, ...] = ("refinement=null", "proposal=null")


#: Those that must not plan, one in the middle and one that plans: minutes. Others that plan take
#: longer to train and are given by ``--also``.
RECIPES = (
    Recipe("lambda_0", "lambda 0", "expert", ("loss.weight=0", "steps=300")),
    Recipe("collapsed", "collapsed: lambda 0.0001", "expert", ("loss.weight=0.0001", "steps=300")),
    Recipe("agent_only", "agent only: lambda 0.001", "expert", ("loss.weight=0.001", "steps=300")),
    Recipe("early_100", "too early: 100 steps", "expert", ("steps=100",)),
    Recipe("early_300", "too early: 300 steps", "expert", ("steps=300",)),
    Recipe("parked", "the block never moved in the data", "parked", ("steps=600",)),
    Recipe("random", "trained on random commands", "random", ("steps=600",)),
    Recipe("narrow", "2 dimensions: not all fits in", "expert",
           ("model.embedding_dim=2", "steps=400")),
    Recipe("nano_1000", "nano, 1,000 steps", "expert", ("steps=1000", "seed=1")),
    Recipe("nano_1500_refined", "nano, 1,500 steps, refined for 1,000", "expert",
           ("steps=1500", "seed=2"), ("refinement.steps=1000", "proposal=null")),
)


class ParkedBlock(PushTScene):
    """Push-T in which every episode begins with the block at one and the same place."""

    def reset(
        self, seed: int | None = None, state: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Begin anew with a drawn pusher and the parked block; see `PushTScene.reset`."""
        random = np.random.default_rng(seed)
        while state is None:
            drawn = np.array([*draw_state(random)[:2], *PARKED])
            # Well away: random commands then do not reach it in an episode.
            state = drawn if pusher_clearance(drawn) > 0.05 else None
        return super().reset(seed=seed, state=state)


def collect_parked(out: Path, episodes: int = 300, steps: int = 250) -> None:
    """Write a data set of random commands in which the block does not move."""
    contract = load_contract("push_t")
    scene = ParkedBlock(seed=0)
    collector = EpisodeCollector("push_t", contract, scene=scene, driver=random_driver(scene))
    out.mkdir(parents=True, exist_ok=True)
    save_contract(contract, out / CONTRACT_FILE)
    for index in range(episodes):
        path = out / f"push_t_parked_{index:06d}"
        if not path.exists():
            collector.collect(path, steps, 5, np.random.SeedSequence(1, spawn_key=(index,)))
    collector.close()


def prepare_data(expert: Path, out: Path) -> dict[str, Path]:
    """Return the folders of all data sets by name; what is missing is collected."""
    folders = {name: out / "data" / name for name in ("random", "parked", "check")}
    folders["expert"] = expert
    if not folders["random"].exists():
        _run("collect", "push_t", "--episodes", "300", "--seed", "1", "--policy", "random",
             "--out", folders["random"])
    if not folders["check"].exists():
        # Fresh episodes: no checkpoint was trained on any of them, so all are checked alike.
        _run("collect", "push_t", "--episodes", "200", "--seed", "90", "--out", folders["check"])
    collect_parked(folders["parked"])
    return folders


def train(recipe: Recipe, folders: dict[str, Path], out: Path) -> Path:
    """Return the recipe's checkpoint; trained with the preset ``nano`` if it is not there."""
    folder = out / recipe.name
    checkpoint = folder / "checkpoint"
    if not (folder / "curves.png").exists() or not checkpoint.exists():
        _run("train", "--data", folders[recipe.data], "--config", "nano", "--out", folder,
             "threads=1", "monitor.final_frames=4000", *recipe.later, *recipe.overrides,
             "--resume")
    return checkpoint


def drive(checkpoint: Path, goals: int, seed: int, preset: str, stored: Path) -> dict[str, Any]:
    """Return how a checkpoint does in closed loop; what was measured before is read again.

    The published protocol: goals 25 control steps away, twice as many to get there, success at any
    time. Without a goal tolerance: a collapsed model would call every goal reached.
    """
    asked = {
        "weights": weights_digest(checkpoint), "goals": goals, "seed": seed, "planner": preset,
        "budget": BUDGET, "tolerance": None,
    }
    if stored.is_file():
        kept = json.loads(stored.read_text())
        if kept["asked"] == asked:
            return kept["summary"]
    model = lewm_core.load(checkpoint)
    setup = PlannerSetup(
        model, Contract.from_dict(model.contract), load_planner_config(preset), preset
    )
    scene = make_scene("push_t")
    drawn = goals_from_expert(scene, number=goals, seed=seed)
    summary = summarise([drive.result for drive in drive_goals(scene, drawn, setup, BUDGET)])
    scene.close()
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps({"asked": asked, "summary": summary}, indent=2) + "\n")
    return summary


def _run(command: str, *arguments: object) -> None:
    """Run one of the offline commands as a user would, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", f"lewm_core.commands.{command}", *map(str, arguments)], check=True
    )


def examine(checkpoint: Path, data: Path, stored: Path) -> dict[str, Any]:
    """Return what ``lewm-check --json`` says; what was measured before is read again.

    The verdict is made anew from the figures, so that thresholds can be tried out.
    """
    weights = weights_digest(checkpoint)
    kept = json.loads(stored.read_text()) if stored.is_file() else {}
    if kept.get("weights") != weights:
        kept = {"weights": weights, "report": run_check(checkpoint, [data]).to_json()}
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(kept, indent=2) + "\n")
    report = kept["report"]
    report["verdict"], report["reason"] = judge(report)
    # As it would be on bags without the state topics: by the picture alone.
    report["verdict_without_states"], _ = judge({**report, "state_r2": None})
    report["said"] = {row.key: row.judge(report[row.key]) for row in THRESHOLDS}
    return report


def truth(success: float) -> str:
    """Say what a checkpoint is by its success in closed loop."""
    if success >= PLANS:
        return "plans"
    return "does not plan" if success <= FAILS else "in the middle"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the result as a Markdown table, the best first; what decided is in bold."""
    heads = ["checkpoint", "made", "success", "verdict", "without states"]
    heads += [row.label for row in THRESHOLDS]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        lower, upper = row["ci95_any"]
        cells = [
            row["name"],
            row["kind"],
            f"{row['success_any']:.0%} ({lower:.0%} to {upper:.0%})".replace("%", " %"),
            row["verdict"],
            row["verdict_without_states"],
        ]
        for threshold in THRESHOLDS:
            value = row[threshold.key]
            text = "-" if value is None else f"{value:.3g}"
            bad = row["said"][threshold.key] == "cannot plan"
            cells.append(f"**{text}**" if bad else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def extremes(rows: Sequence[dict[str, Any]]) -> str:
    """Return, per figure, the worst of those that plan and the best of those that do not."""
    lines = []
    for row in THRESHOLDS:
        worst, best = (min, max) if row.better == "high" else (max, min)
        found = []
        for kind, choose in (("plans", worst), ("does not plan", best)):
            known = [r[row.key] for r in rows if r["truth"] == kind and r[row.key] is not None]
            found.append(f"{choose(known):.3g}" if known else "-")
        lines.append(
            f"{row.label}: the worst that plans {found[0]}, the best that does not {found[1]} "
            f"(to plan {row.can:g}, limit {row.cannot:g})"
        )
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, drive and check everything; print the table."""
    torch.set_num_threads(1)
    folders = prepare_data(arguments.data, arguments.out)
    checkpoints = {
        recipe.name: (recipe.kind, train(recipe, folders, arguments.out)) for recipe in RECIPES
    }
    for given in arguments.also:
        folder = checkpoint_path(given)
        name = folder.resolve().parent.name if folder.name == "checkpoint" else folder.name
        checkpoints[name] = ("given", folder)
    results = arguments.out / "results"
    rows = []
    for name, (kind, folder) in checkpoints.items():
        report = examine(folder, folders["check"], results / f"{name}.check.json")
        driven = drive(
            folder, arguments.goals, arguments.seed, arguments.planner,
            results / f"{name}.closed_loop.json",
        )
        row = {"name": name, "kind": kind, "truth": truth(driven["success_any"]), **driven}
        rows.append({**row, **report})
        print(f"{name}: success {driven['success_any']:.1%}, {report['verdict']}", flush=True)
    rows.sort(key=lambda row: -row["success_any"])
    print(f"\n{table(rows)}\n\n{extremes(rows)}\n")
    opposite = {"plans": "cannot plan", "does not plan": "can plan"}
    wrong = [
        f"{row['name']} ({key.replace('_', ' ')})"
        for row in rows
        for key in ("verdict", "verdict_without_states")
        if row[key] == opposite.get(row["truth"])
    ]
    undecided = [
        row["name"] for row in rows
        if row["truth"] != "in the middle" and row["verdict"] == "marginal"
    ]
    counts = {kind: sum(row["truth"] == kind for row in rows) for kind in TRUTHS}
    print(
        ", ".join(f"{number} {kind}" for kind, number in counts.items())
        + f"; on the wrong side: {', '.join(wrong) or 'none'}; marginal though clear: "
        + (", ".join(undecided) or "none")
    )
    return {
        "goals": arguments.goals, "seed": arguments.seed, "planner": arguments.planner,
        "wrong": wrong, "undecided": undecided, "machine": describe_machine(), "checkpoints": rows,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; return the exit status."""
    parser = make_parser(
        "check_calibration.py",
        "Hold the thresholds of lewm-check against checkpoints whose success is known.",
        "python benchmarks/check_calibration.py --data data/push_t --out runs/calibration "
        "--also push_t-nano",
    )
    parser.add_argument("--data", type=Path, required=True, help="data of the scripted expert")
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept")
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="CHECKPOINT", help="checkpoints to examine too"
    )
    parser.add_argument("--goals", type=int, default=40, help="goals in closed loop (default 40)")
    parser.add_argument(
        "--seed", type=int, default=50_000, help="of the goals; never those of a report"
    )
    parser.add_argument("--planner", default="search", help="preset (default %(default)s)")
    result: dict[str, Any] = {}

    def body(parsed: argparse.Namespace) -> dict[str, Any]:
        result.update(measure(parsed))
        return result

    status = run_command(parser, body, arguments)
    return 1 if status == 0 and result["wrong"] else status


if __name__ == "__main__":
    os.environ.setdefault("MUJOCO_GL", "egl")
    sys.exit(main())
