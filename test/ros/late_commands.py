"""How late commands arrive after the network was cut, with and without a publisher's lifespan.

    unshare --user --map-root-user --net --mount python -m test.ros.late_commands --cuts 5

Two network namespaces as in `two_machines`: the commands come from the box, this process is on the
robot. Both kinds are published at once, each on its own topic, at Push-T's control rate and with
its command timeout. A driver listens all the time; a recorder does not spin for a second, once with
the network whole. Two kinds of cuts: ``silent``, what is sent is lost and nobody is told (a switch,
a radio), and ``unplugged``, the cable is out at the sender. Prints a line of JSON for each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from test.ros.two_machines import a_box, run

#: s, as Push-T's contract says.
PERIOD_S, TIMEOUT_S = 0.1, 0.3
#: s; what is sent again just before it expires needs a moment to arrive.
LATE_S = TIMEOUT_S + PERIOD_S
#: s; the network is cut, and afterwards everything has arrived that will.
OUT_S, SETTLE_S = 2.0, 3.0
BUSY_S = 1.0
CUTS = ("silent", "unplugged")
TOPICS = {"without": "/command", "with": "/command_with_lifespan"}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=CUTS, default=CUTS)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.publish:
        publish()
        return 0
    run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    with a_box() as box:
        os.environ.update(ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET", ROS_DOMAIN_ID="43")
        for line in measure(box, options.kinds, options.cuts):
            print(json.dumps(line))
    return 0


def publish() -> None:
    """The planner's side: publish until SIGTERM."""
    import rclpy
    from geometry_msgs.msg import TwistStamped
    from rclpy.signals import SignalHandlerOptions

    from lewm_ros import qos
    from lewm_ros.codecs import ns_to_stamp
    from lewm_ros.dds import apply_profile

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    apply_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("planner")
    profiles = {"without": qos.COMMAND, "with": qos.command_with_lifespan(TIMEOUT_S)}
    publishers = [
        node.create_publisher(TwistStamped, TOPICS[kind], profile)
        for kind, profile in profiles.items()
    ]
    while not ended.wait(PERIOD_S):
        message = TwistStamped()
        message.header.stamp = ns_to_stamp(time.time_ns())
        for publisher in publishers:
            publisher.publish(message)
    node.destroy_node()
    rclpy.try_shutdown()


class Listener:
    """A node that listens to both topics while it spins, and notes stamp and age of what came."""

    def __init__(self, name: str, profile: Any) -> None:
        import rclpy
        from geometry_msgs.msg import TwistStamped
        from rclpy.executors import SingleThreadedExecutor

        from lewm_ros.codecs import stamp_to_ns

        self.ages: dict[str, dict[int, float]] = {kind: {} for kind in TOPICS}
        self._spins, self._ended = threading.Event(), threading.Event()
        self._spins.set()
        self._node = rclpy.create_node(name)

        def note(kind: str, message: TwistStamped) -> None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            self.ages[kind][stamp_ns] = (time.time_ns() - stamp_ns) * 1e-9

        for kind, topic in TOPICS.items():
            self._node.create_subscription(
                TwistStamped, topic, lambda message, kind=kind: note(kind, message), profile
            )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._spins.wait(1.0)
            self._executor.spin_once(timeout_sec=0.05)

    def busy(self, seconds: float) -> None:
        """Take nothing for a while."""
        self._spins.clear()
        time.sleep(seconds)
        self._spins.set()

    def close(self) -> None:
        self._ended.set()
        self._spins.set()
        self._thread.join(5.0)
        self._node.destroy_node()


@contextlib.contextmanager
def cut(box: list[str], kind: str) -> Iterator[None]:
    """Cut the network inside."""
    if kind == "unplugged":
        run("ip", "link", "set", "robot", "down")
        yield
        run("ip", "link", "set", "robot", "up")
        return
    ends = ((box, "box"), ([], "robot"))
    for there, cable in ends:
        run(*there, "tc", "qdisc", "add", "dev", cable, "root", "blackhole")
    yield
    for there, cable in ends:
        run(*there, "tc", "qdisc", "delete", "dev", cable, "root")


def measure(box: list[str], kinds: Sequence[str], cuts: int) -> list[dict[str, Any]]:
    """Return what came, with and without lifespan: to a busy recorder, and after cuts."""
    import rclpy

    from lewm_ros import qos
    from lewm_ros.dds import apply_profile
    from test.helpers import wait_until

    apply_profile()
    # In the box, the working directory is another one.
    planner = subprocess.Popen(
        [*box, sys.executable, "-m", __spec__.name, "--publish"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    rclpy.init()
    # Deep, so that nothing of what arrives is replaced before it is counted.
    driver, recorder = Listener("driver", 100), Listener("recorder", qos.COMMAND)
    try:
        for listener in (driver, recorder):
            wait_until(lambda it=listener: all(map(len, it.ages.values())), 30.0, "no commands")
        time.sleep(1.0)
        lines = _busy(driver, recorder)
        for kind in kinds:
            late: dict[str, list[float]] = {lifespan: [] for lifespan in TOPICS}
            for _ in range(cuts):
                for lifespan, ages in _cut_once(box, kind, driver).items():
                    late[lifespan] += ages
            lines += [
                {
                    "cut": kind, "lifespan": lifespan, "cuts": cuts,
                    "late_per_cut": round(len(ages) / cuts, 1),
                    "oldest_s": round(max(ages, default=0.0), 2),
                }
                for lifespan, ages in late.items()
            ]  # fmt: skip
        return lines
    finally:
        driver.close()
        recorder.close()
        rclpy.try_shutdown()
        planner.terminate()
        planner.wait(10.0)


def _busy(driver: Listener, recorder: Listener) -> list[dict[str, Any]]:
    """Let the recorder be busy for a while, and count what it got all the same."""
    began_ns = time.time_ns()
    recorder.busy(BUSY_S)
    time.sleep(BUSY_S)
    lines = []
    for lifespan in TOPICS:
        ages = dict(recorder.ages[lifespan])
        # What is on its way just now is not lost.
        until_ns = time.time_ns() - round(0.5 * BUSY_S * 1e9)
        published = [stamp for stamp in dict(driver.ages[lifespan]) if began_ns < stamp < until_ns]
        got = [ages[stamp] for stamp in published if stamp in ages]
        lines.append(
            {
                "busy_s": BUSY_S, "lifespan": lifespan, "published": len(published),
                "lost": len(published) - len(got), "oldest_s": round(max(got), 2),
            }
        )  # fmt: skip
    return lines


def _cut_once(box: list[str], kind: str, driver: Listener) -> dict[str, list[float]]:
    """Return the ages (s) of what came late of the commands that were published in a cut."""
    with cut(box, kind):
        began_ns = time.time_ns()
        time.sleep(OUT_S)
        over_ns = time.time_ns()
    time.sleep(SETTLE_S)
    late = {}
    for lifespan, ages in driver.ages.items():
        ages = dict(ages)
        assert max(ages) > over_ns, f"nothing arrives any more, {lifespan} lifespan"
        late[lifespan] = [
            age for stamp, age in ages.items() if began_ns < stamp < over_ns and age > LATE_S
        ]
    return late


if __name__ == "__main__":
    sys.exit(main())
