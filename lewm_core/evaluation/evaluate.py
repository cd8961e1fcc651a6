"""One evaluation: checkpoints, a protocol, goals, baselines on the same goals, timed plans."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lewm_core.collection.recording import check_scene_contract
from lewm_core.data.contract import Contract
from lewm_core.errors import CheckpointError, UserError
from lewm_core.evaluation.closed_loop import run_goal
from lewm_core.evaluation.goal_result import GoalResult
from lewm_core.evaluation.goals import StartGoal, check_split, goals_from_expert
from lewm_core.evaluation.lock_step import DEFAULT_BATCH, Drive, drive_goals
from lewm_core.evaluation.planner_setup import PlannerSetup, make_setup
from lewm_core.evaluation.policies import DoNothing, Policy, RandomActions, ReplayActions
from lewm_core.evaluation.protocols import EvaluationProtocol
from lewm_core.evaluation.provenance import held_out_names, refuse_trained_seed
from lewm_core.evaluation.recorded_goals import RecordedGoals, find_episodes, goals_from_bags
from lewm_core.evaluation.timing import DEFAULT_PLANS, PlanTimes, time_plans
from lewm_core.model.checkpoint import WEIGHTS, load_checkpoint
from lewm_core.model.world_model import WorldModel
from lewm_core.paths import checkpoint_path
from lewm_core.planning.config import goal_tolerance_factor
from lewm_core.planning.limits import ActionLimits
from lewm_core.scenes.registry import Scene

#: Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A checkpoint that is evaluated.

    Attributes:
        label: Short and unlike the others', for tables and files.
        given: As the user named it.
        sha256: Of its weights.
        model: In eval mode.
        contract: Its own.
    """

    label: str
    given: str
    sha256: str
    model: WorldModel
    contract: Contract


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be evaluated, and how.

    Attributes:
        scene: Name of the scene.
        protocol: Task and timing.
        episodes: Goals for each distance of the protocol.
        seed: Of the goals and of the random baseline; the planner's own is in its preset.
        split: One of `goals.SPLITS`.
        planner: Preset's name or file; None: the best the checkpoint can do.
        settings: ``key=value`` put in place of the preset's.
        data: Recorded episodes to take starts and goals from; empty: fresh ones.
        batch: Episodes that advance together.
        goal_tolerance_factor: In place of the checkpoint's; 0: goals are pursued to the end.
        timed_plans: Plans that are timed one at a time, at most.
        vary: Variations of the scene, drawn for every goal.
        delay_s: From the moment a picture is taken until the planner has it.
    """

    scene: str
    protocol: EvaluationProtocol
    episodes: int = 200
    seed: int = 0
    split: str = "reporting"
    planner: str | None = None
    settings: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    batch: int = DEFAULT_BATCH
    goal_tolerance_factor: float | None = None
    timed_plans: int = DEFAULT_PLANS
    vary: tuple[str, ...] = ()
    delay_s: float = 0.0

    def tolerance_factor(self, model: WorldModel) -> float | None:
        """The factor in force for a checkpoint, see `make_setup`."""
        if self.goal_tolerance_factor is not None:
            return self.goal_tolerance_factor or None
        return goal_tolerance_factor(model.metadata) if self.protocol.holds_at_goal else None

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            UserError: The message names the number.
        """
        check_split(self.split)
        for name in ("episodes", "batch", "timed_plans"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, must be 1 or more")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}, must not be negative")
        if not 0.0 <= self.delay_s <= 60.0:
            raise UserError(f"delay is {self.delay_s} s, must be 0 to 60")
        if self.vary and self.data:
            raise UserError(
                "--vary draws variations for fresh goals; those of --data are as they were recorded"
            )
        factor = self.goal_tolerance_factor
        if factor is not None and not (math.isfinite(factor) and factor >= 0):
            raise UserError(f"goal_tolerance_factor is {factor}, must be 0 or more")


@dataclass(frozen=True, eq=False)
class Task:
    """Goals at one distance, and what those make of them that are no planner.

    Attributes:
        distance: Control steps between start and goal.
        budget: Control steps allowed.
        goals: The tasks.
        baselines: Policy to its results.
        recorded: Where the goals come from recordings: how they were made.
    """

    distance: int
    budget: int
    goals: list[StartGoal]
    baselines: dict[str, list[GoalResult]]
    recorded: RecordedGoals | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """One checkpoint at one distance.

    Attributes:
        candidate: The checkpoint.
        setup: Its planner.
        task: The goals.
        drives: What the planner made of each.
        times: Of single plans.
        seconds: Wall time of all drives together.
    """

    candidate: Candidate
    setup: PlannerSetup
    task: Task
    drives: list[Drive] = field(repr=False)
    times: PlanTimes
    seconds: float

    @property
    def results(self) -> list[GoalResult]:
        """As judged, in the order of the goals."""
        return [drive.result for drive in self.drives]


