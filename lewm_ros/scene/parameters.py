"""The parameters of node ``scene``, and the timing that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lewm_core.data import Contract
from lewm_ros.lifecycle import autostart
from lewm_ros.parameters import Change, Declaration
from lewm_ros.scene.loop import NS_PER_S, SceneTiming

#: A reset skips this many times the contract's max_gap in simulated time.
_RESET_GAPS = 1.5

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("scene", "push_t", "Name of the scene."),
    Declaration(
        "contract", "",
        "Contract: a YAML file, or the name of one that ships; empty: that of the scene.",
    ),
    Declaration("image_width", 0, "px; 0: the contract's.", lowest=0, highest=4096),
    Declaration("image_height", 0, "px; 0: the contract's.", lowest=0, highest=4096),
    Declaration(
        "camera_rate", 0.0, "Hz of scene time; 0: the control rate.", Change.LIVE, 0.0, 1000.0
    ),
    Declaration(
        "camera_qos", "reliable",
        "Of the camera topic; reliable serves sensor-data subscribers too.",
        choices=("reliable", "sensor_data"),
    ),
    Declaration(
        "encoding", "rgb8", "Of the pictures.",
        choices=("rgb8", "bgr8", "rgba8", "bgra8", "mono8"),
    ),
    Declaration(
        "control_rate", 0.0, "Hz of scene time; 0: the contract's.", lowest=0.0, highest=1000.0
    ),
    Declaration(
        "real_time_factor", 1.0, "Simulated seconds per second; 0: as fast as possible.",
        Change.LIVE, 0.0, 1000.0,
    ),
    Declaration(
        "lock_step", False,
        "Let time stand still until a command stamped at this control tick or later is there.",
    ),
    Declaration(
        "lock_step_timeout", 1.0, "s of real time after which a tick goes on, holding.",
        Change.LIVE, 0.01, 3600.0,
    ),
    Declaration(
        "publish_clock", True, "Publish /clock; false: stamp with the system's time."
    ),
    Declaration(
        "clock_every_step", True,
        "Publish /clock at each physics step (100 Hz of scene time); otherwise, and always in "
        "lock step, at each control tick.", Change.LIVE,
    ),
    Declaration("seed", -1, "Of the first reset; -1: drawn.", lowest=-1),
    autostart(True),
)


def scene_timing(parameters: Mapping[str, Any], contract: Contract) -> SceneTiming:
    """Return when things happen, by the values of `DECLARATIONS`."""
    control_rate = parameters["control_rate"] or contract.control_rate
    control_period_ns = round(NS_PER_S / control_rate)
    gap_ticks = int(_RESET_GAPS * contract.max_gap * control_rate) + 1
    return SceneTiming(
        control_period_ns=control_period_ns,
        picture_period_ns=round(NS_PER_S / (parameters["camera_rate"] or control_rate)),
        command_timeout_ns=round(contract.action.timeout * NS_PER_S),
        reset_gap_ns=gap_ticks * control_period_ns,
        real_time_factor=parameters["real_time_factor"],
        lock_step=parameters["lock_step"],
        lock_step_timeout_s=parameters["lock_step_timeout"],
        clock_every_step=parameters["clock_every_step"] and not parameters["lock_step"],
        wall_time=not parameters["publish_clock"],
    )
