"""From the stamp of a picture to the command made from it, between real processes over real DDS.

    python benchmarks/latency.py --json runs/bench/latency.json
    python benchmarks/latency.py --seconds 3600 --rates 30    # an hour without a break: the soak

For each camera rate the scene node (the robot and its camera, in real time, driven by what comes
back) and the planner node run as processes of their own, in a ROS graph of their own; this process
is the third: it sets goals and watches the command, ``~/plan`` and ``~/status`` topics.

All stamps are of the system's clock (the scene's ``publish_clock`` is false), so that times between
processes can be compared to less than a millisecond. A command is the first of a plan if the plan
is the newest that was published before it; where another follows on its heels and the command's
values are in that one only, it is the first of that one. So a picture's age at its first command
holds the rendering, the transport, the wait for the replanning timer, the encoding, the search, the
wait for the next control tick (up to a control period) and the way of the command to here.

The load is a series of goals of the scripted expert, as in the demo: every ``--goal-seconds`` the
scene is put to the next start and the planner gets the next goal, with a tolerance so small that
no goal counts as reached: a planner that has arrived would hold, and plan no more. A single goal
without an end would be a poor load, since most of its plans would begin at the goal. Each reset
also takes the pictures at another phase of the control period, as a free-running camera would.
What lies between a reset and the next goal is left out of the latencies and rates; the commands
that hold meanwhile are counted, with their reasons.

Memory is the planner's resident set: its mean in the first and the last minute (a tenth, where that
is shorter) after the warm-up. With ``--composed`` scene and planner are one process, whose memory
and processor time stand under ``planner``. Missed replans are the plans that are too few between
the first and the last of a goal, at the rate asked for. At the end nothing may be left: no
traceback in a node's log, no shared memory of a process that has ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lewm_core
from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data.contract import CONTRACT_FILE, Contract, save_contract
from lewm_core.data.observation import render_cameras
from lewm_core.errors import UserError
from lewm_core.evaluation.goals import goals_from_expert
from lewm_core.evaluation.report import describe_machine
from lewm_core.paths import checkpoint_path
from lewm_core.planning import load_planner_config, planner_for
from lewm_core.scenes import make_scene
from lewm_ros.dds import abandoned_files, apply_profile, clean_shared_memory, domain_files
from lewm_ros.missing import ros_imports
from lewm_ros.processes import NodeProcess, isolated_environment

with ros_imports("benchmarks/latency.py"):
    from support.planner_observer import Plan, PlannerObserver, Recording, Task

    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.msg import PlanStatus

#: Tasks that are drawn; a longer run begins again with the first.
_MOST_TASKS = 20
#: What ten minutes are held against: share of replans late or missed, change of memory.
_MOST_MISSED, _MOST_GROWTH = 0.01, 0.01
#: Shorter, memory is not judged: the allocator's pools still fill, as plans of all lengths come by.
_MEMORY_JUDGED_S = 300.0
_SAMPLE_S = 0.5
#: Files in /dev/shm are judged when they are older than `lewm_ros.dds` waits before it does.
_SETTLE_S = 6.0


# --- running ------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every camera rate, print the table, and return the numbers.

    Raises:
        UserError: An option cannot be used, or a node ended.
    """
    rates = _rates(options.rates)
    for name, least in (
        ("seconds", 1.0), ("goal_seconds", 1.0), ("replan_rate", 0.1), ("warm_up", 0.0), ("seed", 0)
    ):
        value = getattr(options, name)
        if not least <= value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be {least:g} or more")
    checkpoint = checkpoint_path(options.checkpoint)
    model = lewm_core.load(checkpoint)
    planner = str(planner_for(model, options.planner))
    load_planner_config(planner)
    contract = Contract.from_dict(model.contract, source=str(checkpoint))
    tasks = _draw_tasks(contract, model.config.inputs.cameras, options)
    result: dict[str, Any] = {
        "machine": describe_machine(), "checkpoint": options.checkpoint,
        "planner_preset": planner, "threads": options.threads, "seed": options.seed,
        "rates": rates, "replan_rate": options.replan_rate, "seconds": options.seconds,
        "warm_up": options.warm_up, "goal_seconds": options.goal_seconds,
        "composed": options.composed,
    }  # fmt: skip
    print(f"{result['machine']}; {options.checkpoint}, preset {planner}, replanned at "
          f"{options.replan_rate:g} Hz, {options.seconds:g} s for each camera rate", flush=True)
    columns = []
    with tempfile.TemporaryDirectory() as scratch:
        save_contract(contract, Path(scratch) / CONTRACT_FILE)
        for rate in rates:
            print(f"camera at {rate:g} Hz", flush=True)
            seen, left = _run(options, rate, checkpoint, contract, tasks, Path(scratch))
            columns.append(_evaluate(seen, left, options))
            result |= {f"camera_{rate:g}hz_{key}": value for key, value in columns[-1].items()}
    print("\n" + " " * 32 + "".join(f"{f'{rate:g} Hz':>12}" for rate in rates))
    for key in columns[0]:
        if key != "held_because":
            print(f"{key:32}" + "".join(f"{column[key]!s:>12}" for column in columns))
    for rate, column in zip(rates, columns, strict=True):
        print(f"\n{rate:g} Hz, commands that held: {column['held_because'] or 'none'}")
        print(_verdict(column, options.seconds))
    return result


