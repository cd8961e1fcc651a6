"""The recorder against a camera and a command source: does it lose anything?

    python benchmarks/recorder.py --seconds 60 --json runs/bench/recorder.json

One process publishes 640x480 pictures at 30 Hz and commands at 100 Hz and counts them; the
recorder node writes them to a bag and counts them too; the bag is read back. Then the recorder is
killed (SIGKILL) in the middle of a second episode, and both bags are read.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.data import Contract, load_contract, save_contract
from lewm_core.data.bags import BagReader
from lewm_core.errors import UserError
from lewm_ros.dds import apply_profile, clean_shared_memory
from lewm_ros.missing import require_ros
from lewm_ros.processes import NodeProcess, isolated_environment

CAMERA, COMMAND = "/camera/image_raw", "/command"
_READY_S = 30.0


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "benchmarks/recorder.py",
        "Count what a camera and a command source publish and what the recorder writes.",
        "python benchmarks/recorder.py --seconds 60 --json recorder.json",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="to record (default 60)")
    parser.add_argument("--camera-rate", type=float, default=30.0, help="Hz (default 30)")
    parser.add_argument("--command-rate", type=float, default=100.0, help="Hz (default 100)")
    parser.add_argument("--width", type=int, default=640, help="pixels (default 640)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default 480)")
    parser.add_argument("--camera-qos", choices=("sensor_data", "reliable"), default="sensor_data",
                        help="what the camera offers (default sensor_data)")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="folder to keep the bags in (default: none)")
    parser.add_argument("--source", action="store_true", help=argparse.SUPPRESS)
    return run_command(parser, _benchmark)


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    require_ros("benchmarks/recorder.py")
    if options.source:
        _publish(options)
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "data"
        result = _record(options, folder, Path(scratch))
    for key, value in result.items():
        print(f"{key:32} {value}")
    if result["lost"]:
        raise UserError(f"{result['lost']} messages were lost")
    return result


def _record(options: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    """Record one whole episode and one that is cut short by SIGKILL."""
    environment = isolated_environment()
    contract = scratch / "contract.yaml"
    save_contract(_contract(options), contract)
    parameters = {"out": folder, "contract": contract}
    with NodeProcess("record_dataset", parameters, environment, scratch / "log") as recorder:
        # The source asks for the episode, so that what it counts is what is recorded.
        first = _run_source(options, environment, options.seconds)
        counters = json.loads((folder / first["episode"] / "recorder.json").read_text())["topics"]
        second = _start_source(options, environment, 20.0)
        name = json.loads(second.stdout.readline())["episode"]
        time.sleep(6.0)
        recorder.require_running()
        os.kill(recorder.pid, signal.SIGKILL)
        killed_ns = time.time_ns()
        second.terminate()
        second.wait(30.0)
    clean_shared_memory()
    result: dict[str, Any] = {"seconds": options.seconds, "lost": 0}
    for key, topic in (("camera", CAMERA), ("command", COMMAND)):
        read, _ = _read(folder / first["episode"], topic)
        result[f"{key}_published"] = first[topic]
        for counter in ("received", "written", "dropped", "lost", "gaps"):
            result[f"{key}_{counter}"] = counters[topic][counter]
        result[f"{key}_in_bag"] = read
        result[f"{key}_largest_gap_s"] = counters[topic]["largest_gap_s"]
        result["lost"] += first[topic] - read
    cut, last_ns = _read(folder / name, CAMERA)
    result["killed_earlier_episode_readable"] = result["camera_in_bag"] > 0
    result["killed_pictures_readable"] = cut
    result["killed_seconds_lost"] = round((killed_ns - last_ns) / 1e9, 2)
    return result


def _read(bag: Path, topic: str) -> tuple[int, int]:
    """Return the number of messages and the stamp (ns) of the last one."""
    count, last_ns = 0, 0
    with BagReader(bag) as reader:
        for entry in reader.raw([topic]):
            count, last_ns = count + 1, max(last_ns, entry.receive_ns)
    return count, last_ns


def _contract(options: argparse.Namespace) -> Contract:
    values = load_contract("push_t").to_dict()
    values["cameras"][0]["size"] = [options.width, options.height]
    values["control_rate"] = options.command_rate
    values["states"] = []
    return Contract.from_dict(values)


def _start_source(
    options: argparse.Namespace, environment: dict[str, str], seconds: float
) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--source", "--seconds", str(seconds)]
    for key in ("camera_rate", "command_rate", "width", "height", "camera_qos"):
        command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


def _run_source(
    options: argparse.Namespace, environment: dict[str, str], seconds: float
) -> dict[str, Any]:
    source = _start_source(options, environment, seconds)
    output, _ = source.communicate(timeout=seconds + 90.0)
    if source.returncode:
        raise UserError("the source of the benchmark failed; its message is above")
    first, last = output.splitlines()
    return json.loads(first) | json.loads(last)


def _publish(options: argparse.Namespace) -> None:
    """Be the camera and the command source for one episode; print its name, then the counts."""
    apply_profile()
    import rclpy
    from geometry_msgs.msg import TwistStamped
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image
    from std_srvs.srv import Trigger

    from lewm_ros import qos
    from lewm_ros.codecs import ImageFiller, ns_to_stamp

    # SIGTERM ends this process in the middle of the second episode, without a word.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("source")
    offered = {"sensor_data": qos.CAMERA_SENSOR_DATA, "reliable": qos.CAMERA_PUBLISHER}
    camera = node.create_publisher(Image, CAMERA, offered[options.camera_qos])
    commands = node.create_publisher(TwistStamped, COMMAND, qos.COMMAND)
    deadline = time.monotonic() + _READY_S
    while camera.get_subscription_count() == 0 or commands.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise UserError(f"the recorder does not subscribe within {_READY_S:g} s")
        rclpy.spin_once(node, timeout_sec=0.05)
    print(json.dumps({"episode": _trigger(node, Trigger, "start_episode")}), flush=True)
    pictures = np.random.default_rng(0).integers(
        0, 256, (4, options.height, options.width, 3), dtype=np.uint8
    )
    filler, command = ImageFiller("top"), TwistStamped()
    counts = {CAMERA: 0, COMMAND: 0}
    began = time.monotonic()
    while True:
        due = {
            CAMERA: counts[CAMERA] / options.camera_rate,
            COMMAND: counts[COMMAND] / options.command_rate,
        }
        topic = min(due, key=lambda name: due[name])
        if due[topic] >= options.seconds:
            break
        delay = began + due[topic] - time.monotonic()
        if delay > 0.0:
            time.sleep(delay)
        if topic == CAMERA:
            camera.publish(filler.fill(pictures[counts[CAMERA] % 4], time.time_ns()))
        else:
            command.header.stamp = ns_to_stamp(time.time_ns())
            commands.publish(command)
        counts[topic] += 1
    time.sleep(1.0)  # what is on its way still arrives
    _trigger(node, Trigger, "stop_episode")
    print(json.dumps(counts))
    node.destroy_node()
    rclpy.shutdown()


def _trigger(node: Any, service_type: Any, name: str) -> str:
    """Call a service of the recorder; return its message."""
    import rclpy

    client = node.create_client(service_type, f"/record_dataset/{name}")
    if not client.wait_for_service(_READY_S):
        raise UserError(f"the recorder has no {name}")
    future = client.call_async(service_type.Request())
    rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
    reply = future.result()
    if reply is None or not reply.success:
        raise UserError(f"{name}: {reply.message if reply else 'no answer'}")
    return reply.message


if __name__ == "__main__":
    sys.exit(main())
