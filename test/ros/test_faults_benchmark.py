"""The fault injector finds what it should, in both kinds of time."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def test_mistakes_and_a_neighbours_full_disk_do_not_stop_the_robot(tmp_path):
    result = tmp_path / "faults.json"
    command = [sys.executable, "benchmarks/faults.py", "--only", "^wrong|disk fills",
               "--json", str(result), "--logs", str(tmp_path)]  # fmt: skip
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = {row["fault"]: row for row in json.loads(result.read_text())["faults"]}
    assert set(rows) == {"wrong parameters", "wrong goals", "a recorder's disk fills up"}
    assert all(row["passed"] and row["pause_s"] < 0.4 for row in rows.values())
    assert "recording has stopped" in rows["a recorder's disk fills up"]["status"]


def test_a_pause_of_a_robot_that_should_go_on_is_measured_from_end_to_end(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    faults = importlib.import_module("faults")
    moving = [SimpleNamespace(at_ns=round(s * 1e9)) for s in (0.5, 1.1, 1.2, 1.5, 2.5)]
    between = [1.0, 2.0]
    assert faults._longest_pause(moving, *(round(s * 1e9) for s in between)) == pytest.approx(0.5)
    assert faults._longest_pause([], 0, 10**9) == pytest.approx(1.0)


def test_a_fault_that_is_not_known_is_named(tmp_path):
    command = [sys.executable, "benchmarks/faults.py", "--only", "earthquake"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.strip().endswith("--only earthquake: no fault has this in its name")
    assert len(run.stderr.splitlines()) == 1
