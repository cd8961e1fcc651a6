"""Node ``doctor``: runs every check once, prints a line each, and ends."""

from __future__ import annotations

import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lewm_core.data.contract_parts import Camera, State
from lewm_core.errors import ContractError, UserError
from lewm_ros.runtime import end_node, ros_imports, run_node

with ros_imports("lewm_ros.doctor"):
    from rclpy.clock import Clock as RosClock
    from rclpy.clock import ClockType
    from rclpy.node import Node
    from rclpy.utilities import get_rmw_implementation_identifier
    from rosgraph_msgs.msg import Clock

    from lewm_ros import qos
    from lewm_ros.codecs import stamp_to_ns
    from lewm_ros.doctor import cameras, clocks, endpoints, machine, middleware
    from lewm_ros.doctor.model import Subject, open_subject
    from lewm_ros.doctor.parameters import DECLARATIONS
    from lewm_ros.doctor.planner import PlannerProbe
    from lewm_ros.doctor.report import Finding, Report, fail, ok
    from lewm_ros.doctor.stamps import Demands, judge_rate, judge_stamps
    from lewm_ros.doctor.streams import Arrival, Listener, Stream, look_at
    from lewm_ros.endpoints import owner
    from lewm_ros.parameters import declare_parameters, read_parameters

#: After the last topic was found: until its messages flow, and those behind it are known.
_SETTLE_S = 0.5
_POLL_S = 0.1
#: For the check under way when the process is asked to end; the longest loads a checkpoint.
_JOIN_S = 30.0


class _Interrupted(Exception):
    """The process is asked to end before all checks were done."""


