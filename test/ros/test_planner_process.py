"""The planner's process: what it refuses to start with, simulated time, SIGINT."""

import signal

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from lewm_core.data import Contract, load_contract, save_contract  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.processes import NodeProcess, isolated_environment  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import (  # noqa: E402
    CONTROL_PERIOD_S,
    make_checkpoint,
    picture_of,
    running_planner,
)

GOAL = picture_of(0.2, 0.8)


def test_a_contract_that_differs_ends_the_process_and_the_differing_lines_are_printed(tmp_path):
    values = load_contract("push_t").to_dict()
    values["action"]["fields"][0]["upper"] = 0.2
    values["control_rate"] = 20.0
    save_contract(Contract.from_dict(values), tmp_path / "other.yaml")
    parameters = {
        "checkpoint": make_checkpoint(tmp_path / "checkpoint"),
        "contract": tmp_path / "other.yaml",
        "autostart": True,
    }
    environment = isolated_environment()
    with NodeProcess("planner", parameters, environment, tmp_path / "log") as process:
        assert process.wait(60.0) == 1
        output = process.output()
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if "contracts differ" in line]
    assert any("action.fields[0].upper: 0.15 != 0.2" in line for line in lines)
    assert any("control_rate: 10.0 != 20.0" in line for line in lines)
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and "other.yaml differs" in last


def test_simulated_time_counts_and_sigint_ends_it_with_hold(tmp_path):
    cv2.imwrite(str(tmp_path / "goal.png"), GOAL)
    parameters = {
        "use_sim_time": True, "goal_file": tmp_path / "goal.png", "goal_tolerance": 1e-9,
        "clock_timeout": 0.5,
    }
    with running_planner(tmp_path, **parameters) as driver:
        driver.wait_status(PlanStatus.WAITING, "ROS time stands still")

        driver.clock_ns, driver.streaming = 1_000_000_000, True
        driver.wait_motion()
        stamps = np.array([seen.stamp_ns for seen in driver.wait_commands(20)]) * 1e-9
        assert stamps[-1] < 60.0, "stamps are not of simulated time"
        phases = np.abs((stamps / CONTROL_PERIOD_S + 0.5) % 1.0 - 0.5) * CONTROL_PERIOD_S
        assert np.median(phases) < 0.021, "commands are not on the grid of the control period"

        driver.wait_status(PlanStatus.PLANNING)
        driver.clock_runs = False
        status = driver.wait_status(PlanStatus.WAITING, "ROS time stands still")
        assert status.holding and driver.wait_commands(1)[-1].holds
        driver.clock_runs = True
        driver.wait_motion()

        driver.clock_ns = 500_000_000
        wait_until(
            lambda: "set back" in driver.process.output(), 10.0, "the clock's jump is not seen"
        )
        moved = driver.wait_motion()
        assert moved.stamp_ns < 60_000_000_000

        assert driver.process.stop(timeout_s=20.0, signal_number=signal.SIGINT) == 0
        wait_until(lambda: driver.commands[-1].holds, 3.0, "the last command is not hold")
        assert "Traceback" not in driver.process.output()
