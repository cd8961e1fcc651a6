"""The Fast DDS profile that lets pictures arrive, and what killed processes leave behind.

With Fast DDS's default shared-memory segment (512 KiB) a 640x480 picture of 900 KiB does not fit,
falls back to fragmented UDP, and is mostly lost with best-effort QoS. The profiles in
``config/fastdds`` give each process a segment of 16 MiB (`docs/ros-nodes.md` has the figures and
the benchmark that prints them).
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from pathlib import Path

from lewm_core.paths import find_shared

#: The variable that names the profile, by major version of Fast DDS: each version looks at its
#: own only. Either of them, set by the user, means: hands off.
PROFILE_VARIABLES = {2: "FASTRTPS_DEFAULT_PROFILES_FILE", 3: "FASTDDS_DEFAULT_PROFILES_FILE"}

#: A lock file younger than this may belong to a process that has not locked it yet.
_SETTLED_S = 5.0

#: Ports of RTPS (DDSI-RTPS 2.5, section 9.6.2), UDP and shared memory alike: of domain 0, from one
#: domain to the next, from a domain's first to the first at which a participant hears of others;
#: every other one is a further participant's. And how many participants are looked for.
_FIRST_PORT, _PORTS_PER_DOMAIN, _UNICAST_OFFSET = 7400, 250, 10
_PARTICIPANTS = 30


def apply_profile(name: str = "host") -> Path | None:
    """Make Fast DDS read a profile of ``config/fastdds``. Call it before ``rclpy.init``.

    Does nothing where the user set a profile of their own, switched this off by
    ``LEWM_DDS_PROFILE=none``, or runs another middleware (``RMW_IMPLEMENTATION``).

    Args:
        name: Of the profile; the environment variable ``LEWM_DDS_PROFILE`` goes before it.

    Returns:
        The file applied, or None if nothing was done.

    Raises:
        ConfigError: If there is no profile of this name.
    """
    name = os.environ.get("LEWM_DDS_PROFILE") or name
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    chosen_by_user = any(os.environ.get(variable) for variable in PROFILE_VARIABLES.values())
    if name == "none" or chosen_by_user or not middleware.startswith("rmw_fastrtps"):
        return None
    version = _major_version()
    profile = find_shared(f"config/fastdds/{name}.fastdds{version}.xml")
    os.environ[PROFILE_VARIABLES[version]] = str(profile)
    return profile


def _major_version() -> int:
    """Return 3 for Fast DDS 3 (Kilted and later), 2 for what came before.

    The two spell some elements of their profiles differently and refuse the other's.
    """
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(":")
    # The package was called fastrtps up to version 2.
    found = [Path(prefix, "share", "fastdds").is_dir() for prefix in [*prefixes, sys.prefix]]
    return 3 if any(found) else 2


def clean_shared_memory(folder: Path = Path("/dev/shm")) -> list[str]:
    """Remove the Fast DDS segments whose process is gone (killed, so it could not tidy up).

    Each segment has a lock file ``NAME_el`` that its owner keeps locked (``flock``) while it
    lives; only segments whose lock nobody holds are removed, so this is safe at any time.

    Returns:
        The names of the removed files.
    """
    removed: list[str] = []
    for path in abandoned_files(folder):
        path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed


def abandoned_files(folder: Path = Path("/dev/shm")) -> list[Path]:
    """Return the files that `clean_shared_memory` would remove: their process is gone."""
    files: list[Path] = []
    for lock in sorted(folder.glob("fastrtps_*_el")) + sorted(folder.glob("fastdds_*_el")):
        if not _is_abandoned(lock):
            continue
        segment = lock.with_name(lock.name[: -len("_el")])
        candidates = (segment, lock, lock.with_name(f"sem.{segment.name}_mutex"))
        files += [path for path in candidates if path.exists()]
    return files


def domain_in_use(domain: int) -> bool:
    """Return whether a process of this machine takes part in a ROS domain."""
    first = _FIRST_PORT + _PORTS_PER_DOMAIN * domain + _UNICAST_OFFSET
    for port in range(first, first + 2 * _PARTICIPANTS, 2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return True
    return False


def domain_files(domain: int, folder: Path = Path("/dev/shm")) -> set[Path]:
    """Return the shared memory in which processes of a ROS domain receive, with its locks.

    Whoever sends to a process that was killed makes its file anew, and nobody removes it then.
    """
    first = _FIRST_PORT + _PORTS_PER_DOMAIN * domain
    found: set[Path] = set()
    for number in range(first, first + _PORTS_PER_DOMAIN):
        for library in ("fastrtps", "fastdds"):
            name = f"{library}_port{number}"
            found |= {folder / name, folder / f"{name}_el", folder / f"sem.{name}_mutex"}
    return {path for path in found if path.exists()}


def clean_domain(domain: int) -> None:
    """Remove what killed processes left of a ROS domain, if no process takes part in it."""
    if not domain_in_use(domain):
        for path in domain_files(domain):
            path.unlink(missing_ok=True)


def _is_abandoned(lock: Path) -> bool:
    """Return whether nobody holds the lock file and it is old enough to be judged."""
    try:
        with lock.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime < _SETTLED_S:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Locked by its owner, removed meanwhile, or another user's: not ours to remove.
        return False
    return True