def _rates(text: str) -> list[float]:
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--rates {text}: numbers with commas between them, 10,20,30") from error
    if not all(0.0 < rate <= 100.0 for rate in rates) or len(set(rates)) < len(rates):
        raise UserError(f"--rates {text}: each above 0 and at most 100 Hz, and once")
    return rates


def _draw_tasks(
    contract: Contract, seen: Sequence[str], options: argparse.Namespace
) -> list[Task]:
    """Draw starts and goals, with what each camera of the model sees of the goal."""
    needed = math.ceil((options.warm_up + options.seconds) / options.goal_seconds)
    # The contract of a simulated scene has the scene's name.
    scene = make_scene(contract.name)
    try:
        tasks = []
        for goal in goals_from_expert(
            scene, min(needed, _MOST_TASKS), seed=options.seed,
            picture_size=contract.camera.size, scene_name=contract.name,
        ):
            scene.set_state(goal.goal)
            pictures = render_cameras(scene, contract.select_cameras(seen))
            tasks.append((goal, list(pictures.values())))
        return tasks
    finally:
        scene.close()


def _run(
    options: argparse.Namespace, rate: float, checkpoint: Path, contract: Contract,
    tasks: Sequence[Task], scratch: Path,
) -> tuple[Recording, dict[str, int]]:
    """Run scene and planner with the camera at ``rate`` Hz.

    Returns:
        What was seen, and what was left: tracebacks in the logs, files in /dev/shm.
    """
    os.environ.update(isolated_environment())
    apply_profile()
    logs = (options.logs or scratch) / f"{rate:g}hz"
    clean_shared_memory()
    ports = domain_files(int(os.environ["ROS_DOMAIN_ID"]))
    scene_parameters = {
        "scene": contract.name, "contract": scratch / CONTRACT_FILE, "seed": options.seed,
        "camera_rate": rate, "publish_clock": False,
    }
    planner_parameters = {
        "checkpoint": checkpoint.resolve(), "planner": options.planner, "autostart": True,
        "replan_rate": options.replan_rate, "threads": options.threads,
    }
    try:
        with contextlib.ExitStack() as stack:
            processes = _start(
                options.composed, {"scene": scene_parameters, "planner": planner_parameters}, logs
            )
            for process in processes.values():
                stack.enter_context(process)

            def check() -> None:
                for process in processes.values():
                    process.require_running()

            observer = PlannerObserver(contract, int(os.environ["ROS_DOMAIN_ID"]), check)
            stack.callback(observer.close)
            observer.wait_ready()
            pids = {name: process.pid for name, process in processes.items()}
            _pursue(options, observer, tasks, pids, check)
        time.sleep(_SETTLE_S)
        tracebacks = sum(log.read_text().count("Traceback") for log in logs.glob("*.log"))
        shared = {*abandoned_files(), *domain_files(int(os.environ["ROS_DOMAIN_ID"]))} - ports
        left = {"tracebacks": tracebacks, "shared_memory_left": len(shared)}
        return observer.seen, left
    finally:
        clean_shared_memory()


def _start(
    composed: bool, parameters: Mapping[str, Mapping[str, Any]], logs: Path
) -> dict[str, NodeProcess]:
    """Start the nodes in a process each, or in one, which is then called the planner's."""
    if not composed:
        return {
            name: NodeProcess(name, own, os.environ, logs / f"{name}.log")
            for name, own in parameters.items()
        }
    together = {
        f"{node}:{name}": value for node, own in parameters.items() for name, value in own.items()
    }
    program = ["-m", "lewm_ros.composed", *parameters]
    log = logs / "composed.log"
    return {"planner": NodeProcess("composed", together, os.environ, log, program=program)}


