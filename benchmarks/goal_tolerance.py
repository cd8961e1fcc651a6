"""How far apart in latent space may two pictures be and still show the same goal?

The planner calls a goal reached when the squared latent distance is within
``goal_tolerance_factor`` times the checkpoint's distance of one block. This takes pairs of states
of the scripted expert, 1 to 9 control steps apart, and holds that rule against the scene's own
criterion, which sees the true state:

    python benchmarks/goal_tolerance.py --checkpoint push_t-nano
    python benchmarks/goal_tolerance.py --checkpoint reacher-nano

A checkpoint is given a factor of its own by ``lewm-train ... goal_tolerance_factor=0.005``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import lewm_core
from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import Contract
from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import CheckpointError
from lewm_core.scenes import make_expert, make_scene

FACTORS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
_EPISODE_STEPS, _WARM_UP_STEPS, _FURTHEST_STEPS = 100, 20, 9


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return precision and recall of each factor, and print them."""
    model = lewm_core.load(arguments.checkpoint)
    block = model.metadata.get("latent", {}).get("one_block_distance")
    if block is None:
        raise CheckpointError(f"{arguments.checkpoint}: model.json has no one_block_distance")
    contract = Contract.from_dict(model.contract or {})
    layout = ObservationLayout.of(contract, model.config)
    rng = np.random.default_rng(arguments.seed)
    distances, met = [], []
    scene, expert = make_scene(contract.name), make_expert(contract.name)
    for episode in range(arguments.episodes):
        truth = scene.reset(seed=arguments.seed + episode)
        expert.reset(seed=arguments.seed + episode)
        truths, pictures = [], []
        for _ in range(_EPISODE_STEPS):
            truth = scene.step_control(expert.act(truth))
            truths.append(truth)
            pictures.append(layout.look(scene).picture)
        with torch.inference_mode():
            embeddings = model.encode(torch.from_numpy(np.stack(pictures))[:, None])[:, 0].numpy()
        first = rng.integers(_WARM_UP_STEPS, _EPISODE_STEPS - _FURTHEST_STEPS, arguments.pairs)
        second = first + rng.integers(1, _FURTHEST_STEPS + 1, arguments.pairs)
        distances.append(np.square(embeddings[first] - embeddings[second]).sum(axis=-1) / block)
        met.append(
            [
                scene.outcome(truths[one], truths[other]).success
                for one, other in zip(first, second, strict=True)
            ]
        )
    scene.close()
    distance, criterion = np.concatenate(distances), np.concatenate(met)
    print(f"{len(distance)} pairs, the criterion is met by {100 * criterion.mean():.1f} %")
    print("factor  within it the criterion is met  of those that meet it, within")
    result: dict[str, Any] = {
        "checkpoint": str(arguments.checkpoint), "pairs": len(distance), "seed": arguments.seed,
        "criterion_met": float(criterion.mean()),
    }
    for factor in FACTORS:
        within = distance < factor
        precision = float(criterion[within].mean()) if within.any() else None
        recall = float(within[criterion].mean()) if criterion.any() else None
        result[f"precision_{factor:g}"], result[f"recall_{factor:g}"] = precision, recall
        print(f"{factor:6g}  {_percent(precision):>30}  {_percent(recall):>29}")
    return result


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "goal_tolerance", "Holds the planner's goal tolerance against the scene's criterion.",
        "python benchmarks/goal_tolerance.py --checkpoint push_t-nano",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="folder or shipped name")
    parser.add_argument("--episodes", type=int, default=60, help="default %(default)s")
    parser.add_argument("--pairs", type=int, default=40, help="an episode; default %(default)s")
    parser.add_argument("--seed", type=int, default=90_000, help="default %(default)s")
    return run_command(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
