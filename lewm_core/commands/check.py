"""``lewm-check``: can this checkpoint plan?"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError

EXAMPLE = """lewm-check push_t-nano --data data/push_t
  lewm-check runs/nano/checkpoint --data data/push_t --require "can plan" --json check.json"""

#: From the worst to the best; `--require` takes one of them.
_ORDER = ("cannot plan", "marginal", "can plan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check as the command line says; return the exit status."""
    parser = make_parser(
        "lewm-check",
        "Say whether a checkpoint can plan, before an arm moves: measured on the episodes of the "
        "data that it was not trained on, in about half a minute. The verdict (can plan, "
        "marginal, cannot plan) is stored in the checkpoint; the planner node shows it, and does "
        "not activate a checkpoint that cannot plan. A bad verdict is no error: the exit status "
        "is 0 unless --require asks for more.",
        EXAMPLE,
    )
    parser.add_argument("checkpoint", help="a checkpoint's folder, or the name of a shipped one")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="PATH",
        help="dataset folders, bag folders or bag files",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument(
        "--goals", type=int, default=200, metavar="N",
        help="starts at which recorded actions are ranked among random ones (default 200)",
    )
    parser.add_argument(
        "--leave-out", default="", metavar="FIELD,...",
        help="state fields that no goal depends on, with commas between: told, not judged",
    )
    parser.add_argument(
        "--no-store", action="store_true", help="do not write check.json into the checkpoint"
    )
    parser.add_argument(
        "--require", choices=_ORDER[1:], metavar="VERDICT",
        help="exit with status 1 unless the verdict is this or better: 'can plan' or 'marginal'",
    )
    shortfall: list[str] = []

    def body(parsed: argparse.Namespace) -> dict[str, Any]:
        report = run(parsed)
        if parsed.require and _ORDER.index(report["verdict"]) < _ORDER.index(parsed.require):
            shortfall.append(f"the verdict is {report['verdict']!r}, required {parsed.require!r}")
        return report

    # The verdict is a result: it is written to --json also where --require is not met.
    status = run_command(parser, body, arguments)
    if status == 0 and shortfall:
        print(f"{parser.prog}: {shortfall[0]}", file=sys.stderr)
        return 1
    return status


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Check; return what ``--json`` writes.

    Raises:
        UserError: Checkpoint or data cannot be used.
    """
    # torch takes seconds to import: not for --help or a misspelt option.
    import torch

    from lewm_core.evaluation.check import CheckSettings, format_result, run_check
    from lewm_core.model.verdict import write_verdict
    from lewm_core.training.machine import usable_cores

    for name, least in (("seed", 0), ("goals", 1)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name} must be {least} at least, got {getattr(arguments, name)}")
    for path in arguments.data:
        if not path.exists():
            raise UserError(f"{path} does not exist; --data takes dataset folders or bags")
    # As other numerical programs: OMP_NUM_THREADS wins over the number of cores.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or usable_cores()))
    began = time.monotonic()
    left_out = tuple(filter(None, arguments.leave_out.split(",")))
    settings = CheckSettings(goals=arguments.goals, seed=arguments.seed, leave_out=left_out)
    result = run_check(arguments.checkpoint, arguments.data, settings)
    print(format_result(result))
    print(f"checked in {time.monotonic() - began:.0f} s")
    if not arguments.no_store:
        print(f"stored in {write_verdict(arguments.checkpoint, result.verdict)}")
    return result.to_json()


if __name__ == "__main__":
    sys.exit(main())
