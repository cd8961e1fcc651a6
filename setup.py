"""Packaging for pip: core, nodes and commands; with ROS found, the interfaces too.

``colcon build`` uses CMakeLists.txt instead. docs/install.md describes all ways.
"""

import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

import build_interfaces  # noqa: E402  (lies in scripts/, which is no package)

PACKAGES = ("lewm_core", "lewm_ros")

REQUIREMENTS = [
    # Model and training. 2.4: the oldest release built against NumPy 2 for every Python here.
    "torch>=2.4",
    # Imported by timm; pip picks the release that matches torch.
    "torchvision>=0.19",
    # ViT with `dynamic_img_size` and gradient checkpointing as the encoder uses them.
    "timm>=1.0.9",
    # 1.26: the release of Ubuntu 24.04, which ROS Jazzy's message modules are compiled against.
    "numpy>=1.26",
    # Contract and configurations: `Field(discriminator=...)`, `model_validate` of version 2.
    "pydantic>=2.5",
    # Contracts, presets.
    "pyyaml>=6.0",
    # Decoding and resizing pictures; headless: no window system on a robot.
    "opencv-python-headless>=4.8",
    # Scenes. 3.5 brought orthographic cameras under their present name; dm_control, whose scenes
    # are used beside ours, fails with version 4.
    "mujoco>=3.5,<4",
    # Scenes as environments: `env_checker` and the render modes of version 1.
    "gymnasium>=1.0",
    # Bags without ROS. 0.11 brought the MCAP writer and definitions of custom types; below 0.12,
    # since lewm_core/data/bag_writer.py flushes the chunks of that writer.
    "rosbags>=0.11,<0.12",
    # Checkpoints: nothing is unpickled.
    "safetensors>=0.4.3",
    # Progress bars.
    "tqdm>=4.66",
    # Training curves.
    "tensorboard>=2.16",
    "matplotlib>=3.6",
    # The page of the demo's report.
    "jinja2>=3.1",
    # Videos: carries its own ffmpeg.
    "imageio-ffmpeg>=0.5",
]

EXTRAS = {
    "test": [
        "pytest>=7.4",
        "pytest-timeout>=2.2",
        # The bags of this project are read by another implementation, and the other way round.
        "mcap>=1.1",
        # test/package builds a workspace the way users of a ROS installation do.
        "colcon-common-extensions>=0.3",
    ],
    # The scene `cube`; 1.2 is what it is tested against, and it uses parts that have no promise.
    # With it comes dm_control, whose labmaze has wheels up to Python 3.12 only and otherwise needs
    # Bazel: no requirement of everybody, and scripts/setup.sh goes on without it.
    "cube": ["ogbench>=1.2,<2"],
    # Rules differ between releases: one minor version for everybody.
    "lint": ["ruff>=0.6"],
}


def package_data(package: str) -> list[str]:
    """Return the files of a package that are not Python: templates, scene meshes."""
    folder = ROOT / package
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in {".py", ".pyc", ".so"}
    ]


def shared_files(root: Path, folders: tuple[str, ...], target: str) -> list[tuple[str, list[str]]]:
    """Return data files for setuptools: everything under the folders, in its own folder each."""
    files: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                place = Path(target) / path.parent.relative_to(root)
                files.setdefault(str(place), []).append(str(path))
    return list(files.items())


def commands() -> list[str]:
    """Return the console commands: a module in lewm_core/commands with a main() is one."""
    found = []
    for path in sorted((ROOT / "lewm_core" / "commands").glob("*.py")):
        if "\ndef main(" in path.read_text(encoding="utf-8"):
            found.append(f"lewm-{path.stem}=lewm_core.commands.{path.stem}:main")
    return found


class BuildPython(build_py):
    """Copies the Python files; where ROS is, generates and compiles the interfaces as well."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # Nodes run from the source tree; scripts/setup.sh has put the interfaces beside.
            return
        if not build_interfaces.generators_found():
            print(
                "lewm_ros: no ROS 2 found, installing the core and its commands only"
                " (source a ROS 2 installation and install again for the nodes)"
            )
            return
        build_folder = Path(self.get_finalized_command("build").build_temp).absolute()
        stage = build_folder / "stage"
        package = build_interfaces.build(build_folder / "cmake", stage, from_source_tree=False)
        for path in package.rglob("*"):
            if path.suffix == ".so" or path.parent.name in {"msg", "srv", "action"}:
                if path.is_file() and path.suffix in {".so", ".py"}:
                    target = Path(self.build_lib) / "lewm_ros" / path.relative_to(package)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.copy_file(str(path), str(target))
        data = [("lib", sorted(str(path) for path in (stage / "lib").glob("*.so")))]
        data += shared_files(stage, ("share", "lib/lewm_ros"), "")
        # The stage holds config/ and its like too: instead of those named below, not beside them.
        self.distribution.data_files = data


class RosDistribution(Distribution):
    """With interfaces, the wheel belongs to one Python and one machine type."""

    def has_ext_modules(self) -> bool:
        return build_interfaces.generators_found()


setup(
    name="lewm-ros",
    version="0.1.0",
    description="A world model trained from ROS 2 bags that plans in real time (LeWorldModel)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=[f"{p}{end}" for p in PACKAGES for end in ("", ".*")]),
    package_data={package: package_data(package) for package in PACKAGES},
    data_files=[
        ("share/lewm_ros", ["package.xml"]),
        *shared_files(ROOT, ("config", "launch", "checkpoints"), "share/lewm_ros"),
    ],
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": commands()},
    cmdclass={"build_py": BuildPython},
    distclass=RosDistribution,
    zip_safe=False,
)
