"""Receding-horizon control: pictures and a goal in, one command per control period out.

No ROS and no thread in here: every method is given the time, so a test or an evaluation drives it
as exactly as a node does. In a node, `replan` and `assess` run in a worker thread while
`observe` and `command` are called from others; shared state is guarded by a lock that is never
held while the model runs. How a plan lies in time, and what commands are taken from it, is in
`lewm_core.planning.follower`.

Whatever is missing, late or not finite ends in the contract's hold command and a reason in words.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.errors import PlanningError
from lewm_core.planning.config import ControllerConfig, PlannerConfig
from lewm_core.planning.follower import PlanFollower
from lewm_core.planning.limits import ActionLimits
from lewm_core.planning.perception import embed_frames, embed_goal
from lewm_core.planning.plan import Plan
from lewm_core.planning.protocols import Clock, EncodingDynamics, MonotonicClock, Solver
from lewm_core.planning.requests import search
from lewm_core.planning.schedule import count_down, remaining_blocks
from lewm_core.planning.solvers import make_solver
from lewm_core.planning.state import ActivePlan, Frame, Goal, PlanRequest, PlanResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lewm_core.data.contract import Contract
    from lewm_core.data.contract_parts import Camera

logger = logging.getLogger(__name__)


class RecedingHorizonController(PlanFollower):
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

    Attributes:
        time_limit_s: See `ControllerConfig.time_limit`; for ``auto`` whoever calls `replan` at a
            fixed rate sets it.

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
        super().__init__(
            limits,
            control_period_s,
            frame_skip=model.frame_skip,
            history=model.history,
            config=config or ControllerConfig(),
            image_timeout_s=image_timeout_s,
            command_timeout_s=command_timeout_s,
        )
        self.model = model
        self.solver = solver
        self.goal_tolerance = goal_tolerance
        self._clock = clock or MonotonicClock()
        limit = self.config.time_limit
        self.time_limit_s: float | None = None if limit == "auto" else limit
        self._encode_s = 0.0
        self._working = threading.Lock()  # one search at a time; observe and command never take it

    @classmethod
    def from_contract(
        cls,
        model: EncodingDynamics,
        contract: Contract,
        config: PlannerConfig | None = None,
        *,
        goal_tolerance: float | None = None,
        solver: Solver | None = None,
    ) -> RecedingHorizonController:
        """Build solver and controller for a robot.

        Args:
            model: A world model in eval mode.
            contract: Gives rates, limits and timeouts; candidates are clamped to its limits.
            config: A planner preset; default `PlannerConfig()`, the paper's.
            goal_tolerance: See the class.
            solver: Use this one; None: one of its own, as ``config.solver`` says.

        Raises:
            PlanningError: Contract and model do not fit.
        """
        config = config or PlannerConfig()
        limits = ActionLimits(*contract.action_limits())
        if limits.action_dim != model.action_dim:
            raise PlanningError(f"the contract has {limits.action_dim} action fields, the model "
                                f"{model.action_dim}; use the checkpoint's own contract")
        if solver is None:
            solver = make_solver(
                model, config.solver, (limits.lower, limits.upper), config.precision,
                limits.rate_limit / contract.control_rate, config.objective,
            )
        return cls(
            model,
            solver,
            limits,
            1.0 / contract.control_rate,
            config.controller,
            image_timeout_s=min(camera.timeout for camera in _seen(model, contract)),
            command_timeout_s=contract.action.timeout,
            goal_tolerance=goal_tolerance,
        )

    def set_goal(
        self,
        goal: NDArray[np.uint8] | Tensor,
        deadline_ns: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        """Pursue another goal from now on; holds until there is a plan for it.

        Args:
            goal: A picture ``(3 C, S, S)`` uint8, or an embedding ``(E,)``.
            deadline_ns: When to arrive, for `ControllerConfig.shrink_horizon`; None: `horizon`
                blocks after the first plan's beginning.
            tolerance: Squared latent distance that counts as reached; None: `goal_tolerance`.

        Raises:
            PlanningError: Neither a picture nor an embedding, or not finite.
        """
        embedding = embed_goal(self.model, goal)
        self.pursue(
            embedding, deadline_ns, self.goal_tolerance if tolerance is None else tolerance
        )

    def assess(self, now_ns: int) -> float:
        """Encode the newest picture and compare it with the goal, without planning.

        Returns:
            Squared latent distance; NaN if there is no goal or no picture.

        Raises:
            PlanningError: The embedding is not finite.
        """
        with self._working:
            self._encode_s = 0.0
            with self._lock:
                goal, sampled = self._goal, self._frames.sample(now_ns)
            if goal is None or not sampled:
                return math.nan
            self._embed([sampled[-1][1]])
            return self._judge(goal, sampled[-1][1])

    @property
    def encode_s(self) -> float:
        """Seconds that the newest `replan` or `assess` spent on encoding; 0 where every picture
        that it needed was encoded before."""
        return self._encode_s

    def replan(self, now_ns: int) -> PlanResult:
        """Plan from the pictures at hand; from then on `command` follows the new plan.

        Never raises: a failure drops the plan that was followed, so that `command` holds, and is
        reported in the result. A plan whose goal was changed meanwhile is discarded.
        """
        with self._working:
            request = self._prepare(now_ns)
            if isinstance(request, PlanResult):
                return request
            try:
                plan = search(self.solver, [request], self._deadline(request))
            except Exception as error:
                return self._fail(request.pursued, error)
            return self._accept(request, plan)

    # The three parts of `replan`, for a caller that searches for many controllers at once.

    def fresh_frames(self, now_ns: int) -> list[Frame]:
        """Return the frames that a plan made now would encode, for `embed_frames`."""
        with self._lock:
            sampled = self._frames.sample(now_ns)
        return [frame for _, frame in sampled if frame.embedding is None]

    def prepare(self, now_ns: int) -> PlanRequest | PlanResult:
        """Encode what a plan needs and say what to search for; never raises.

        Returns:
            What to give to a solver, its outcome to be handed to `accept` or `reject`; or, where
            there is nothing to search for, the result of `replan`.
        """
        with self._working:
            return self._prepare(now_ns)

    def accept(self, request: PlanRequest, plan: Plan) -> PlanResult:
        """Follow a plan from now on; never raises, a plan that cannot be followed is a failure.

        Args:
            request: Of `prepare`.
            plan: What a solver made of it, one row.
        """
        with self._working:
            return self._accept(request, plan)

    def reject(self, request: PlanRequest, error: Exception) -> PlanResult:
        """Hold, because the search for a request failed."""
        with self._working:
            return self._fail(request.pursued, error)

    def _prepare(self, now_ns: int) -> PlanRequest | PlanResult:
        self._encode_s = 0.0
        with self._lock:
            goal = self._goal
        try:
            return self._request(now_ns, goal)
        except Exception as error:
            return self._fail(goal, error)

    def _request(self, now_ns: int, goal: Goal | None) -> PlanRequest | PlanResult:
        with self._lock:
            reason = self._missing(now_ns)
            sampled = self._frames.sample(now_ns)
            active = self._active
            past = [
                self._commands.block(stamp, self.model.frame_skip) for stamp, _ in sampled[:-1]
            ]
            decided = None
            if self.config.compensate_latency and goal is not None and sampled:
                decided = self._decided(sampled[-1][0], now_ns, goal)
        if reason or goal is None:
            return PlanResult(reason=reason or "no goal", goal_distance=self.goal_distance)
        frames = [frame for _, frame in sampled]
        encode_s = self._embed(frames)
        encoded_ns = self._clock.now_ns()
        distance = self._judge(goal, frames[-1])
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
        return PlanRequest(
            pursued=goal,
            history=torch.stack([frame.embedding for frame in frames], dim=1),
            past_actions=self._normalised(past, goal.embedding.device),
            horizon=horizon,
            initial_mean=warm_start,
            committed=self._committed(decided, horizon, goal.embedding.device),
            start_ns=start_ns,
            goal_distance=distance,
            encode_s=encode_s,
            encoded_ns=encoded_ns,
        )

    def _embed(self, frames: list[Frame]) -> float:
        """Encode what is not encoded yet; returns the seconds it took, 0 where all of it was."""
        began_ns = self._clock.now_ns()
        encoded = embed_frames(self.model, frames)
        self._encode_s = (self._clock.now_ns() - began_ns) * 1e-9 if encoded else 0.0
        return self._encode_s

    def _accept(self, request: PlanRequest, plan: Plan) -> PlanResult:
        goal = request.pursued
        try:
            plan.check(self.model.frame_skip, self.model.action_dim)
            predicted = tuple(plan.goal_distances(goal.embedding)[0].tolist())
        except Exception as error:
            return self._fail(goal, error)
        with self._lock:
            if self._goal is not goal:
                return PlanResult(reason="the goal was changed while planning",
                                  goal_distance=request.goal_distance, encode_s=request.encode_s)
            self._active = ActivePlan(
                plan, goal.serial, request.start_ns, image_ns=request.start_ns
            )
            self._failure = None
        return PlanResult(
            plan=plan,
            start_ns=request.start_ns,
            image_stamp_ns=request.start_ns,
            goal_distance=request.goal_distance,
            predicted_distances=predicted,
            encode_s=request.encode_s,
            plan_s=(self._clock.now_ns() - request.encoded_ns) * 1e-9,
        )

    def _deadline(self, request: PlanRequest) -> float | None:
        """s of `time.perf_counter` by which the plan is wanted; what encoding took counts, too."""
        limit_s = self.time_limit_s
        return None if limit_s is None else time.perf_counter() + limit_s - request.encode_s

    def _fail(self, goal: Goal | None, error: Exception) -> PlanResult:
        """Drop the plan that was followed for ``goal``; the robot must stop whatever failed."""
        reason = f"planning failed: {error}"
        if not isinstance(error, PlanningError):
            logger.error("planning failed", exc_info=error)
            reason = f"planning failed: {type(error).__name__}: {error}"
        with self._lock:
            if goal is not None and self._goal_serial == goal.serial:
                self._active, self._failure = None, reason
        return PlanResult(reason=reason, failed=True, goal_distance=self.goal_distance)

    def _committed(
        self, decided: NDArray[np.float64] | None, horizon: int, device: torch.device
    ) -> Tensor | None:
        """``(n, A)`` in physical units to ``(1, n, A)`` normalised, short of a whole plan."""
        if decided is None:
            return None
        skip = self.model.frame_skip
        decided = decided[: horizon * skip - 1]
        steps = len(decided)
        if steps == 0:
            return None
        whole = np.pad(decided, ((0, -steps % skip), (0, 0)))
        blocks = torch.from_numpy(whole).to(device, torch.float32).unflatten(0, (-1, skip))
        return self.model.normalise_actions(blocks).reshape(1, len(whole), -1)[:, :steps]

    def _normalised(self, past: list[NDArray[np.float64]], device: torch.device) -> Tensor | None:
        """``T - 1`` blocks ``(F, A)`` in physical units to ``(1, T - 1, F * A)``."""
        if not past:
            return None
        blocks = torch.from_numpy(np.stack(past)).to(device, torch.float32)
        return self.model.normalise_actions(blocks)[None]


def _seen(model: EncodingDynamics, contract: Contract) -> Sequence[Camera]:
    """Return the cameras that a model is given the pictures of; of others, the first."""
    config = getattr(model, "config", None)
    return contract.select_cameras(() if config is None else config.inputs.cameras)
