"""How much success does a millisecond of planning buy?

Searches of different kinds and sizes drive the same checkpoint to the same goals. Success is
counted over all goals side by side, as `lewm-eval` counts; the time of a plan is that of one plan
at a time in closed loop, every search in turn on the same goals. Where stable-worldmodel is
installed, its `CEMSolver` plans with the same world model on the same embeddings, and the table
says how many times as fast the others are:

    pip install stable-worldmodel
    python benchmarks/planner_success.py --threads 2 --figure success.png

Settings are chosen on the tuning goals (the default), and what was chosen is reported on others:

    python benchmarks/planner_success.py --split reporting --seed 80000 --only preset
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import Contract
from lewm_core.errors import UserError
from lewm_core.evaluation.closed_loop import run_goal, summarise
from lewm_core.evaluation.evaluate import load_candidates
from lewm_core.evaluation.goals import StartGoal, goals_from_expert
from lewm_core.evaluation.lock_step import drive_goals
from lewm_core.evaluation.planner_setup import PlannerSetup, make_setup
from lewm_core.evaluation.policies import PlannerPolicy
from lewm_core.evaluation.protocols import load_protocol
from lewm_core.evaluation.report import describe_machine
from lewm_core.model.world_model import WorldModel
from lewm_core.planning import Candidates, GoalDistance
from lewm_core.planning.config import goal_tolerance_factor
from lewm_core.scenes import make_scene

#: stable-worldmodel's search.
PEER = "stable-worldmodel"


@dataclass(frozen=True)
class Variant:
    """A search: a preset, what is changed in it, and the protocol that it drives by."""

    name: str
    preset: str
    settings: tuple[str, ...] = ()
    protocol: str = "mpc"


def _sizes(
    name: str, preset: str, sizes: Sequence[tuple[int, int]], *settings: str, share: int | None = 8
) -> list[Variant]:
    """Variants of one search in several sizes, (candidates, rounds); elites are a share."""
    variants = []
    for candidates, rounds in sizes:
        changed = [f"solver.candidates={candidates}", f"solver.rounds={rounds}", *settings]
        if share is not None:
            changed.append(f"solver.elites={max(3, candidates // share)}")
        variants.append(Variant(f"{name} {candidates} x {rounds}", preset, tuple(changed)))
    return variants


_SMALL, _LARGE = ((32, 2), (64, 3)), ((64, 4), (128, 8))

VARIANTS = [
    Variant("preset paper", "paper", protocol="paper"),
    Variant("preset search", "search"),
    Variant("preset fast", "fast"),
    Variant("preset default", "default"),
    *_sizes("cem, white noise", "search", _LARGE, "solver.noise_correlation=0.0"),
    *_sizes("cem", "search", (*_SMALL, *_LARGE)),
    *_sizes("icem", "search", (*_SMALL, *_LARGE), "solver.kind=icem"),
    *_sizes("mppi", "search", _LARGE, "solver.kind=mppi", share=None),
    *_sizes("adam", "search", ((4, 20),), "solver.kind=adam", share=None),
    *_sizes("proposal + cem", "default", ((32, 1), (32, 2), (64, 2), (192, 4))),
    *_sizes("proposal + icem", "default", ((32, 2), (96, 3)), "solver.kind=icem"),
    *_sizes("proposal + mppi", "default", ((32, 2), (96, 3)), "solver.kind=mppi", share=None),
    *_sizes("proposal + adam", "default", ((2, 5),), "solver.kind=adam", share=None),
]


class Costs(nn.Module):
    """A world model as stable-worldmodel's solvers ask for it: `WorldModel.rollout`, the goal's
    squared distance."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def get_cost(self, information: dict[str, Tensor], candidates: Tensor) -> Tensor:
        """Cost ``(B, S)``; the solver repeats what it was given for every candidate."""
        history, past, goal = (information[key][:, 0] for key in ("history", "past", "goal"))
        predicted = self.model.rollout(history, past, candidates)
        return GoalDistance()(Candidates(predicted, candidates), goal)


