"""A lock between processes that a killed process cannot leave behind."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOGGER = logging.getLogger(__name__)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock on ``path``; wait for whoever holds it.

    On file systems without locks it does nothing, and says so.
    """
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                _LOGGER.info("another process prepares the same data; waiting for it (%s)", path)
                fcntl.flock(stream, fcntl.LOCK_EX)
            else:
                _LOGGER.warning("%s cannot be locked (%s); going on without", path, error)
        yield
