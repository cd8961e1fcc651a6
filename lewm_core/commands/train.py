"""``lewm-train``: train a world model on bags."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError

if TYPE_CHECKING:
    from lewm_core.data.contract import Contract
    from lewm_core.evaluation.probes import ProbeScore
    from lewm_core.training.loop import TrainResult
    from lewm_core.training.measure import StateProbe
    from lewm_core.training.stages import StagesResult

EXAMPLE = """lewm-collect push_t --episodes 400 --out data/push_t
  lewm-train --data data/push_t --config nano --out runs/nano
  lewm-train --data data/push_t --config nano --out runs/wide loss.weight=0.3 steps=20000
  lewm-train --data data/push_t --config nano --out runs/nano --resume
  torchrun --nproc-per-node 2 -m lewm_core.commands.train --data data/push_t --config paper --out \
runs/paper
  lewm-collect push_t --episodes 400 --out data/practice --seed 2 --policy runs/nano/checkpoint
  lewm-train --refine runs/nano/checkpoint --data data/push_t data/practice --config nano --out \
runs/practised"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    parser = make_parser(
        "lewm-train",
        "Train a world model on bags. SIGINT saves and stops (exit status 130); --resume "
        "continues, also after a kill. OUT/checkpoint is what the planner loads.",
        EXAMPLE,
    )
    parser.add_argument(
        "--data",
        type=str,
        nargs="+",
        required=True,
        metavar="PATH",
        help="dataset folders, bag folders or bag files",
    )
    parser.add_argument(
        "--config", required=True, help="a YAML file, or a preset: nano, small, paper"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--contract", help="contract file or name; default: contract.yaml beside the data"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in OUT, if there is one"
    )
    parser.add_argument(
        "--refine",
        metavar="CHECKPOINT",
        help="go on from this checkpoint: its encoder stays as it is, predictor and proposal learn "
        "on (the preset's later stages); for bags of its own driving beside those it knows",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the preset's"
    )
    # So that overrides may stand before, between and behind the options.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    return run_command(parser, run, arguments)