def load_candidates(given: Sequence[str], device: torch.device) -> list[Candidate]:
    """Open checkpoints.

    Raises:
        CheckpointError: Missing, damaged, or without a contract.
    """
    candidates: list[Candidate] = []
    labels: set[str] = set()
    for name in given:
        model = load_checkpoint(name)
        if model.contract is None:
            raise CheckpointError(f"{name}: model.json has no contract, so nobody knows its camera")
        folder = checkpoint_path(name)
        # lewm-train calls every checkpoint so; the run around it has a name.
        path = folder.resolve()
        base = path.parent.name if path.name == "checkpoint" else path.name
        label, number = base, 1
        while label in labels:
            number += 1
            label = f"{base}-{number}"
        labels.add(label)
        candidates.append(
            Candidate(
                label,
                name,
                hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
                model.to(device).eval(),
                Contract.from_dict(model.contract),
            )
        )
    return candidates


def evaluate(
    request: EvaluationRequest,
    candidates: Sequence[Candidate],
    scene: Scene,
    progress: Progress | None = None,
) -> list[Table]:
    """Drive every checkpoint to every goal.

    Args:
        request: What and how.
        candidates: All get the same goals.
        scene: Of the request; driven and left in another state.
        progress: Told what is being done.

    Returns:
        One for each distance and checkpoint, in this order.

    Raises:
        UserError: A checkpoint does not fit the scene, or was trained on the evaluation's
            episodes; a setting cannot be used.
    """
    request.check()
    say = progress or (lambda what, done, number: None)
    for candidate in candidates:
        check_scene_contract(scene, request.scene, candidate.contract)
        if candidate.contract.camera.size != candidates[0].contract.camera.size:
            raise UserError(
                f"{candidate.given} has a camera of another size than {candidates[0].given}; "
                "evaluate them one by one"
            )
        if request.tolerance_factor(candidate.model) != request.tolerance_factor(
            candidates[0].model
        ):
            raise UserError(
                f"{candidate.given} and {candidates[0].given} have goal tolerances of their own; "
                "evaluate them one by one, or give --goal-tolerance-factor"
            )
        if not request.data:
            refuse_trained_seed(
                candidate.given, candidate.model.metadata, request.scene, request.seed
            )
    setups = [
        make_setup(
            candidate.model,
            candidate.contract,
            request.planner,
            request.protocol,
            settings=request.settings,
            goal_tolerance_factor=request.tolerance_factor(candidate.model),
        )
        for candidate in candidates
    ]
    tables = []
    for distance in request.protocol.distances:
        task = _make_task(request, candidates, scene, distance, say)
        for candidate, setup in zip(candidates, setups, strict=True):
            tables.append(_make_table(request, candidate, setup, scene, task, say))
    return tables


def _make_task(
    request: EvaluationRequest,
    candidates: Sequence[Candidate],
    scene: Scene,
    distance: int,
    say: Progress,
) -> Task:
    contract = candidates[0].contract
    budget = request.protocol.budget_steps(distance)
    recorded = None
    if request.data:
        where = ", ".join(str(path) for path in request.data)
        bags = find_episodes(request.data)
        for candidate in candidates:
            names = held_out_names(candidate.given, candidate.model.metadata, list(bags), where)
            bags = {name: bags[name] for name in names}
        recorded = goals_from_bags(
            scene,
            bags,
            contract,
            request.episodes,
            request.seed,
            distance,
            split=request.split,
            progress=lambda done: say("recorded goals", done, request.episodes),
        )
        goals = recorded.goals
    else:
        goals = goals_from_expert(
            scene,
            request.episodes,
            request.seed,
            distance,
            contract.camera.size,
            request.scene,
            request.split,
        )
    baselines = {}
    for policy in _baselines(contract, request.seed):
        results = []
        for goal in goals:
            results.append(run_goal(scene, goal, policy, budget))
            say(policy.name, len(results), len(goals))
        baselines[policy.name] = results
    return Task(distance, budget, goals, baselines, recorded)


def _baselines(contract: Contract, seed: int) -> list[Policy]:
    limits = ActionLimits(*contract.action_limits())
    hold = limits.hold_values([0.0] * limits.action_dim)
    return [
        ReplayActions(hold),
        RandomActions(seed, limits.lower, limits.upper),
        DoNothing(hold),
    ]


def _make_table(
    request: EvaluationRequest,
    candidate: Candidate,
    setup: PlannerSetup,
    scene: Scene,
    task: Task,
    say: Progress,
) -> Table:
    what = f"{candidate.label}, {task.distance} steps"
    say(what, 0, len(task.goals))
    began = time.monotonic()
    drives = drive_goals(
        scene,
        task.goals,
        setup,
        task.budget,
        batch=request.batch,
        delay_s=request.delay_s,
        progress=lambda done: say(what, done, len(task.goals)),
    )
    seconds = time.monotonic() - began
    say(f"{what}, timing plans", 0, request.timed_plans)
    times = time_plans(scene, task.goals, setup, task.budget, request.timed_plans)
    say(f"{what}, timing plans", len(times.times_s), len(times.times_s))
    return Table(candidate, setup, task, drives, times, seconds)
