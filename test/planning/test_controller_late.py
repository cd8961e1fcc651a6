"""A plan that comes late: from standstill it begins when it is there, else its past is skipped.

10 Hz, blocks of two steps, three blocks in a plan.
"""

import numpy as np
import pytest

from lewm_core.planning import CommandLog
from test.planning.point import picture_of
from test.planning.test_controller import GOAL, STEP, make


def planned_late(late_steps: int, moved: bool = False):
    """A controller whose plan is ready ``late_steps`` after its picture; it held until then."""
    controller = make()
    controller.set_goal(picture_of(GOAL))
    controller.observe(0, picture_of((0.0, 0.0)))
    for k in range(late_steps):
        assert controller.command(k * STEP).hold
        if moved and k == 1:
            controller.record(k * STEP, np.array([0.5, 0.0]))
    assert controller.replan(0).plan is not None
    controller.observe(late_steps * STEP, picture_of((0.0, 0.0)))
    return controller


def test_from_standstill_no_action_is_lost_and_the_picture_stays_the_old_one():
    controller = planned_late(3)
    steps = [controller.command(k * STEP) for k in range(3, 9)]
    assert [command.step for command in steps] == [0, 1, 2, 3, 4, 5]
    assert all(command.image_stamp_ns == 0 for command in steps)
    controller.observe(9 * STEP, picture_of((0.0, 0.0)))
    assert controller.command(9 * STEP).reason == "plan exhausted"


def test_after_a_motion_the_past_of_a_plan_is_skipped():
    assert planned_late(3, moved=True).command(3 * STEP).step == 3


def test_a_plan_later_than_it_is_long_is_not_begun():
    controller = planned_late(7)
    assert controller.command(7 * STEP).reason == "plan exhausted"


@pytest.mark.parametrize(
    ("values", "hold", "still"),
    [
        ([[0.0], [0.0]], (0.0,), True),
        ([[0.0], [0.1]], (0.0,), False),
        ([[0.1], [0.0]], (0.0,), False),
        ([[0.3], [0.3]], ("last",), True),
        ([[0.3], [0.4]], ("last",), False),
    ],
)
def test_standing_still_is_every_command_since_being_hold(values, hold, still):
    log = CommandLog(1, 0.1)
    for k, value in enumerate(values):
        log.add(k * STEP, value)
    assert log.stood_still(0, hold) is still
    assert not log.stood_still(-STEP, hold), "what was in force before the log is not known"
