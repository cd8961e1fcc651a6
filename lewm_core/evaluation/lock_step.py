"""Many goals at once: all episodes advance together, and their plans are searched for together.

Every episode has a controller of its own, the planner node's. What is shared is the work: pictures
of all episodes are encoded in one call, and requests of equal shapes are stacked and given to the
solver as rows of one search. The one scene is put into each episode's state in turn.

With a solver whose rows do not depend on one another the outcome is that of one goal after the
other (`run_goal` with `PlannerPolicy`), up to the rounding of a model that is given several rows;
a solver that draws random numbers draws others for a row than it would for a search alone. How
long a plan takes cannot be learnt here: see `lewm_core.evaluation.timing`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.observation import Observation
from lewm_core.errors import PlanningError, UserError
from lewm_core.evaluation.closed_loop import judge
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.goals import GoalScene, StartGoal, look_at_goal
from lewm_core.evaluation.planner_setup import PlannerSetup
from lewm_core.planning import PlanRequest, PlanResult, RecedingHorizonController
from lewm_core.planning.perception import embed_frames, embed_goal
from lewm_core.planning.protocols import Solver
from lewm_core.planning.requests import search, shapes
from lewm_core.planning.state import Frame

logger = logging.getLogger(__name__)

#: Episodes that advance together unless told otherwise; it bounds the memory of a search. On a CPU
#: more are slower: the candidates of ten searches still fit into its caches (docs/evaluation.md).
DEFAULT_BATCH, DEFAULT_BATCH_GPU = 10, 100


@dataclass(frozen=True, eq=False)
class Drive:
    """What one episode came to.

    Attributes:
        result: As judged.
        truths: ``(budget + 1, N)`` ground truth at the start and after every control step.
    """

    result: GoalResult
    truths: NDArray[np.float64]


def drive_goals(
    scene: GoalScene,
    goals: Sequence[StartGoal],
    setup: PlannerSetup,
    budget_steps: int,
    *,
    batch: int = DEFAULT_BATCH,
    delay_s: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> list[Drive]:
    """Let the planner drive from every start for the whole budget.

    The scene stands still while a plan is made, as it does for the node in lock step.

    Args:
        scene: Driven and left in another state.
        goals: The tasks.
        setup: Makes the controllers.
        budget_steps: Control steps; success does not end an episode.
        batch: Most episodes at once. It decides which random numbers a goal's search draws, so
            results are told together with it.
        delay_s: From the moment a picture is taken until the planner has it, in whole control
            periods; its stamp says when it was taken, as a camera's does.
        progress: Called with the number of episodes that are done.

    Returns:
        One for each goal, in their order; the same arguments give the same again.

    Raises:
        UserError: ``budget_steps`` or ``batch`` is not above 0.
        PlanningError: There is no command to begin with, or the goals cannot be encoded.
    """
    if budget_steps < 1 or batch < 1:
        raise UserError(f"budget_steps ({budget_steps}) and batch ({batch}) must be 1 or more")
    drives: list[Drive] = []
    for first in range(0, len(goals), batch):
        fleet = _Fleet(scene, goals[first : first + batch], setup, budget_steps, delay_s)
        for step in range(budget_steps):
            fleet.advance(step)
        drives += fleet.drives()
        if progress is not None:
            progress(len(drives))
    return drives


class _Fleet:
    """Episodes that advance together."""

    def __init__(
        self,
        scene: GoalScene,
        goals: Sequence[StartGoal],
        setup: PlannerSetup,
        budget_steps: int,
        delay_s: float = 0.0,
    ) -> None:
        self._scene = scene
        self._goals = goals
        self._setup = setup
        first = setup.controller()
        self._solver: Solver = first.solver
        self._solver.reset()
        self._controllers: list[RecedingHorizonController] = [
            first, *(setup.controller(self._solver) for _ in goals[1:])
        ]
        self._layout = setup.layout
        for controller, goal in zip(self._controllers, goals, strict=True):
            seen = look_at_goal(scene, goal, self._layout)
            controller.set_goal(embed_goal(setup.model, seen)[0])
        self._states = [goal.start for goal in goals]
        self._truths = np.empty((len(goals), budget_steps + 1, len(goals[0].start_truth)))
        for row, goal in enumerate(goals):
            # Not the goal's own start_truth, which a recording may have rounded.
            scene.set_state(goal.start)
            self._truths[row, 0] = scene.ground_truth()
        self._period_ns = round(scene.control_period_s * 1e9)
        self._delay_steps = round(delay_s * 1e9 / self._period_ns)
        self._on_the_way: deque[list[Observation]] = deque()
        self._picture_every = self._picture_steps()
        self._plans = [0] * len(goals)
        self._failed = [0] * len(goals)

    def _picture_steps(self) -> int:
        """Control steps from picture to picture where no plan asks for one in between.

        A history is made of pictures whole blocks apart, so one a block is enough, if the camera
        may be silent for that long. Where goals can be reached, plans begin at any step.
        """
        if self._setup.goal_tolerance is not None or self._delay_steps:
            return 1
        timeout_s = min(camera.timeout for camera in self._layout.cameras)
        timeout_steps = round(timeout_s * 1e9) // self._period_ns
        skip = self._setup.model.frame_skip
        return skip if timeout_steps >= skip - 1 else 1

    def advance(self, step: int) -> None:
        """Look, plan and command in every episode, for one control period."""
        now_ns = step * self._period_ns
        self._look(step)
        self._plan(now_ns)
        for row, controller in enumerate(self._controllers):
            command = controller.command(now_ns)
            if command.values is None:
                raise PlanningError(f"the planner has no command to begin with: {command.reason}")
            self._scene.set_state(self._states[row])
            self._truths[row, step + 1] = self._scene.step_control(command.values)
            self._states[row] = self._scene.get_state()

    def _look(self, step: int) -> None:
        """Take the pictures that are due, and hand over those that arrive."""
        now_ns = step * self._period_ns
        if not self._delay_steps:
            for row, controller in enumerate(self._controllers):
                if step % self._picture_every == 0 or controller.wants_plan(now_ns):
                    seen = self._seen(row)
                    controller.observe(now_ns, seen.picture, seen.state)
            return
        self._on_the_way.append([self._seen(row) for row in range(len(self._controllers))])
        if len(self._on_the_way) > self._delay_steps:
            taken_ns = now_ns - self._delay_steps * self._period_ns
            arriving = self._on_the_way.popleft()
            for controller, seen in zip(self._controllers, arriving, strict=True):
                controller.observe(taken_ns, seen.picture, seen.state)

    def _seen(self, row: int) -> Observation:
        self._scene.set_state(self._states[row])
        return self._layout.look(self._scene)

    def _plan(self, now_ns: int) -> None:
        """Make the plans that are wanted now."""
        rows = [
            row for row, controller in enumerate(self._controllers) if controller.wants_plan(now_ns)
        ]
        self._encode([self._controllers[row] for row in rows], now_ns)
        groups: dict[tuple, list[tuple[int, PlanRequest]]] = {}
        for row in rows:
            request = self._controllers[row].prepare(now_ns)
            if isinstance(request, PlanResult):
                self._count(row, request)
            else:
                groups.setdefault(shapes(request), []).append((row, request))
        for group in groups.values():
            self._search(group)

    def _encode(self, controllers: Sequence[RecedingHorizonController], now_ns: int) -> None:
        frames: list[Frame] = [
            frame for controller in controllers for frame in controller.fresh_frames(now_ns)
        ]
        try:
            embed_frames(self._setup.model, frames)
        except PlanningError as error:
            # Of one picture among many; its own controller finds out which, and holds.
            logger.debug("encoding %d pictures together: %s", len(frames), error)

    def _search(self, group: Sequence[tuple[int, PlanRequest]]) -> None:
        """Search for the plans of requests of equal shapes; the culprit of a failure fails."""
        rows = [row for row, _ in group]
        requests = [request for _, request in group]
        try:
            plan = search(self._solver, requests)
        except Exception as error:
            if len(group) == 1:
                self._count(rows[0], self._controllers[rows[0]].reject(requests[0], error))
                return
            logger.debug("planning %d rows together: %s", len(group), error)
            for single in group:
                self._search([single])
            return
        for index, (row, request) in enumerate(group):
            self._count(row, self._controllers[row].accept(request, plan.row(index)))

    def _count(self, row: int, result: PlanResult) -> None:
        self._plans[row] += result.plan is not None
        self._failed[row] += result.failed

    def drives(self) -> list[Drive]:
        """Judge every episode."""
        return [
            Drive(
                judge(
                    "planner",
                    goal.number,
                    [self._scene.outcome(truth, goal.goal_truth) for truth in truths],
                    plans=self._plans[row],
                    plans_failed=self._failed[row],
                ),
                truths,
            )
            for row, (goal, truths) in enumerate(zip(self._goals, self._truths, strict=True))
        ]