class DoctorNode(Node):
    """Node ``doctor``: checks cameras, commands, clocks, model and machine before a robot moves.

    Prints one line per check (ok, warning or FAIL: what was found, what to do) and a summary, and
    ends with status 0 only if nothing failed. It listens for `seconds`, asks the planner if it is
    running, and never publishes a command. Start it as the planner will be started: the same
    machine, environment, remappings and use_sim_time.

    Parameters: contract, checkpoint (its contract, if contract is empty), seconds, wait, out and
    minimum_free_gib (where recordings go), planner (the node's name), json (a file for machines).

    example: python -m lewm_ros.doctor --ros-args -p checkpoint:=runs/mine/checkpoint
    example: python -m lewm_ros.doctor --ros-args -p contract:=push_t -p use_sim_time:=true
    """

    def __init__(self) -> None:
        """Load contract and checkpoint, subscribe, and begin.

        Raises:
            UserError: A parameter cannot be used.
        """
        super().__init__("doctor")
        declare_parameters(self, DECLARATIONS)
        self._settings = read_parameters(self, DECLARATIONS)
        self._simulated: bool = self.get_parameter("use_sim_time").value
        self._report = Report()
        self._finished = False
        self._environment = dict(os.environ)
        self._planner = "/" + self._settings["planner"].lstrip("/")
        self._probe = PlannerProbe(self, self._planner)
        self._ticks: list[Arrival] = []
        self.create_subscription(Clock, "/clock", self._on_clock, qos.CAMERA_SENSOR_DATA)
        self._subject = Subject()
        self._cameras: dict[Camera, Listener] = {}
        self._states: dict[State, Listener] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._examine, name="examination", daemon=True)
        # Begins when the node is complete and spins: whatever is wrong with the command line is
        # told before.
        self._start_timer = self.create_timer(
            0.0, self._on_start, clock=RosClock(clock_type=ClockType.STEADY_TIME)
        )

    def close(self) -> None:
        """Called when the process ends.

        Raises:
            UserError: It was interrupted: that nothing failed so far does not count.
        """
        self._ending.set()
        if self._thread.is_alive():
            # Not left behind: a thread inside a library's call aborts an interpreter that ends.
            self._thread.join(_JOIN_S)
        if not self._finished:
            raise UserError("the doctor was interrupted before all checks were done; run it again")

    def _on_start(self) -> None:
        self._start_timer.cancel()
        self._thread.start()

    # --- in a thread of its own, while the executor takes messages --------------------------------

    def _examine(self) -> None:
        error: BaseException | None = None
        try:
            self._check("contract", self._open)
            self._check("machine", machine.judge_processors)
            self._wait_for_topics()
            streams, seconds = self._listen()
            self._judge(streams, seconds)
            print(self._report.summary(), flush=True)
            if self._settings["json"]:
                self._report.write(Path(self._settings["json"]).expanduser())
            self._finished = True
        except _Interrupted:
            return
        except BaseException as raised:
            self._finished, error = True, raised
        end_node(1 if self._report.failed else 0, error)

    def _check(self, name: str, function: Callable[[], Iterable[Finding]]) -> None:
        """Report what a check finds; one that breaks is a failure, and the others go on."""
        self._pause(0.0)
        try:
            findings = list(function())
        except Exception as error:
            traceback.print_exc()
            findings = [fail(name, f"this check broke: {type(error).__name__}: {error}",
                             "report it with the traceback above")]  # fmt: skip
        self._report.add(findings)

    def _pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            _Interrupted: The process is asked to end.
        """
        if self._ending.wait(seconds):
            raise _Interrupted

    def _open(self) -> list[Finding]:
        subject = open_subject(self._settings["contract"], self._settings["checkpoint"])
        self._subject = subject
        if subject.contract is not None:
            self._cameras = {
                camera: Listener(self, camera.topic, camera.message, look_at)
                for camera in subject.contract.cameras
            }
            for state in subject.contract.states:
                try:
                    self._states[state] = Listener(self, state.topic, state.message)
                except ContractError as error:
                    finding = fail(f"state {state.name}", str(error), "or leave it out")
                    given = state in self._given_states()
                    note = "it can be neither recorded nor given to a model"
                    subject.findings.append(finding if given else finding.lowered(note))
        return subject.findings

    def _wait_for_topics(self) -> None:
        """Wait until all that is wanted is there, or `wait` is over."""
        deadline = time.monotonic() + self._settings["wait"]
        while not self._all_there() and time.monotonic() < deadline:
            self._pause(_POLL_S)
        self._pause(_SETTLE_S)

    def _all_there(self) -> bool:
        contract = self._subject.contract
        if contract is None:
            return True
        wanted = [camera.topic for camera in self._cameras]
        wanted += [state.topic for state in self._given_states()]
        wanted += ["/clock"] if self._simulated else []
        return all(self.count_publishers(topic) > 0 for topic in wanted) and (
            self.count_subscribers(contract.action.topic) > 0
        )

    def _given_states(self) -> list[State]:
        """The state topics with a field that the planner needs: for its model, or as a position."""
        contract, layout = self._subject.contract, self._subject.layout
        needed = {field.measured for field in contract.action.fields}
        if layout is not None:
            needed |= set(layout.state_names)
        return [
            state
            for state in contract.states
            if any(field.name in needed for field in state.fields)
        ]

    def _listen(self) -> tuple[dict[Camera | State, Stream], float]:
        """Return what came on each topic, and for how long it was listened to, s."""
        listeners = {**self._cameras, **self._states}
        self._ticks = []
        began_s = time.monotonic()
        for listener in listeners.values():
            listener.begin()
        self._pause(self._settings["seconds"])
        streams = {key: listener.end() for key, listener in listeners.items()}
        return streams, time.monotonic() - began_s

    def _judge(self, streams: dict[Camera | State, Stream], seconds: float) -> None:
        ticks = list(self._ticks)
        clock = self.get_publishers_info_by_topic("/clock")
        self._check(
            "clock", lambda: clocks.judge_clock(self._simulated, clock, ticks, seconds)
        )
        self._check("clock", clocks.judge_synchronised)
        clock_runs = clocks.runs(self._simulated, ticks)
        for camera in self._cameras:
            self._check(
                f"camera {camera.name}",
                functools.partial(
                    self._judge_camera, camera, streams[camera], seconds, clock_runs
                ),
            )
        for state in self._states:
            self._check(
                f"state {state.name}",
                functools.partial(self._judge_state, state, streams[state], seconds, clock_runs),
            )
        if self._subject.contract is not None:
            self._check("commands", self._judge_commands)
        self._check("planner", lambda: self._probe.judge(self._simulated))
        pictures = [streams[camera] for camera in self._cameras]
        self._check("dds", lambda: self._judge_middleware(pictures))
        self._check(
            "disk",
            lambda: machine.judge_disk(
                self._settings["out"], self._settings["minimum_free_gib"],
                cameras.bytes_per_second(pictures, seconds),
            ),
        )  # fmt: skip

    def _demands(self, stream: Camera | State, timeout_s: float, clock_runs: bool) -> Demands:
        return Demands(
            control_rate=self._subject.contract.control_rate,
            least_rate=self._subject.least_rate,
            timeout_s=timeout_s,
            clock=stream.clock,
            simulated=self._simulated,
            clock_runs=clock_runs,
        )

    def _judge_camera(
        self, camera: Camera, stream: Stream, seconds: float, clock_runs: bool
    ) -> list[Finding]:
        publishers = self.get_publishers_info_by_topic(camera.topic)
        findings = endpoints.judge_publishers(
            f"camera {camera.name}", camera.topic, camera.message, qos.CAMERA_NEWEST, publishers,
            endpoints.topics_of_type(self, camera.message, camera.topic),
        )  # fmt: skip
        if any(info.topic_type == camera.message for info in publishers):
            demands = self._demands(camera, camera.timeout, clock_runs)
            findings += cameras.judge_camera(camera, stream, seconds, demands)
        layout = self._subject.layout
        if layout is not None and camera not in layout.cameras:
            # Still recorded, so still worth a look.
            findings = [found.lowered("the checkpoint does not see it") for found in findings]
        return findings

    def _judge_state(
        self, state: State, stream: Stream, seconds: float, clock_runs: bool
    ) -> list[Finding]:
        name = f"state {state.name}"
        if state not in self._given_states():
            who = "no checkpoint is given" if self._subject.model is None else "its model sees none"
            count = len(stream.arrivals)
            return [ok(name, f"not judged ({who}); {count} messages in {seconds:.1f} s")]
        publishers = self.get_publishers_info_by_topic(state.topic)
        findings = endpoints.judge_publishers(
            name, state.topic, state.message, qos.STATE, publishers,
            endpoints.topics_of_type(self, state.message, state.topic),
        )  # fmt: skip
        if any(info.topic_type == state.message for info in publishers):
            # A state that is late holds like the picture that it belongs to.
            seen = self._subject.layout or self._subject.contract
            timeout_s = max(camera.timeout for camera in seen.cameras)
            demands = self._demands(state, timeout_s, clock_runs)
            findings += judge_rate(name, state.topic, stream, seconds, demands)
            findings += judge_stamps(name, state.topic, stream, demands)
        return findings

    def _judge_commands(self) -> list[Finding]:
        action = self._subject.contract.action
        subscribers = self.get_subscriptions_info_by_topic(action.topic)
        publishers = self.get_publishers_info_by_topic(action.topic)
        return [
            *endpoints.judge_subscribers(action.topic, action.message, qos.COMMAND, subscribers),
            *endpoints.judge_other_drivers(action.topic, publishers, self._planner),
        ]

    def _judge_middleware(self, pictures: Sequence[Stream]) -> list[Finding]:
        rmw = get_rmw_implementation_identifier()
        publishers = [
            info
            for camera in self._cameras
            for info in self.get_publishers_info_by_topic(camera.topic)
        ]
        largest = max(
            (
                arrival.picture.size
                for stream in pictures
                for arrival in stream.arrivals
                if arrival.picture is not None
            ),
            default=0,
        )
        return [
            *middleware.judge_identity(rmw, self._environment),
            *middleware.judge_profile(rmw, self._environment, largest),
            *middleware.judge_receive_buffer(publishers, self._own_gid(rmw), largest),
            *middleware.judge_shared_memory(rmw),
        ]

    def _own_gid(self, rmw: str) -> list[int]:
        """The identifier of one of this node's publishers, where it tells the host."""
        own = [
            info
            for info in self.get_publishers_info_by_topic("/parameter_events")
            if owner(info) == self.get_fully_qualified_name()
        ]
        return list(own[0].endpoint_gid) if own and rmw.startswith("rmw_fastrtps") else []

    def _on_clock(self, message: Clock) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._ticks.append(Arrival(time.monotonic(), now_ns, stamp_to_ns(message.clock)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status: 0 only if nothing failed."""
    return run_node(DoctorNode, argv)
