"""What the planner does when something breaks: faults injected into the running system.

    python benchmarks/faults.py --json runs/bench/faults.json
    python benchmarks/faults.py --only clock --logs /tmp/faults

The scene (camera at 30 Hz, the robot) and the planner are processes of their own over DDS; what
passes between them goes through relays in this process, which drop, delay, repeat, reorder, freeze
and spoil it; the planner is suspended, killed, blocked; operators do wrong things. Each fault comes
while the robot moves, lasts some seconds, and ends. The table says for each:

- hold: from the fault to the last command that moves; allowed: the camera's timeout and one
  control period. "robot stops": until the robot stands; allowed: its own timeout, a period, and
  its coasting
- bad: commands outside the limits, not finite, or moving on a picture older than the timeout (and a
  period, where the pictures go on but must not be believed)
- recovery: from the end of the fault to the next command that moves
- "go on": the robot is commanded to move all the while, so often that its own command timeout is
  never reached; where it may hold meanwhile, `fault_list.py` says so
- what ~/status said
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lewm_core
from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data import Contract
from lewm_core.errors import UserError
from lewm_core.evaluation.goals import StartGoal, goals_from_expert
from lewm_core.evaluation.report import describe_machine
from lewm_core.paths import checkpoint_path
from lewm_core.scenes import make_scene
from lewm_ros.dds import apply_profile, clean_shared_memory
from lewm_ros.missing import ros_imports
from lewm_ros.processes import NodeProcess, isolated_environment

with ros_imports("benchmarks/faults.py"):
    from std_srvs.srv import Trigger
    from support.fault_bench import PLANNER, STANDING_M, FaultBench, Seen
    from support.fault_list import FAULTS, GOES_ON, HOLDS, ROBOT_STOPS, Fault

_NS = 1e-9
#: For the ways of messages through relays and processes on a busy machine.
SLACK_S = 0.1
_SETTLE_S, _AFTER_S, _RECOVERY_S = 0.7, 0.3, 30.0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Inject every fault, print the table, and return the numbers.

    Raises:
        UserError: An option cannot be used, or the system cannot be started.
    """
    faults = [fault for fault in FAULTS if _matches(options.only, fault.name)]
    if not faults:
        raise UserError(f"--only {options.only}: no fault has this in its name")
    checkpoint = checkpoint_path(options.checkpoint)
    contract = Contract.from_dict(lewm_core.load(checkpoint).contract, source=str(checkpoint))
    tasks = _tasks(contract, options.seed, len(faults))
    result: dict[str, Any] = {
        "machine": describe_machine(), "checkpoint": options.checkpoint, "seed": options.seed,
        "camera_rate": options.camera_rate, "faults": [],
    }  # fmt: skip
    print(f"{result['machine']}; {options.checkpoint}, camera at {options.camera_rate:g} Hz")
    print(f"\n{'fault':33}{'expected':14}{'hold':>8}{'bad':>5}{'recovery':>10}  verdict  status")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.logs or Path(scratch)
        for simulated in (False, True):
            group = [fault for fault in faults if fault.simulated == simulated]
            if group:
                result["faults"] += _inject(
                    options, group, tasks, contract, checkpoint, folder, simulated
                )
        result["traces"] = _tracebacks(folder)
        if options.starts:
            result |= _starts(options, checkpoint, folder)
    rows = result["faults"]
    result["bad_commands"] = sum(row["bad"] for row in rows)
    result["failed"] = [row["fault"] for row in rows if not row["passed"]]
    holds = [row["hold_s"] for row in rows if row["hold_s"] is not None] or [0.0]
    pauses = [row["pause_s"] for row in rows if row["pause_s"] is not None] or [0.0]
    result["passed"] = not (
        result["failed"] or result["bad_commands"] or result["traces"]
        or result.get("left_behind")
    )  # fmt: skip
    print(
        f"\n{len(rows)} faults, {len(result['failed'])} not as expected; bad commands: "
        f"{result['bad_commands']}; to hold: median {statistics.median(holds):.2f} s, at most "
        f"{max(holds):.2f} s; without a motion where it goes on: at most {max(pauses):.2f} s; "
        f"tracebacks in logs: {len(result['traces'])}"
    )
    print("passed" if result["passed"] else "FAILED")
    return result


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise UserError(f"--only {pattern}: {error}; give a regular expression") from error


def _tasks(contract: Contract, seed: int, number: int) -> list[tuple[StartGoal, np.ndarray]]:
    scene = make_scene(contract.name)
    try:
        return [
            (task, task.goal_picture)
            for task in goals_from_expert(
                scene, number, seed=seed, picture_size=contract.camera.size,
                scene_name=contract.name,
            )
        ]  # fmt: skip
    finally:
        scene.close()


