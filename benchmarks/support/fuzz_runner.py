"""Runs inputs one after the other in a forked process, under bounds of memory and time.

A worker handles many inputs. It says which one it begins before it does, so that whoever ends it
(a signal, the time limit) is known; the rest goes to a fresh one.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lewm_core.errors import UserError

LOADED, REFUSED, FAILED = "loaded", "refused", "failed"


@dataclass
class Result:
    """What became of one input.

    Attributes:
        name: Of the input.
        outcome: ``loaded``, ``refused`` or ``failed``.
        message: Of the refusal or the failure.
        seconds: It took.
        memory_mib: Resident memory that it added at its peak.
        trace: Of an exception that is a failure.
    """

    name: str
    outcome: str
    message: str = ""
    seconds: float = 0.0
    memory_mib: float = 0.0
    trace: str = ""


def run_inputs(
    load: Callable[[Path], object],
    folders: Sequence[Path],
    memory_mib: int,
    seconds: float,
    set_up: Callable[[], object] | None = None,
) -> list[Result]:
    """Run ``load`` on each input in forked workers.

    Args:
        load: Gets the folder of an input; raises `UserError` to refuse it.
        folders: Of the inputs.
        memory_mib: Address space that an input may add to the worker's.
        seconds: That an input may take.
        set_up: Called first in every worker.
    """
    results: list[Result] = []
    while len(results) < len(folders):
        results += _run_worker(load, folders[len(results) :], memory_mib, seconds, set_up)
    return results


def _run_worker(
    load: Callable[[Path], object],
    folders: Sequence[Path],
    memory_mib: int,
    seconds: float,
    set_up: Callable[[], object] | None,
) -> list[Result]:
    """Run one worker until it is done or dies; at least one result."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        status = 1
        try:
            if set_up is not None:
                set_up()
            for folder in folders:
                _say(writing, {"begin": folder.name})
                _say(writing, _one(load, folder, memory_mib).__dict__)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    results: list[Result] = []
    with os.fdopen(reading, "rb") as stream:
        # Until the worker is set up, it may take a while.
        reason = _follow(stream, results, len(folders), seconds, first_s=60.0)
    if reason:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if len(results) < len(folders):
        code = os.waitstatus_to_exitcode(status)
        name = folders[len(results)].name
        results.append(Result(name, FAILED, reason or f"the worker ended with status {code}"))
    return results


def _follow(
    stream: object, results: list[Result], count: int, seconds: float, first_s: float
) -> str:
    """Collect what a worker says; returns why it must be ended, or an empty text."""
    pending = b""
    limit = first_s
    while len(results) < count:
        ready, _, _ = select.select([stream], [], [], limit)
        if not ready:
            return f"took longer than {limit:g} s"
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            return ""
        limit = seconds
        pending += piece
        *lines, pending = pending.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "outcome" in said:
                results.append(Result(**said))
    return ""


def _say(handle: int, what: dict[str, object]) -> None:
    line = json.dumps(what).encode() + b"\n"
    while line:
        line = line[os.write(handle, line) :]


def _one(load: Callable[[Path], object], folder: Path, memory_mib: int) -> Result:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _status("VmSize") * 1024 + memory_mib * 2**20
    # The peak of resident memory counts from here (proc_pid_clear_refs of the kernel).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = Result(folder.name, LOADED)
    began = time.perf_counter()
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        load(folder)
    except UserError as error:
        result.outcome, result.message = REFUSED, str(error)
        if "\n" in result.message or not result.message.strip():
            result.outcome, result.trace = FAILED, "the refusal is not one line"
    except BaseException as error:
        result.outcome, result.message = FAILED, f"{type(error).__name__}: {error}"[:2000]
        result.trace = traceback.format_exc()[-4000:]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    result.seconds = time.perf_counter() - began
    result.memory_mib = (_status("VmHWM") - before) / 1024
    return result


def _status(key: str) -> int:
    """Return a figure of this process's memory, KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not tell {key}")
