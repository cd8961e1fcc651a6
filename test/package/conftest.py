"""Copies of the source tree to build in, so that nothing is built where others work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What a package is built from.
_SOURCES = (
    "package.xml", "CMakeLists.txt", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md",
    "LICENSE", "Makefile", "msg", "srv", "action", "config", "launch", "checkpoints", "scripts",
    "lewm_core", "lewm_ros",
)  # fmt: skip


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the source tree in a folder named lewm_ros."""
    folder = tmp_path_factory.mktemp("source") / "lewm_ros"
    folder.mkdir()
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy2(source, folder / name)
    return folder


def plain_environment(**changes: str) -> dict[str, str]:
    """Return this environment without ROS on any path, and with ``changes``."""
    environment = dict(os.environ)
    for name in (
        "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "ROS_DISTRO",
        "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    ):  # fmt: skip
        environment.pop(name, None)
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", **changes)
    return environment


def run(
    command: list[str], cwd: Path, environment: dict[str, str] | None = None, status: int = 0
) -> str:
    """Run a command; return stdout and stderr together; fail if the exit status is another."""
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=880,
    )
    assert finished.returncode == status, f"{command}\n{finished.stdout[-4000:]}"
    return finished.stdout


def pip_install(
    source: Path,
    environment: dict[str, str],
    pip: tuple[str, ...] = (),
    where: tuple[str, ...] = (),
) -> str:
    """Install the package, without its dependencies; return what pip and the build print.

    Args:
        source: The source tree.
        environment: Of pip.
        pip: Options of pip itself.
        where: Options of ``pip install``.
    """
    alone = ["--no-deps", "--no-index", "--no-build-isolation", "--verbose"]
    command = [sys.executable, "-m", "pip", *pip, "install", *alone, *where, str(source)]
    return run(command, source.parent, environment)