def run(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Train; return what ``--json`` writes."""
    # torch takes seconds to import: not for --help or a misspelt option.
    import torch

    from lewm_core.training.base import (
        base_config,
        base_record,
        check_overrides,
        continued_metadata,
        load_base,
    )
    from lewm_core.training.config import load_train_config
    from lewm_core.training.data import find_contract, open_data, resolve
    from lewm_core.training.distributed import process_group, wait_for_all
    from lewm_core.training.loop import Trainer
    from lewm_core.training.machine import (
        choose_device,
        choose_precision,
        keep_freed_memory,
        usable_cores,
    )
    from lewm_core.training.run import episodes_digest, open_run
    from lewm_core.training.stages import run_stages

    paths, overrides = _split(arguments.data, arguments.overrides)
    contract = find_contract(paths, arguments.contract)
    config = load_train_config(arguments.config, overrides, action_dim=len(contract.action_names))
    base = None
    if arguments.refine is not None:
        check_overrides(overrides)
        base = load_base(arguments.refine, contract)
        config = base_config(config, base)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = choose_device(config.device, local_rank)
    with process_group(device.type) as processes:
        say = print if processes.leads else _silent
        if not processes.leads:
            # One process decodes; the others wait, and find the cache made.
            wait_for_all(processes)
        data = open_data(paths, contract, config, _cache_progress if processes.leads else None)
        if processes.leads:
            wait_for_all(processes)
        config = resolve(
            config,
            data,
            threads=max(1, usable_cores() // local_count),
            precision=choose_precision(config.precision, device),
            device=str(device) if processes.count == 1 else device.type,
        )
        torch.set_num_threads(config.threads or 1)
        keep_freed_memory()
        say(config.to_yaml().rstrip())
        say(
            f"# {len(data.trained)} episodes to train on, {len(data.held_out)} held out, "
            f"{len(data.cache.frames)} pictures, {data.train_sampler(config).number_of_clips} clips"
        )
        record = {
            "command": _command_line(),
            "data": data.sources,
            "episodes": episodes_digest(data.trained, data.held_out),
            "contract": contract.to_dict(),
            "base": None if base is None else base_record(arguments.refine),
        }
        scores: list[ProbeScore] = []
        with open_run(
            arguments.out, config, record, arguments.resume, leads=processes.leads
        ) as folder:
            wait_for_all(processes)
            probe = _probe(contract, scores)
            result = stages = None
            if base is None:
                if data.keep_pictures_on(device):
                    say("# all pictures are kept in the GPU's memory")
                trainer = Trainer(data, config, folder, device, processes, probe, _command_line())
                result = trainer.train()
                model, metadata = trainer.model, trainer.metadata()
            else:
                model = base.to(device)
                metadata = continued_metadata(base.metadata, data, config, record["base"])
            finished = result is None or result.finished
            if finished and processes.leads and (config.refinement or config.proposal):
                stages = run_stages(
                    model,
                    data,
                    config,
                    folder,
                    device,
                    probe,
                    metadata,
                    _command_line(),
                    alone=base is not None,
                )
        if not processes.leads:
            arguments.json = None  # one result, written by one process
            return None
        if result is not None and not result.finished:
            print(
                f"stopped after step {result.step} of {config.steps}; the state is saved, "
                "--resume continues"
            )
            raise KeyboardInterrupt
        report: dict[str, Any] = {
            "checkpoint": str(folder.checkpoint),
            "trained_episodes": len(data.trained),
            "held_out_episodes": len(data.held_out),
        }
        report |= _report_model(result, stages) | _report_stages(scores, stages)
        for text in report.get("warnings", ()):
            print(f"warning: {text}")
        print(f"\ncheckpoint: {folder.checkpoint}")
        return {key: None if _not_a_number(value) else value for key, value in report.items()}


def _split(data: Sequence[str], overrides: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate paths from overrides: ``--data A key=value`` swallows both."""
    paths = [Path(text).expanduser() for text in data if Path(text).exists() or "=" not in text]
    settings = [text for text in data if not Path(text).exists() and "=" in text]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; --data takes dataset folders or bags")
    if not paths:
        raise UserError("--data needs a dataset folder or a bag")
    return paths, [*settings, *overrides]


def _probe(contract: Contract, scores: list[ProbeScore]) -> StateProbe | None:
    """Return what scores the contract's states; the newest scores are left in ``scores``."""
    if not contract.state_names:
        return None
    from lewm_core.evaluation.probes import probe_states

    def probe(
        train_z: Any, train_states: Any, held_z: Any, held_states: Any
    ) -> Sequence[ProbeScore]:
        scores[:] = probe_states(
            train_z, train_states, held_z, held_states, contract.state_names, contract.state_units
        )
        return scores

    return probe


def _report_model(result: TrainResult | None, stages: StagesResult | None) -> dict[str, Any]:
    """Print how the world model's own training ended, and what it can; return it flat."""
    report: dict[str, Any] = {}
    measured = None
    if result is not None:
        measured = result.measurement
        report |= {
            "step": result.step,
            "minutes": round(result.minutes, 3),
            "frames_per_s": result.frames_per_s,
            "peak_memory_mib": round(result.peak_memory_mib, 1),
            "warnings": result.warnings,
        }
        print(
            f"\n{result.step} steps, {result.minutes:.1f} minutes, {result.frames_per_s:.0f} "
            f"frames/s, peak memory {result.peak_memory_mib:.0f} MiB"
        )
    if stages is not None and stages.measurement is not None:
        measured = stages.measurement
    if measured is not None:
        report |= measured.row()
        print(
            f"held-out error over variance, 1 ... {len(measured.prediction_error)} blocks ahead: "
            + " ".join(f"{value:.3f}" for value in measured.prediction_error)
            + "; 'nothing changes': "
            + " ".join(f"{value:.3f}" for value in measured.nothing_changes)
        )
        print(f"effective rank {measured.health.effective_rank:.1f}")
    return report


def _report_stages(scores: list[ProbeScore], stages: StagesResult | None) -> dict[str, Any]:
    """Print the probes, and how the later stages ended; return it flat."""
    from lewm_core.evaluation.probes import format_table

    report: dict[str, Any] = {}
    if scores:
        report |= {f"probe_r2_linear_{score.label}": score.linear for score in scores}
        print(f"\nprobes, R² on held-out episodes\n{format_table(scores)}")
    if stages is None:
        return report
    report |= stages.row()
    later = ", ".join(f"{name} {minutes:.1f}" for name, minutes in stages.minutes.items())
    print(f"\nlater stages, minutes: {later}")
    if stages.score is not None:
        score = stages.score
        print(
            f"proposal on held-out episodes: imitation error {score.imitation_error:.3f}; distance "
            f"to goals 1 ... {len(score.end_distance)} blocks away before and after its plan: "
            + " ".join(
                f"{before:.1f}/{after:.1f}"
                for before, after in zip(score.start_distance, score.end_distance, strict=True)
            )
        )
    return report


def _not_a_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _cache_progress(done: int, total: int) -> None:
    end = "\n" if done >= total else "\r"
    if sys.stderr.isatty() or done >= total:
        print(f"decoding frames: {done}/{total} bags", end=end, file=sys.stderr, flush=True)


def _command_line() -> str:
    """Return the command as a reader would type it: folders outside the working one shortened."""
    words = ["lewm-train"]
    for word in sys.argv[1:]:
        path = Path(word)
        words.append(path.name if path.is_absolute() else word)
    return shlex.join(words)


def _silent(*_: object) -> None:
    """Say nothing: for the processes that do not lead."""


if __name__ == "__main__":
    sys.exit(main())
