"""What the run runs on: device, precision, and words for the model card."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path

import torch

from lewm_core.errors import ConfigError

#: Flags of /proc/cpuinfo for instructions that multiply bfloat16 (x86, ARM).
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device behind ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Args:
        name: As in the configuration.
        local_rank: Number of this process on its machine; picks the GPU where none is named.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"device={name}: no usable GPU here; set device=cpu or device=auto")
        index = int(name.partition(":")[2] or local_rank)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device={name}: there are {torch.cuda.device_count()} GPUs, numbered from 0"
            )
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: no Apple GPU here; set device=cpu or device=auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``bfloat16`` or ``float32`` for ``auto``; other names as they are.

    On a CPU without bfloat16 instructions autocast is slower than float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_flags() & _BFLOAT16_FLAGS else "float32"


def stage_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that the stages after the first compute their matrix products in.

    Their matrices are small: without a unit for whole tiles (AMX), a CPU converts them for longer
    than it gains (benchmarks/stages.py).

    Args:
        precision: Of the run, by `choose_precision`.
        device: Of the run.

    Returns:
        None: as the weights, float32.
    """
    gains = device.type != "cpu" or "amx_bf16" in _cpu_flags()
    return torch.bfloat16 if precision == "bfloat16" and gains else None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine(device: torch.device) -> str:
    """Return CPU, cores and GPU in words; no names of hosts or users."""
    name = _cpu_field("model name") or platform.machine()
    text = f"{name}, {usable_cores()} cores"
    if device.type == "cuda":
        text += f", {torch.cuda.get_device_name(device)}"
    return text


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next step instead of giving it back.

    A training step on a CPU frees and asks for the same tens of megabytes again and again; each
    time the kernel has to clear the pages. With glibc that was a quarter of a nano step.

    Returns:
        Whether the library could be told so; others than glibc cannot.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, (1 << 31) - 1))


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB.

    Pages of memory-mapped frames count as long as they are resident, although the system may
    take them back at any time.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_flags() -> set[str]:
    return set((_cpu_field("flags") or _cpu_field("Features")).split())


def _cpu_field(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
