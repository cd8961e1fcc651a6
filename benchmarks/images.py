"""Pictures between two processes: how many arrive, and how old they are then.

    python benchmarks/images.py --json runs/bench/images.json

One process publishes 640x480 pictures at 30 Hz with sensor-data QoS (best effort), another
receives them; once with Fast DDS as it comes, once with the profile that this package applies.
Latency is from just before the message is filled to the receiver's callback having the array.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.errors import UserError
from lewm_ros.dds import apply_profile
from lewm_ros.missing import require_ros
from lewm_ros.processes import isolated_environment

_TOPIC = "/camera/image_raw"
_IDLE_S = 5.0


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "benchmarks/images.py",
        "Measure delivery and latency of pictures between two processes.",
        "python benchmarks/images.py --seconds 10 --json images.json",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz (default 30)")
    parser.add_argument("--width", type=int, default=640, help="pixels (default 640)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default 480)")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    return run_command(parser, _benchmark)


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    require_ros("benchmarks/images.py")
    if options.role == "send":
        _send(options)
        return {}
    if options.role == "receive":
        _receive(options)
        return {}
    result: dict[str, Any] = {
        key: getattr(options, key) for key in ("width", "height", "rate", "seconds")
    }
    for name, profile in (("default", "none"), ("profile", "host")):
        measured = _measure(options, profile)
        result |= {f"{name}_{key}": value for key, value in measured.items()}
        print(f"{name:8} " + "  ".join(f"{key} {value}" for key, value in measured.items()))
    return result


def _measure(options: argparse.Namespace, profile: str) -> dict[str, Any]:
    """Run both processes once; return delivery and latency."""
    environment = isolated_environment() | {"LEWM_DDS_PROFILE": profile}
    command = [sys.executable, __file__]
    for key in ("seconds", "rate", "width", "height"):
        command += [f"--{key}", str(getattr(options, key))]
    receiver = subprocess.Popen(
        [*command, "--role", "receive"], stdout=subprocess.PIPE, env=environment, text=True
    )
    sender = subprocess.run(
        [*command, "--role", "send"], stdout=subprocess.PIPE, env=environment, text=True
    )
    output, _ = receiver.communicate(timeout=60.0)
    if sender.returncode or receiver.returncode:
        raise UserError("a process of the benchmark failed; its message is above")
    sent = int(sender.stdout)
    latencies = np.array(json.loads(output)) / 1e6
    measured: dict[str, Any] = {
        "sent": sent,
        "received": len(latencies),
        "delivered_percent": round(100.0 * len(latencies) / sent, 2),
    }
    for key, function in (
        ("mean", np.mean),
        ("p50", lambda values: np.percentile(values, 50)),
        ("p95", lambda values: np.percentile(values, 95)),
        ("p99", lambda values: np.percentile(values, 99)),
    ):
        value = round(float(function(latencies)), 2) if len(latencies) else None
        measured[f"latency_ms_{key}"] = value
    return measured


def _send(options: argparse.Namespace) -> None:
    """Publish pictures at the rate; print how many."""
    apply_profile()
    import rclpy
    from sensor_msgs.msg import Image

    from lewm_ros import qos
    from lewm_ros.codecs import ImageFiller

    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, _TOPIC, qos.CAMERA_SENSOR_DATA)
    deadline = time.monotonic() + 30.0
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise UserError("the receiver does not appear within 30 s")
        time.sleep(0.05)
    time.sleep(1.0)  # the receiver's side of the match
    shape = (options.height, options.width, 3)
    pictures = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    filler = ImageFiller("top")
    count = round(options.seconds * options.rate)
    began = time.monotonic()
    for index in range(count):
        delay = began + index / options.rate - time.monotonic()
        if delay > 0.0:
            time.sleep(delay)
        publisher.publish(filler.fill(pictures[index % 8], time.time_ns()))
    time.sleep(1.0)  # what is on its way may still arrive
    print(count)
    node.destroy_node()
    rclpy.shutdown()


def _receive(options: argparse.Namespace) -> None:
    """Receive until nothing more comes; print every picture's latency in ns."""
    apply_profile()
    import rclpy
    from sensor_msgs.msg import Image

    from lewm_ros import qos
    from lewm_ros.codecs import decode_message, stamp_to_ns

    latencies: list[int] = []
    last = [time.monotonic()]

    def on_image(message: Image) -> None:
        picture = decode_message(message)
        latencies.append(time.time_ns() - stamp_to_ns(message.header.stamp))
        last[0] = time.monotonic()
        if picture.shape != (options.height, options.width, 3):
            raise UserError(f"a picture of {picture.shape} came")

    rclpy.init()
    node = rclpy.create_node("receiver")
    node.create_subscription(Image, _TOPIC, on_image, qos.CAMERA_SENSOR_DATA)
    appeared = False
    while not appeared or (
        node.count_publishers(_TOPIC) > 0 and time.monotonic() - last[0] < options.seconds + _IDLE_S
    ):
        rclpy.spin_once(node, timeout_sec=0.1)
        if not appeared and node.count_publishers(_TOPIC) > 0:
            appeared = True
            last[0] = time.monotonic()
        if not appeared and time.monotonic() - last[0] > 30.0:
            raise UserError("the sender does not appear within 30 s")
    print(json.dumps(latencies))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    sys.exit(main())
