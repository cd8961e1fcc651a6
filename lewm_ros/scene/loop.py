"""A scene's own clock: physics steps, control ticks, pictures, resets. Knows no ROS.

All of it happens in one thread, because an off-screen renderer belongs to the thread that made
it. Other threads hand in commands (`CommandInbox`) and resets (`SceneLoop.reset`).

One control tick at simulated time t:

    picture (if due) and state of time t are published, then the clock t
    lock step: time stands still until a command stamped >= t is there
    control_period / physics_period physics steps; between them the clock, and pictures when due

Before `SceneLoop.resume` and after `SceneLoop.pause` time stands still and nothing comes out.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lewm_core.data.contract_parts import Camera
from lewm_core.data.observation import render_cameras
from lewm_core.errors import ConfigError, UserError
from lewm_core.scenes.registry import Scene

NS_PER_S = 1_000_000_000

#: Faster than real time, this much of pictures, and this many ticks, may be on their way to a
#: subscriber that is slow: they fit into the middleware's memory, and nothing is lost.
_BYTES_ON_THE_WAY = 5 * 2**20
_TICKS_ON_THE_WAY = 32

#: Later than this behind real time, the loop stops trying to catch up.
_MOST_LATE_S = 0.25


class SceneOutput(Protocol):
    """Where the loop's results go; called from the loop's thread. Times are in ns."""

    def state(self, time_ns: int, truth: np.ndarray) -> None:
        """Take the ground truth (N,) of a control tick."""

    def picture(self, time_ns: int, camera: Camera, picture: np.ndarray) -> None:
        """Take a picture (H, W, 3) uint8 RGB of one of the cameras."""

    def clock(self, time_ns: int) -> None:
        """Take the simulated time."""

    def episode(self, time_ns: int, begins: bool, name: str, seed: int) -> None:
        """Take the begin or the end of an episode."""

    def settle(self) -> None:
        """Wait until every reliable subscriber has what was handed over so far."""

    def warning(self, text: str) -> None:
        """Take a sentence for the operator."""


@dataclass(frozen=True)
class SceneTiming:
    """When things happen.

    Attributes:
        control_period_ns: Between two control ticks.
        picture_period_ns: Between two pictures.
        command_timeout_ns: An older command holds.
        reset_gap_ns: Simulated time that a reset skips: longer than the contract's ``max_gap``,
            so that a bag recorded across a reset falls into two episodes.
        real_time_factor: Simulated seconds per second; 0: as fast as possible.
        lock_step: Whether time stands still until a command is there.
        lock_step_timeout_s: s of real time until a tick goes on without one, holding.
        clock_every_step: Publish the clock at each physics step, else at each control tick.
        wall_time: Stamp with the system's time instead of a simulated one.
    """

    control_period_ns: int
    picture_period_ns: int
    command_timeout_ns: int
    reset_gap_ns: int
    real_time_factor: float = 1.0
    lock_step: bool = False
    lock_step_timeout_s: float = 1.0
    clock_every_step: bool = True
    wall_time: bool = False


class CommandInbox:
    """The newest command, by its stamp. Any thread may put, one thread waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._newest: tuple[int, np.ndarray] | None = None

    def put(self, stamp_ns: int, values: np.ndarray) -> None:
        """Offer a command (A,); an older one than the newest is dropped."""
        with self._condition:
            if self._newest is None or stamp_ns >= self._newest[0]:
                self._newest = (stamp_ns, values)
                self._condition.notify_all()

    def clear(self) -> None:
        """Forget the command: it was meant for what is over."""
        with self._condition:
            self._newest = None

    def newest(self) -> tuple[int, np.ndarray] | None:
        """Return the newest command's stamp (ns) and values (A,), or None."""
        with self._condition:
            return self._newest

    def wait_for(self, stamp_ns: int, timeout_s: float, cancelled: Callable[[], bool]) -> bool:
        """Wait for a command stamped at or after ``stamp_ns``.

        Returns:
            Whether one is there; False after the timeout or when cancelled (see `wake`).
        """

        def there() -> bool:
            return self._newest is not None and self._newest[0] >= stamp_ns

        with self._condition:
            self._condition.wait_for(lambda: there() or cancelled(), timeout_s)
            return there()

    def wake(self) -> None:
        """Make `wait_for` look at ``cancelled`` again."""
        with self._condition:
            self._condition.notify_all()


@dataclass
class ResetRequest:
    """A reset that another thread asked for, and its result.

    Attributes:
        seed: None continues the scene's own random stream.
        state: Ground truth (N,) to begin with; None: drawn.
        episode: Name; empty: made from a counter.
        done: Set when ``error`` or the results are there.
        truth: Ground truth (N,) after the reset.
        error: Why it could not be done.
    """

    seed: int | None = None
    state: np.ndarray | None = None
    episode: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    truth: np.ndarray | None = None
    error: Exception | None = None


