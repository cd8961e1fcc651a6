"""Receding-horizon control: pictures and a goal in, one command per control period out.

No ROS and no thread in here: every method is given the time, so a test or an evaluation drives it
as exactly as a node does. In a node, `replan` and `assess` run in a worker thread while
`observe` and `command` are called from others; shared state is guarded by a lock that is never
held while the model runs.

How a plan lies in time. A plan made from a picture stamped t begins at t: its action k is meant
for ``[t + k * control period, t + (k + 1) * control period)``. `command` looks up the action for
*now*, so that actions which lie in the past by the time the search is done are skipped, never
executed late. What the robot did meanwhile (the tail of the plan before, or hold) is not what the
skipped actions said; the next plan corrects that. Where the robot was held all the while, nothing
has changed since the picture: such a plan begins when it is there, and loses no action, as long as
that is not later than the plan is long. Past the last action the answer is hold.

Whatever is missing, late or not finite ends in the contract's hold command and a reason in words.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.cem import CEM
from lewm_core.planning.config import ControllerConfig, PlannerConfig
from lewm_core.planning.history import COMMAND_TOLERANCE_NS, CommandLog, FrameHistory
from lewm_core.planning.limits import ActionLimits
from lewm_core.planning.perception import embed_frames, embed_goal
from lewm_core.planning.plan import Plan
from lewm_core.planning.protocols import Clock, EncodingDynamics, MonotonicClock, Solver
from lewm_core.planning.schedule import count_down, remaining_blocks
from lewm_core.planning.state import (
    ActivePlan,
    Command,
    Frame,
    Goal,
    PlanResult,
    as_picture,
)

if TYPE_CHECKING:
    from lewm_core.data.contract import Contract

logger = logging.getLogger(__name__)


class RecedingHorizonController:
    """Plans from the newest pictures and hands out the plan's commands in time.

    Args:
        model: Encodes pictures and predicts; the same one the solver plans with.
        solver: Finds the actions.
        limits: Of the action vector, in physical units.
        control_period_s: Seconds between two commands.
        config: When to plan, and from what; default `ControllerConfig()`.
        image_timeout_s: A newest picture older than this holds.
        command_timeout_s: The robot's side stops obeying a command older than this; None: never.
        goal_tolerance: Squared latent distance that counts as reached, for goals that bring no
            tolerance of their own; None: a goal is pursued until it is cleared.
        clock: Measures how long encoding and planning take; default the monotonic clock.

    Raises:
        PlanningError: The limits do not fit the model, or a number is out of range.
    """

    def __init__(
        self,
        model: EncodingDynamics,
        solver: Solver,
        limits: ActionLimits,
        control_period_s: float,
        config: ControllerConfig | None = None,
        *,
        image_timeout_s: float = 0.5,
        command_timeout_s: float | None = None,
        goal_tolerance: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if limits.action_dim != model.action_dim:
            raise PlanningError(f"limits have {limits.action_dim} fields, the model's actions "
                                f"{model.action_dim}")
        if control_period_s <= 0 or image_timeout_s <= 0:
            raise PlanningError("control period and image timeout must be above 0 s")
        self.model = model
        self.solver = solver
        self.limits = limits
        self.config = config or ControllerConfig()
        self.goal_tolerance = goal_tolerance
        self._period_ns = round(control_period_s * 1e9)
        self._block_ns = self._period_ns * model.frame_skip
        self._image_timeout_ns = round(image_timeout_s * 1e9)
        self._clock = clock or MonotonicClock()
        tolerance_s = self.config.history_tolerance
        self._frames = FrameHistory(
            block_period_s=self._block_ns * 1e-9,
            length=min(self.config.history_frames or model.history, model.history),
            tolerance_s=control_period_s / 2 if tolerance_s is None else tolerance_s,
        )
        self._commands = CommandLog(
            model.action_dim,
            control_period_s,
            keep_s=(model.history + 1) * self._block_ns * 1e-9,
            timeout_s=command_timeout_s,
        )
        self._lock = threading.Lock()  # shared state; held for microseconds only
        self._working = threading.Lock()  # one search at a time; observe and command never take it
        self._goal: Goal | None = None
        self._goal_serial = 0
        self._active: ActivePlan | None = None
        self._failure: str | None = None
        self._distance = math.nan
        self._reached = False

    @classmethod
    def from_contract(
        cls,
        model: EncodingDynamics,
        contract: Contract,
        config: PlannerConfig | None = None,
        *,
        goal_tolerance: float | None = None,
    ) -> RecedingHorizonController:
        """Build solver and controller for a robot.

        Args:
            model: A world model in eval mode.
            contract: Gives rates, limits and timeouts; candidates are clamped to its limits.
            config: A planner preset; default `PlannerConfig()`, the paper's.
            goal_tolerance: See the class.

        Raises:
            PlanningError: Contract and model do not fit.
        """
        config = config or PlannerConfig()
        limits = ActionLimits(*contract.action_limits())
        if limits.action_dim != model.action_dim:
            raise PlanningError(f"the contract has {limits.action_dim} action fields, the model "
                                f"{model.action_dim}; use the checkpoint's own contract")
        solver = CEM(model, config.solver, action_limits=(limits.lower, limits.upper))
        return cls(
            model,
            solver,
            limits,
            1.0 / contract.control_rate,
            config.controller,
            image_timeout_s=contract.cameras[0].timeout,
            command_timeout_s=contract.action.timeout,
            goal_tolerance=goal_tolerance,
        )

    # --- what comes in --------------------------------------------------------------------------

    def observe(self, stamp_ns: int, picture: NDArray[np.uint8] | Tensor) -> None:
        """Take a picture. Cheap: it is encoded when a plan needs it.

        Args:
            stamp_ns: Header stamp.
            picture: ``(3, S, S)`` uint8, prepared as for training; kept, not copied.

        Raises:
            PlanningError: The shape or type is another.
        """
        frame = Frame(as_picture(picture))
        with self._lock:
            self._frames.add(stamp_ns, frame)

    def set_goal(
        self,
        goal: NDArray[np.uint8] | Tensor,
        deadline_ns: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        """Pursue another goal from now on; holds until there is a plan for it.

        Args:
            goal: A picture ``(3, S, S)`` uint8, or an embedding ``(D,)``.
            deadline_ns: When to arrive, for `ControllerConfig.shrink_horizon`; None: `horizon`
                blocks after the first plan's beginning.
            tolerance: Squared latent distance that counts as reached; None: `goal_tolerance`.

        Raises:
            PlanningError: Neither a picture nor an embedding, or not finite.
        """
        embedding = embed_goal(self.model, goal)
        with self._lock:
            self._goal_serial += 1
            self._goal = Goal(
                self._goal_serial,
                embedding,
                self.goal_tolerance if tolerance is None else tolerance,
                deadline_ns,
            )
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

    # --- planning, in a worker thread where there is one ----------------------------------------

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
            return now_ns >= end_ns - COMMAND_TOLERANCE_NS

    def assess(self, now_ns: int) -> float:
        """Encode the newest picture and compare it with the goal, without planning.

        Returns:
            Squared latent distance; NaN if there is no goal or no picture.

        Raises:
            PlanningError: The embedding is not finite.
        """
        with self._working:
            with self._lock:
                goal, sampled = self._goal, self._frames.sample(now_ns)
            if goal is None or not sampled:
                return math.nan
            embed_frames(self.model, [sampled[-1][1]])
            return self._judge(goal, sampled[-1][1])

    def replan(self, now_ns: int) -> PlanResult:
        """Plan from the pictures at hand; from then on `command` follows the new plan.

        Never raises: a failure drops the plan that was followed, so that `command` holds, and is
        reported in the result. A plan whose goal was changed meanwhile is discarded.
        """
        with self._working:
            with self._lock:
                goal = self._goal
            try:
                return self._replan(now_ns, goal)
            except PlanningError as error:
                reason = f"planning failed: {error}"
            except Exception as error:
                # The robot must stop whatever it is that failed; the traceback goes to the log.
                logger.exception("planning failed")
                reason = f"planning failed: {type(error).__name__}: {error}"
            with self._lock:
                if goal is not None and self._goal_serial == goal.serial:
                    self._active, self._failure = None, reason
            return PlanResult(reason=reason, failed=True, goal_distance=self.goal_distance)

    def _replan(self, now_ns: int, goal: Goal | None) -> PlanResult:
        with self._lock:
            reason = self._missing(now_ns)
            sampled = self._frames.sample(now_ns)
            active = self._active
            past = [
                self._commands.block(stamp, self.model.frame_skip) for stamp, _ in sampled[:-1]
            ]
        if reason or goal is None:
            return PlanResult(reason=reason or "no goal", goal_distance=self.goal_distance)
        began_ns = self._clock.now_ns()
        frames = [frame for _, frame in sampled]
        embed_frames(self.model, frames)
        encoded_ns = self._clock.now_ns()
        distance = self._judge(goal, frames[-1])
        encode_s = (encoded_ns - began_ns) * 1e-9
        with self._lock:
            if self._reached:
                return PlanResult(reason="goal reached", goal_distance=distance, encode_s=encode_s)
        start_ns = sampled[-1][0]
        horizon = self.solver.horizon
        if self.config.shrink_horizon:
            horizon = count_down(
                goal, start_ns, horizon, self.config.minimum_horizon, self._block_ns
            )
        warm_start = None
        if self.config.warm_start:
            warm_start = remaining_blocks(active, goal, start_ns, horizon, self._block_ns)
        plan = self.solver.plan(
            torch.stack([frame.embedding for frame in frames], dim=1),
            goal.embedding,
            self._normalised(past, goal.embedding.device),
            horizon=horizon,
            initial_mean=warm_start,
        )
        self._check(plan)
        with self._lock:
            if self._goal is not goal:
                return PlanResult(reason="the goal was changed while planning",
                                  goal_distance=distance, encode_s=encode_s)
            self._active = ActivePlan(plan, goal.serial, start_ns, image_ns=start_ns)
            self._failure = None
        return PlanResult(
            plan=plan,
            start_ns=start_ns,
            image_stamp_ns=start_ns,
            goal_distance=distance,
            predicted_distances=tuple(plan.goal_distances(goal.embedding)[0].tolist()),
            encode_s=encode_s,
            plan_s=(self._clock.now_ns() - encoded_ns) * 1e-9,
        )

    def _judge(self, goal: Goal, frame: Frame) -> float:
        """Note the distance of a frame to the goal, and whether that counts as reached."""
        distance = float((frame.embedding - goal.embedding).square().sum())
        with self._lock:
            if self._goal is goal:
                self._distance = distance
                if goal.tolerance is not None:
                    factor = self.config.release_factor if self._reached else 1.0
                    self._reached = distance <= goal.tolerance * factor
                    if self._reached:
                        self._active = None
        return distance

    def _normalised(self, past: list[NDArray[np.float64]], device: torch.device) -> Tensor | None:
        """``T - 1`` blocks ``(F, A)`` in physical units to ``(1, T - 1, F * A)``."""
        if not past:
            return None
        blocks = torch.from_numpy(np.stack(past)).to(device, torch.float32)
        return self.model.normalise_actions(blocks)[None]

    def _check(self, plan: Plan) -> None:
        """Any solver may stand behind the protocol; what it returns is not trusted."""
        expected = (1, plan.horizon * self.model.frame_skip, self.model.action_dim)
        if tuple(plan.actions.shape) != expected:
            raise PlanningError(f"the solver's actions have shape {tuple(plan.actions.shape)}, "
                                f"expected {expected}")
        if not bool(torch.isfinite(plan.actions).all()):
            raise PlanningError("plan not finite")

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
                step = self._step(active, now_ns)
                elapsed_ns = self._period_ns if last is None else now_ns - last[0]
                values = self.limits.apply(
                    active.plan.actions[0, step].numpy(),
                    last_values,
                    min(max(elapsed_ns, 0), self._period_ns) * 1e-9,
                )
                command = Command(values, False, "", now_ns, active.image_ns, step)
                if not active.begun:
                    self._active = replace(active, begun=True)
            if values is not None:
                self._commands.add(now_ns, values)
            return command

    def _begin_late(self, now_ns: int) -> None:
        """Let a new plan begin now if the robot has stood still since its picture."""
        active = self._active
        if active is None or active.begun:
            return
        length_ns = active.plan.actions.shape[1] * self._period_ns
        in_time = self._period_ns <= now_ns - active.start_ns <= length_ns
        if in_time and self._commands.stood_still(active.start_ns, self.limits.hold):
            self._active = replace(active, start_ns=now_ns)

    def _missing(self, now_ns: int) -> str:
        """Why nothing can be pursued now, whatever the plan; empty if all is there."""
        if self._goal is None:
            return "no goal"
        newest_ns = self._frames.newest_ns
        if newest_ns is None:
            return "no picture yet"
        age_ns = now_ns - newest_ns
        if age_ns > self._image_timeout_ns:
            return f"picture {age_ns * 1e-9:.1f} s old (limit {self._image_timeout_ns * 1e-9:g} s)"
        if -age_ns > self._image_timeout_ns:
            return f"picture stamped {-age_ns * 1e-9:.1f} s in the future; compare the clocks"
        if not self._frames.sample(now_ns):
            return "no picture yet: the first is stamped ahead of the clock"
        return ""

    def _no_action(self, now_ns: int) -> str:
        """Why the newest plan has no action for now; empty if it has."""
        if self._reached:
            return "goal reached"
        if self._failure is not None:
            return self._failure
        if self._active is None:
            return "no plan yet"
        step = self._step(self._active, now_ns)
        if step < 0:
            return "plan begins in the future; the clock went back"
        if step >= self._active.plan.actions.shape[1]:
            return "plan exhausted"
        return ""

    def _step(self, active: ActivePlan, now_ns: int) -> int:
        return (now_ns - active.start_ns + COMMAND_TOLERANCE_NS) // self._period_ns

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

    def _forget_progress(self) -> None:
        self._active = None
        self._failure = None
        self._distance = math.nan
        self._reached = False
