"""Following plans: which command is due now, and why it is hold where it is.

How a plan lies in time. A plan made from a picture stamped t begins at t: its action k is meant
for ``[t + k * control period, t + (k + 1) * control period)``. `PlanFollower.command` looks up
the action for *now*, so that actions which lie in the past by the time the search is done are
skipped, never executed late. What the robot did meanwhile (the tail of the plan before, or hold)
is not what the skipped actions said; the next plan corrects that. Where the robot was held all the
while, nothing has changed since the picture: such a plan begins when it is there, and loses no
action, as long as that is not later than the plan is long. Past the last action the answer is
hold.
"""

from __future__ import annotations

import math
import threading
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.model.world_model import goal_difference
from lewm_core.planning.config import ControllerConfig
from lewm_core.planning.history import CommandLog, FrameHistory
from lewm_core.planning.limits import ActionLimits
from lewm_core.planning.state import ActivePlan, Command, Frame, Goal, as_picture

#: Newest plans by which the delay of the next one is judged.
_DELAYS = 50

#: A moment has come although rounding of stamps put it a little later.
_ROUNDING_NS = 1_000_000


class PlanFollower:
    """Remembers pictures, commands, the goal and the newest plan; hands out the commands.

    It knows no model: `RecedingHorizonController` makes the plans.

    Args:
        limits: Of the action vector, in physical units.
        control_period_s: Seconds between two commands.
        frame_skip: Control steps in a block.
        history: Most frames that a model looks at.
        config: When to plan, and from what.
        image_timeout_s: A newest picture older than this holds.
        command_timeout_s: The robot's side stops obeying a command older than this; None: never.

    Raises:
        PlanningError: A number is out of range.
    """

    def __init__(
        self,
        limits: ActionLimits,
        control_period_s: float,
        *,
        frame_skip: int,
        history: int,
        config: ControllerConfig,
        image_timeout_s: float,
        command_timeout_s: float | None,
    ) -> None:
        if control_period_s <= 0 or image_timeout_s <= 0:
            raise PlanningError("control period and image timeout must be above 0 s")
        if config.history_frames is not None and config.history_frames > history:
            raise PlanningError(
                f"controller.history_frames is {config.history_frames}, this checkpoint looks at "
                f"1 to {history} frames"
            )
        self.limits = limits
        self.config = config
        self._period_ns = round(control_period_s * 1e9)
        self._block_ns = self._period_ns * frame_skip
        self._image_timeout_ns = round(image_timeout_s * 1e9)
        tolerance_s = config.history_tolerance
        self._frames = FrameHistory(
            block_period_s=self._block_ns * 1e-9,
            length=config.history_frames or history,
            tolerance_s=control_period_s / 2 if tolerance_s is None else tolerance_s,
        )
        self._commands = CommandLog(
            limits.action_dim,
            control_period_s,
            keep_s=(history + 1) * self._block_ns * 1e-9,
            timeout_s=command_timeout_s,
        )
        self._lock = threading.Lock()  # shared state; held for microseconds only
        self._goal: Goal | None = None
        self._goal_serial = 0
        self._active: ActivePlan | None = None
        self._failure: str | None = None
        self._delays_ns: deque[int] = deque(maxlen=_DELAYS)
        self._distance = math.nan
        self._reached = False

    # --- what comes in --------------------------------------------------------------------------

    def observe(
        self,
        stamp_ns: int,
        picture: NDArray[np.uint8] | Tensor,
        state: NDArray[np.float32] | None = None,
    ) -> None:
        """Take a picture. Cheap: it is encoded when a plan needs it.

        Args:
            stamp_ns: Header stamp.
            picture: ``(3 C, S, S)`` uint8, prepared as for training; kept, not copied.
            state: ``(P,)`` in the contract's units, for models that are given state fields.

        Raises:
            PlanningError: The shape or type is another.
        """
        frame = Frame(as_picture(picture), None if state is None else torch.as_tensor(state))
        with self._lock:
            self._frames.add(stamp_ns, frame)

    def pursue(
        self, embedding: Tensor, deadline_ns: int | None, tolerance: float | None
    ) -> None:
        """Pursue another goal from now on; holds until there is a plan for it.

        Args:
            embedding: ``(1, E)``, finite.
            deadline_ns: When to arrive, for `ControllerConfig.shrink_horizon`; None: as many
                blocks after the first plan's beginning as the solver plans.
            tolerance: Squared latent distance that counts as reached; None: never.
        """
        with self._lock:
            self._goal_serial += 1
            self._goal = Goal(self._goal_serial, embedding, tolerance, deadline_ns)
            self._forget_progress()

    def clear_goal(self) -> None:
        """Pursue nothing; holds."""
        with self._lock:
            self._goal = None
            self._forget_progress()

    def reset(self) -> None:
        """Forget pictures, commands and plans, not the goal: the scene or the clock began anew."""
        with self._lock:
            self._frames.clear()
            self._commands.clear()
            # A search that is under way saw the old pictures; a new serial discards its plan.
            if self._goal is not None:
                self._goal_serial += 1
                self._goal = self._goal.renewed(self._goal_serial)
            self._forget_progress()

    def record(self, stamp_ns: int, values: NDArray[np.float64]) -> None:
        """Say what was really published, where it differs from what `command` returned.

        Args:
            stamp_ns: The time given to `command`; the entry of that time is replaced.
            values: ``(A,)`` in physical units.
        """
        with self._lock:
            self._commands.add(stamp_ns, values)

    def wants_plan(self, now_ns: int) -> bool:
        """Whether `execute_blocks` of the newest plan are over, or there is none.

        For callers that plan when it is needed; a node may as well replan at a fixed rate.
        """
        with self._lock:
            if self._goal is None or len(self._frames) == 0:
                return False
            if self._active is None:
                return True
            blocks = min(self.config.execute_blocks, self._active.plan.horizon)
            end_ns = self._active.start_ns + blocks * self._block_ns
            return now_ns >= end_ns - _ROUNDING_NS

    # --- what goes out --------------------------------------------------------------------------

    def command(self, now_ns: int) -> Command:
        """Return the command for the control period that begins now, and remember it.

        It is inside the limits, and within the rate limit of the command before. It counts as
        published; if something behind this controller publishes another, call `record`.
        """
        with self._lock:
            self._begin_late(now_ns)
            reason = self._missing(now_ns) or self._no_action(now_ns)
            last = self._commands.last
            last_values = None if last is None else last[1]
            if reason or self._active is None:
                values = self.limits.hold_values(last_values)
                command = Command(values, True, reason, now_ns)
            else:
                active = self._active
                step = active.step(now_ns, self._period_ns)
                elapsed_ns = self._period_ns if last is None else now_ns - last[0]
                values = self.limits.apply(
                    active.plan.actions[0, step].numpy(),
                    last_values,
                    min(max(elapsed_ns, 0), self._period_ns) * 1e-9,
                )
                command = Command(values, False, "", now_ns, active.image_ns, step)
                self._active = active.taken()
            if values is not None:
                self._commands.add(now_ns, values)
            return command

    def note_delay(self, delay_ns: int) -> None:
        """Take in how long a plan took from being asked for to being there, by the clock of the
        stamps; what `ControllerConfig.compensate_latency` expects of the next one."""
        with self._lock:
            self._delays_ns.append(max(0, delay_ns))

    @property
    def expected_delay_s(self) -> float:
        """Seconds that half of the newest plans were made within; 0 before the first."""
        with self._lock:
            return self._expected_delay_ns() * 1e-9

    def _expected_delay_ns(self) -> int:
        # Not longer: what is reckoned with in vain is decided too early, and costs more than a plan
        # that comes a period later than reckoned, whose first actions are skipped as ever.
        return int(np.median(self._delays_ns)) if self._delays_ns else 0

    def _decided(self, start_ns: int, now_ns: int, goal: Goal) -> NDArray[np.float64] | None:
        """What is commanded from ``start_ns`` until a plan asked for now is there: ``(n, A)``.

        None where the robot has stood still since and will until then: such a plan begins late,
        as a whole. Did it begin with what is decided, to stand, then to stand would be decided for
        the next plan, too, and so on for ever.
        """
        active = self._active
        follows = active is not None and active.goal_serial == goal.serial
        stood_still = self._commands.stood_still(start_ns, self.limits.hold)
        if not follows and stood_still:
            return None
        ready_ns = now_ns + self._expected_delay_ns()
        steps = max(0, round((ready_ns - start_ns) / self._period_ns))
        decided = self._commands.block(start_ns, steps)
        newest = self._commands.last
        for step in range(steps):
            tick_ns = start_ns + step * self._period_ns
            if newest is not None and newest[0] >= tick_ns - self._period_ns // 2:
                continue  # was commanded already
            last = decided[step - 1] if step and np.isfinite(decided[step - 1]).all() else None
            values = self.limits.hold_values(last)
            if newest is not None:
                # When it will really be commanded: so many periods after the newest.
                periods = round((tick_ns - newest[0]) / self._period_ns)
                tick_ns = newest[0] + periods * self._period_ns
            if follows and not active.no_action(tick_ns, self._period_ns):
                action = active.plan.actions[0, active.step(tick_ns, self._period_ns)].numpy()
                values = self.limits.apply(action, last, self._period_ns * 1e-9)
            decided[step] = np.nan if values is None else values
        if stood_still and newest is not None and bool((decided == newest[1]).all()):
            return None
        return decided

    def _begin_late(self, now_ns: int) -> None:
        """Let a new plan begin now if the robot has stood still since its picture."""
        active = self._active
        if (
            active is not None
            and active.may_begin_late(now_ns, self._period_ns)
            and self._commands.stood_still(active.start_ns, self.limits.hold)
        ):
            self._active = active.moved(now_ns)

    def _missing(self, now_ns: int) -> str:
        """Why nothing can be pursued now, whatever the plan; empty if all is there."""
        if self._goal is None:
            return "no goal"
        return self._frames.missing(now_ns, self._image_timeout_ns)

    def _no_action(self, now_ns: int) -> str:
        """Why the newest plan has no action for now; empty if it has."""
        if self._reached:
            return "goal reached"
        if self._failure is not None:
            return self._failure
        if self._active is None:
            return "no plan yet"
        return self._active.no_action(now_ns, self._period_ns)

    # --- what can be asked ----------------------------------------------------------------------

    @property
    def goal_distance(self) -> float:
        """Squared latent distance of the last assessed picture to the goal; NaN if unknown."""
        with self._lock:
            return self._distance

    @property
    def goal_reached(self) -> bool:
        """Whether the last assessed picture was within the goal's tolerance."""
        with self._lock:
            return self._reached

    def image_age_s(self, now_ns: int) -> float:
        """Seconds since the stamp of the newest picture; NaN if none came."""
        with self._lock:
            newest_ns = self._frames.newest_ns
        return math.nan if newest_ns is None else (now_ns - newest_ns) * 1e-9

    def _judge(self, goal: Goal, frame: Frame) -> float:
        """Note the distance of a frame to the goal, and whether that counts as reached."""
        distance = float(goal_difference(frame.embedding, goal.embedding).square().sum())
        with self._lock:
            if self._goal is goal:
                self._distance = distance
                if goal.tolerance is not None:
                    factor = self.config.release_factor if self._reached else 1.0
                    self._reached = distance <= goal.tolerance * factor
                    if self._reached:
                        self._active = None
        return distance

    def _forget_progress(self) -> None:
        self._active = None
        self._failure = None
        self._distance = math.nan
        self._reached = False
