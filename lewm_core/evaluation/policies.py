"""Who drives in a closed-loop evaluation: the planner, and what it must be better than."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import PlanningError
from lewm_core.evaluation.goals import look_at_goal
from lewm_core.planning import PlannerConfig, RecedingHorizonController

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lewm_core.data.contract import Contract
    from lewm_core.evaluation.goals import GoalScene, StartGoal
    from lewm_core.model.world_model import WorldModel


class Policy(Protocol):
    """Drives a scene, one control period at a time.

    Attributes:
        name: For tables.
        plan_times_s: Seconds of every plan since `begin`; empty for policies that do not plan.
        plans_failed: Plans since `begin` that could not be made.
    """

    name: str
    plan_times_s: list[float]
    plans_failed: int

    def begin(self, start_goal: StartGoal, scene: GoalScene) -> None:
        """Start on another goal; what the policy does depends on this goal alone.

        Args:
            start_goal: The task.
            scene: At its start, and to be left there.
        """
        ...

    def act(self, now_ns: int, scene: GoalScene) -> NDArray[np.float64]:
        """Return the command ``(A,)`` for the control period that begins at ``now_ns``.

        Args:
            now_ns: Since the start.
            scene: To look at, as far as the policy may; rendering costs time.
        """
        ...


class _Baseline:
    """What policies that do not plan have in common."""

    def __init__(self) -> None:
        self.plan_times_s: list[float] = []
        self.plans_failed = 0


class DoNothing(_Baseline):
    """Holds still: what succeeds here was never a task.

    Args:
        hold: ``(A,)`` command that does nothing.
    """

    name = "do nothing"

    def __init__(self, hold: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__()
        self._hold = np.array(hold, dtype=np.float64)

    def begin(self, start_goal: StartGoal, scene: GoalScene) -> None:
        """Nothing to prepare."""

    def act(self, now_ns: int, scene: GoalScene) -> NDArray[np.float64]:
        """Return the hold command ``(A,)``."""
        return self._hold


class RandomActions(_Baseline):
    """Uniform commands within the limits, another one every control period.

    Args:
        seed: The same seed and goal give the same commands.
        lower: ``(A,)`` limits.
        upper: ``(A,)``.
    """

    name = "random"

    def __init__(
        self,
        seed: int,
        lower: Sequence[float] = (-0.15, -0.15),
        upper: Sequence[float] = (0.15, 0.15),
    ) -> None:
        super().__init__()
        self._seed = seed
        self._lower = np.array(lower, dtype=np.float64)
        self._upper = np.array(upper, dtype=np.float64)
        self._rng = np.random.default_rng(seed)

    def begin(self, start_goal: StartGoal, scene: GoalScene) -> None:
        """Draw from a stream of this goal's own."""
        self._rng = np.random.default_rng((self._seed, start_goal.number))

    def act(self, now_ns: int, scene: GoalScene) -> NDArray[np.float64]:
        """Return a drawn command ``(A,)``."""
        return self._rng.uniform(self._lower, self._upper)


class ReplayActions(_Baseline):
    """The recorded commands from start to goal, then still: the ceiling of the protocol.

    Args:
        hold: ``(A,)`` command that does nothing.
    """

    name = "replay"

    def __init__(self, hold: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__()
        self._hold = np.array(hold, dtype=np.float64)
        self._actions = np.empty((0, len(self._hold)))
        self._step = 0

    def begin(self, start_goal: StartGoal, scene: GoalScene) -> None:
        """Rewind."""
        self._actions = start_goal.actions
        self._step = 0

    def act(self, now_ns: int, scene: GoalScene) -> NDArray[np.float64]:
        """Return the next recorded command ``(A,)``."""
        step, self._step = self._step, self._step + 1
        return self._actions[step] if step < len(self._actions) else self._hold


class PlannerPolicy:
    """The controller of the planner node, in process and without ROS.

    It sees what the model is given, through the functions that training uses: pictures, and the
    robot's own state where the model wants it. Planning takes no simulated time: the scene stands
    still meanwhile, as it does for the node in lock step.

    Args:
        controller: Model, solver and settings.
        layout: What the model is given.
        name: For tables.
    """

    def __init__(
        self,
        controller: RecedingHorizonController,
        layout: ObservationLayout,
        name: str = "planner",
    ) -> None:
        self.controller = controller
        self.name = name
        self.plan_times_s: list[float] = []
        self.plans_failed = 0
        self._layout = layout

    @classmethod
    def from_model(
        cls,
        model: WorldModel,
        contract: Contract,
        config: PlannerConfig | None = None,
        name: str = "planner",
    ) -> PlannerPolicy:
        """Build the controller as the planner node does.

        Args:
            model: In eval mode.
            contract: Of the scene.
            config: A planner preset; default the paper's.
            name: For tables.

        Raises:
            PlanningError: Contract and model do not fit.
            ContractError: The contract lacks what the model is given.
        """
        layout = ObservationLayout.of(contract, model.config)
        controller = RecedingHorizonController.from_contract(model, contract, config)
        return cls(controller, layout, name)

    def begin(self, start_goal: StartGoal, scene: GoalScene) -> None:
        """Forget the goal before, restart the solver's random numbers, take up this goal."""
        self.controller.reset()
        self.controller.solver.reset()
        self.controller.set_goal(look_at_goal(scene, start_goal, self._layout))
        self.plan_times_s = []
        self.plans_failed = 0

    def act(self, now_ns: int, scene: GoalScene) -> NDArray[np.float64]:
        """Look, plan where a plan is wanted, and return its command ``(A,)``.

        Raises:
            PlanningError: There is nothing to command: the contract holds at "last" before the
                first command.
        """
        seen = self._layout.look(scene)
        self.controller.observe(now_ns, seen.picture, seen.state)
        if self.controller.wants_plan(now_ns):
            result = self.controller.replan(now_ns)
            self.plans_failed += result.failed
            if result.plan is not None:
                self.plan_times_s.append(result.encode_s + result.plan_s)
        command = self.controller.command(now_ns)
        if command.values is None:
            raise PlanningError(f"policy {self.name!r} has no command to begin with: "
                                f"{command.reason}")
        return command.values
