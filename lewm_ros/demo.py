"""The demo: scene and planner as ROS processes, ten goals, a table, a video and a page.

``make demo`` runs it with the shipped checkpoint; any checkpoint of the scene's contract works.
It runs on a ROS domain of its own, so that no robot nearby can hear its commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import lewm_core
from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import CONTRACT_FILE, Contract, save_contract
from lewm_core.data.contract_parts import Camera
from lewm_core.data.observation import render_cameras
from lewm_core.errors import UserError
from lewm_core.evaluation import closed_loop
from lewm_core.evaluation.goals import StartGoal
from lewm_core.paths import checkpoint_path
from lewm_core.planning import load_planner_config, planner_for
from lewm_core.scenes import make_scene
from lewm_ros.missing import require_ros

if TYPE_CHECKING:
    from lewm_ros.goal_runner import GoalTrace

#: Seed of the shipped demo's goals; far from the seeds that data are collected with.
GOAL_SEED = 70_000
#: Control steps between start and goal, and control steps allowed: the paper's protocol.
DISTANCE_STEPS, BUDGET_STEPS = 25, 50
_READY_TIMEOUT_S = 120.0
#: How long the scene waits for one command in lock step; a plan on a slow machine takes seconds.
_LOCK_STEP_TIMEOUT_S = 60.0


def demo_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m lewm_ros.demo``."""
    parser = make_parser(
        "lewm_ros.demo",
        "Starts a simulated scene and the planner as ROS processes, drives to goal pictures, and "
        "writes a video, a JSON file and a page.",
        "python -m lewm_ros.demo --out runs/demo --goals 10",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="folder or shipped name")
    parser.add_argument(
        "--planner",
        default="auto",
        help="preset or file (auto: default for a checkpoint with a learned proposal, else search)",
    )
    parser.add_argument("--goals", type=int, default=10, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=GOAL_SEED, help="of the goals")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="default %(default)s")
    parser.add_argument(
        "--lock-step",
        action="store_true",
        help="let the scene wait for every plan: what the planner is worth without its latency",
    )
    parser.add_argument(
        "--domain", type=int, help="ROS_DOMAIN_ID to run on (default: a random one)"
    )
    return parser


