"""The joint of `benchmarks/trajectory_jitter.py` does what the documentation says of it."""

import runpy
from pathlib import Path

import pytest

from lewm_core.data.messages import TRAJECTORY_OVERLAP

BENCHMARK = runpy.run_path(
    str(Path(__file__).parents[2] / "benchmarks" / "trajectory_jitter.py"), run_name="benchmark"
)
CYCLE_S = 0.002


def drive(periods: float) -> dict[str, float]:
    return BENCHMARK["drive"](periods, jitter_s=0.003, way_s=0.001, cycle_s=CYCLE_S, seed=0)


def test_an_arm_stands_still_between_trajectories_that_do_not_overlap():
    before, now = drive(1.0), drive(1.0 + TRAJECTORY_OVERLAP)
    assert before["standstills_per_s"] > 5.0
    assert now["standstills_per_s"] == 0.0
    assert now["to_90_percent_ms"] < 150.0
    period_ms = BENCHMARK["PERIOD_S"] * 1e3
    assert now["hold_to_stand_ms"] == pytest.approx(period_ms, abs=10.0), "a stop is not slower"
    assert now["silence_to_stand_ms"] == pytest.approx(1.5 * period_ms, abs=10.0)
