"""What a check found, and the report of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lewm_core.errors import UserError
from lewm_core.model.verdict import finite

Level = Literal["ok", "warning", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Subject and question, stable between runs: ``camera top: rate``.
        level: ``ok``, ``warning`` (works, but look at it) or ``FAIL`` (the planner would hold, or
            worse).
        found: One sentence.
        mend: What to do; empty where there is nothing to do.
        measured: The figures behind the sentence, by name with the unit at its end.
    """

    check: str
    level: Level
    found: str
    mend: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the finding as one line of text."""
        mend = f"; {self.mend}" if self.mend else ""
        return " ".join(f"{self.level:<8}{self.check}: {self.found}{mend}".splitlines())

    def lowered(self, because: str) -> Finding:
        """Return the finding as a warning if it is a failure, since nothing depends on it."""
        if self.level != "FAIL":
            return self
        found = f"{self.found} ({because})"
        return Finding(self.check, "warning", found, self.mend, self.measured)


def ok(check: str, found: str, **measured: Any) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, "ok", found, "", measured)


def warning(check: str, found: str, mend: str, **measured: Any) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(check, "warning", found, mend, measured)


def fail(check: str, found: str, mend: str, **measured: Any) -> Finding:
    """Return a finding that keeps the robot from being driven."""
    return Finding(check, "FAIL", found, mend, measured)


class Report:
    """Prints findings as they come, and sums them up."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Take in findings and print a line each."""
        for finding in findings:
            self.findings.append(finding)
            print(finding.line(), flush=True)

    def count(self, level: Level) -> int:
        """Return how many findings have this level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def failed(self) -> bool:
        """Whether anything failed."""
        return self.count("FAIL") > 0

    def summary(self) -> str:
        """Return the last line."""
        counts = f"{self.count('ok')} ok, {self.count('warning')} warnings"
        failures = self.count("FAIL")
        if not failures:
            return f"doctor: {counts}, nothing failed"
        return f"doctor: {counts}, {failures} FAILED: mend these before the robot moves"

    def write(self, path: Path) -> None:
        """Write everything as JSON: counts, and one entry per finding.

        Raises:
            UserError: The file cannot be written.
        """
        content = {
            "passed": not self.failed,
            "ok": self.count("ok"),
            "warnings": self.count("warning"),
            "failures": self.count("FAIL"),
            "checks": [finite(asdict(finding)) for finding in self.findings],
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); give another json"
            ) from error
