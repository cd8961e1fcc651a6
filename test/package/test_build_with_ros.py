"""Where ROS is: ``pip install .`` and ``colcon build`` generate and install the interfaces."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from test.package.conftest import ROOT, pip_install, run

sys.path.insert(0, str(ROOT / "scripts"))

import build_interfaces  # noqa: E402  (lies in scripts/, which is no package)

pytestmark = [
    pytest.mark.skipif(
        not build_interfaces.generators_found() or importlib.util.find_spec("rclpy") is None,
        reason="needs ROS 2 with its interface generators (make setup)",
    ),
    # A build takes half a minute of both cores, and more where they are busy.
    pytest.mark.timeout(900),
]

#: Publishes one message of this package to itself: type support found, loaded and working.
ROUND_TRIP = """
import sys, time
import rclpy
import lewm_ros.codecs
from lewm_core.paths import find_shared
from lewm_ros.action import ReachGoal
from lewm_ros.msg import PlanStatus
from lewm_ros.srv import SetGoal

rclpy.init()
node = rclpy.create_node("round_trip")
seen = []
node.create_subscription(PlanStatus, "status", seen.append, 1)
publisher = node.create_publisher(PlanStatus, "status", 1)
ReachGoal.Goal(), SetGoal.Request()
deadline = time.monotonic() + 30.0
while not seen and time.monotonic() < deadline:
    publisher.publish(PlanStatus(reason="it works"))
    rclpy.spin_once(node, timeout_sec=0.05)
node.destroy_node()
rclpy.shutdown()
print(seen[0].reason)
print(lewm_ros.codecs.__file__)
print(sys.modules["lewm_ros.msg"].__file__)
print(find_shared("config/robots/push_t.yaml"))
"""


def _environment(domain: str) -> dict[str, str]:
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = domain
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment.pop("PYTHONPATH", None)
    ros = os.pathsep.join(str(prefix) for prefix in build_interfaces.ros_prefixes())
    environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = ros
    python_paths = build_interfaces.build_environment().get("PYTHONPATH")
    if python_paths:
        environment["PYTHONPATH"] = python_paths
    return environment


def test_pip_install_builds_the_interfaces(source_tree: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    environment = _environment("91")
    # --ignore-installed: the package that this environment has already is left alone.
    pip_install(source_tree, environment, where=("--prefix", str(prefix), "--ignore-installed"))
    site_packages = next(prefix.rglob("lewm_core")).parent
    for name, folder in (("PYTHONPATH", site_packages), ("LD_LIBRARY_PATH", prefix / "lib")):
        environment[name] = os.pathsep.join(filter(None, [str(folder), environment.get(name)]))
    lines = run([sys.executable, "-c", ROUND_TRIP], tmp_path, environment).splitlines()
    assert lines[-4] == "it works"
    assert all(line.startswith(str(prefix)) for line in lines[-3:]), lines
    assert os.access(prefix / "lib" / "lewm_ros" / "planner", os.X_OK)
    assert (prefix / "share" / "lewm_ros" / "launch" / "plan.launch.py").is_file()
    assert (prefix / "share" / "ament_index/resource_index/packages/lewm_ros").is_file()


@pytest.mark.skipif(
    importlib.util.find_spec("colcon_cmake") is None, reason="needs colcon-common-extensions"
)
def test_colcon_builds_a_workspace(source_tree: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(source_tree, workspace / "src" / "lewm_ros")
    environment = _environment("92")
    colcon = [sys.executable, "-m", "colcon", "--log-base", "log"]
    run(
        [*colcon, "build", "--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}"],
        workspace,
        environment,
    )
    prefix = workspace / "install" / "lewm_ros"
    (tmp_path / "round_trip.py").write_text(ROUND_TRIP)
    command = (
        f"source {shlex.quote(str(workspace / 'install' / 'setup.bash'))}"
        f" && {shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'round_trip.py'))}"
        f" && {shlex.quote(str(prefix / 'lib' / 'lewm_ros' / 'scene'))} --help"
        " && lewm-train --help"
    )
    output = run(["bash", "-c", command], tmp_path, environment)
    assert "it works" in output
    assert f"{prefix}/share/lewm_ros/config/robots/push_t.yaml" in output
    assert "Node ``scene``" in output
    assert "usage: lewm-train" in output
