"""Who drives in a closed-loop evaluation: the planner, and what it must be better than."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.images import prepare_picture
from lewm_core.errors import PlanningError
from lewm_core.planning import PlannerConfig, RecedingHorizonController

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lewm_core.data.contract import Contract
    from lewm_core.evaluation.goals import StartGoal
    from lewm_core.model.world_model import WorldModel


class Policy(Protocol):
    """Drives a scene, one control period at a time.

    Attributes:
        name: For tables.
        needs_picture: Whether `act` wants the camera's picture; rendering costs time.
        plan_times_s: Seconds of every plan since `begin`; empty for policies that do not plan.
        plans_failed: Plans since `begin` that could not be made.
    """

    name: str
    needs_picture: bool
    plan_times_s: list[float]
    plans_failed: int

    def begin(self, start_goal: StartGoal) -> None:
        """Start on another goal; what the policy does depends on this goal alone."""
        ...

    def act(self, now_ns: int, picture: NDArray[np.uint8] | None) -> NDArray[np.float64]:
        """Return the command ``(A,)`` for the control period that begins at ``now_ns``.

        Args:
            now_ns: Since the start.
            picture: ``(H, W, 3)`` uint8 RGB of the camera now; None unless `needs_picture`.
        """
        ...


class _Baseline:
    """What policies that do not plan have in common."""

    needs_picture = False

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

    def begin(self, start_goal: StartGoal) -> None:
        """Nothing to prepare."""

    def act(self, now_ns: int, picture: NDArray[np.uint8] | None) -> NDArray[np.float64]:
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

    def begin(self, start_goal: StartGoal) -> None:
        """Draw from a stream of this goal's own."""
        self._rng = np.random.default_rng((self._seed, start_goal.number))

    def act(self, now_ns: int, picture: NDArray[np.uint8] | None) -> NDArray[np.float64]:
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

    def begin(self, start_goal: StartGoal) -> None:
        """Rewind."""
        self._actions = start_goal.actions
        self._step = 0

    def act(self, now_ns: int, picture: NDArray[np.uint8] | None) -> NDArray[np.float64]:
        """Return the next recorded command ``(A,)``."""
        step, self._step = self._step, self._step + 1
        return self._actions[step] if step < len(self._actions) else self._hold


class PlannerPolicy:
    """The controller of the planner node, in process and without ROS.

    It sees pictures only: cropped and resized by the function that training uses. Planning takes
    no simulated time: the scene stands still meanwhile, as it does for the node in lock step.

    Args:
        controller: Model, solver and settings.
        image_size: Edge in px of what the model sees.
        crop: ``[x, y, width, height]`` px of the camera's picture; None: all of it.
        name: For tables.
    """

    needs_picture = True

    def __init__(
        self,
        controller: RecedingHorizonController,
        image_size: int,
        crop: Sequence[int] | None = None,
        name: str = "planner",
    ) -> None:
        self.controller = controller
        self.name = name
        self.plan_times_s: list[float] = []
        self.plans_failed = 0
        self._image_size = image_size
        self._crop = crop

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
        """
        controller = RecedingHorizonController.from_contract(model, contract, config)
        return cls(controller, model.config.image_size, contract.cameras[0].crop, name)

    def begin(self, start_goal: StartGoal) -> None:
        """Forget the goal before, restart the solver's random numbers, take up this goal."""
        self.controller.reset()
        self.controller.solver.reset()
        self.controller.set_goal(self._prepare(start_goal.goal_picture))
        self.plan_times_s = []
        self.plans_failed = 0

    def act(self, now_ns: int, picture: NDArray[np.uint8] | None) -> NDArray[np.float64]:
        """Look, plan where a plan is wanted, and return its command ``(A,)``.

        Raises:
            PlanningError: There is nothing to command: no picture was given, or the contract
                holds at "last" before the first command.
        """
        if picture is None:
            raise PlanningError(f"policy {self.name!r} needs a picture in every control period")
        self.controller.observe(now_ns, self._prepare(picture))
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

    def _prepare(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return prepare_picture(picture, self._crop, self._image_size)
