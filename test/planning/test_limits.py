import numpy as np
import pytest

from lewm_core.errors import PlanningError
from lewm_core.planning import ActionLimits

LIMITS = ActionLimits([-1.0, 0.0], [1.0, 2.0], [5.0, np.inf], (0.0, "last"))


def test_a_command_inside_the_limits_is_left_as_it_is():
    assert LIMITS.apply([0.3, 1.5], [0.1, 0.0], 0.1).tolist() == [0.3, 1.5]


def test_range_and_rate_are_kept():
    assert LIMITS.apply([9.0, 9.0], [0.9, 2.0], 0.1).tolist() == [1.0, 2.0]
    np.testing.assert_allclose(LIMITS.apply([1.0, 1.0], [-1.0, 0.0], 0.1), [-0.5, 1.0])


def test_no_time_allows_no_change_except_where_nothing_limits_it():
    np.testing.assert_allclose(LIMITS.apply([1.0, 1.0], [0.0, 0.0], 0.0), [0.0, 1.0], atol=1e-9)


def test_the_first_command_starts_from_the_hold_value_or_is_free():
    assert LIMITS.apply([1.0, 1.7], None, 0.1).tolist() == [0.5, 1.7]


def test_hold_is_a_number_or_the_last_command():
    assert LIMITS.hold_values([0.8, 1.2]).tolist() == [0.0, 1.2]
    assert LIMITS.hold_values(None) is None
    assert ActionLimits.unlimited(2).hold_values(None).tolist() == [0.0, 0.0]


def test_unlimited_limits_nothing():
    assert ActionLimits.unlimited(2).apply([1e9, -1e9], None, 0.0).tolist() == [1e9, -1e9]


@pytest.mark.parametrize(
    "arguments",
    [
        ([0.0], [1.0, 1.0], [1.0, 1.0], (0.0, 0.0)),
        ([2.0, 0.0], [1.0, 1.0], [1.0, 1.0], (0.0, 0.0)),
        ([0.0, 0.0], [1.0, 1.0], [0.0, 1.0], (0.0, 0.0)),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments):
    with pytest.raises(PlanningError, match="action limits"):
        ActionLimits(*arguments)
