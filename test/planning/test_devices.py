"""A search on a pretended GPU: torch keeps shapes and devices of its tensors, and no numbers.

It finds what only a GPU would complain about: a constant, a limit or an input left on the host.
What takes a real one is in `test_cuda.py`.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lewm_core.model import MlpPredictorConfig, Proposal, ProposalConfig, WorldModel
from lewm_core.planning import ProposalSolverConfig, make_solver
from lewm_core.planning.graphs import whole_start
from lewm_core.planning.problem import Problem
from lewm_core.planning.search_limits import SearchLimits
from test.model.models import keypoint_config, trained_looking
from test.planning.test_solvers import SEARCHES, WITH_PROPOSAL

MLP = {"predictor": MlpPredictorConfig(width=16, depth=2)}
LIMITS, RATES = ([-1.5, -1.5], [1.5, 1.5]), [0.5, 0.5]
SOLVERS = {
    **SEARCHES, **{f"proposal+{name}": config for name, config in WITH_PROPOSAL.items()},
    "proposal": ProposalSolverConfig(horizon=5),
}


def model_with(**changes) -> WorldModel:
    model = trained_looking(keypoint_config(**changes))
    model.proposal = Proposal(8, 8, 10, ProposalConfig(width=16, depth=1, longest=5)).eval()
    return model


def pretend_to_move(model: WorldModel) -> None:
    """What ``model.to("cuda")`` does; inside a `FakeTensorMode`, which cannot swap a tensor."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    tensors[name] = nn.Parameter(moved) if tensors is module._parameters else moved


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, MLP) for name in SOLVERS), ("proposal+cem", {})],
    ids=[*SOLVERS, "transformer"],
)
def test_a_search_stays_on_the_device_of_its_model(name, changes, monkeypatch):
    config = SOLVERS[name]
    solver = make_solver(model_with(**changes), config, LIMITS, rate_limits=RATES)
    # A generator of a GPU cannot be made without one.
    monkeypatch.setattr(
        solver, "_noise",
        lambda number, problem, mean: mean.new_empty(problem.rows, number, *mean.shape[1:]),
    )
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        # After the solver was made, as a user may.
        pretend_to_move(solver.model.model)
        problem = Problem.checked(
            solver.model,
            history=torch.empty(3, 2, 8, device="cuda"),
            # From the host, as a user may, too.
            goal=torch.empty(3, 8), past_actions=torch.empty(3, 1, 10),
            horizon=solver.horizon, initial_mean=torch.empty(3, 1, 10),
            committed=torch.empty(3, 2, 2),
        )
        state = solver.begin(whole_start(problem))
        # Gradients of pretended tensors would have to be computed on the GPU.
        for number in range(0 if config.kind == "adam" else min(2, solver.rounds)):
            solver.improve(state, number)
        outcome = solver.finish(state)
    for tensor in (outcome.actions, outcome.blocks, outcome.cost, outcome.predicted):
        assert tensor.device == torch.device("cuda", 0)


def test_limits_move_once():
    limits = SearchLimits(model_with(**MLP), LIMITS, RATES)
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device("cuda", 0)
        limits.to(device)
        moved = limits.blocks, limits.rates
        assert {tensor.device for tensor in (*moved[0], moved[1])} == {device}
        limits.to(device)
    # In a graph there must be nothing left to copy.
    assert limits.blocks is moved[0] and limits.rates is moved[1]
