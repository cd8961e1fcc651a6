"""How many episodes a minute does an evaluation make: at once, against one after the other?

Both drive the same goals with the same planner, in one run, so that the machine is the same; the
processor's time is told beside the wall's, because other work on the machine spoils the latter:

    python benchmarks/evaluation.py --checkpoint push_t-nano --planner search --episodes 20
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.evaluation.closed_loop import goals_from_expert, run_goal, summarise
from lewm_core.evaluation.evaluate import load_candidates
from lewm_core.evaluation.lock_step import drive_goals
from lewm_core.evaluation.planner_setup import make_setup
from lewm_core.evaluation.protocols import load_protocol
from lewm_core.evaluation.report import describe_machine
from lewm_core.scenes import make_scene


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return episodes per minute of each way, and print them."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    (candidate,) = load_candidates([arguments.checkpoint], torch.device("cpu"))
    protocol = load_protocol(arguments.protocol)
    setup = make_setup(candidate.model, candidate.contract, arguments.planner, protocol)
    distance = protocol.distances[0]
    budget = protocol.budget_steps(distance)
    scene = make_scene("push_t")
    goals = goals_from_expert(
        scene, arguments.episodes, arguments.seed, distance, candidate.contract.camera.size
    )
    policy = setup.policy()
    run_goal(scene, goals[0], policy, setup.model.frame_skip)  # the first plan allocates

    began, began_cpu = time.monotonic(), time.process_time()
    together = [
        drive.result
        for drive in drive_goals(scene, goals, setup, budget, batch=arguments.batch)
    ]
    middle, middle_cpu = time.monotonic(), time.process_time()
    alone = [run_goal(scene, goal, policy, budget) for goal in goals]
    ended, ended_cpu = time.monotonic(), time.process_time()
    scene.close()

    result: dict[str, Any] = {
        "checkpoint": arguments.checkpoint,
        "planner": setup.name,
        "protocol": protocol.name,
        "episodes": len(goals),
        "seed": arguments.seed,
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "machine": describe_machine(),
    }
    print(f"{len(goals)} goals, planner {setup.name}, protocol {protocol.name}, "
          f"{torch.get_num_threads()} thread(s)")
    for name, seconds, cpu_s, results in (
        ("at once", middle - began, middle_cpu - began_cpu, together),
        ("one by one", ended - middle, ended_cpu - middle_cpu, alone),
    ):
        key = name.replace(" ", "_")
        rate = 60.0 * len(goals) / seconds
        result[f"episodes_per_minute_{key}"] = rate
        result[f"cpu_s_per_episode_{key}"] = cpu_s / len(goals)
        result[f"success_any_{key}"] = summarise(results)["success_any"]
        print(f"  {name:<11} {rate:7.1f} episodes/minute, {cpu_s / len(goals):.3f} s of processor "
              f"each, reached {sum(r.success_any for r in results)} of {len(goals)}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "evaluation", "Times an evaluation: all episodes at once against one after the other.",
        "python benchmarks/evaluation.py --checkpoint push_t-nano --planner search --episodes 20",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="folder or shipped name")
    parser.add_argument("--planner", help="preset (default: as lewm-eval)")
    parser.add_argument("--protocol", default="mpc", help="default %(default)s")
    parser.add_argument("--episodes", type=int, default=20, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=10, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=60_000, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="default: as torch decides")
    return run_command(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
