"""The fault injector finds what it should, in both kinds of time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", ["stamps 2 s ahead", "clock stops"])
def test_a_fault_is_injected_and_judged(tmp_path, fault):
    result = tmp_path / "faults.json"
    command = [sys.executable, "benchmarks/faults.py", "--only", fault, "--json", str(result),
               "--logs", str(tmp_path)]  # fmt: skip
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stdout + run.stderr
    values = json.loads(result.read_text())
    (row,) = values["faults"]
    assert row["fault"] == fault and row["passed"] and row["bad"] == 0
    assert row["recovery_s"] is not None and values["traces"] == []


def test_a_fault_that_is_not_known_is_named(tmp_path):
    command = [sys.executable, "benchmarks/faults.py", "--only", "earthquake"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.strip().endswith("--only earthquake: no fault has this in its name")
    assert len(run.stderr.splitlines()) == 1