def _pursue(
    options: argparse.Namespace, observer: PlannerObserver, tasks: Sequence[Task],
    processes: Mapping[str, int], check: Callable[[], None],
) -> None:
    """Let the planner pursue goal after goal, and sample memory and processor time."""
    seen = observer.seen
    processes = {**processes, "benchmark": os.getpid()}
    began = time.monotonic() + options.warm_up
    ends = began + options.seconds
    before: dict[str, float] = {}
    for task in itertools.cycle(tasks):
        observer.begin(task)
        start_ns = time.time_ns()
        until = min(time.monotonic() + options.goal_seconds, ends)
        while (now := time.monotonic()) < until:
            check()
            if not before and now >= began:
                began, start_ns = now, time.time_ns()
                before = {name: _processor_s(pid) for name, pid in processes.items()}
            if before:
                seen.memory.append(_resident_kb(processes["planner"]))
            next_s = _SAMPLE_S if before else began - now
            time.sleep(max(0.0, min(next_s, until - time.monotonic())))
        if before:
            seen.pursuits.append((start_ns, time.time_ns()))
        if until == ends:
            break
    seen.elapsed_s = time.monotonic() - began
    seen.processor_s = {name: _processor_s(pid) - before[name] for name, pid in processes.items()}


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise UserError(f"process {pid} has ended")


def _processor_s(pid: int) -> float:
    # After the name, which may hold spaces: the state, ten numbers, user and system time.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- evaluating ---------------------------------------------------------------------------------