class SceneLoop:
    """Runs a scene in a thread of its own."""

    def __init__(
        self,
        make_physics: Callable[[], Scene],
        timing: SceneTiming,
        output: SceneOutput,
        cameras: Sequence[Camera],
        limits: tuple[np.ndarray, np.ndarray, Sequence[float | str]],
        seed: int | None,
        on_error: Callable[[Exception], None],
    ) -> None:
        """Prepare; `start` makes the scene, `resume` lets time go on.

        Args:
            make_physics: Called in the loop's thread.
            timing: When things happen.
            output: Where results go.
            cameras: Of the contract; each gives a picture of its size, all at the same times.
            limits: Lower (A,), upper (A,) and hold values of the action.
            seed: Of the reset at the first `resume`; None draws one.
            on_error: Called when the loop ends by an error.
        """
        self.inbox = CommandInbox()
        self._make_physics = make_physics
        self._timing = timing
        self._output = output
        self._cameras = cameras
        self._lower, self._upper, self._hold = limits
        self._next_begin = ResetRequest(seed=seed)
        self._on_error = on_error
        self._new_timing: SceneTiming | None = None
        self._requests: queue.SimpleQueue[ResetRequest] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._ready = threading.Event()
        # Whether time is to go on, and whether it stands still.
        self._running = threading.Event()
        self._paused = threading.Event()
        self._paused.set()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._time_ns = NS_PER_S
        self._next_picture_ns = 0
        self._episode = ""
        self._seed = -1
        self._episodes = 0
        self._applied = np.zeros_like(self._lower)
        self._anchor = (0.0, 0)
        self._late_warned = False
        self._ticks = 0
        pictures = _BYTES_ON_THE_WAY // sum(
            3 * camera.size[0] * camera.size[1] for camera in cameras
        )
        self._settle_every = max(1, min(pictures, _TICKS_ON_THE_WAY))
        self.held_steps = 0

    def start(self) -> None:
        """Make the scene, in the thread that will render it.

        Raises:
            UserError: If the scene or the timing cannot be used.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def resume(self, timeout_s: float = 10.0) -> None:
        """Begin an episode, and let time go on.

        Raises:
            UserError: If the scene cannot be reset; time stands still then.
        """
        begin = self._next_begin
        self._paused.clear()
        self._running.set()
        if not begin.done.wait(timeout_s):
            begin.error = UserError(f"the scene did not begin within {timeout_s:g} s")
        if begin.error is not None:
            self.pause()
            raise begin.error
        # The scene's own random stream goes on.
        self._next_begin = ResetRequest()

    def pause(self, timeout_s: float = 5.0) -> bool:
        """End the episode, and let time stand still; return whether it does."""
        self._running.clear()
        self.inbox.wake()
        return self._paused.wait(timeout_s)

    def change_timing(self, timing: SceneTiming) -> None:
        """Go on like this from the next control tick; ``control_period_ns`` must stay."""
        self._new_timing = timing

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the loop and free the scene."""
        self._stop.set()
        self._running.set()
        self.inbox.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def time_ns(self) -> int:
        """The scene's time."""
        return self._time_ns

    def reset(self, request: ResetRequest, timeout_s: float = 10.0) -> ResetRequest:
        """Reset from another thread, and wait until it is done.

        Returns:
            The request with its results; ``error`` is set if it could not be done.
        """
        self._requests.put(request)
        self.inbox.wake()
        if not request.done.wait(timeout_s):
            request.error = UserError(f"the scene did not answer within {timeout_s:g} s")
        return request

    def _run(self) -> None:
        try:
            self._physics = self._make_physics()
            try:
                self._steps = self._steps_per_tick()
                self._ready.set()
                while self._running.wait() and not self._stop.is_set():
                    self._run_until_paused()
                    self._paused.set()
            finally:
                self._physics.close()
        except Exception as error:
            self._error = error
            if self._ready.is_set():
                self._on_error(error)
        self._ready.set()
        self._paused.set()

    def _run_until_paused(self) -> None:
        if not self._begin(self._next_begin):
            self._running.clear()
            return
        while self._running.is_set() and not self._stop.is_set():
            self._tick()
        self._end_episode()
        self._episode = ""

    def _steps_per_tick(self) -> int:
        self._step_s = self._physics.physics_step_s
        period_s = self._timing.control_period_ns / NS_PER_S
        steps = period_s / self._step_s
        if steps < 0.5 or not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise ConfigError(
                f"control_rate: the period {period_s:g} s is not a whole number of the scene's "
                f"physics steps of {self._step_s:g} s: choose another control_rate"
            )
        return round(steps)

    def _begin(self, request: ResetRequest) -> bool:
        """Reset, end the old episode and begin a new one; return whether it could be done."""
        try:
            self._physics.reset(seed=request.seed, state=request.state)
        except (UserError, ValueError) as error:
            request.error = error
            request.done.set()
            return False
        if self._episode:
            self._end_episode()
        self.inbox.clear()
        self._applied = self._holding()
        if self._episodes:
            self._time_ns += 0 if self._timing.wall_time else self._timing.reset_gap_ns
        self._anchor_now()
        self._next_picture_ns = self._time_ns
        self._episode = request.episode or f"scene_{self._episodes:06d}"
        self._episodes += 1
        self._seed = -1 if request.seed is None else request.seed
        self._output.episode(self._time_ns, True, self._episode, self._seed)
        request.truth = self._physics.ground_truth()
        request.episode = self._episode
        request.done.set()
        return True

    def _end_episode(self) -> None:
        self._output.settle()
        self._output.episode(self._time_ns, False, self._episode, self._seed)

    def _interrupted(self) -> bool:
        return (
            self._stop.is_set() or not self._running.is_set() or not self._requests.empty()
        )

    def _take_new_timing(self) -> None:
        timing, self._new_timing = self._new_timing, None
        if timing is None:
            return
        self._timing = timing
        self._next_picture_ns = min(
            self._next_picture_ns, self._time_ns + timing.picture_period_ns
        )
        self._anchor_now()

    def _tick(self) -> None:
        self._take_new_timing()
        timing, output = self._timing, self._output
        if not self._requests.empty():
            self._begin(self._requests.get())
        now = self._time_ns
        # In this order, so that whoever acts on the state or the clock finds the picture there.
        self._picture_if_due()
        output.state(now, self._physics.ground_truth())
        output.clock(now)
        self._ticks += 1
        unpaced = timing.lock_step or not 0.0 < timing.real_time_factor <= 1.0
        if unpaced and self._ticks % self._settle_every == 0:
            output.settle()
        commanded = True
        if timing.lock_step:
            commanded = self.inbox.wait_for(now, timing.lock_step_timeout_s, self._interrupted)
            if self._interrupted():
                return
            self._apply(now, commanded)
        period_ns = timing.control_period_ns
        for step in range(1, self._steps + 1):
            if self._interrupted():
                return
            if not timing.lock_step:
                self._apply(self._time_ns, True)
            self._physics.step_physics(self._step_s)
            self._time_ns += period_ns * step // self._steps - period_ns * (step - 1) // self._steps
            self._pace()
            if step < self._steps:
                self._picture_if_due()
                if timing.clock_every_step:
                    output.clock(self._time_ns)

    def _apply(self, now_ns: int, commanded: bool) -> None:
        """Give the physics the command in force, or the contract's hold."""
        newest = self.inbox.newest() if commanded else None
        if newest is None or now_ns - newest[0] > self._timing.command_timeout_ns:
            self._applied = self._holding()
            self.held_steps += 1
        else:
            self._applied = np.clip(newest[1], self._lower, self._upper)
        self._physics.set_command(self._applied)

    def _holding(self) -> np.ndarray:
        """Return the hold command (A,): the contract's numbers, or the last value."""
        last = self._applied
        return np.array(
            [last[i] if hold == "last" else float(hold) for i, hold in enumerate(self._hold)]
        )

    def _picture_if_due(self) -> None:
        if self._time_ns < self._next_picture_ns:
            return
        pictures = render_cameras(self._physics, self._cameras)
        for camera in self._cameras:
            self._output.picture(self._time_ns, camera, pictures[camera.name])
        # From the due time, not from now: the rate does not drift when the period is not a whole
        # number of physics steps.
        missed = (self._time_ns - self._next_picture_ns) // self._timing.picture_period_ns
        self._next_picture_ns += (missed + 1) * self._timing.picture_period_ns

    def _anchor_now(self) -> None:
        """Let real time and the scene's time agree from here on."""
        if self._timing.wall_time:
            self._time_ns = max(self._time_ns, time.time_ns())
        self._anchor = (time.monotonic(), self._time_ns)

    def _pace(self) -> None:
        """Wait until real time has come as far as the scene's."""
        factor = self._timing.real_time_factor
        if factor <= 0.0:
            return
        began, began_ns = self._anchor
        due = began + (self._time_ns - began_ns) / NS_PER_S / factor
        ahead = due - time.monotonic()
        if ahead > 0.0:
            self._stop.wait(ahead)
        elif ahead < -_MOST_LATE_S:
            if not self._late_warned and not self._timing.lock_step:
                self._late_warned = True
                self._output.warning(
                    f"slower than real time by {-ahead:.2f} s: simulated time falls behind; "
                    "lower camera_rate, the picture size or real_time_factor"
                )
            self._anchor_now()
