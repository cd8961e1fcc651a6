"""The planner's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node

from lewm_ros.lifecycle import autostart
from lewm_ros.parameters import Change, Declaration, read_parameters

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("checkpoint", "", "Folder of the checkpoint to plan with."),
    Declaration(
        "contract", "",
        "Contract file, or a name in config/robots; empty: the checkpoint's. Another one than "
        "the checkpoint's is refused.",
    ),
    Declaration(
        "force", False,
        "Activate although lewm-check found that the checkpoint cannot plan. The robot will move, "
        "and not towards the goal.", Change.LIVE,
    ),
    Declaration(
        "planner", "auto",
        "Planner preset: a YAML file, or a name in config/planner; auto: default for a "
        "checkpoint with a learned proposal, else search.",
    ),
    Declaration("device", "auto", "Where the model runs: cpu, cuda, cuda:1, or auto."),
    Declaration(
        "threads", 0, "Threads of the model on a CPU; 0: all cores but one, at least one.",
        lowest=0, highest=256,
    ),
    Declaration(
        "seed", -1, "Seed of the search; -1: the preset's.", lowest=-1, highest=2**31 - 1
    ),
    Declaration(
        "replan_rate", 0.0,
        "Plans per second of ROS time [Hz]; 0: one per block of the model.",
        Change.LIVE, 0.0, 100.0,
    ),
    Declaration(
        "goal_tolerance", 0.0,
        "Squared latent distance [-] that counts as reached; 0: goal_tolerance_factor times the "
        "checkpoint's distance of one block.", Change.LIVE, 0.0, 1.0e9,
    ),
    Declaration(
        "goal_tolerance_factor", 0.0,
        "Default tolerance in units of the checkpoint's squared latent distance between pictures "
        "one block apart [-]; 0: the checkpoint's own, mostly 0.06, about a quarter of the motion "
        "in a block.", Change.LIVE, 0.0, 1.0e6,
    ),
    Declaration(
        "reached_pictures", 3,
        "Consecutive pictures within the tolerance that make a goal reached [-].",
        Change.LIVE, 1, 1000,
    ),
    Declaration(
        "reached_time", 0.2,
        "Time [s] by the pictures' stamps for which the goal must be within the tolerance, besides "
        "reached_pictures.", Change.LIVE, 0.0, 60.0,
    ),
    Declaration(
        "progress_timeout", 0.0,
        "Give a goal up when the distance has not become 5 % less for this long [s of ROS time]; "
        "0: never.", Change.LIVE, 0.0, 3600.0,
    ),
    Declaration(
        "failure_timeout", 10.0,
        "Give a goal up when planning has failed for this long [s of ROS time]; 0: never.",
        Change.LIVE, 0.0, 3600.0,
    ),
    Declaration(
        "dry_run", False,
        "Plan and report everything but publish no command: the robot stands, or others drive it.",
        Change.IDLE,
    ),
    Declaration(
        "speed_scale", 1.0,
        "Share of every command's way from the hold command that is published [-]: 0.2 drives at a "
        "fifth of the speed.", Change.LIVE, 0.0, 1.0,
    ),
    Declaration(
        "deadman_topic", "",
        "Topic of std_msgs/Bool that must say true, again and again, for the robot to move; "
        "empty: none.",
    ),
    Declaration(
        "deadman_timeout", 0.5, "Time [s of wall time] for which one such message counts.",
        Change.LIVE, 0.02, 60.0,
    ),
    Declaration(
        "frozen_timeout", -1.0,
        "Hold when the pictures are the same to the last byte for this long [s] while the robot is "
        "commanded to move: a frozen camera, or a robot that does not move. 0: never; -1: the "
        "camera's timeout, but never in simulated time, where pictures have no noise.",
        Change.LIVE, -1.0, 3600.0,
    ),
    Declaration(
        "watchdog_timeout", 0.5,
        "Hold when the node's callbacks stand still for this long [s of wall time].",
        Change.IDLE, 0.1, 60.0,
    ),
    Declaration(
        "goal_file", "",
        "PNG or JPEG to drive to as soon as the node is active; empty: wait for ~/set_goal or "
        "~/reach_goal.",
    ),
    Declaration(
        "status_rate", 5.0, "Reports on ~/status per second of wall time [Hz].",
        lowest=2.0, highest=50.0,
    ),
    Declaration(
        "lock_step", False,
        "Withhold the command of a control tick while a plan is being made, so that a simulated "
        "scene in lock step waits for it. Never on a robot.",
    ),
    Declaration(
        "clock_timeout", 0.5,
        "When ROS time stands still for this long [s of wall time], hold and say so.",
        Change.LIVE, 0.1, 3600.0,
    ),
    autostart(False),
)


@dataclass(frozen=True)
class PlannerParameters:
    """Values of all parameters; see `DECLARATIONS` for meaning and units."""

    checkpoint: str
    contract: str
    force: bool
    planner: str
    device: str
    threads: int
    seed: int
    replan_rate: float
    goal_tolerance: float
    goal_tolerance_factor: float
    reached_pictures: int
    reached_time: float
    progress_timeout: float
    failure_timeout: float
    dry_run: bool
    speed_scale: float
    deadman_topic: str
    deadman_timeout: float
    frozen_timeout: float
    watchdog_timeout: float
    goal_file: str
    status_rate: float
    lock_step: bool
    clock_timeout: float
    autostart: bool


def read_settings(node: Node) -> PlannerParameters:
    """Return the values that ``node`` has now."""
    return PlannerParameters(**read_parameters(node, DECLARATIONS))
