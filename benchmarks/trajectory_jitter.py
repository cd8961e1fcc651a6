"""How long should the one-point trajectories last that the planner sends to an arm?

    python benchmarks/trajectory_jitter.py

A joint behind a joint_trajectory_controller with the settings of docs/first-robot.md, in numbers:
what `Trajectory::sample`, `deduce_from_derivatives` and the replacement in
`JointTrajectoryController::update` do with points of velocities (ros2_controllers, branch jazzy,
4.42.1). Commands come at the control rate, late by a timer's jitter and a way; the trajectory of
each ends some control periods after its stamp. Nothing of ROS runs here.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from lewm_core.commands.runner import make_parser, run_command

#: s; the control period of config/robots/arm_trajectory.yaml.
PERIOD_S = 0.05
#: rad/s, its limit of a first week.
SPEED = 0.2
#: s; how long the arm is driven, held, and left alone.
DRIVE_S, HOLD_S, SILENCE_S = 60.0, 1.0, 1.0


class TrajectoryController:
    """One joint: takes points of a velocity, commands positions.

    Args:
        cycle_s: Between two updates, s.

    Attributes:
        position: Commanded last, rad.
    """

    def __init__(self, cycle_s: float) -> None:
        self.position = 0.0
        self._cycle_s = cycle_s
        self._velocity = 0.0
        self._commanded_s = 0.0
        self._target: tuple[float, float] | None = None
        self._segment: tuple[float, float, float] | None = None

    def take(self, velocity: float, due_s: float, now_s: float) -> bool:
        """Replace the trajectory, unless the new one ends in the past."""
        if due_s < now_s:
            return False
        self._target, self._segment = (velocity, due_s), None
        return True

    def update(self, now_s: float) -> None:
        """Command the position of the next cycle."""
        if self._target is not None:
            velocity, due_s = self._target
            if self._segment is None:
                # interpolate_from_desired_state: it begins at what was commanded last.
                self._segment = (self._commanded_s, self.position, self._velocity)
            self._sample(now_s + self._cycle_s, velocity, due_s)
        self._commanded_s = now_s

    def _sample(self, at_s: float, end_velocity: float, due_s: float) -> None:
        begin_s, position, velocity = self._segment
        length_s, so_far_s = due_s - begin_s, min(at_s, due_s) - begin_s
        # The end's position is deduced from the mean velocity, so the cubic is a ramp of velocity.
        faster = (end_velocity - velocity) / length_s
        self.position = position + velocity * so_far_s + 0.5 * faster * so_far_s**2
        # After the end: its position, and the velocity that the message says.
        self._velocity = velocity + faster * so_far_s if at_s < due_s else end_velocity


def drive(
    periods: float, jitter_s: float, way_s: float, cycle_s: float, seed: int
) -> dict[str, float]:
    """Drive at `SPEED`, hold, fall silent; return what the joint did.

    Args:
        periods: From a command's stamp to the end of its trajectory, in control periods; of one
            that stops the joint it is one.
        jitter_s: Mean lateness of the timer, exponential.
        way_s: Mean time from stamp to arrival, exponential.
        cycle_s: Of the controller.
        seed: Of jitter and way.
    """
    generator = np.random.default_rng(seed)
    ticks = np.arange(0.0, DRIVE_S + HOLD_S + DRIVE_S / 2, PERIOD_S)
    stamps = ticks + generator.exponential(jitter_s, ticks.size)
    arrivals = np.maximum.accumulate(stamps + generator.exponential(way_s, ticks.size))
    hold = (ticks >= DRIVE_S) & (ticks < DRIVE_S + HOLD_S)
    times = np.arange(0.0, ticks[-1] + PERIOD_S + SILENCE_S, cycle_s)
    controller, positions = TrajectoryController(cycle_s), np.empty(times.size)
    refused = taken = 0
    for cycle, now_s in enumerate(times):
        while taken < ticks.size and arrivals[taken] <= now_s:
            velocity, lasts = (0.0, 1.0) if hold[taken] else (SPEED, periods)
            due_s = stamps[taken] + lasts * PERIOD_S
            refused += not controller.take(velocity, due_s, float(arrivals[taken]))
            taken += 1
        controller.update(float(now_s))
        positions[cycle] = controller.position
    speeds = np.diff(positions) / cycle_s / SPEED
    driven = speeds[(times[1:] > 1.0) & (times[1:] < DRIVE_S)]
    stopped = _when(np.abs(speeds) > 0.01, times[1:], DRIVE_S, DRIVE_S + HOLD_S)
    coasted = np.interp(DRIVE_S + HOLD_S, times, positions) - np.interp(DRIVE_S, times, positions)
    again = _when(speeds < 0.9, times[1:], DRIVE_S + HOLD_S, DRIVE_S + HOLD_S + 0.5)
    silent = _when(np.abs(speeds) > 0.01, times[1:], float(stamps[-1]), float(times[-1]))
    return {
        "stands_share": float(np.mean(driven < 0.01)),
        "standstills_per_s": float(np.sum(np.diff((driven < 0.01).astype(int)) == 1) / DRIVE_S),
        "mean_speed": float(np.mean(driven)),
        "unevenness": float(np.std(driven)),
        "refused_share": refused / ticks.size,
        "to_90_percent_ms": again * 1e3,
        "hold_to_stand_ms": stopped * 1e3,
        "coasts_mrad": float(coasted) * 1e3,
        "silence_to_stand_ms": silent * 1e3,
    }


def _when(condition: np.ndarray, times: np.ndarray, begin_s: float, end_s: float) -> float:
    """Return how long after ``begin_s`` a condition held for the last time before ``end_s``, s."""
    inside = (times > begin_s) & (times < end_s) & condition
    return float(times[inside][-1] - begin_s) if inside.any() else 0.0


def _benchmark(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    print(
        "periods jitter | stands  standstills/s  mean speed  (+-)  refused | to 90 %  hold: to "
        "stand, coasts | silence: to stand"
    )
    for jitter_ms in (0.0, 1.0, 3.0, 10.0):
        for periods in (1.0, 1.25, 1.5, 2.0, 3.0):
            seen = drive(periods, jitter_ms * 1e-3, options.way_ms * 1e-3,
                         1.0 / options.controller_rate, options.seed)
            result |= {f"{key}_{periods:g}_{jitter_ms:g}ms": value for key, value in seen.items()}
            print(
                f"{periods:7.2f} {jitter_ms:3.0f} ms | {seen['stands_share']:6.1%} "
                f"{seen['standstills_per_s']:14.1f} {seen['mean_speed']:11.1%} "
                f"{seen['unevenness']:5.0%} {seen['refused_share']:8.1%} | "
                f"{seen['to_90_percent_ms']:4.0f} ms  "
                f"{seen['hold_to_stand_ms']:7.0f} ms {seen['coasts_mrad']:8.1f} mrad | "
                f"{seen['silence_to_stand_ms']:4.0f} ms"
            )
    return result


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = make_parser(
        "benchmarks/trajectory_jitter.py",
        "What a joint does whose commands are late, by how long their trajectories last.",
        "python benchmarks/trajectory_jitter.py --way-ms 1",
    )
    parser.add_argument("--way-ms", type=float, default=1.0, help="mean, from stamp to arrival")
    parser.add_argument("--controller-rate", type=float, default=500.0, help="Hz (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="of jitter and way (default 0)")
    return run_command(parser, _benchmark)


if __name__ == "__main__":
    raise SystemExit(main())
