"""Launch files: all arguments described; the graphs start, work, and end with SIGINT."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from test.helpers import wait_until
from test.package.conftest import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros comes with a ROS installation, not from PyPI",
)

FILES = ("plan", "record", "scene")

#: `ros2 launch` without the ros2 command: the same service, SIGINT handled the same way.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [tuple(argument.split(":=", 1)) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]),
                             launch_arguments=arguments)]))
sys.exit(service.run())
"""


class Launched:
    """A running launch and what it has printed."""

    def __init__(self, file: str, arguments: list[str], folder: Path) -> None:
        self._log = folder / f"{file}.log"
        environment = dict(os.environ)
        environment.update(
            ROS_DOMAIN_ID="93",
            ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
            ROS_LOG_DIR=str(folder / "ros_log"),
            OMP_NUM_THREADS="1",
        )
        environment.setdefault("MUJOCO_GL", "egl")
        path = ROOT / "launch" / f"{file}.launch.py"
        with self._log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def interrupt(self) -> None:
        """Press Ctrl-C: a terminal sends SIGINT to launch and its nodes, and launch to none."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60.0)

    def output(self) -> str:
        """Return everything printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, timeout_s: float = 90.0) -> None:
        """Wait until the launch has printed a text."""
        wait_until(
            lambda: text in self.output() or self.process.poll() is not None,
            timeout_s,
            f"no {text!r} in:\n{self.output()[-3000:]}",
        )
        assert text in self.output(), self.output()[-3000:]

    def pids(self) -> list[int]:
        """Return the process ids of the nodes, by launch's own words."""
        return [int(pid) for pid in re.findall(r"started with pid \[(\d+)\]", self.output())]


@contextmanager
def launched(file: str, arguments: list[str], folder: Path) -> Iterator[Launched]:
    """Launch; afterwards nothing of it is left, whatever happened."""
    running = Launched(file, arguments, folder)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()
    assert not [pid for pid in running.pids() if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_described(file: str) -> None:
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    path = ROOT / "launch" / f"{file}.launch.py"
    source = PythonLaunchDescriptionSource(str(path))
    arguments = source.try_get_launch_description_without_context().get_launch_arguments()
    assert {"namespace", "params_file", "log_level", "contract"} <= {a.name for a in arguments}
    for argument in arguments:
        words = argument.description.lower()
        assert len(words) > 5 and "no description" not in words, argument.name


@pytest.mark.parametrize("composed", ["false", "true"])
def test_scene_with_expert_ends_with_the_expert(composed: str, tmp_path: Path) -> None:
    arguments = [
        "expert:=true", "episodes:=1", "steps:=10", "real_time_factor:=0", f"composed:={composed}"
    ]  # fmt: skip
    with launched("scene", arguments, tmp_path) as running:
        assert running.process.wait(120.0) == 0
    assert len(running.pids()) == (1 if composed == "true" else 2)
    assert "1 episodes of 10 steps" in running.output()
    assert "process has died" not in running.output()


@pytest.mark.parametrize("composed", ["false", "true"])
def test_recorded_scene_is_a_dataset(composed: str, tmp_path: Path) -> None:
    from lewm_core.data import find_bags

    out = tmp_path / "recorded"
    arguments = ["scene:=push_t", f"out:={out}", "episodes:=2", "steps:=10", "namespace:=lab"]
    arguments.append(f"composed:={composed}")
    with launched("record", arguments, tmp_path) as running:
        assert running.process.wait(120.0) == 0
    assert "process has died" not in running.output()
    assert (out / "contract.yaml").is_file()
    assert len(find_bags([out])) == 2
    assert len(running.pids()) == (1 if composed == "true" else 3)


@pytest.mark.parametrize("composed", ["false", "true"])
def test_plan_drives_to_the_example_and_ends_with_sigint(composed: str, tmp_path: Path) -> None:
    from test.ros.planner_driver import QUICK_PLANNER, make_checkpoint

    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    preset = tmp_path / "quick.yaml"
    preset.write_text(QUICK_PLANNER)
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("planner: {ros__parameters: {status_rate: 7.0, reached_pictures: 4}}\n")
    arguments = [
        f"checkpoint:={checkpoint}", f"planner:={preset}", f"params_file:={parameters}",
        "reached_pictures:=5", f"composed:={composed}",
    ]  # fmt: skip
    with launched("plan", arguments, tmp_path) as running:
        running.wait_for("]: active")
        assert "pursuing" in running.output() and "push_t.png" in running.output()
        assert "status_rate: 7.0" in running.output(), "the parameter file is read"
        assert "reached_pictures: 5" in running.output(), "typed goes before the file"
        running.interrupt()
    assert len(running.pids()) == (1 if composed == "true" else 2)
    assert "not active any more" in running.output()
    assert "process has died" not in running.output()


@pytest.mark.parametrize("arguments", [[], ["namespace:=lab", "scene_seed:=4", "seed:=5"]])
def test_parameters_are_the_same_in_one_process_and_in_two(
    arguments: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/**/planner: {ros__parameters: {status_rate: 7.0}}\n"
        "/**/scene: {ros__parameters: {camera_rate: 5.0}}\n"
        "/**: {ros__parameters: {seed: 3}}\n"
    )
    found = []
    for composed in ("true", "false"):
        folder = tmp_path / composed
        folder.mkdir()
        typed = ["autostart:=false", f"params_file:={file}", f"composed:={composed}", *arguments]
        with launched("plan", typed, folder) as running:
            running.wait_for("is running")
            running.wait_for("planner]: parameter watchdog_timeout")
            running.interrupt()
        found.append(sorted(re.findall(r"\[(\S+)\]: (parameter .*)", running.output())))
    assert found[0] == found[1]
    planner, scene = ("lab.planner", "lab.scene") if arguments else ("planner", "scene")
    assert (planner, "parameter status_rate: 7.0") in found[0]
    assert (scene, "parameter camera_rate: 5.0") in found[0]
    assert (planner, f"parameter seed: {5 if arguments else 3}") in found[0]
    assert (scene, f"parameter seed: {4 if arguments else 3}") in found[0]


def test_wrong_argument_ends_the_launch_in_one_line(tmp_path: Path) -> None:
    with launched("plan", ["replan_rate:=fast"], tmp_path) as running:
        assert running.process.wait(60.0) != 0
    assert "argument replan_rate:=fast: give a number" in running.output()
    assert not running.pids()
