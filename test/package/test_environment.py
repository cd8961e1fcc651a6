"""scripts/environment.sh chooses ROS and virtual environment; scripts/setup.sh names what lacks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from test.package.conftest import ROOT, plain_environment, run

SHOW = 'echo "$LEWM_ROS|$LEWM_VENV|$ROS_DISTRO|$AMENT_PREFIX_PATH|${LD_LIBRARY_PATH:-}|$MUJOCO_GL"'


def _choose(environment: dict[str, str], status: int = 0) -> str:
    command = f"source {ROOT}/scripts/environment.sh && {SHOW}"
    return run(["bash", "-euo", "pipefail", "-c", command], ROOT, environment, status).strip()


def _installation(folder: Path) -> Path:
    """Make what a sourced ROS installation is recognised by."""
    for name in ("share/rclpy/package.xml", "lib/librcl.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_wheels_of_jazzy_are_the_default() -> None:
    environment = plain_environment()
    environment.pop("MUJOCO_GL", None)
    assert _choose(environment) == f"wheels|{ROOT}/.venv|jazzy|{ROOT}/.venv||egl"


def test_another_distribution_has_an_environment_of_its_own() -> None:
    chosen = _choose(plain_environment(ROS_DISTRO="kilted", MUJOCO_GL="osmesa"))
    assert chosen == f"wheels|{ROOT}/.venv-kilted|kilted|{ROOT}/.venv-kilted||osmesa"


def test_sourced_installation_is_used(tmp_path: Path) -> None:
    prefix = _installation(tmp_path / "ros")
    environment = plain_environment(
        ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=str(prefix), LD_LIBRARY_PATH=f"{prefix}/lib"
    )
    kind, venv, distro, prefixes, libraries, _ = _choose(environment).split("|")
    assert (kind, venv, distro) == ("sourced", f"{ROOT}/.venv", "jazzy")
    assert prefixes == f"{ROOT}/.venv:{prefix}"
    assert libraries == f"{ROOT}/.venv/lib:{prefix}/lib"


def test_old_sourced_installation_is_left_aside(tmp_path: Path) -> None:
    prefix = _installation(tmp_path / "ros")
    environment = plain_environment(
        ROS_DISTRO="humble",
        AMENT_PREFIX_PATH=str(prefix),
        LD_LIBRARY_PATH=f"{prefix}/lib:{tmp_path}",
    )
    kind, _, distro, prefixes, libraries, _ = _choose(environment).split("|")
    assert (kind, distro) == ("wheels", "jazzy")
    assert prefixes == f"{ROOT}/.venv"
    assert libraries == str(tmp_path), "libraries of two ROS would be mixed"


def test_entering_twice_changes_nothing() -> None:
    command = f"source {ROOT}/scripts/environment.sh; source {ROOT}/scripts/environment.sh; {SHOW}"
    twice = run(["bash", "-euo", "pipefail", "-c", command], ROOT, plain_environment()).strip()
    assert twice == _choose(plain_environment())


@pytest.mark.parametrize("distro", ["humble", "noetic"])
def test_unknown_distribution_is_refused(distro: str) -> None:
    output = _choose(plain_environment(ROS_DISTRO=distro), status=1)
    assert output.count("\n") == 0
    assert f"ROS_DISTRO={distro}" in output and "kilted" in output


def test_missing_system_packages_are_named_in_one_line_to_paste(
    source_tree: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*") if Path(folder).is_dir() else []:
            link = programs / program.name
            if program.name not in {"cmake", "sudo", "id"} and not link.is_symlink():
                link.symlink_to(program)
    # A user without rights, also where the tests run as root.
    (programs / "id").write_text("#!/bin/sh\necho 1000\n")
    (programs / "id").chmod(0o755)
    tree = tmp_path / "tree"
    shutil.copytree(source_tree, tree)
    environment = plain_environment(PATH=str(programs))
    output = run([shutil.which("bash") or "bash", "scripts/setup.sh"], tree, environment, status=1)
    assert "sudo apt-get install -y" in output and " cmake" in output
    assert output.count("\n") == 1, output
    assert not (tree / ".venv").exists()
