"""How fast the scenes step and render, and what their experts do.

    python benchmarks/scenes.py --json runs/bench/scenes.json

Rates are the best of a hundred slices, in one process and in as many as there are cores: what the
machine can do when nothing else runs for a moment. The expert's statistics come from seeded
episodes, so they are the same on every machine with the same versions.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError
from lewm_core.scenes import known_scenes, make_expert, make_scene

#: Control steps between start and goal in the published protocol.
WINDOW = 25
#: Control steps of an expert episode.
EPISODE = 250
#: Per measured rate; the best counts.
SLICES = 100


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "benchmarks/scenes.py",
        "Measure control steps and pictures per second of the scenes, and what their experts do.",
        "python benchmarks/scenes.py --episodes 100 --json scenes.json",
    )
    parser.add_argument(
        "--scene", nargs="+", default=known_scenes(), help="default: all, those left out that "
        "need a package which is not installed"
    )
    parser.add_argument("--episodes", type=int, default=100, help="of the expert (default 100)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measured rate (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    return run_command(parser, _benchmark)


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    result: dict[str, Any] = {"seed": options.seed, "cores": cores}
    context = multiprocessing.get_context("spawn")
    for name in options.scene:
        try:
            make_scene(name, seed=0).close()
        except UserError as error:
            if options.scene != known_scenes():
                raise
            print(f"{name} is left out: {error}")
            continue
        found: dict[str, Any] = {}
        for processes in sorted({1, cores}):
            with context.Pool(processes) as pool:
                rates = pool.starmap(
                    _rates, [(name, options.seconds)] * processes, chunksize=1
                )
            for key in rates[0]:
                total = sum(rate[key] for rate in rates)
                found[f"{key}_per_s_{processes}_processes"] = round(total)
        found |= _expert_statistics(name, options.episodes, options.seed)
        print(name)
        for key, value in found.items():
            print(f"  {key:46} {value}")
            result[f"{name}_{key}"] = value
    return result


def _rates(name: str, seconds: float) -> dict[str, float]:
    """Control steps (alone, with the expert) and pictures per second in this process."""
    scene, expert = make_scene(name, seed=0), make_expert(name, seed=0)
    shape = (1000, len(scene.action_lower))
    commands = np.random.default_rng(0).uniform(scene.action_lower, scene.action_upper, shape)
    state = scene.reset(seed=0)

    def physics(step: int) -> None:
        scene.step_control(commands[step % 1000])

    def with_expert(step: int) -> None:
        nonlocal state
        if step % EPISODE == 0:
            state = scene.reset()
            expert.reset()
        state = scene.step_control(expert.act(state))

    return {
        "control_steps": _rate(physics, seconds),
        "control_steps_with_expert": _rate(with_expert, seconds),
        "pictures_64px": _rate(lambda _: scene.render(64, 64), seconds),
        "pictures_224px": _rate(lambda _: scene.render(224, 224), seconds),
    }


def _rate(body: Callable[[int], object], seconds: float) -> float:
    body(0)
    best, index = 0.0, 0
    for _ in range(SLICES):
        first, began, spent = index, time.perf_counter(), 0.0
        while spent < seconds / SLICES:
            body(index)
            index += 1
            spent = time.perf_counter() - began
        best = max(best, (index - first) / spent)
    return best


def _expert_statistics(name: str, episodes: int, seed: int) -> dict[str, Any]:
    """What the expert does, with standard errors over the episodes."""
    scene, expert = make_scene(name), make_expert(name)
    states = np.empty((episodes, EPISODE + 1, len(scene.state_names)))
    actions = np.empty((episodes, EPISODE, len(scene.action_lower)))
    legs = arrived = 0
    for episode in range(episodes):
        states[episode, 0] = scene.reset(seed=seed + episode)
        expert.reset(seed=seed + episode)
        goal = None
        for step in range(EPISODE):
            state = states[episode, step]
            actions[episode, step] = expert.act(state)
            after = expert.goal_state(state)
            if goal is not None and (after is None or not np.array_equal(after, goal)):
                legs += 1
                arrived += scene.outcome(state, goal).success
            goal = after
            states[episode, step + 1] = scene.step_control(actions[episode, step])
    result: dict[str, Any] = {"expert_episodes": episodes}
    if legs:
        result |= {"expert_legs": legs, "expert_legs_reached": round(arrived / legs, 4)}
    values = _window_statistics(scene, states, actions, seed)
    if name == "push_t":
        values |= _push_t_statistics(states, result)
    for key, value in values.items():
        means = value.mean(axis=1)
        result[key] = round(float(means.mean()), 2)
        result[f"{key}_standard_error"] = round(float(means.std() / np.sqrt(episodes)), 2)
    return result


def _window_statistics(
    scene: Any, states: np.ndarray, actions: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Motion over windows of 25 control steps, (episodes, windows) each.

    *Replay from rest*: whether the recorded commands, from the recorded state at rest, meet the
    criterion. A state that is seen, without velocities, should decide what comes: this says how far
    it does.
    """
    firsts = np.random.default_rng(seed).integers(0, EPISODE - WINDOW, (len(states), 8))
    found: dict[str, np.ndarray] = {}
    for episode, window in np.ndindex(firsts.shape):
        first = int(firsts[episode, window])
        start, goal = states[episode, first], states[episode, first + WINDOW]
        outcome = scene.outcome(start, goal)
        scene.reset(state=start)
        for action in actions[episode, first : first + WINDOW]:
            end = scene.step_control(action)
        row = {
            "window_position_mm": 1e3 * outcome.position_distance,
            "window_angle_deg": np.degrees(outcome.angle_distance),
            "window_trivial_percent": 100.0 * outcome.success,
            "window_trivial_object_percent": 100.0 * outcome.object_success,
            "replay_from_rest_percent": 100.0 * scene.outcome(end, goal).success,
        }
        for key, value in row.items():
            found.setdefault(key, np.zeros(firsts.shape))[episode, window] = value
    return {key: value for key, value in found.items() if np.isfinite(value).all()}


def _push_t_statistics(states: np.ndarray, result: dict[str, Any]) -> dict[str, np.ndarray]:
    """Push-T's own: motion of the block, contact; the deepest overlaps go into ``result``."""
    from lewm_core.scenes.push_t.geometry import pusher_clearance, wall_clearance
    from lewm_core.scenes.push_t.success import push_t_distances, push_t_success

    starts, ends = states[:, :-WINDOW], states[:, WINDOW:]
    distances = push_t_distances(ends, starts)
    joint, block = push_t_success(ends, starts)
    flat = states.reshape(-1, 5)
    clearances = np.array([pusher_clearance(state) for state in flat])
    walls = min(wall_clearance(state[2:]) for state in flat)
    result["deepest_overlap_mm"] = round(float(-clearances.min() * 1e3), 2)
    result["deepest_wall_overlap_mm"] = round(float(-walls * 1e3), 2)
    return {
        "window_block_motion_mm": distances[..., 2] * 1e3,
        "window_pusher_motion_mm": distances[..., 1] * 1e3,
        "window_block_turn_deg": np.degrees(distances[..., 3]),
        "window_trivial_joint_percent": joint * 100.0,
        "window_trivial_block_percent": block * 100.0,
        "contact_percent": (clearances < 5e-4).reshape(len(states), -1) * 100.0,
    }


if __name__ == "__main__":
    sys.exit(main())
