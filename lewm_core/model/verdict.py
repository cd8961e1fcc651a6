"""Can this checkpoint plan? What ``lewm-check`` found, kept in the checkpoint as ``check.json``.

The verdict belongs to the weights it was measured on: the file holds the SHA-256 of
``model.safetensors``, and a verdict on other weights is not believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lewm_core.errors import CheckpointError
from lewm_core.model.checkpoint import WEIGHTS
from lewm_core.paths import checkpoint_path
from lewm_core.reading import read_json_mapping

FILE = "check.json"
FORMAT_VERSION = 1

VerdictName = Literal["can plan", "marginal", "cannot plan"]

#: The verdicts from the best to the worst.
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)

#: A check.json holds a few kilobytes; more than this is not one.
_LARGEST = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Whether a checkpoint can plan, and why.

    Attributes:
        verdict: ``can plan``, ``marginal`` or ``cannot plan``.
        reason: One or more sentences: which figure, its threshold, what to do.
        measured: The figures, by name; ``None`` where one could not be measured.
        data: Names of the data sets it was measured on, without their paths.
        date: When, ISO 8601 with the time zone.
        version: Of lewm_core.
    """

    verdict: VerdictName
    reason: str
    measured: Mapping[str, Any]
    data: Sequence[str]
    date: str
    version: str


def read_verdict(checkpoint: str | Path) -> Verdict | None:
    """Return the stored verdict on a checkpoint; None if there is none on these weights.

    A verdict on other weights (they were replaced after the check) is left aside with a warning
    in the log.

    Args:
        checkpoint: The folder, or the name of a shipped checkpoint.

    Raises:
        CheckpointError: The file is not what `write_verdict` writes.
        ConfigError: There is no such checkpoint.
    """
    folder = checkpoint_path(checkpoint)
    file = folder / FILE
    if not file.is_file():
        return None
    stored = _read(file)
    if stored["weights_sha256"] != weights_digest(folder):
        _log.warning(
            "%s: is about other weights than those in %s, and is not used; run lewm-check again",
            file,
            WEIGHTS,
        )
        return None
    return Verdict(
        stored["verdict"],
        stored["reason"],
        stored["measured"],
        tuple(stored["data"]),
        stored["date"],
        stored["version"],
    )


def write_verdict(checkpoint: str | Path, verdict: Verdict) -> Path:
    """Store a verdict on the weights that are in the checkpoint now; return the file.

    A former verdict is replaced in one step: whoever reads meanwhile finds the one or the other.

    Args:
        checkpoint: The folder, or the name of a shipped checkpoint.
        verdict: Figures that are not finite are stored as ``null``.

    Raises:
        CheckpointError: The folder holds no weights, or cannot be written to.
    """
    folder = checkpoint_path(checkpoint)
    content = {
        "format_version": FORMAT_VERSION,
        "weights_sha256": weights_digest(folder),
        **asdict(verdict),
        "measured": finite(dict(verdict.measured)),
        "data": list(verdict.data),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        handle, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=folder)
        scratch = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.chmod(0o644)
            scratch.replace(folder / FILE)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(
            f"{folder / FILE}: cannot be written ({error.strerror}); make the folder writable, or "
            "give --no-store"
        ) from error
    return folder / FILE


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights, in hexadecimal digits.

    Raises:
        CheckpointError: There are none.
    """
    digest = hashlib.sha256()
    try:
        with (folder / WEIGHTS).open("rb") as stream:
            while piece := stream.read(2**20):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: cannot be read ({error.strerror}); give the folder that "
            "lewm-train wrote"
        ) from error


def finite(value: Any) -> Any:
    """Return a JSON value with ``None`` in the place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(file: Path) -> dict[str, Any]:
    mend = "delete it and run lewm-check again"
    stored = read_json_mapping(file, CheckpointError, mend, _LARGEST)
    if stored.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{file}: is not of format_version {FORMAT_VERSION}; {mend}")
    kinds = {
        "weights_sha256": str, "verdict": str, "reason": str, "measured": dict, "data": list,
        "date": str, "version": str,
    }
    for key, kind in kinds.items():
        if not isinstance(stored.get(key), kind):
            raise CheckpointError(f"{file}: {key} is missing or of another type; {mend}")
    if not all(isinstance(name, str) for name in stored["data"]):
        raise CheckpointError(f"{file}: data must be a list of names; {mend}")
    if stored["verdict"] not in VERDICTS:
        raise CheckpointError(
            f"{file}: verdict {stored['verdict']!r} is unknown; known are {', '.join(VERDICTS)}"
        )
    return stored
