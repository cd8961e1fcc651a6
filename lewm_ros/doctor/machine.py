"""The computer: where the model would run, and whether recordings fit on the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from lewm_core.planning.solvers import rollout_dtype
from lewm_ros.doctor.report import Finding, fail, ok, warning

_GIB = 2**30

#: Of GPU memory: model, candidates and captured graphs of the shipped presets fit well into it.
_GPU_MEMORY_GIB = 1.0
#: Hours of recording below which somebody should look at the disk.
_FEW_HOURS = 1.0


def judge_processors() -> list[Finding]:
    """Say where the model runs with ``device: auto``, and in which precision."""
    return [*_judge_gpu(), *_judge_cpu()]


def judge_disk(out: str, minimum_free_gib: float, bytes_per_second: float) -> list[Finding]:
    """Judge the disk that recordings go to.

    Args:
        out: Folder of the dataset; empty: the current folder, and nothing fails.
        minimum_free_gib: The recorder stops before less is free.
        bytes_per_second: What the cameras send; 0: not known.
    """
    check, folder = "disk", Path(out or ".").expanduser().absolute()
    where = folder
    while not where.exists():
        where = where.parent
    free_gib = shutil.disk_usage(where).free / _GIB
    usable_gib = free_gib - minimum_free_gib
    measured = {"free_gib": free_gib, "camera_bytes_per_second": bytes_per_second}
    level = fail if out else warning
    if not os.access(where, os.W_OK):
        return [level(check, f"{where} cannot be written to", "give another out", **measured)]
    if usable_gib <= 0:
        return [
            level(
                check, f"{free_gib:.1f} GiB free where {folder} is, the recorder leaves "
                f"{minimum_free_gib:g} GiB (minimum_free_gib)",
                "free some space, or record elsewhere", **measured,
            )
        ]
    text = f"{free_gib:.1f} GiB free where {folder} is"
    if not bytes_per_second:
        return [ok(check, text, **measured)]
    hours = usable_gib * _GIB / bytes_per_second / 3600.0
    text += (
        f": {hours:.1f} h of recording at {bytes_per_second / 1e6:.1f} MB/s of pictures, before "
        "compression"
    )
    if hours < _FEW_HOURS:
        return [warning(check, text, "free some space, or record elsewhere", **measured)]
    return [ok(check, text, hours=hours, **measured)]


def _judge_gpu() -> list[Finding]:
    check = "GPU"
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            return [
                warning(
                    check, "there is one, but this PyTorch "
                    f"({torch.__version__}) cannot use it: plans come from the processors",
                    "install a PyTorch build for its driver, see nvidia-smi",
                )
            ]
        return [ok(check, "none: the model runs on the processors")]
    free, total = (value / _GIB for value in torch.cuda.mem_get_info())
    name = torch.cuda.get_device_name()
    precision = str(rollout_dtype("auto", torch.device("cuda"))).removeprefix("torch.")
    text = f"{name}, {free:.1f} of {total:.1f} GiB free, rollouts in {precision}"
    measured = {"free_gib": free, "total_gib": total}
    if free < _GPU_MEMORY_GIB:
        return [
            warning(check, text, "end other programs on it, or set device: cpu", **measured)
        ]
    return [ok(check, text, **measured)]


def _judge_cpu() -> list[Finding]:
    check, cores = "processors", os.cpu_count() or 2
    allowed = len(os.sched_getaffinity(0))
    threads, load = max(1, cores - 1), os.getloadavg()[0]
    precision = str(rollout_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    text = (
        f"{cores} cores, threads: 0 means {threads}, rollouts on a CPU in {precision}, load "
        f"{load:.1f}"
    )
    measured = {"cores": cores, "threads": threads, "load": load}
    if allowed < threads:
        return [
            warning(
                check, f"{text}; this process may use {allowed}",
                f"set the planner's threads to {max(1, allowed - 1)}", **measured,
            )
        ]
    if load > cores:
        return [
            warning(check, text, "end other programs: plans will come late", **measured)
        ]
    return [ok(check, text, **measured)]
