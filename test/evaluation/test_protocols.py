"""Protocols fix what they say and leave the rest to the preset."""

from types import SimpleNamespace

import pytest

from lewm_core.errors import ConfigError, UserError
from lewm_core.evaluation.evaluate import EvaluationRequest
from lewm_core.evaluation.planner_setup import change_settings, make_setup
from lewm_core.evaluation.protocols import known_protocols, load_protocol
from lewm_core.planning import (
    CEMConfig,
    ControllerConfig,
    MPPIConfig,
    PlannerConfig,
    ProposalSolverConfig,
    ProposalStartConfig,
    planner_for,
)
from lewm_core.planning.config import GOAL_TOLERANCE_FACTOR
from test.evaluation.models import tiny_model

PRESET = PlannerConfig(
    solver=CEMConfig(horizon=4),
    controller=ControllerConfig(execute_blocks=2, warm_start=True, shrink_horizon=True),
)


def test_paper_executes_whole_plans_and_forgets_them():
    protocol = load_protocol("paper")
    assert protocol.distances == (25,) and protocol.budget_steps(25) == 50
    assert protocol.overrides(PRESET) == {
        "execute_blocks": 4, "warm_start": False, "shrink_horizon": False,
    }
    changed = protocol.apply(PRESET)
    assert changed.controller.execute_blocks == 4 and not changed.controller.warm_start
    assert changed.solver == PRESET.solver
    assert protocol.overrides(changed) == {}


def test_mpc_replans_every_block_and_leaves_the_warm_start_to_the_preset():
    assert load_protocol("mpc").overrides(PRESET) == {"execute_blocks": 1}
    cold = PlannerConfig()
    assert load_protocol("mpc").overrides(cold) == {"execute_blocks": 1, "shrink_horizon": True}
    assert not load_protocol("mpc").apply(cold).controller.warm_start


def test_a_solver_that_chooses_its_arrival_is_not_counted_down():
    counted = {"execute_blocks": 1, "shrink_horizon": True}
    for solver, expected in (
        (CEMConfig(), counted),
        (MPPIConfig(), counted),
        (CEMConfig(proposal=ProposalStartConfig()), {"execute_blocks": 1}),
        (ProposalSolverConfig(), {"execute_blocks": 1}),
    ):
        config = PlannerConfig(solver=solver, controller=ControllerConfig())
        assert load_protocol("far").overrides(config) == expected


def test_far_is_three_tables_with_budgets_in_proportion():
    far = load_protocol("far")
    assert [(d, far.budget_steps(d)) for d in far.distances] == [(50, 100), (75, 150), (100, 200)]


def test_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(UserError, match="'mcp'; known protocols: paper, mpc, far.*mean 'mpc'"):
        load_protocol("mcp")
    assert known_protocols() == ["paper", "mpc", "far"]


def test_settings_take_the_place_of_the_presets():
    changed = change_settings(PRESET, ["solver.rounds=3", "controller.warm_start=false"])
    assert changed.solver.rounds == 3 and not changed.controller.warm_start
    assert changed.solver.horizon == 4
    for setting, words in (
        ("solver.round=3", "did you mean"),
        ("rounds", "is not key=value"),
        ("solver.rounds.x=1", "holds no further keys"),
        ("solver.rounds=[", "is not a YAML value"),
    ):
        with pytest.raises(ConfigError, match=words):
            change_settings(PRESET, [setting])


def test_another_kind_of_solver_keeps_what_both_have():
    changed = change_settings(
        PRESET, ["solver.kind=mppi", "solver.temperature=0.2", "solver.candidates=50"]
    )
    assert changed.solver == MPPIConfig(
        horizon=4, candidates=50, temperature=0.2, rounds=PRESET.solver.rounds,
        noise_correlation=PRESET.solver.noise_correlation,
    )
    with pytest.raises(ConfigError, match="unknown key .solver.elites"):
        change_settings(PRESET, ["solver.kind=mppi", "solver.elites=5"])
    with pytest.raises(ConfigError, match="simplex.*'adam'"):
        change_settings(PRESET, ["solver.kind=simplex"])


def test_the_protocols_word_is_the_last():
    from lewm_core.data.contract import load_contract

    model = tiny_model()
    model.metadata = {"latent": {"one_block_distance": 5.0}}
    setup = make_setup(
        model, load_contract("push_t"), "search", load_protocol("mpc"),
        settings=["controller.execute_blocks=3", "solver.rounds=2"], goal_tolerance_factor=0.1,
    )
    assert setup.config.controller.execute_blocks == 1 and setup.config.solver.rounds == 2
    assert setup.goal_tolerance == pytest.approx(0.5) and setup.name == "search"
    assert setup.controller().goal_tolerance == setup.goal_tolerance


def test_the_tolerance_is_the_checkpoints_where_the_protocol_holds_unless_given():
    def factor(protocol: str, given: float | None = None) -> float | None:
        request = EvaluationRequest(
            "push_t", load_protocol(protocol), goal_tolerance_factor=given
        )
        request.check()
        return request.tolerance_factor(model)

    model = tiny_model()
    assert factor("mpc") == factor("far") == GOAL_TOLERANCE_FACTOR
    model.metadata["latent"] = {"goal_tolerance_factor": 0.005}
    assert factor("mpc") == factor("far") == 0.005
    assert factor("paper") is None
    assert factor("mpc", 0.0) is None and factor("paper", 0.2) == 0.2
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="goal_tolerance_factor is"):
            factor("mpc", wrong)


def test_a_checkpoint_with_a_proposal_plans_with_it():
    assert planner_for(tiny_model()) == "search"
    assert planner_for(SimpleNamespace(proposal=object())) == "default"
