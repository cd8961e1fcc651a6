"""Processes that read bags into the frame cache: ``python -m lewm_core.data.cache_worker``.

Not `multiprocessing`: its fresh processes import the caller's main module again, which runs a
script without a main guard a second time and fails for one that came by standard input; its
forked ones copy the locks of torch and OpenCV. These get their work by standard input and answer
by standard output, pickled; both ends are this program.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from lewm_core.data.contract import Contract
from lewm_core.errors import UserError

if TYPE_CHECKING:
    from lewm_core.data.bags import DamagedBagError
    from lewm_core.data.cache_bag import Piece, SurveyedBag


def read_in_processes(
    survey: Sequence[SurveyedBag],
    contract: Contract,
    image_size: int,
    frames_path: Path,
    workers: int,
) -> Iterator[tuple[int, Piece | DamagedBagError]]:
    """Yield (number of the bag, what became of it) in the order in which bags are done.

    Raises:
        UserError: A bag cannot be used, or a process died.
    """
    answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    processes: list[subprocess.Popen[bytes]] = []
    threads: list[threading.Thread] = []
    try:
        for first in range(workers):
            numbers = range(first, len(survey), workers)
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            processes.append(process)
            work = (
                [(number, survey[number]) for number in numbers],
                contract.to_dict(),
                image_size,
                str(frames_path),
            )
            thread = threading.Thread(
                target=_converse, args=(process, work, len(numbers), answers), daemon=True
            )
            thread.start()
            threads.append(thread)
        for _ in range(len(survey)):
            number, result = answers.get()
            if number < 0:
                raise result
            yield number, result
    finally:
        # After an error or SIGINT the rest is not read; after the last answer they end anyway.
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for process in processes:
            for stream in (process.stdin, process.stdout):
                # A process that died leaves work in the pipe that nobody will read.
                with contextlib.suppress(BrokenPipeError):
                    if stream is not None:
                        stream.close()


def _converse(
    process: subprocess.Popen[bytes],
    work: tuple[Any, ...],
    count: int,
    answers: queue.SimpleQueue[tuple[int, Any]],
) -> None:
    """Give a process its work and hand its answers on; (-1, error) if it fails."""
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump(work, process.stdin)
        process.stdin.flush()
        for _ in range(count):
            number, result = pickle.load(process.stdout)
            answers.put((number, result))
            if number < 0:
                return
    except (OSError, EOFError, pickle.UnpicklingError):
        status = process.wait()
        answers.put(
            (
                -1,
                UserError(
                    f"a process that reads bags ended with status {status}; -9 means that the "
                    "machine ran out of memory: close other programs, or read fewer bags"
                ),
            )
        )


def main() -> int:
    """Read the bags that standard input names; answer each on standard output."""
    from lewm_core.data.cache_bag import read_or_leave_out

    # SIGINT goes to the whole group; the parent stops the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not land between the answers.
    os.dup2(2, 1)
    work, contract, image_size, frames_path = pickle.load(sys.stdin.buffer)
    contract = Contract.from_dict(contract)
    try:
        for number, entry in work:
            try:
                result = read_or_leave_out(entry, contract, image_size, Path(frames_path))
            except UserError as error:
                number, result = -1, error
            pickle.dump((number, result), answers)
            answers.flush()
            if number < 0:
                return 1
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
