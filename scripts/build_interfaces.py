"""Builds the ROS interfaces (msg/, srv/, action/) with CMake, without colcon.

`setup.py` uses it for ``pip install .``; ``scripts/setup.sh`` runs it as a program to put the
interfaces into the virtual environment while the nodes run from the source tree::

    python scripts/build_interfaces.py --prefix .venv
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What the generators need, as (file below a ROS prefix). Message packages alone are not enough.
GENERATOR_MARKS = (
    "share/rosidl_default_generators/package.xml",
    "share/ament_cmake/package.xml",
    "share/sensor_msgs/package.xml",
)


class BuildError(RuntimeError):
    """CMake or the compiler failed; the message ends with the last lines of their output."""


def ros_prefixes() -> list[Path]:
    """Return the prefixes that hold ROS packages: sourced ones first, then this Python's own."""
    sourced = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    prefixes = []
    for prefix in [*sourced, Path(sys.prefix)]:
        if (prefix / "share" / "ament_index").is_dir() and prefix not in prefixes:
            prefixes.append(prefix)
    return prefixes


def generators_found() -> bool:
    """Say whether interfaces can be built here: generators and the messages they depend on."""
    prefixes = ros_prefixes()
    return all(any((p / mark).is_file() for p in prefixes) for mark in GENERATOR_MARKS)


def build_environment() -> dict[str, str]:
    """Return the environment for CMake: ROS found, and pip's build isolation undone.

    pip hides the environment's packages from a build by a PYTHONPATH of its own; the generators
    are Python programs that need them (numpy, em, lark, catkin_pkg).
    """
    environment = dict(os.environ)
    paths = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    paths = [p for p in paths if "pip-build-env" not in p]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = ros_prefixes()
    for prefix in prefixes:
        for folder in (
            prefix / "lib" / version / "site-packages",
            prefix / "local" / "lib" / version / "dist-packages",
        ):
            if prefix != Path(sys.prefix) and folder.is_dir() and str(folder) not in paths:
                paths.append(str(folder))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    if not paths:
        del environment["PYTHONPATH"]
    environment.pop("PYTHONNOUSERSITE", None)
    joined = os.pathsep.join(str(p) for p in prefixes)
    environment["AMENT_PREFIX_PATH"] = joined
    environment["CMAKE_PREFIX_PATH"] = os.pathsep.join(
        [joined, *filter(None, [environment.get("CMAKE_PREFIX_PATH")])]
    )
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    )
    return environment


def build(build_folder: Path, stage: Path, *, from_source_tree: bool) -> Path:
    """Configure, compile and install the ROS package into a staging folder.

    Args:
        build_folder: For CMake; emptied first.
        stage: Emptied first, then filled like a ROS prefix: ``lib/``, ``share/``, ``include/``.
        from_source_tree: Leave out the Python packages, launch files, presets and checkpoints.

    Returns:
        The folder in the stage that holds the Python package ``lewm_ros``.

    Raises:
        BuildError: CMake is missing, or a step failed.
    """
    if shutil.which("cmake") is None:
        raise BuildError("cmake is missing; on Debian or Ubuntu: apt-get install -y cmake g++")
    # CMake remembers where it found ROS and Python; what an earlier build for another
    # distribution left would win over what is asked for now.
    shutil.rmtree(build_folder, ignore_errors=True)
    shutil.rmtree(stage, ignore_errors=True)
    build_folder.mkdir(parents=True)
    site_packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(build_folder),
        f"-DCMAKE_INSTALL_PREFIX={stage}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPYTHON_INSTALL_DIR={site_packages}",
        f"-DLEWM_FROM_SOURCE_TREE={'ON' if from_source_tree else 'OFF'}",
    ]
    if not from_source_tree:
        # A wheel may be installed beside another interpreter than the one that built it.
        configure.append("-DLEWM_SHEBANG=/usr/bin/env python3")
    jobs = str(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1)
    environment = build_environment()
    for command in (
        configure,
        ["cmake", "--build", str(build_folder), "--parallel", jobs],
        ["cmake", "--install", str(build_folder)],
    ):
        finished = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with open(build_folder / "build_interfaces.log", "a", encoding="utf-8") as log:
            log.write(finished.stdout)
        if finished.returncode != 0:
            tail = "\n".join(finished.stdout.splitlines()[-30:])
            raise BuildError(f"{' '.join(command[:2])} failed:\n{tail}")
    return stage / site_packages / "lewm_ros"


def install_interfaces(stage: Path, package: Path, prefix: Path) -> None:
    """Copy built interfaces and programs from the stage into a prefix.

    The rest of the package stays in the source tree; links lead to it, so that ``ros2 launch``
    finds what was last edited.

    The prefix gets no ``lewm_ros/__init__.py``: with one, the installed folder would be taken
    for the whole package and hide the nodes.
    """
    for library in (stage / "lib").glob("*.so"):
        _replace(library, prefix / "lib" / library.name)
    site_packages = Path(sysconfig.get_path("platlib", vars={"platbase": str(prefix)}))
    target = site_packages / "lewm_ros"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
    (target / "__init__.py").unlink(missing_ok=True)
    shutil.copytree(stage / "share", prefix / "share", dirs_exist_ok=True)
    # The commands in bin/ are left to pip, which installs the same ones.
    shutil.copytree(stage / "lib" / "lewm_ros", prefix / "lib" / "lewm_ros", dirs_exist_ok=True)
    share = prefix / "share" / "lewm_ros"
    for folder in ("config", "checkpoints"):
        (share / folder).unlink(missing_ok=True)
        (share / folder).symlink_to(ROOT / folder, target_is_directory=True)
    # `ros2 launch` does not look into folders that are links.
    if (share / "launch").is_symlink():
        (share / "launch").unlink()
    shutil.rmtree(share / "launch", ignore_errors=True)
    (share / "launch").mkdir()
    for file in (ROOT / "launch").glob("*.launch.py"):
        (share / "launch" / file.name).symlink_to(file)


def _replace(source: Path, target: Path) -> None:
    """Copy a library so that processes which have the old one loaded keep it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".new")
    shutil.copy2(source, temporary)
    temporary.replace(target)


def main() -> int:
    """Build the interfaces into a prefix; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the ROS interfaces into a prefix.")
    parser.add_argument("--prefix", type=Path, required=True, help="a virtual environment")
    parser.add_argument("--build", type=Path, help="folder for CMake (default: PREFIX/lewm-build)")
    arguments = parser.parse_args()
    prefix = arguments.prefix.absolute()
    build_folder = (arguments.build or prefix / "lewm-build").absolute()
    if not generators_found():
        print(
            "the ROS interface generators are missing: source a ROS 2 installation, or "
            "install scripts/ros-jazzy.txt",
            file=sys.stderr,
        )
        return 1
    try:
        package = build(build_folder, build_folder / "stage", from_source_tree=True)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    install_interfaces(build_folder / "stage", package, prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