def _evaluate(
    seen: Recording, left: Mapping[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the numbers of one camera rate; times in ms, shares between 0 and 1."""
    began_ns, ended_ns = seen.pursuits[0][0], seen.pursuits[-1][1]
    commands = [command for command in seen.commands if began_ns <= command.sent_ns < ended_ns]
    statuses = [entry[1] for entry in seen.statuses if began_ns <= entry[0] < ended_ns]
    pursued = [
        [plan for plan in seen.plans if start_ns <= plan.image_ns and plan.sent_ns < end_ns]
        for start_ns, end_ns in seen.pursuits
    ]
    plans = [plan for goal in pursued for plan in goal]
    if len(plans) < 2 or len(statuses) < 2 or not commands:
        raise UserError(
            f"{len(plans)} plans and {len(commands)} commands came in {options.seconds:g} s; the "
            f"planner says: {statuses[-1].reason if statuses else 'nothing'}"
        )
    first, last = statuses[0], statuses[-1]
    holds = [reason for command in commands if (reason := seen.reason_to_hold(command))]
    gaps_s = np.array([
        (after.sent_ns - before.sent_ns) * 1e-9
        for goal in pursued for before, after in zip(goal, goal[1:], strict=False)
    ])
    missed = sum(_missed(goal, options.replan_rate) for goal in pursued)
    used = {id(plan): 1e-6 * age_ns for plan, age_ns in seen.first_commands(commands)}
    numbers: dict[str, Any] = {
        **_spread("image_to_command", [used[id(plan)] for plan in plans if id(plan) in used]),
        **_spread("image_to_plan", [(plan.sent_ns - plan.image_ns) * 1e-6 for plan in plans]),
        **_spread("command_transport", [(c.arrived_ns - c.sent_ns) * 1e-6 for c in commands]),
        **_spread("plan_interval", 1e3 * gaps_s),
        # Of the plan in each report that tells of a new one, over all the time.
        **_spread("plan_time", [
            1e3 * after.plan_time
            for before, after in zip(statuses, statuses[1:], strict=False)
            if after.plans > before.plans
        ]),
        "plans": len(plans),
        "plans_without_command": sum(id(plan) not in used for plan in plans),
        "replan_rate_achieved": round(1.0 / float(gaps_s.mean()), 3),
        "replans_missed": missed,
        "replans_missed_share": round(missed / (missed + len(gaps_s)), 5),
        "plans_late": last.plans_late - first.plans_late,
        "plans_late_share": round(
            (last.plans_late - first.plans_late) / max(1, last.plans - first.plans), 5
        ),
        "images_per_second": round((last.images - first.images) / _seconds(first, last), 2),
        "commands_per_second": round(len(commands) / ((ended_ns - began_ns) * 1e-9), 2),
        "commands": len(commands),
        "commands_held": len(holds),
        "goals": len(seen.pursuits),
    }
    for name in ("encode_time", "plan_time", "publish_time", "image_age"):
        for percent in (50, 95, 99):
            value_ms = 1e3 * getattr(last, f"{name}_p{percent}")
            numbers[f"status_{name}_ms_p{percent}"] = _number(value_ms)
    tenth = max(1, min(round(60.0 / _SAMPLE_S), len(seen.memory) // 10))
    start_mb, end_mb = (
        float(np.mean(part)) / 1024 for part in (seen.memory[:tenth], seen.memory[-tenth:])
    )
    numbers |= {
        "memory_start_mb": round(start_mb, 2), "memory_end_mb": round(end_mb, 2),
        "memory_ratio": round(end_mb / start_mb, 5),
    }
    for name, processor_s in seen.processor_s.items():
        numbers[f"{name}_processor_cores"] = round(processor_s / seen.elapsed_s, 3)
    numbers |= left
    numbers["passed"] = (
        not any(left.values())
        and max(numbers["plans_late_share"], numbers["replans_missed_share"]) < _MOST_MISSED
        and (
            options.seconds < _MEMORY_JUDGED_S
            or abs(numbers["memory_ratio"] - 1.0) <= _MOST_GROWTH
        )
    )
    numbers["held_because"] = dict(collections.Counter(holds).most_common())
    return numbers


def _missed(plans: Sequence[Plan], rate: float) -> int:
    """How many plans too few there are between the first and the last."""
    if not plans:
        return 0
    due = round((plans[-1].sent_ns - plans[0].sent_ns) * 1e-9 * rate)
    return max(0, due - (len(plans) - 1))


def _seconds(first: PlanStatus, last: PlanStatus) -> float:
    """Seconds between two reports."""
    return (stamp_to_ns(last.header.stamp) - stamp_to_ns(first.header.stamp)) * 1e-9


def _spread(name: str, values_ms: Sequence[float] | NDArray[np.float64]) -> dict[str, float | None]:
    """Return percentiles and the maximum of values in ms; None where there is no value."""
    values_ms = values_ms if len(values_ms) else [math.nan]
    spread = {f"p{percent}": np.percentile(values_ms, percent) for percent in (50, 95, 99)}
    spread["max"] = max(values_ms)
    return {f"{name}_ms_{key}": _number(value) for key, value in spread.items()}


def _number(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _verdict(numbers: Mapping[str, Any], seconds: float) -> str:
    """Say in one line whether the replanning lasted."""
    missed = max(numbers["plans_late_share"], numbers["replans_missed_share"])
    growth = numbers["memory_ratio"] - 1.0
    judged = (
        f"allowed: {100 * _MOST_GROWTH:g}" if seconds >= _MEMORY_JUDGED_S
        else f"not judged under {_MEMORY_JUDGED_S:g} s"
    )
    return (
        f"verdict after {seconds:g} s: {'passed' if numbers['passed'] else 'FAILED'}; replanned at "
        f"{numbers['replan_rate_achieved']:.2f} Hz, late or missed {100 * missed:.2f} % (allowed: "
        f"under {100 * _MOST_MISSED:g}), memory {100 * growth:+.2f} % ({judged}), "
        f"{numbers['tracebacks']} tracebacks, {numbers['shared_memory_left']} files left in "
        "/dev/shm"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = make_parser(
        "benchmarks/latency.py",
        "Measure the time from a picture's stamp to the command made from it, over ROS.",
        "python benchmarks/latency.py --rates 10,20,30 --json latency.json",
    )
    parser.add_argument("--checkpoint", default="push_t-nano", help="folder or shipped name")
    parser.add_argument("--planner", default="auto", help="preset or file (default %(default)s)")
    parser.add_argument("--rates", default="10,20,30", help="of the camera, Hz (%(default)s)")
    parser.add_argument("--replan-rate", type=float, default=10.0, help="Hz (default 10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate (default 20)")
    parser.add_argument("--warm-up", type=float, default=5.0,
                        help="seconds before that, not measured (default 5)")  # fmt: skip
    parser.add_argument("--goal-seconds", type=float, default=5.0, help="a goal (default 5)")
    parser.add_argument("--threads", type=int, default=0,
                        help="of the planner's model (default 0: all cores but one)")  # fmt: skip
    parser.add_argument("--composed", action="store_true",
                        help="scene and planner in one process")  # fmt: skip
    parser.add_argument("--seed", type=int, default=80_000, help="of the goals (default 80000)")
    parser.add_argument("--logs", type=Path, help="folder for the nodes' logs (default: none)")
    # Whoever ends it must not leave its nodes behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
