"""The faults that are injected, one entry each; see `benchmarks/faults.py`."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import numpy as np
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from support.fault_injections import (
    Manager,
    as_bgr,
    burst,
    busy_processor,
    callbacks_hang,
    camera_of_another_type,
    camera_restarts,
    clock,
    commands,
    cut_bytes,
    deactivated,
    deadman,
    delay,
    drop,
    drop_all_but,
    edit,
    encoding,
    freeze,
    garbage,
    half_the_data,
    jitter,
    lying_header,
    not_a_number,
    pictures,
    planner_ends,
    planner_suspended,
    reorder,
    repeat,
    robot_listens,
    scene_is_reset,
    scene_suspended,
    second_camera,
    shifted,
    shown,
    stamp,
    stopped,
    system_clock_set_back,
)
from support.fault_mistakes import cancelled_goal, wrong_goals, wrong_parameters
from support.fault_neighbours import (
    driver_killed,
    recorder_disk_full,
    robot_comes_and_goes,
    robot_of_another_type,
    second_driver,
)

from lewm_ros import qos

#: How the planner is expected to answer: stop, or go on as if nothing were.
HOLDS, GOES_ON = "hold", "go on"
#: The planner cannot answer, or its commands do not arrive: the robot has to stop by itself.
ROBOT_STOPS = "robot stops"

_NS = 1_000_000_000
#: Of a driver that wants to be told of a planner that falls silent; the planner promises nothing.
_WITH_A_DEADLINE = QoSProfile(depth=10, deadline=Duration(nanoseconds=_NS // 5))


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: For the table.
        expected: `HOLDS`, `GOES_ON` or `ROBOT_STOPS`.
        inject: A context manager: the fault is on inside.
        seconds: For which it is on.
        words: That the status must have meanwhile.
        simulated: Whether it needs a simulated clock.
        again: Whether the goal has to be given again afterwards.
        patience_s: Beyond a picture's timeout and one period, until it has to hold.
        doubtful: Whether pictures go on to come in time but must not be believed: that is found
            out within their timeout and acted on a period later.
        pauses: Of `GOES_ON`: whether it may hold now and then, with good reason.
    """

    name: str
    expected: str
    inject: Manager
    seconds: float = 2.0
    words: str = ""
    simulated: bool = False
    again: bool = False
    patience_s: float = 0.0
    doubtful: bool = False
    pauses: bool = False