def run_demo(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the demo; returns the flat result that ``demo.json`` holds.

    Raises:
        UserError: A checkpoint or preset is missing, or a node ended.
    """
    if arguments.goals < 1:
        raise UserError(f"--goals {arguments.goals}: at least 1 is needed")
    checkpoint = checkpoint_path(arguments.checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # A wrong name is told before anything starts.
    model = lewm_core.load(checkpoint)
    planner = str(planner_for(model, arguments.planner))
    load_planner_config(planner)
    contract = Contract.from_dict(model.contract, source=str(checkpoint))
    # The contract of a simulated scene has the scene's name.
    scene = make_scene(contract.name)
    try:
        print(f"drawing {arguments.goals} goals, {DISTANCE_STEPS} control steps away", flush=True)
        goals = closed_loop.goals_from_expert(
            scene,
            arguments.goals,
            seed=arguments.seed,
            distance_steps=DISTANCE_STEPS,
            picture_size=contract.camera.size,
            scene_name=contract.name,
        )
        goals = [_from_rest(scene, goal) for goal in goals]
        cameras = contract.select_cameras(model.config.inputs.cameras)
        pictures = [_pictures(scene, goal, cameras) for goal in goals]
        started = time.monotonic()
        traces = _drive(arguments, checkpoint, contract, goals, pictures)
        seconds = time.monotonic() - started
        results = {
            "planner": [
                closed_loop.judge(
                    "planner",
                    goal.number,
                    [scene.outcome(state, goal.goal_truth)
                     for state in (goal.start_truth, *trace.states)],
                    plan_times_s=trace.plan_times_s,
                )
                for trace, goal in zip(traces, goals, strict=True)
            ]
        }
        lower, upper, _, hold = contract.action_limits()
        for policy in (
            closed_loop.DoNothing([0.0 if value == "last" else value for value in hold]),
            closed_loop.RandomActions(arguments.seed, lower, upper),
        ):
            results[policy.name] = [
                closed_loop.run_goal(scene, goal, policy, BUDGET_STEPS) for goal in goals
            ]
    finally:
        scene.close()
    from lewm_ros import demo_report

    settings = {
        "checkpoint": arguments.checkpoint,
        "planner_preset": planner,
        "lock_step": arguments.lock_step,
        "seed": arguments.seed,
        "distance_steps": DISTANCE_STEPS,
        "budget_steps": BUDGET_STEPS,
        "nodes_seconds": round(seconds, 1),
    }
    summary = demo_report.summarise(settings, traces, results)
    demo_report.write(arguments.out, summary, goals, traces, results, scene)
    print(demo_report.table(summary, results))
    print(f"\n{arguments.out}/report.html, demo.mp4 and demo.json show all of it")
    return summary


def _from_rest(scene: Any, goal: StartGoal) -> StartGoal:
    """Begin at rest: ~/reset takes a pose, and all policies must begin alike."""
    scene.reset(state=goal.start_truth)
    return dataclasses.replace(goal, start=scene.get_state())


def _pictures(
    scene: Any, goal: StartGoal, cameras: Sequence[Camera]
) -> list[NDArray[np.uint8]]:
    """Return what every camera of the model sees of a goal."""
    scene.set_state(goal.goal)
    return list(render_cameras(scene, cameras).values())


def _drive(
    arguments: argparse.Namespace,
    checkpoint: Path,
    contract: Contract,
    goals: Sequence[StartGoal],
    pictures: Sequence[Sequence[NDArray[np.uint8]]],
) -> list[GoalTrace]:
    """Run the nodes and pursue every goal over DDS."""
    from lewm_ros.dds import apply_profile
    from lewm_ros.processes import NodeProcess, isolated_environment

    os.environ.update(isolated_environment(arguments.domain))
    apply_profile()
    logs = arguments.out / "logs"
    waiting = {"lock_step": arguments.lock_step}
    # The checkpoint's own, which may have more cameras than the scene's usual one.
    contract_file = arguments.out / CONTRACT_FILE
    save_contract(contract, contract_file)
    scene_parameters = {
        "scene": contract.name,
        "contract": str(contract_file.resolve()),
        "seed": arguments.seed,
    }
    if arguments.lock_step:
        scene_parameters |= {
            **waiting,
            "real_time_factor": 0.0,
            "lock_step_timeout": _LOCK_STEP_TIMEOUT_S,
        }
    with (
        NodeProcess(
            "scene",
            scene_parameters,
            os.environ,
            logs / "scene.log",
        ) as scene,
        NodeProcess(
            "planner",
            {
                "checkpoint": str(checkpoint.resolve()),
                "planner": str(arguments.planner),
                "autostart": True,
                "use_sim_time": True,
                **waiting,
            },
            os.environ,
            logs / "planner.log",
        ) as planner,
    ):
        def check() -> None:
            scene.require_running()
            planner.require_running()

        return _pursue_all(contract, goals, pictures, check)


def _pursue_all(
    contract: Contract,
    goals: Sequence[StartGoal],
    pictures: Sequence[Sequence[NDArray[np.uint8]]],
    check: Callable[[], None],
) -> list[GoalTrace]:
    import rclpy

    from lewm_ros.goal_runner import GoalRunner

    rclpy.init(args=[])
    runner = GoalRunner(contract)
    try:
        print("starting scene and planner", flush=True)
        runner.wait_ready(_READY_TIMEOUT_S, check)
        traces = []
        for number, (goal, seen) in enumerate(zip(goals, pictures, strict=True), start=1):
            trace = runner.pursue(
                goal.start_truth,
                seen,
                timeout_s=BUDGET_STEPS * contract.control_period,
                tolerance=0.0,
                check=check,
            )
            print(f"goal {number}/{len(goals)}: {trace.message}", flush=True)
            traces.append(trace)
        return traces
    finally:
        runner.close()
        rclpy.try_shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    require_ros("lewm_ros.demo")
    return run_command(demo_parser(), run_demo, argv)


if __name__ == "__main__":
    sys.exit(main())
