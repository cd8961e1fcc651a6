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
from lewm_core.scenes import make_expert, make_scene

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
        "Measure control steps and pictures per second of Push-T, and its expert's statistics.",
        "python benchmarks/scenes.py --episodes 100 --json scenes.json",
    )
    parser.add_argument("--episodes", type=int, default=100, help="of the expert (default 100)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measured rate (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    return run_command(parser, _benchmark)


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    result: dict[str, Any] = {"scene": "push_t", "seed": options.seed, "cores": cores}
    context = multiprocessing.get_context("spawn")
    for processes in sorted({1, cores}):
        with context.Pool(processes) as pool:
            rates = pool.map(_rates, [options.seconds] * processes, chunksize=1)
        for key in rates[0]:
            total = sum(rate[key] for rate in rates)
            result[f"{key}_per_s_{processes}_processes"] = round(total)
    result |= _expert_statistics(options.episodes, options.seed)
    for key, value in result.items():
        print(f"{key:48} {value}")
    return result


def _rates(seconds: float) -> dict[str, float]:
    """Control steps (alone, with the expert) and pictures per second in this process."""
    scene, expert = make_scene("push_t", seed=0), make_expert("push_t", seed=0)
    commands = np.random.default_rng(0).uniform(-0.15, 0.15, size=(1000, 2))
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


def _expert_statistics(episodes: int, seed: int) -> dict[str, Any]:
    """Motion over windows of 25 control steps, with standard errors over the episodes."""
    from lewm_core.scenes.push_t.geometry import pusher_clearance, wall_clearance
    from lewm_core.scenes.push_t.success import push_t_distances, push_t_success

    scene, expert = make_scene("push_t"), make_expert("push_t")
    states = np.empty((episodes, EPISODE + 1, 5))
    actions = np.empty((episodes, EPISODE, 2))
    for episode in range(episodes):
        states[episode, 0] = scene.reset(seed=seed + episode)
        expert.reset(seed=seed + episode)
        for step in range(EPISODE):
            actions[episode, step] = expert.act(states[episode, step])
            states[episode, step + 1] = scene.step_control(actions[episode, step])
    starts, ends = states[:, :-WINDOW], states[:, WINDOW:]
    distances = push_t_distances(ends, starts)
    joint, block = push_t_success(ends, starts)
    flat = states.reshape(-1, 5)
    clearances = np.array([pusher_clearance(state) for state in flat])
    values = {
        "window_block_motion_mm": distances[..., 2] * 1e3,
        "window_pusher_motion_mm": distances[..., 1] * 1e3,
        "window_block_turn_deg": np.degrees(distances[..., 3]),
        "window_trivial_joint_percent": joint * 100.0,
        "window_trivial_block_percent": block * 100.0,
        "replay_from_rest_joint_percent": _replay(scene, states, actions, seed) * 100.0,
        "contact_percent": (clearances < 5e-4).reshape(episodes, -1) * 100.0,
    }
    result: dict[str, Any] = {"expert_episodes": episodes}
    for key, value in values.items():
        means = value.mean(axis=1)
        result[key] = round(float(means.mean()), 2)
        result[f"{key}_standard_error"] = round(float(means.std() / np.sqrt(episodes)), 2)
    result["deepest_overlap_mm"] = round(float(-clearances.min() * 1e3), 2)
    walls = min(wall_clearance(state[2:]) for state in flat)
    result["deepest_wall_overlap_mm"] = round(float(-walls * 1e3), 2)
    return result


def _replay(scene: Any, states: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
    """Whether recorded commands, from the recorded state at rest, meet the joint criterion.

    A state that is seen, without velocities, should decide what comes: this says how far it does.

    Returns:
        (episodes, 4): of four windows of each episode.
    """
    from lewm_core.scenes.push_t.success import push_t_success

    rng = np.random.default_rng(seed)
    met = np.zeros((len(states), 4))
    for episode, window in np.ndindex(met.shape):
        start = int(rng.integers(0, EPISODE - WINDOW))
        scene.reset(state=states[episode, start])
        for action in actions[episode, start : start + WINDOW]:
            end = scene.step_control(action)
        met[episode, window] = push_t_success(end, states[episode, start + WINDOW])[0]
    return met


if __name__ == "__main__":
    sys.exit(main())
