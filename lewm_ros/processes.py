"""Starts nodes as processes of their own and ends them, where the ``ros2`` command is not needed.

The demo, the end-to-end loop and the tests use this, so that what they show runs as it does on a
robot: one process a node, real DDS between them.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lewm_core.errors import UserError
from lewm_ros.dds import clean_domain, domain_in_use

#: Domains 1 to 100 avoid the ephemeral ports of Linux (ROS 2 documentation, "The ROS_DOMAIN_ID").
_DOMAINS = range(1, 101)


def isolated_environment(domain: int | None = None) -> dict[str, str]:
    """Return this environment with a ROS graph of its own: no robot nearby can hear it.

    Args:
        domain: ``ROS_DOMAIN_ID``; default a random one that no process here takes part in.
    """
    chosen = domain
    if chosen is None:
        domains = random.SystemRandom().sample(_DOMAINS, len(_DOMAINS))
        chosen = next(itertools.filterfalse(domain_in_use, domains), domains[0])
        clean_domain(chosen)
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(chosen)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("MUJOCO_GL", "egl")
    return environment


class NodeProcess:
    """One node in a process: ``python -m lewm_ros.NAME --ros-args ...``.

    Use it as a context manager; leaving it ends the node with SIGINT, and with SIGKILL if that
    does not help.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        log: Path,
        remappings: Mapping[str, str] | None = None,
        program: Sequence[str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start the node.

        Args:
            name: A module of ``lewm_ros`` with a ``main()``, for example ``scene``.
            parameters: ROS parameters; booleans, numbers, strings, lists of these.
            environment: Of the process, see `isolated_environment`.
            log: File for what it prints.
            remappings: From one ROS name to another.
            program: What Python is given in the place of ``-m lewm_ros.NAME``.
            prefix: Put before the command: a program that becomes it (``nice``, ``taskset``).
        """
        self.name = name
        self.log = log
        arguments = ["--ros-args"]
        for key, value in parameters.items():
            arguments += ["-p", f"{key}:={_as_yaml(value)}"]
        for source, target in (remappings or {}).items():
            arguments += ["-r", f"{source}:={target}"]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, *(program or ("-m", f"lewm_ros.{name}")), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process.poll() is None

    def output(self) -> str:
        """Return everything printed so far."""
        return self.log.read_text(errors="replace")

    def require_running(self) -> None:
        """Check that the node is alive.

        Raises:
            UserError: It ended; the message carries the last line it printed.
        """
        if not self.running():
            lines = self.output().strip().splitlines() or ["(it printed nothing)"]
            raise UserError(
                f"node {self.name} ended with status {self._process.returncode}: {lines[-1]} "
                f"(whole log: {self.log})"
            )

    def wait(self, timeout_s: float) -> int:
        """Return the exit status once the process ends by itself.

        Args:
            timeout_s: How long to wait.

        Raises:
            UserError: It is still running after ``timeout_s``.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"node {self.name} still runs after {timeout_s:.0f} s (log: {self.log})"
            ) from error

    def stop(self, timeout_s: float = 10.0, signal_number: int = signal.SIGINT) -> int:
        """End the node and return its exit status (negative: ended by that signal).

        Args:
            timeout_s: After this SIGKILL follows.
            signal_number: What to send first.
        """
        if self.running():
            self._process.send_signal(signal_number)
            deadline = time.monotonic() + timeout_s
            while self.running() and time.monotonic() < deadline:
                time.sleep(0.02)
            if self.running():
                self._process.kill()
        return self._process.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _as_yaml(value: Any) -> str:
    """Write a parameter as ``-p name:=`` reads it: YAML flow style."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
    if isinstance(value, (str, Path)):
        return "'" + str(value).replace("'", "''") + "'"
    return repr(value)