FAULTS: tuple[Fault, ...] = (
    Fault("no picture arrives", HOLDS, pictures(drop), words="s old"),
    Fault("every second picture lost", GOES_ON, pictures(drop_all_but(2))),
    Fault("nine of ten pictures lost", GOES_ON, pictures(drop_all_but(10))),
    Fault("pictures 0.2 s late", GOES_ON, pictures(delay(0.2))),
    Fault("pictures 0.7 s late", HOLDS, pictures(delay(0.7)), words="old"),
    # They come in bursts, three a second: a plan may be used up before the next one is there.
    Fault("pictures 0 to 0.27 s late", GOES_ON, pictures(jitter), pauses=True),
    # It moves after each burst, and holds until the next.
    Fault("pictures in bursts of 1.2 s", GOES_ON, pictures(burst), 4.0, "old",
          pauses=True),
    Fault("every picture three times", GOES_ON, pictures(repeat(3))),
    Fault("every picture seven times", GOES_ON, pictures(repeat(7))),
    Fault("pictures out of order", GOES_ON, pictures(reorder())),
    Fault("picture frozen, new stamps", HOLDS, freeze(True), words="not changed",
          doubtful=True),
    Fault("picture frozen, old stamp", HOLDS, freeze(False), words="old"),
    Fault("half of each picture's data", HOLDS, edit(half_the_data), words="bytes"),
    Fault("each third picture damaged", GOES_ON, edit(half_the_data, every=3)),
    Fault("encoding yuv9", HOLDS, edit(encoding("yuv9")), words="yuv9"),
    Fault("encoding becomes bgr8", GOES_ON, edit(as_bgr, true=True)),
    Fault("size becomes 160x120", HOLDS, edit(shown(lambda p, n: p[:120, :160])),
          words="160x120"),
    Fault("header says 60000x60000", HOLDS, edit(lying_header), words="60000"),
    Fault("black pictures", HOLDS, edit(shown(lambda p, n: p * 0)), words="black"),
    Fault("pictures of one colour", HOLDS, edit(shown(lambda p, n: p * 0 + np.uint8(128))),
          words="one colour"),
    Fault("pictures of noise", GOES_ON, edit(shown(
        lambda p, n: np.random.default_rng(n).integers(0, 256, p.shape, dtype=np.uint8)),
        true=True)),
    Fault("bytes that are no message", HOLDS, pictures(garbage), words="old"),
    Fault("messages cut off", HOLDS, pictures(cut_bytes), words="old"),
    Fault("stamps 2 s behind", HOLDS, shifted(-2.0), words="old"),
    Fault("stamps 2 s ahead", HOLDS, shifted(2.0), words="in the future"),
    Fault("stamps 10 years ahead", HOLDS, shifted(3.15e8), words="in the future"),
    Fault("stamp zero", HOLDS, stamp(0), words="old"),
    Fault("stamp before 1970", HOLDS, stamp(-_NS), words="old"),
    Fault("stamps fall back by 0.3 s", GOES_ON, shifted(-0.3, believed=True)),
    Fault("camera leaves and returns", HOLDS, camera_restarts, words="nobody publishes"),
    Fault("camera of another type", HOLDS, camera_of_another_type, 4.0, "CompressedImage"),
    Fault("a second camera, 160x120", GOES_ON, second_camera),
    Fault("commands lost on their way", ROBOT_STOPS, commands(drop)),
    Fault("commands 1 s late", ROBOT_STOPS, commands(delay(1.0))),
    Fault("every command three times", GOES_ON, commands(repeat(3))),
    Fault("commands out of order", GOES_ON, commands(reorder())),
    Fault("commands become NaN", ROBOT_STOPS, commands(not_a_number)),
    Fault("robot leaves", ROBOT_STOPS, robot_listens(None), words="nobody listens"),
    Fault("robot asks for another QoS", ROBOT_STOPS, robot_listens(qos.STATUS),
          words="QoS does not fit"),
    Fault("robot asks for a deadline", ROBOT_STOPS, robot_listens(_WITH_A_DEADLINE),
          words="deadline 0.2 s"),
    Fault("robot of another type", ROBOT_STOPS, robot_of_another_type, 4.0,
          words="as geometry_msgs/msg/Twist,"),
    # It moves whenever somebody listens.
    Fault("robot comes and goes thrice", GOES_ON, robot_comes_and_goes,
          words="nobody listens", pauses=True),
    Fault("robot's driver killed", ROBOT_STOPS, driver_killed),
    Fault("a second driver of the robot", GOES_ON, second_driver),
    Fault("callbacks hang", HOLDS, callbacks_hang, 1.6, "watchdog"),
    Fault("system clock set back by 5 s", HOLDS, system_clock_set_back, words="in the future"),
    Fault("planner suspended", ROBOT_STOPS, planner_suspended),
    Fault("planner killed", ROBOT_STOPS, planner_ends(signal.SIGKILL), again=True),
    Fault("planner ended by SIGINT", HOLDS, planner_ends(signal.SIGINT), again=True,
          words="ended"),
    Fault("processor busy with others", GOES_ON, busy_processor, pauses=True),
    Fault("dead-man switch released", HOLDS, lambda b: deadman(b, False), words="released"),
    Fault("dead-man switch silent", HOLDS, lambda b: deadman(b, None), words="silent"),
    Fault("~/stop", HOLDS, stopped, words="~/stop", again=True),
    Fault("deactivated", HOLDS, deactivated, words="not active", again=True),
    Fault("wrong parameters", GOES_ON, wrong_parameters),
    Fault("wrong goals", GOES_ON, wrong_goals),
    Fault("goal cancelled", HOLDS, cancelled_goal, words="cancelled", again=True,
          patience_s=1.0),
    Fault("scene reset", GOES_ON, scene_is_reset, pauses=True),
    Fault("a recorder's disk fills up", GOES_ON, recorder_disk_full),
    Fault("scene suspended", HOLDS, scene_suspended, words="s old"),
    Fault("clock stops", HOLDS, clock(lambda t, s: None), words="stands still", simulated=True),
    Fault("clock jumps back by 5 s", HOLDS, clock(lambda t, s: t - 5 * _NS), simulated=True),
    Fault("clock jumps ahead by 5 s", HOLDS, clock(lambda t, s: t + 5 * _NS), simulated=True),
    Fault("clock at a third of its speed", HOLDS, clock(lambda t, s: t - int(s * 0.7 * _NS)), 4.0,
          simulated=True, patience_s=2.5),
    # It moves, with good reason, whenever the clock was right for a while.
    Fault("clock jumps to and fro", GOES_ON,
          clock(lambda t, s: t - 5 * _NS * (int(4 * s) % 2)), words="in the future",
          simulated=True, pauses=True),
    Fault("/clock starts anew", HOLDS, clock(lambda t, s: int(s * _NS)), simulated=True),
    Fault("scene suspended, simulated time", HOLDS, scene_suspended, simulated=True,
          words="stands still"),
)  # fmt: skip
