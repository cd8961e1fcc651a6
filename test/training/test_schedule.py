"""Learning rate and progress."""

from __future__ import annotations

import pytest

from lewm_core.training.schedule import learning_rate, run_progress


def test_warmup_rises_linearly_and_cosine_falls_to_the_floor():
    assert learning_rate(0.0, 0.1, 2.0) == 0.0
    assert learning_rate(0.05, 0.1, 2.0) == pytest.approx(1.0)
    assert learning_rate(0.1, 0.1, 2.0) == pytest.approx(2.0)
    assert learning_rate(0.55, 0.1, 2.0) == pytest.approx(1.0)
    assert learning_rate(1.0, 0.1, 2.0) == pytest.approx(0.0)
    assert learning_rate(1.0, 0.1, 2.0, final_fraction=0.1) == pytest.approx(0.2)
    assert learning_rate(1.5, 0.1, 2.0) == learning_rate(1.0, 0.1, 2.0)


def test_without_warmup_it_starts_at_the_peak():
    assert learning_rate(0.0, 0.0, 2.0) == 2.0


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_warmup_must_leave_something(warmup):
    with pytest.raises(ValueError, match="warm-up"):
        learning_rate(0.5, warmup, 1.0)


def test_progress_is_steps_or_time_whichever_is_further():
    assert run_progress(5, 10, 1e9, None) == 0.5
    assert run_progress(5, 10, 60.0, 4.0) == 0.5
    assert run_progress(5, 10, 180.0, 4.0) == 0.75
    assert run_progress(5, 10, 1e9, 4.0) == 1.0
