"""A short run of the fuzzer, as its users run it: every input loads or is refused by one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The least that a run over all kinds is worth, and what makes no failure go unseen.
INPUTS = 100


def run(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    file = tmp_path / "fuzz.json"
    finished = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--json", str(file), *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    return finished, file


def test_mutated_and_crafted_inputs_load_or_are_refused_by_one_line(tmp_path):
    finished, file = run(tmp_path, "--inputs", str(INPUTS), "--seed", "3")
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]
    result = json.loads(file.read_text())
    assert result["failed"] == 0 and not result["code_ran"]
    # Both happen, and the crafted ones are there.
    assert result["loaded"] > 0 and result["refused"] > INPUTS
    assert result["inputs"] >= 2 * INPUTS


def test_a_failure_is_one(tmp_path):
    """With no memory to read a picture of 56 megapixels, the fuzzer says so."""
    finished, _ = run(tmp_path, "--inputs", "1", "--only", "^picture$", "--memory", "16")
    assert finished.returncode == 1
    assert "inputs failed" in finished.stderr
