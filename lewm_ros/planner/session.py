"""Everything the planner makes when it is configured: model, contract, preset, controller, warm.

What cannot be used is refused with one line before anything moves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import lewm_core
from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import CheckpointError, ConfigError, ContractError
from lewm_core.model.verdict import Verdict, read_verdict
from lewm_core.model.world_model import WorldModel
from lewm_core.planning import (
    PlannerConfig,
    RecedingHorizonController,
    load_planner_config,
    planner_for,
)
from lewm_core.planning.config import goal_tolerance_factor
from lewm_ros.planner.parameters import PlannerParameters
from lewm_ros.positions import MeasuredPositions
from lewm_ros.safety import CommandGuard

Log = Callable[[str], None]


#: Of the replanning period, for encoding and the rounds of a search; the rest is for the last
#: rollout, the messages and the other threads.
_SHARE_OF_PERIOD = 0.7


@dataclass
class PlannerSession:
    """What exists from configure to cleanup.

    Attributes:
        model: In eval mode, on its device.
        contract: The checkpoint's.
        config: The planner preset.
        controller: Plans and hands out commands.
        guard: What every command passes.
        positions: Where the robot stands, if it takes positions.
        one_block_distance: The checkpoint's squared latent distance between pictures one block
            apart; None if it does not say.
        threads: Threads of the model on a CPU.
        verdict: What ``lewm-check`` found; None if these weights were not checked.
    """

    model: WorldModel
    contract: Contract
    config: PlannerConfig
    controller: RecedingHorizonController
    guard: CommandGuard
    positions: MeasuredPositions
    one_block_distance: float | None
    threads: int
    verdict: Verdict | None = None

    @property
    def layout(self) -> ObservationLayout:
        """What the model is given: which cameras and state fields of the contract."""
        return ObservationLayout.of(self.contract, self.model.config)

    @property
    def image_size(self) -> int:
        """Edge of the model's picture, px."""
        return self.model.config.image_size

    @property
    def block_s(self) -> float:
        """Seconds of one block of the model."""
        return self.model.frame_skip * self.contract.control_period

    @property
    def device(self) -> str:
        """Where the model runs, for reports."""
        device = self.model.action_mean.device
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        return f"{device.type}, {self.threads} threads"

    @property
    def verdict_text(self) -> str:
        """The verdict as ``~/status`` shows it."""
        if self.verdict is None:
            return "not checked"
        if self.verdict.verdict == "can plan":
            return self.verdict.verdict
        return f"{self.verdict.verdict}: {self.verdict.reason}"

    def why_not_activate(self, parameters: PlannerParameters) -> str:
        """Why the planner must not become active with this checkpoint; empty if it may."""
        if self.verdict is None or self.verdict.verdict != "cannot plan" or parameters.force:
            return ""
        return (
            f"lewm-check says that {parameters.checkpoint} cannot plan: {self.verdict.reason}; "
            "use another checkpoint, or set the parameter force to activate it all the same"
        )

    def replan_period_s(self, parameters: PlannerParameters) -> float:
        """Seconds between two plans, by the parameter or by the preset."""
        if parameters.replan_rate > 0.0:
            return 1.0 / parameters.replan_rate
        return self.config.controller.execute_blocks * self.block_s

    def limit_time(self, parameters: PlannerParameters) -> None:
        """Let plans be there before the next is due, where the preset leaves that to the node."""
        if self.config.controller.time_limit != "auto":
            return
        self.controller.time_limit_s = None
        # A scene in lock step waits, and its runs repeat only if searches are whole.
        if not parameters.lock_step:
            self.controller.time_limit_s = _SHARE_OF_PERIOD * self.replan_period_s(parameters)

    def default_tolerance(self, parameters: PlannerParameters) -> float | None:
        """Squared latent distance that counts as reached where a goal does not say; None: never."""
        if parameters.goal_tolerance > 0.0:
            return parameters.goal_tolerance
        if self.one_block_distance is None:
            return None
        factor = parameters.goal_tolerance_factor or goal_tolerance_factor(self.model.metadata)
        return factor * self.one_block_distance


