"""A short run of the fuzzer, as its users run it: every input loads or is refused by one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
INPUTS = 200


def run(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    file = tmp_path / "fuzz.json"
    finished = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--json", str(file), *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    return finished, file


def test_mutated_inputs_load_or_are_refused_by_one_line(tmp_path):
    # The crafted ones, which take longer to make, have tests of their own beside this one.
    finished, file = run(tmp_path, "--inputs", str(INPUTS), "--seed", "3", "--no-crafted")
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]
    result = json.loads(file.read_text())
    assert result["failed"] == 0 and not result["code_ran"]
    assert result["inputs"] >= INPUTS
    assert result["loaded"] > INPUTS / 20 and result["refused"] > INPUTS / 2


def test_a_failure_is_one(tmp_path):
    """With a tenth of a millisecond to open a checkpoint in, the fuzzer says so."""
    finished, _ = run(
        tmp_path, "--inputs", "3", "--only", "^checkpoint$", "--no-crafted", "--seconds", "0.0001"
    )
    assert finished.returncode == 1
    assert "inputs failed" in finished.stderr