def _inject(
    options: argparse.Namespace, faults: Sequence[Fault], tasks: Sequence[Any],
    contract: Contract, checkpoint: Path, folder: Path, simulated: bool,
) -> list[dict[str, Any]]:
    os.environ.update(isolated_environment())
    apply_profile()
    logs = folder / ("simulated_time" if simulated else "system_time")
    bench = FaultBench(
        contract, checkpoint.resolve(), os.environ, int(os.environ["ROS_DOMAIN_ID"]), logs,
        options.camera_rate, simulated,
    )
    rows = []
    try:
        coasts_s = _coasting(bench, *tasks[-1])
        print(f"(from a hold command to standing still, by the robot's state: {coasts_s:.2f} s)")
        for number, (fault, (task, goal)) in enumerate(zip(faults, tasks, strict=False)):
            row = _one(bench, fault, number, task, goal, coasts_s)
            rows.append(row)
            hold, recovery = (
                "" if row[key] is None else f"{row[key]:.2f} s" for key in ("hold_s", "recovery_s")
            )
            print(
                f"{fault.name:33}{fault.expected:14}{hold:>8}{row['bad']:5d}{recovery:>10}  "
                f"{'ok' if row['passed'] else 'FAILED':7}  {row['error'] or row['status']}",
                flush=True,
            )
    finally:
        bench.close()
        clean_shared_memory()
    return rows


def _one(
    bench: FaultBench, fault: Fault, number: int, task: StartGoal, goal: np.ndarray,
    coasts_s: float,
) -> dict[str, Any]:
    """Inject one fault and say what came of it."""
    row: dict[str, Any] = {
        "fault": fault.name, "expected": fault.expected, "hold_s": None, "bad": 0,
        "recovery_s": None, "pause_s": None, "status": "", "error": "",
    }  # fmt: skip
    seen = bench.seen
    bench.forget_fault()
    first, began_ns, ended_ns = len(seen.commands), time.time_ns(), None
    try:
        bench.begin(number, task.start_truth, goal)
        time.sleep(_SETTLE_S)
        first = len(seen.commands)
        began_ns = time.time_ns()
        with fault.inject(bench):
            began_ns = bench.began_ns or began_ns
            time.sleep(max(0.0, fault.seconds - (time.time_ns() - began_ns) * _NS))
            ended_ns = time.time_ns()
        if fault.again:
            bench.pursue()
        bench.wait(
            lambda: any(c.at_ns > ended_ns and not c.holds for c in seen.commands),
            "it does not recover", _RECOVERY_S,
        )  # fmt: skip
        time.sleep(_AFTER_S)
    except (UserError, AssertionError) as error:
        row["error"] = " ".join(str(error).split())
        ended_ns = ended_ns or time.time_ns()
    moving = [c for c in seen.commands[first:] if not c.holds]
    row["bad"] = sum(_bad(bench, fault, command) for command in seen.commands[first:])
    row["recovery_s"] = next(
        ((c.at_ns - ended_ns) * _NS for c in moving if c.at_ns > ended_ns), None
    )
    said = [message for at_ns, message in seen.statuses if began_ns < at_ns <= ended_ns]
    told = [message.reason for message in said if message.reason and fault.words in message.reason]
    row["status"] = told[-1] if told else (said[-1].reason if said else "")
    if bench.note:
        row["status"] = bench.note
    if fault.expected == GOES_ON and not fault.pauses and not row["error"]:
        row["pause_s"] = pause_s = _longest_pause(moving, began_ns, ended_ns)
        if pause_s > bench.contract.action.timeout + SLACK_S:
            row["error"] = f"for {pause_s:.2f} s no command moved"
    if fault.expected == ROBOT_STOPS:
        row["hold_s"] = _until_standing(bench, began_ns, ended_ns)
        allowed = bench.contract.action.timeout + coasts_s
    else:
        last = [c.at_ns for c in moving if began_ns < c.at_ns <= ended_ns]
        # Of bursts, every one ends in a hold.
        if fault.expected == HOLDS:
            row["hold_s"] = (max(last) - began_ns) * _NS if last else 0.0
        allowed = bench.contract.camera.timeout
    allowed += bench.contract.control_period + fault.patience_s
    row["allowed_s"] = allowed
    late = row["hold_s"] is not None and row["hold_s"] > allowed + SLACK_S
    named = not fault.words or bool(told)
    row["passed"] = not (late or row["bad"] or row["error"] or row["recovery_s"] is None) and named
    return row


def _longest_pause(moving: Sequence[Seen], began_ns: int, ended_ns: int) -> float:
    """Longest time (s) within the fault without a command that moves."""
    times = [began_ns, *(c.at_ns for c in moving if began_ns < c.at_ns <= ended_ns), ended_ns]
    return max(after - before for before, after in itertools.pairwise(times)) * _NS