def open_session(parameters: PlannerParameters, log: Log) -> PlannerSession:
    """Load and warm everything; nothing is loaded or compiled after this.

    Args:
        parameters: Of the node.
        log: Gets one line at a time.

    Raises:
        UserError: Something cannot be used; one line that names it and the mend.
    """
    if not parameters.checkpoint:
        raise CheckpointError(
            "parameter checkpoint is empty: give the folder of a checkpoint, "
            "-p checkpoint:=FOLDER"
        )
    model = lewm_core.load(parameters.checkpoint)
    planner = planner_for(model, parameters.planner)
    config = load_planner_config(planner)
    if parameters.seed >= 0:
        solver = config.solver.model_copy(update={"seed": parameters.seed})
        config = config.model_copy(update={"solver": solver})
    given = load_contract(parameters.contract) if parameters.contract else None
    contract = _agreed_contract(model, given, parameters, log)
    # Refuses a contract without what the model is given.
    ObservationLayout.of(contract, model.config)
    device = _device(parameters.device)
    threads = parameters.threads or max(1, (os.cpu_count() or 2) - 1)
    torch.set_num_threads(threads)
    model = model.to(device)
    controller = RecedingHorizonController.from_contract(model, contract, config)
    # As old as a picture may be.
    timeout_s = min(camera.timeout for camera in contract.cameras)
    positions = MeasuredPositions(contract, timeout_s)
    guard = CommandGuard(*contract.action_limits(), contract.control_period, positions)
    session = PlannerSession(
        model, contract, config, controller, guard, positions, _one_block_distance(model), threads,
        read_verdict(parameters.checkpoint),
    )
    log(f"checkpoint {parameters.checkpoint}: image {session.image_size} px, history "
        f"{model.history}, frame skip {model.frame_skip}, contract {contract.name!r}, "
        f"on {session.device}")
    log(f"lewm-check: {session.verdict_text}")
    if session.verdict is None:
        log(f"warning: nobody has checked whether {parameters.checkpoint} can plan; run "
            f"lewm-check {parameters.checkpoint} --data BAGS")
    log(f"planner {planner}: {config.model_dump()}")
    if session.default_tolerance(parameters) is None:
        log("the checkpoint has no latent.one_block_distance and goal_tolerance is 0: a goal "
            "without a tolerance of its own is pursued until it is replaced")
    session.limit_time(parameters)
    _warm(session, log)
    return session


def _agreed_contract(
    model: WorldModel, given: Contract | None, parameters: PlannerParameters, log: Log
) -> Contract:
    if model.contract is None:
        raise ContractError(
            f"{parameters.checkpoint} has no contract: train it on a dataset with a contract, "
            "nobody can know what its numbers drive"
        )
    own = Contract.from_dict(model.contract, f"contract in {parameters.checkpoint}")
    if len(own.action.fields) != model.action_dim:
        raise CheckpointError(
            f"{parameters.checkpoint}: its contract has {len(own.action.fields)} action fields, "
            f"its model {model.action_dim} action dimensions; copy the checkpoint again"
        )
    if given is None:
        return own
    own = own.measured_as(given)
    differences = contract_differences(own, given)
    for line in differences:
        log(f"contracts differ (checkpoint != {parameters.contract}): {line}")
    if differences:
        raise ContractError(
            f"contract {parameters.contract} differs from that of {parameters.checkpoint} in "
            f"{'; '.join(differences)}: use the checkpoint's contract or train on this one"
        )
    return own


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"parameter device {name!r} cannot be used ({reason}): use cpu or auto"
        ) from error
    return device


def _one_block_distance(model: WorldModel) -> float | None:
    latent = model.metadata.get("latent")
    value = latent.get("one_block_distance") if isinstance(latent, dict) else None
    usable = isinstance(value, int | float) and np.isfinite(value) and value > 0
    return float(value) if usable else None


def _warm(session: PlannerSession, log: Log) -> None:
    """Make a plan from empty pictures with a controller of its own, which is thrown away.

    The solver is the session's: what it captures on a GPU stays, for every length of history.
    """
    solver = session.controller.solver
    controller = RecedingHorizonController.from_contract(
        session.model, session.contract, session.config, solver=solver
    )
    controller.time_limit_s = session.controller.time_limit_s
    model = session.model
    size = session.image_size
    picture = np.zeros((model.config.picture_channels, size, size), np.uint8)
    state = model.state_mean.cpu().numpy() if model.state_dim else None
    block_ns = round(session.block_s * 1e9)
    started = time.perf_counter()
    failure = ""
    try:
        controller.set_goal(picture)
        for index in range(model.history):
            controller.observe(index * block_ns, picture, state)
            if model.action_mean.is_cuda or index == model.history - 1:
                result = controller.replan(index * block_ns)
        if model.action_mean.is_cuda:
            _warm_committed(session)
        failure = result.reason if result.plan is None else ""
    except lewm_core.errors.PlanningError as error:
        failure = str(error)
    solver.reset()
    seconds = time.perf_counter() - started
    if failure:
        log(f"warning: no plan from an empty picture: {failure}; commands will hold while it is so")
        return
    log(f"warm after {seconds:.2f} s (encoding {result.encode_s * 1e3:.1f} ms, "
        f"plan {result.plan_s * 1e3:.0f} ms)")


def _warm_committed(session: PlannerSession) -> None:
    """Plan with every number of first control steps decided, up to a block of them.

    With ``compensate_latency`` each number is a shape of its own, and one that a GPU sees for the
    first time is captured first: not while a robot moves. A plan that is more than a block late is
    captured when it comes.
    """
    if not session.config.controller.compensate_latency:
        return
    model, solver = session.model, session.controller.solver
    like = model.action_mean
    history = like.new_zeros(1, model.history, model.latent_dim)
    goal = like.new_zeros(1, model.embedding_dim)
    for steps in range(1, min(model.frame_skip + 1, solver.horizon * model.frame_skip)):
        solver.plan(history, goal, committed=like.new_zeros(1, steps, model.action_dim))
