"""Why a recorder must not go on: the disk is nearly full, or it has recorded enough."""

from __future__ import annotations

import shutil
from pathlib import Path

_GIB = 2**30


class DiskGuard:
    """Watches the free space of a disk, and a quota."""

    def __init__(self, out: Path, minimum_free_gib: float, quota_gib: float) -> None:
        """Note the limits.

        Args:
            out: Folder on the disk.
            minimum_free_gib: GiB of it that stay free.
            quota_gib: GiB that may be recorded in all; 0: no limit.
        """
        self._out = out
        self._least = minimum_free_gib
        self._quota = quota_gib

    def complaint(self, recorded_bytes: int) -> str:
        """Return why nothing may be recorded, or an empty text.

        Args:
            recorded_bytes: Bytes recorded so far.
        """
        try:
            free = shutil.disk_usage(self._out).free / _GIB
        except OSError as error:
            return f"disk of {self._out} is gone ({error}): mount it again"
        if free < self._least:
            return (
                f"disk of {self._out} has {free:.1f} GiB free, minimum_free_gib is "
                f"{self._least:g}: free some space or choose another out"
            )
        used = recorded_bytes / _GIB
        if self._quota and used > self._quota:
            return (
                f"{used:.3g} GiB are recorded, quota_gib is {self._quota:g}: raise it or start anew"
            )
        return ""