def _coasting(bench: FaultBench, task: StartGoal, goal: np.ndarray) -> float:
    """Seconds from a hold command until the robot stands, as its state is published: the worst of
    three."""
    times = []
    for seed in range(3):
        bench.begin(seed, task.start_truth, goal)
        time.sleep(_SETTLE_S)
        bench.call(bench.stop, Trigger.Request())
        time.sleep(1.0)
        hold_ns = next(c.at_ns for c in reversed(bench.seen.commands) if not c.holds)
        times.append(_until_standing(bench, hold_ns, time.time_ns()))
        bench.call(bench.resume, Trigger.Request())
    return max(times)


def _until_standing(bench: FaultBench, began_ns: int, ended_ns: int) -> float:
    """Seconds from the fault until the robot did not move any more, by its own state."""
    places = [entry for entry in bench.seen.positions if began_ns <= entry[0] <= ended_ns]
    moved = [
        after[0] for before, after in zip(places, places[1:], strict=False)
        if np.hypot(*np.subtract(after[1], before[1])) > STANDING_M
    ]  # fmt: skip
    return (max(moved) - began_ns) * _NS if moved else 0.0


def _bad(bench: FaultBench, fault: Fault, command: Any) -> bool:
    """Whether a command must not have been published."""
    lower, upper, *_ = bench.contract.action_limits()
    values = command.values
    if not np.isfinite(values).all() or (values < lower).any() or (values > upper).any():
        return True
    if command.holds:
        return False
    now_ns = command.stamp_ns
    if bench.clock is not None:
        now_ns = max(
            (true for at_ns, true in bench.clock.given if at_ns <= command.at_ns), default=0
        )
    newest = max(
        (true for at_ns, true in bench.camera.given if at_ns <= command.at_ns), default=None
    )
    allowed = bench.contract.camera.timeout
    if fault.doubtful or bench.clock is not None:
        # In simulated time a command's stamp is of the clock that is spoilt; when it came here is
        # later than when it was decided on.
        allowed += bench.contract.control_period
    return newest is None or (now_ns - newest) * _NS > allowed + fault.patience_s


def _tracebacks(folder: Path) -> list[str]:
    """Return the logs that have a traceback."""
    return [
        str(log.relative_to(folder)) for log in sorted(folder.rglob("*.log"))
        if "Traceback" in log.read_text(errors="replace")
    ]  # fmt: skip


def _starts(options: argparse.Namespace, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Start and stop the planner again and again; return what is left behind."""
    environment = isolated_environment()
    parameters = {"checkpoint": checkpoint.resolve(), "autostart": True, "threads": 1}
    before = set(os.listdir("/dev/shm"))
    times, left = [], []
    for number in range(options.starts):
        log = folder / "starts" / f"{number}.log"
        began = time.monotonic()
        with NodeProcess("planner", parameters, environment, log, program=[str(PLANNER)]) as node:
            while "active" not in log.read_text():
                node.require_running()
                time.sleep(0.02)
            times.append(time.monotonic() - began)
            status = node.stop(signal_number=(signal.SIGINT, signal.SIGTERM)[number % 2])
        if status != 0:
            left.append(f"start {number}: exit status {status}")
    left += sorted(set(os.listdir("/dev/shm")) - before)
    print(
        f"\n{options.starts} starts and stops: {statistics.median(times):.1f} s until active, left "
        f"behind: {', '.join(left) or 'nothing'}"
    )
    return {"starts": options.starts, "start_s": statistics.median(times), "left_behind": left}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status: 0 only if everything was as expected."""
    parser = make_parser(
        "benchmarks/faults.py",
        "Inject faults between camera, planner and robot, and see what the robot is told.",
        "python benchmarks/faults.py --json faults.json",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="folder or shipped name")
    parser.add_argument("--only", default="",
                        help="faults with this pattern in their name (default: all)")  # fmt: skip
    parser.add_argument("--camera-rate", type=float, default=30.0, help="Hz (default 30)")
    parser.add_argument("--seed", type=int, default=81_000, help="of the goals (default 81000)")
    parser.add_argument("--starts", type=int, default=0,
                        help="starts and stops of the planner, besides (default 0)")  # fmt: skip
    parser.add_argument("--logs", type=Path, help="folder for the nodes' logs (default: none)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome: dict[str, Any] = {}

    def run(options: argparse.Namespace) -> dict[str, Any]:
        outcome.update(measure(options))
        return outcome

    status = run_command(parser, run, arguments)
    return status or (0 if outcome.get("passed") else 1)



if __name__ == "__main__":
    sys.exit(main())
