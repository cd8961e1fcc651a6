"""Rates and their intervals; means over evaluations that share their goals."""

import pytest

from lewm_core.errors import UserError
from lewm_core.evaluation.closed_loop import judge
from lewm_core.evaluation.statistics import (
    mean_summary,
    plan_percentiles,
    summarise,
    wilson_interval,
)
from lewm_core.scenes.push_t.success import push_t_outcome

GOAL = (0.0, 0.0, 0.1, 0.0, 0.0)
FAR = (0.2, 0.0, 0.0, 0.0, 1.0)
BLOCK_THERE = (0.2, 0.0, 0.1, 0.0, 0.0)


def result(number, *truths, **more):
    return judge("planner", number, [push_t_outcome(truth, GOAL) for truth in truths], **more)


def test_wilson_interval_against_published_values():
    # Brown, Cai and DasGupta (2001) and standard tables: 95 % intervals.
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    lower, upper = wilson_interval(5, 10)
    assert (lower + upper) / 2 == pytest.approx(0.5)


@pytest.mark.parametrize(("successes", "number"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_interval_refuses_impossible_counts(successes, number):
    with pytest.raises(UserError, match="no interval"):
        wilson_interval(successes, number)


def test_goals_where_the_block_lies_right_already_are_told_apart():
    rows = [
        result(0, FAR, GOAL, GOAL),
        result(1, FAR, GOAL, FAR),
        result(2, FAR, FAR, FAR),
        result(3, BLOCK_THERE, GOAL, GOAL),
    ]
    assert [row.must_move for row in rows] == [True, True, True, False]
    assert rows[1].met == (True, False)
    summary = summarise(rows)
    assert (summary["success_any"], summary["success_final"]) == (0.75, 0.5)
    assert summary["must_move_episodes"] == 3
    assert summary["must_move_any"] == pytest.approx(2 / 3)
    assert summary["ci95_must_move_any"] == pytest.approx(list(wilson_interval(2, 3)))
    assert summary["must_move_final"] == pytest.approx(1 / 3)


def test_no_goal_that_moves_the_block_has_no_rate():
    summary = summarise([result(0, BLOCK_THERE, GOAL)])
    assert summary["must_move_episodes"] == 0
    assert summary["must_move_any"] is None and summary["ci95_must_move_any"] is None


def test_plans_are_counted_and_timed_apart():
    summary = summarise([result(0, FAR, GOAL, plans=7), result(1, FAR, GOAL, plans=3)])
    assert summary["plans"] == 10 and summary["plan_ms_p50"] is None
    times = plan_percentiles([0.001, 0.002, 0.003])
    assert times["plan_ms_p50"] == pytest.approx(2.0)


def test_a_mean_over_the_same_goals_does_not_count_them_twice():
    good = [result(i, FAR, GOAL) for i in range(10)]
    poor = [result(i, FAR, GOAL if i < 5 else FAR) for i in range(10)]
    mean = mean_summary([summarise(good), summarise(poor)])
    assert mean["success_any"] == 0.75 and mean["episodes"] == 10
    assert mean["ci95_any"] == pytest.approx(list(wilson_interval(7.5, 10)))
    assert mean["ci95_must_move_final"] == pytest.approx(list(wilson_interval(7.5, 10)))
    assert "policy" not in mean and mean["plan_ms_p50"] is None
    alone = summarise(poor)
    assert mean_summary([alone]) == {k: v for k, v in alone.items() if k != "policy"}


def test_nothing_cannot_be_summarised():
    for summary in (summarise, mean_summary):
        with pytest.raises(UserError, match="there are no"):
            summary([])
