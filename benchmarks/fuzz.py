"""Files and messages of a stranger, by the thousand: does each load, or get one line that refuses?

    python benchmarks/fuzz.py --inputs 2000 --seed 1 --json runs/bench/fuzz.json

Mutates whole checkpoints, contracts, presets, bags, pictures, caches, goals, parameters and
messages (bits, lengths, pieces, and values of the trees that YAML and JSON hold), and adds crafted
attacks: pickles, tags that call, bombs of every packing. Each input runs in a worker under a bound
of memory above its own, and a bound of time. Every exception that is no refusal, every crash,
time-out and refusal of several lines is a failure, and so is code that an input made run.
Without ROS, the messages and parameters are left out. Limits: docs/security.md.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import torch

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError, one_line

#: MiB of address space above the worker's own: three chunks of a bag of the largest size, and one.
_MEMORY_MIB = 1024
_SECONDS = 20.0


def main() -> int:
    """Run the fuzzer; returns the exit status."""
    parser = make_parser(
        "benchmarks/fuzz.py",
        "Feed mutated and crafted files and messages to everything that reads a stranger's.",
        "python benchmarks/fuzz.py --inputs 2000 --seed 1 --json runs/bench/fuzz.json",
    )
    parser.add_argument("--inputs", type=int, default=2000,
                        help="how many are mutated; the crafted ones are added (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="decides every input (default 1)")
    parser.add_argument("--only", help="only kinds whose name matches this pattern")
    parser.add_argument("--no-crafted", action="store_true", help="leave the crafted inputs out")
    parser.add_argument("--memory", type=int, default=_MEMORY_MIB,
                        help=f"MiB that an input may add (default {_MEMORY_MIB})")
    parser.add_argument("--seconds", type=float, default=_SECONDS,
                        help=f"that an input may take (default {_SECONDS:g})")
    parser.add_argument("--list", action="store_true", help="print what became of each input")
    parser.add_argument("--keep", type=Path, help="folder to keep the inputs that failed in")
    return run_command(parser, _fuzz)  # fmt: skip


def _fuzz(options: argparse.Namespace) -> dict[str, Any]:
    # One thread each: workers are forked, and a fork has no threads.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="lewm-fuzz-") as scratch:
        folder = Path(scratch)
        # Before the crafted inputs are imported, which name it.
        os.environ["LEWM_FUZZ_CANARY"] = str(folder / "canary")
        result = _run_kinds(options, folder)
        canary = folder / "canary"
        result["code_ran"] = canary.exists()
    if result["code_ran"]:
        raise UserError("an input made code run: the canary exists")
    if result["failed"]:
        raise UserError(f"{result['failed']} of {result['inputs']} inputs failed")
    return result


def _run_kinds(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from support.fuzz_kinds import KINDS, write_material
    from support.fuzz_ros import ros_kinds

    kinds = [
        kind
        for kind in (*KINDS, *ros_kinds())
        if options.only is None or re.search(options.only, kind.name)
    ]
    if not kinds:
        raise UserError(f"--only {options.only}: no kind matches")
    whole = folder / "whole"
    whole.mkdir()
    write_material(whole)
    share = sum(kind.share for kind in kinds)
    print(f"{'kind':18} {'inputs':>7} {'loaded':>7} {'refused':>8} {'failed':>7} "
          f"{'peak MiB':>9} {'slowest s':>10}")  # fmt: skip
    total: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        # Rounded up: no fewer than asked for.
        count = -(-options.inputs * kind.share // share)
        row, failed = _run_kind(options, kind, int(count), whole, folder / "inputs")
        rows.append(row)
        failures += failed
        for key in ("inputs", "loaded", "refused", "failed"):
            total[key] += row[key]
        _print_row(row)
    summary = {
        "kind": "all", **total,
        "peak_mib": max(row["peak_mib"] for row in rows),
        "slowest_s": max(row["slowest_s"] for row in rows),
    }  # fmt: skip
    _print_row(summary)
    for failure in failures[:20]:
        print(f"failed: {failure['kind']} {failure['name']}: {one_line(failure['message'])[:300]}")
        if failure["trace"]:
            print(failure["trace"])
    del summary["kind"]
    return {"seed": options.seed, **summary, "kinds": rows, "failures": failures}


def _run_kind(
    options: argparse.Namespace, kind: Any, count: int, whole: Path, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make and run the inputs of one kind; returns its row of the table, and what failed."""
    from support.fuzz_runner import FAILED, run_inputs

    inputs: list[Path] = []
    rng = random.Random(f"{options.seed} {kind.name}")
    for number in range(count):
        inputs.append(folder / f"{number:06d}")
        inputs[-1].mkdir(parents=True)
        kind.make(rng, whole, inputs[-1])
    if not options.no_crafted:
        for name, bomb in kind.bombs.items():
            inputs.append(folder / re.sub(r"[^A-Za-z0-9.^-]+", "_", name))
            inputs[-1].mkdir(parents=True)
            bomb(whole, inputs[-1])
    results = run_inputs(kind.load, inputs, options.memory, options.seconds, kind.set_up)
    if options.list:
        for result in results:
            print(f"{kind.name} {result.name}: {result.outcome} {result.memory_mib:.0f} MiB "
                  f"{result.seconds:.2f} s {result.message[:300]}")  # fmt: skip
    counts = Counter(result.outcome for result in results)
    failed = [
        {"kind": kind.name, **result.__dict__} for result in results if result.outcome == FAILED
    ]
    if options.keep is not None:
        for failure in failed:
            target = options.keep / kind.name.replace(" ", "_") / failure["name"]
            shutil.copytree(folder / failure["name"], target, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(folder)
    row = {
        "kind": kind.name, "inputs": len(results), "loaded": counts["loaded"],
        "refused": counts["refused"], "failed": counts[FAILED],
        "peak_mib": round(max(result.memory_mib for result in results), 1),
        "slowest_s": round(max(result.seconds for result in results), 2),
    }  # fmt: skip
    return row, failed


def _print_row(row: dict[str, Any]) -> None:
    print(f"{row['kind']:18} {row['inputs']:7} {row['loaded']:7} {row['refused']:8} "
          f"{row['failed']:7} {row['peak_mib']:9.1f} {row['slowest_s']:10.2f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
