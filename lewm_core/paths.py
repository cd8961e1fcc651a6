"""Where the files that ship with the package are: presets, contracts, checkpoints, launch files.

In a source tree they lie beside `lewm_core`; installed by pip or colcon they lie under
``share/lewm_ros`` of the prefix. Every name a user may shorten ("push_t" for
"config/robots/push_t.yaml") is resolved here and nowhere else.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from lewm_core.errors import ConfigError

#: Name of the ROS package, and of its folder under ``share``.
PACKAGE = "lewm_ros"


def shared_folder() -> Path:
    """Return the folder that holds ``config/``, ``launch/`` and ``checkpoints/``.

    The source tree wins over an installed copy, so that an edited preset is the one used.

    Raises:
        ConfigError: Neither a source tree nor an installed ``share/lewm_ros`` is there.
    """
    package = Path(__file__).parent
    source_tree = package.parent
    if (source_tree / "package.xml").is_file() and (source_tree / "config").is_dir():
        return source_tree
    # PREFIX/lib/python3.x/site-packages/lewm_core, with or without some of the levels between:
    # virtual environments, --user, --target and colcon differ in their number.
    for prefix in package.parents:
        folder = prefix / "share" / PACKAGE
        if (folder / "config").is_dir():
            return folder
    raise ConfigError(
        f"{package}: the shipped files (config/, checkpoints/) are neither beside it nor under"
        f" share/{PACKAGE} of its prefix; install the package again"
    )


def find_shared(relative: str | Path) -> Path:
    """Return the path of a shipped file or folder, for example ``config/robots/push_t.yaml``.

    Raises:
        ConfigError: There is no such file; the message names the nearest one.
    """
    folder = shared_folder()
    path = folder / relative
    if not path.exists():
        raise ConfigError(f"{path} is missing{_nearest(path)}")
    return path


def config_path(kind: str, name: str | Path) -> Path:
    """Return the file behind what the user gave: a path, or the name of a shipped preset.

    Args:
        kind: The folder under ``config/``: "robots", "train", "planner".
        name: A path to a YAML file, or a preset's name without the ending, such as "push_t".

    Raises:
        ConfigError: It is neither; the message lists the presets.
    """
    given = Path(name).expanduser()
    if given.is_file():
        return given
    folder = shared_folder() / "config" / kind
    preset = folder / f"{given.name}.yaml"
    if given.parent == Path(".") and not given.suffix and preset.is_file():
        return preset
    presets = ", ".join(preset_names(kind)) or "none"
    raise ConfigError(f"{name}: no such file, and no preset of config/{kind} (there: {presets})")


def preset_names(kind: str) -> list[str]:
    """Return the names of the shipped presets of one kind, sorted."""
    return sorted(path.stem for path in (shared_folder() / "config" / kind).glob("*.yaml"))


def checkpoint_path(name: str | Path) -> Path:
    """Return the folder behind what the user gave: a path, or a shipped checkpoint's name.

    Both "push_t-nano" and "checkpoints/push_t-nano" find the shipped one from any folder.

    Raises:
        ConfigError: It is neither; the message lists the shipped checkpoints.
    """
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    folder = shared_folder() / "checkpoints"
    parts = given.parts[1:] if given.parts[:1] == ("checkpoints",) else given.parts
    if len(parts) == 1 and (folder / parts[0]).is_dir():
        return folder / parts[0]
    shipped = ", ".join(sorted(p.name for p in folder.glob("*") if p.is_dir())) or "none"
    raise ConfigError(f"{name}: no such checkpoint folder (shipped: {shipped})")


def _nearest(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
