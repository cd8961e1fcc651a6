"""What does a step of training's later stages cost, in float32 and in bfloat16?

The stages run as `lewm-train` runs them, on embeddings drawn at random: nothing in their time
depends on what the numbers are. Every way in turn, several times; the median is told:

    python benchmarks/stages.py --threads 2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import load_contract
from lewm_core.evaluation.report import describe_machine
from lewm_core.model import WorldModel
from lewm_core.training.config import load_train_config
from lewm_core.training.embeddings import EmbeddedEpisodes
from lewm_core.training.proposal import train_proposal
from lewm_core.training.refinement import refine_predictor

TYPES = {"float32": None, "bfloat16": torch.bfloat16}


def random_episodes(model: WorldModel, blocks: int = 2000) -> EmbeddedEpisodes:
    """Return one long episode with a picture at every control step."""
    generator = torch.Generator().manual_seed(0)
    skip = model.frame_skip
    ticks = torch.arange(blocks * skip)
    return EmbeddedEpisodes(
        z=torch.randn(len(ticks), model.latent_dim, generator=generator),
        row=ticks,
        blocks=torch.randn(len(ticks), model.config.block_dim, generator=generator),
        ahead=(len(ticks) - 1 - ticks) // skip,
        behind=ticks // skip,
        frame_skip=skip,
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds of a step of each stage in each type, and print them."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    action_dim = len(load_contract("push_t").action_limits()[0])
    config = load_train_config(
        "nano",
        [
            *(f"{stage}.{key}={value}" for stage in ("refinement", "proposal")
              for key, value in (("steps", arguments.steps), ("warmup_steps", 0))),
            "proposal.imagination_from=0",
        ],
        action_dim=action_dim,
    )
    model = WorldModel(config.model).eval()
    episodes = random_episodes(model)
    limit = torch.full((model.config.block_dim,), 2.0)
    limits = (-limit, limit)
    stages: dict[str, Callable[[torch.dtype | None], object]] = {
        "refinement": lambda autocast: refine_predictor(
            model, episodes, config.refinement, seed=0, autocast=autocast
        ),
        "proposal": lambda autocast: train_proposal(
            model, episodes, config.proposal, seed=0, limits=limits, autocast=autocast
        ),
    }
    times: dict[tuple[str, str], list[float]] = {}
    for repetition in range(arguments.repetitions + 1):
        for stage, run in stages.items():
            for name, autocast in TYPES.items():
                began = time.perf_counter()
                run(autocast)
                if repetition:  # the first one warms up
                    seconds = (time.perf_counter() - began) / arguments.steps
                    times.setdefault((stage, name), []).append(1e3 * seconds)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "steps": arguments.steps,
        "repetitions": arguments.repetitions,
    }
    for stage in stages:
        for name in TYPES:
            result[f"{stage}_{name}_ms"] = round(median(times[stage, name]), 1)
        ratio = result[f"{stage}_bfloat16_ms"] / result[f"{stage}_float32_ms"]
        result[f"{stage}_ratio"] = round(ratio, 2)
        print(
            f"{stage}: {result[f'{stage}_float32_ms']} ms a step in float32, "
            f"{result[f'{stage}_bfloat16_ms']} in bfloat16, {ratio:.2f} times as long"
        )
    print(f"{result['machine']}, {result['threads']} thread(s)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = make_parser(
        "stages.py",
        "Time a step of refinement and proposal training in float32 and bfloat16.",
        "python benchmarks/stages.py --threads 2",
    )
    parser.add_argument("--steps", type=int, default=10, help="in one run (default 10)")
    parser.add_argument("--repetitions", type=int, default=5, help="of every run (default 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
