"""A ROS graph of its own for each test: a domain nobody else uses, nodes as processes.

    def test_something(graph):
        scene = graph.start("scene", {"seed": 1})
        states = graph.collect(JointState, "/scene/state", qos.STATE)
        wait_until(lambda: states, 10.0, "no state")

When the test ends, every process still running gets SIGINT and must leave with status 0.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from lewm_ros.dds import apply_profile, clean_domain, clean_shared_memory, domain_in_use
from lewm_ros.processes import NodeProcess, isolated_environment
from test.helpers import wait_until

START_TIMEOUT_S = 40.0

#: What a node prints when it is ready.
READY = {"scene": "is running", "record_dataset": "recorder is ready", "expert": "parameter"}


class Graph:
    """Nodes as processes, and one node in the test's own process.

    Attributes:
        domain: ``ROS_DOMAIN_ID`` of all of them.
        folder: For logs and whatever the test writes.
        node: The test's own node, spun by a thread.
    """

    def __init__(self, domain: int, folder: Path) -> None:
        rclpy = importlib.import_module("rclpy")
        executors = importlib.import_module("rclpy.executors")
        self.domain = domain
        self.folder = folder
        self.environment = isolated_environment(domain)
        # What other helpers of the machine leave to the tests: one thread each.
        self.environment["OMP_NUM_THREADS"] = "1"
        self.processes: list[NodeProcess] = []
        self._ended: set[int] = set()
        apply_profile()
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("test", context=self._context)
        self._executor = executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def start(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        ready: str | None = None,
        remappings: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> NodeProcess:
        """Start ``python -m lewm_ros.NAME`` and wait until it is ready.

        Args:
            name: Of the module.
            parameters: ROS parameters.
            ready: Text in its output that says so; default: see `READY`.
            remappings: From one ROS name to another.
            prefix: See `NodeProcess`.
        """
        log = self.folder / f"{len(self.processes)}_{name}.log"
        process = NodeProcess(
            name, parameters or {}, self.environment, log, remappings, prefix=prefix
        )
        self.processes.append(process)
        text = READY[name] if ready is None else ready
        wait_until(
            lambda: text in process.output() or not process.running(),
            START_TIMEOUT_S,
            f"{name} does not say {text!r}",
        )
        assert process.running(), f"{name} ended:\n{process.output()}"
        return process

    def refuse(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Start a node that must not come up; return the one line it leaves with."""
        log = self.folder / f"refused_{name}.log"
        with NodeProcess(name, parameters, self.environment, log) as process:
            assert process.wait(START_TIMEOUT_S) == 1, process.output()
            output = process.output()
        assert "Traceback" not in output
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, output
        return lines[0]

    def wait_for_end(self, process: NodeProcess, timeout_s: float = 60.0) -> None:
        """Wait until a node ends by itself, cleanly."""
        wait_until(lambda: not process.running(), timeout_s, f"{process.name} does not end")
        self._ended.add(process.pid)
        assert process.wait(1.0) == 0, process.output()

    def kill(self, process: NodeProcess) -> None:
        """End a process by SIGKILL, as a crash or the out-of-memory killer would."""
        self._ended.add(process.pid)
        os.kill(process.pid, 9)
        wait_until(lambda: not process.running(), 5.0, "SIGKILL does not end the process")

    def collect(self, message_type: Any, topic: str, profile: Any, **options: Any) -> list[Any]:
        """Subscribe; the returned list grows by every message."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, profile, **options)
        return messages

    def call(self, service_type: Any, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(service_type, name)
        assert client.wait_for_service(timeout_s), f"{name} is not there"
        future = client.call_async(request)
        wait_until(future.done, timeout_s, f"{name} does not answer")
        self.node.destroy_client(client)
        return future.result()

    def wait(self, condition: Callable[[], bool], message: str, timeout_s: float = 20.0) -> None:
        """Wait for a condition; a node that died meanwhile is shown instead."""

        def holds() -> bool:
            for process in self.processes:
                if process.pid not in self._ended:
                    process.require_running()
            return condition()

        wait_until(holds, timeout_s, message)

    def stop(self, process: NodeProcess) -> None:
        """End a node by SIGINT; it must leave cleanly."""
        self._ended.add(process.pid)
        status = process.stop()
        assert status == 0, f"{process.name} left with {status}:\n{process.output()}"
        assert "Traceback" not in process.output(), process.output()

    def close(self) -> None:
        """End everything; every node must leave with status 0, none may be left."""
        try:
            for process in reversed(self.processes):
                if process.pid not in self._ended:
                    process.require_running()
                    self.stop(process)
        finally:
            for process in self.processes:
                if process.running():
                    os.kill(process.pid, 9)
                    process.wait(5.0)
            self._executor.shutdown()
            self._thread.join(5.0)
            self.node.destroy_node()
            self._context.try_shutdown()
            clean_shared_memory()

    def _spin(self) -> None:
        shutdown = importlib.import_module("rclpy.executors").ExternalShutdownException
        try:
            self._executor.spin()
        except shutdown:
            return


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """A ROS graph of this test alone."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    domain, lock = _free_domain()
    made = Graph(domain, tmp_path)
    try:
        yield made
    finally:
        made.close()
        lock.close()


def _free_domain() -> tuple[int, IO[str]]:
    """Return a domain that nobody else on this machine uses, and the file that locks it."""
    for domain in random.sample(range(1, 101), 100):
        lock = Path(f"/tmp/lewm_ros_test_domain_{domain}").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        if domain_in_use(domain):
            # By no test: a demo or a benchmark beside it.
            lock.close()
            continue
        clean_domain(domain)
        return domain, lock
    raise RuntimeError("all ROS domains are in use by other tests")
