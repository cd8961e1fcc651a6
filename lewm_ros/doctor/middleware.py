"""DDS: which one, who can find whom, and whether pictures fit through."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lewm_core.paths import shared_folder
from lewm_ros.dds import PROFILE_VARIABLES, abandoned_files
from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.endpoints import owners

_MIB = 2**20

#: Fast DDS's own segment of shared memory, bytes: larger messages go in UDP fragments.
_DEFAULT_SEGMENT = 512 * 1024
#: Of shared memory, for the segments (16 MiB, config/fastdds) of a handful of processes.
_SHARED_MEMORY_MIB = 64
#: Pictures that should fit into the kernel's receive buffer.
_BUFFERED_PICTURES = 4
#: Of Fast DDS's GUID: vendor and host. Equal for endpoints of one machine.
_HOST_BYTES = 4


def judge_identity(rmw: str, environment: Mapping[str, str]) -> list[Finding]:
    """Say which middleware, domain and discovery range this process has; others must have them.

    Args:
        rmw: Identifier of the middleware.
        environment: Variables of the process.
    """
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    text = f"{rmw}, ROS_DOMAIN_ID {domain}, discovery {reach}"
    if environment.get("ROS_STATIC_PEERS"):
        text += f", peers {environment['ROS_STATIC_PEERS']}"
    if reach == "OFF":
        return [
            fail(
                "dds", f"{text}: no other process is found",
                "set ROS_AUTOMATIC_DISCOVERY_RANGE to SUBNET or LOCALHOST",
            )
        ]
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        return [
            warning(
                "dds", f"{text}, ROS_LOCALHOST_ONLY 1: other machines are not found",
                "use ROS_AUTOMATIC_DISCOVERY_RANGE, which since Iron has taken its place",
            )
        ]
    return [ok("dds", text)]


def judge_profile(
    rmw: str, environment: Mapping[str, str], largest_picture: int
) -> list[Finding]:
    """Say which Fast DDS profile this process runs with.

    Args:
        rmw: Identifier of the middleware.
        environment: Variables of the process.
        largest_picture: Bytes of the largest picture seen; 0: none.
    """
    check = "dds: profile"
    if not rmw.startswith("rmw_fastrtps"):
        return [ok(check, f"none: {rmw} has its own settings for large messages")]
    files = [environment[name] for name in PROFILE_VARIABLES.values() if environment.get(name)]
    if files:
        ours = Path(files[0]).is_relative_to(shared_folder())
        origin = "of this package" if ours else "your own"
        return [ok(check, f"{files[0]} ({origin}); drivers need it too, see docs/ros-nodes.md")]
    if largest_picture > _DEFAULT_SEGMENT:
        return [
            warning(
                check, f"none, and pictures of {largest_picture / 1e6:.1f} MB do not fit Fast "
                "DDS's own shared memory (512 KiB): most are lost",
                "unset LEWM_DDS_PROFILE, see docs/ros-nodes.md",
            )
        ]
    return [ok(check, "none")]


def judge_receive_buffer(
    publishers: Sequence[Any],
    own_gid: Sequence[int],
    largest_picture: int,
    file: Path = Path("/proc/sys/net/core/rmem_max"),
) -> list[Finding]:
    """Judge the kernel's receive buffer against the pictures, if they come from another machine.

    Args:
        publishers: Endpoints of the cameras.
        own_gid: Of an endpoint of this process; empty: hosts cannot be told apart.
        largest_picture: Bytes of the largest picture seen; 0: none.
        file: The kernel's limit.
    """
    check = "dds: receive buffer"
    try:
        limit = int(file.read_text())
    except (OSError, ValueError) as error:
        return [ok(check, f"{file} cannot be read ({error})")]
    host = list(own_gid[:_HOST_BYTES])
    remote = [info for info in publishers if list(info.endpoint_gid[:_HOST_BYTES]) != host]
    text = f"net.core.rmem_max is {limit / 1024:.0f} KiB"
    measured = {"rmem_max_bytes": limit, "largest_picture_bytes": largest_picture}
    if host and publishers and not remote:
        text += "; the cameras are on this machine, and their pictures go by shared memory"
        return [ok(check, text, **measured)]
    if largest_picture and limit < _BUFFERED_PICTURES * largest_picture:
        need = max(_BUFFERED_PICTURES * largest_picture, 8 * _MIB)
        who = f" from {owners(remote)}" if remote else ""
        return [
            warning(
                check, f"{text}, pictures{who} have {largest_picture / 1024:.0f} KiB: some are "
                "lost on the network",
                f"sudo sysctl -w net.core.rmem_max={need}, or send compressed pictures",
                **measured,
            )
        ]
    return [ok(check, text, **measured)]


def judge_shared_memory(rmw: str, folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Judge the room for shared memory, and what killed processes left there."""
    check = "dds: shared memory"
    if not rmw.startswith("rmw_fastrtps") or not folder.is_dir():
        return []
    free_mib = shutil.disk_usage(folder).free / _MIB
    findings = []
    if free_mib < _SHARED_MEMORY_MIB:
        findings.append(
            warning(
                check, f"{free_mib:.0f} MiB free in {folder}; each process takes 16 MiB",
                "in a container give it more (docker run --shm-size=1g, or --ipc=host)",
                free_mib=free_mib,
            )
        )
    else:
        findings.append(ok(check, f"{free_mib:.0f} MiB free in {folder}", free_mib=free_mib))
    left = abandoned_files(folder)
    if left:
        findings.append(
            warning(
                check, f"{len(left)} files of processes that were killed are in {folder}",
                'python -c "from lewm_ros.dds import clean_shared_memory as c; print(c())" '
                "removes them",
                abandoned=len(left),
            )
        )
    return findings