class PeerSolver:
    """stable-worldmodel's `CEMSolver` in the place of ours (`lewm_core.planning.Solver`).

    Args:
        setup: Whose search it makes.

    Raises:
        ImportError: stable-worldmodel is not installed.
    """

    def __init__(self, setup: PlannerSetup) -> None:
        from stable_worldmodel.solver import CEMSolver

        self._own = setup.controller().solver
        settings = setup.config.solver
        self._solver = CEMSolver(
            Costs(setup.model), batch_size=1, num_samples=settings.candidates, var_scale=1.0,
            n_steps=settings.rounds, topk=settings.elites, device="cpu", seed=settings.seed,
        )
        self._block, self._actions = setup.model.frame_skip, setup.model.action_dim
        self.horizon = settings.horizon
        self.times_s: list[float] = []

    def reset(self) -> None:
        """Its random numbers go on."""

    def plan(
        self, history: Tensor, goal: Tensor, past_actions: Tensor | None = None, *,
        horizon: int | None = None, **given: Any,
    ) -> Any:
        """Time the peer's search; hand out our own plan, so that both drive the same way."""
        past = past_actions
        if past is None:
            past = history.new_zeros((1, history.shape[1] - 1, self._block * self._actions))
        self._solver.configure(
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (1, self._actions)), n_envs=1,
            config=SimpleNamespace(horizon=horizon or self.horizon, action_block=self._block),
        )
        with contextlib.redirect_stdout(io.StringIO()):
            began = time.perf_counter()
            self._solver.solve({"history": history, "past": past, "goal": goal})
            self.times_s.append(time.perf_counter() - began)
        return self._own.plan(history, goal, past_actions, horizon=horizon, **given)


def chosen(only: str | None) -> list[Variant]:
    """Return the variants whose name contains one of the comma-separated words.

    Raises:
        UserError: None does.
    """
    words = [word.strip() for word in (only or "").split(",")]
    found = [variant for variant in VARIANTS if any(word in variant.name for word in words)]
    if not found:
        names = ", ".join(variant.name for variant in VARIANTS)
        raise UserError(f"--only {only!r} names no search; there are: {names}")
    return found


