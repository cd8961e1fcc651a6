"""``pip install .`` on a machine without ROS: core and commands work, nodes say what is missing."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
from pathlib import Path

import pytest

from test.package.conftest import pip_install, plain_environment, run


def _ros_names() -> set[str]:
    """Return the top-level files and folders that belong to ROS, or to this package's build."""
    names = {"lewm_ros", "lewm_core"}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(("ros-", "lewm-")):
            names |= {Path(str(file)).parts[0] for file in distribution.files or []}
    return names


@pytest.fixture(scope="module")
def python(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new virtual environment: this one's packages without ROS, and the package."""
    folder = tmp_path_factory.mktemp("no_ros")
    packages = folder / "packages"
    packages.mkdir()
    ros = _ros_names()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            link = packages / entry.name
            if entry.name not in ros and entry.suffix != ".pth" and not link.exists():
                link.symlink_to(entry)
    environment = plain_environment()
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder, environment)
    python = folder / "venv" / "bin" / "python"
    site = run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        folder,
        environment,
    )
    (Path(site.strip()) / "packages.pth").write_text(f"{packages}\n")
    output = pip_install(source_tree, environment, pip=("--python", str(python)))
    assert "no ROS 2 found, installing the core and its commands only" in output
    return python


def test_core_is_installed_with_its_presets(python: Path, tmp_path: Path) -> None:
    program = (
        "import lewm_core, lewm_core.data; from lewm_core.paths import find_shared\n"
        "print(lewm_core.__file__)\n"
        "print(find_shared('config/robots/push_t.yaml'))\n"
        "print(lewm_core.data.load_contract('push_t').name)"
    )
    lines = run([str(python), "-c", program], tmp_path, plain_environment()).split()
    prefix = str(python.parent.parent)
    assert lines[0].startswith(prefix)
    assert lines[1] == f"{prefix}/share/lewm_ros/config/robots/push_t.yaml"
    assert lines[2] == "push_t"


@pytest.mark.parametrize("command", ["lewm-train", "lewm-collect"])
def test_commands_work(python: Path, command: str, tmp_path: Path) -> None:
    output = run([str(python.parent / command), "--help"], tmp_path, plain_environment())
    assert "example:" in output


@pytest.mark.parametrize("node", ["planner", "scene", "record_dataset", "expert", "doctor"])
def test_nodes_say_in_one_line_what_is_missing(python: Path, node: str, tmp_path: Path) -> None:
    output = run([str(python), "-m", f"lewm_ros.{node}"], tmp_path, plain_environment(), status=1)
    assert output.count("\n") == 1, output
    assert f"lewm_ros.{node} needs ROS 2" in output
    assert "make setup" in output