def measure_times(
    setups: dict[str, PlannerSetup], goals: Sequence[StartGoal], scene: Any, budget: int
) -> dict[str, list[float]]:
    """Return the seconds of every plan of every search, goal by goal in turn."""
    times: dict[str, list[float]] = {name: [] for name in setups}
    peer: PeerSolver | None = None
    for goal in goals:
        for name, setup in setups.items():
            policy = setup.policy()
            run_goal(scene, goal, policy, setup.model.frame_skip)  # the first plan allocates
            run_goal(scene, goal, policy, budget)
            times[name] += policy.plan_times_s
            if name != "preset paper":
                continue
            try:
                peer = peer or PeerSolver(setup)
            except ImportError as error:
                print(f"no comparison with {PEER}, it cannot be imported ({error}): "
                      "pip install stable-worldmodel")
                continue
            run_goal(scene, goal, PlannerPolicy(setup.controller(peer), setup.layout), budget)
    if peer is not None:
        times[PEER] = peer.times_s
    return times


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Drive, print, and return the numbers."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    variants = chosen(arguments.only)
    (candidate,) = load_candidates([arguments.checkpoint], torch.device("cpu"))
    contract: Contract = candidate.contract
    setups: dict[str, PlannerSetup] = {}
    for variant in variants:
        protocol = load_protocol(variant.protocol)
        tolerance = goal_tolerance_factor(candidate.model.metadata)
        setups[variant.name] = make_setup(
            candidate.model, contract, variant.preset, protocol, settings=variant.settings,
            goal_tolerance_factor=tolerance if protocol.holds_at_goal else None,
        )
    scene = make_scene(arguments.scene)
    # The same in the protocols `paper` and `mpc`.
    distance = load_protocol("mpc").distances[0]
    budget = load_protocol("mpc").budget_steps(distance)
    goals = goals_from_expert(
        scene, arguments.goals, arguments.seed, distance, contract.camera.size, arguments.scene,
        arguments.split,
    )
    result: dict[str, Any] = {
        "checkpoint": arguments.checkpoint, "scene": arguments.scene, "goals": len(goals),
        "seed": arguments.seed, "split": arguments.split, "threads": torch.get_num_threads(),
        "machine": describe_machine(), "torch": torch.__version__, "searches": {},
    }
    print(f"{result['machine']}, {result['threads']} thread(s); {len(goals)} {arguments.split} "
          f"goals of seed {arguments.seed}")
    times = measure_times(setups, goals[: arguments.timed_goals], scene, budget)
    peer_s = float(np.median(times[PEER])) if PEER in times else None
    if peer_s is not None:
        result["peer_plan_p50_s"] = peer_s
        print(f"{PEER}, 300 x 30: {1e3 * peer_s:.0f} ms (p50 of {len(times[PEER])} plans)")
    for name, setup in setups.items():
        plans = np.array(times[name])
        drives = drive_goals(scene, goals, setup, budget)
        summary = summarise([drive.result for drive in drives])
        row = {
            "plan_p50_s": float(np.median(plans)), "plan_p95_s": float(np.quantile(plans, 0.95)),
            "plans_timed": len(plans),
            "faster_than_peer": None if peer_s is None else peer_s / float(np.median(plans)),
            **{
                key: summary[key]
                for key in ("success_any", "ci95_any", "success_final",
                            "ci95_final")
            },
        }
        result["searches"][name] = row
        low, high = row["ci95_any"]
        ratio = "" if peer_s is None else f", {row['faster_than_peer']:.0f} times as fast"
        print(
            f"{name:<24} {1e3 * row['plan_p50_s']:7.1f} ms (p95 {1e3 * row['plan_p95_s']:.1f})"
            f"{ratio}; success {100 * row['success_any']:.1f} % ({100 * low:.0f} to "
            f"{100 * high:.0f}) at any time, {100 * row['success_final']:.1f} % at the end",
            flush=True,
        )
    scene.close()
    if arguments.figure is not None:
        draw(result, arguments.figure)
    return result


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw success over milliseconds, with intervals: a colour for each kind of search, presets in
    black."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, row in result["searches"].items():
        kind = name if name.startswith("preset") else name.rpartition(" x ")[0].rpartition(" ")[0]
        kinds.setdefault(kind, []).append(row)
    for kind, rows in kinds.items():
        rows = sorted(rows, key=lambda row: row["plan_p50_s"])
        x = [1e3 * row["plan_p50_s"] for row in rows]
        y = np.array([100 * row["success_any"] for row in rows])
        bounds = np.abs(np.array([row["ci95_any"] for row in rows]).T * 100 - y)
        if not kind.startswith("preset"):
            axes.errorbar(x, y, yerr=bounds, label=kind, capsize=2, marker="o", linewidth=1)
            continue
        axes.errorbar(x, y, yerr=bounds, capsize=2, marker="s", color="black")
        axes.annotate(kind.removeprefix("preset "), (x[0], y[0]), xytext=(5, -12),
                      textcoords="offset points", weight="bold")
    if "peer_plan_p50_s" in result:
        axes.axvline(1e3 * result["peer_plan_p50_s"], color="black", linestyle=":",
                     label=f"{PEER}, 300 x 30")
    axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_xlabel(f"ms per plan, threads: {result['threads']}")
    axes.set_ylabel(f"% of {result['goals']} goals reached at any time")
    axes.set_title(f"{Path(result['checkpoint']).name}, {result['split']} goals, "
                   f"seed {result['seed']}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2, loc="lower right")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = make_parser(
        "planner_success.py",
        "Success over milliseconds of planning, for searches of different kinds and sizes.",
        "python benchmarks/planner_success.py --threads 2 --figure success.png",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="default %(default)s")
    parser.add_argument("--scene", default="push_t", help="default %(default)s")
    parser.add_argument("--goals", type=int, default=100, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=50000, help="of the goals")
    parser.add_argument("--split", default="tuning", help="tuning (default) or reporting")
    parser.add_argument("--only", metavar="WORDS", help="searches whose name contains one of these")
    parser.add_argument("--timed-goals", type=int, default=2,
                        help="goals driven one by one for the times (default %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw it")
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
