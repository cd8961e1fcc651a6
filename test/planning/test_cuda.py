"""Planning on a real GPU: graphs against the same stages run one by one, and against the model."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lewm_core
from lewm_core.model import FastRollout, WorldModel
from lewm_core.planning import load_planner_config, make_solver
from lewm_core.planning.problem import Problem
from test.planning.test_solvers import (
    GRAPHED,
    SEARCHES,
    eager_plan,
    planned_model,  # noqa: F401
    task_for,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CHECKPOINTS = sorted(Path(__file__).parents[2].glob("checkpoints/*-nano"))


@pytest.fixture
def on_gpu(planned_model) -> WorldModel:  # noqa: F811
    return copy.deepcopy(planned_model).cuda()


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Fail where the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def task_there(model: WorldModel, seed: int = 5, rows: int = 3) -> dict[str, torch.Tensor]:
    return {name: tensor.cuda() for name, tensor in task_for(model, seed, rows).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_the_fast_rollout_agrees_with_the_model(folder, dtype):
    model = lewm_core.load(folder).cuda()
    fast = FastRollout(model, dtype)
    block = model.frame_skip * model.action_dim
    for seed, (rows, known, horizon) in enumerate([(1, 1, 1), (1, 3, 5), (4, 2, 8)]):
        torch.manual_seed(seed)
        known = min(known, model.history)
        history = torch.randn(rows, known, model.latent_dim, device="cuda")
        past = torch.randn(rows, known - 1, block, device="cuda")
        candidates = torch.randn(rows, 96, horizon, block, device="cuda")
        goal = torch.randn(rows, 1, model.latent_dim, device="cuda")
        with torch.inference_mode():
            costs = [
                (way.rollout(history, past, candidates)[:, :, -1] - goal).square().sum(-1)
                for way in (fast, model)
            ]
        off = (costs[0] - costs[1]).abs() / costs[1]
        if dtype is torch.float32:
            assert off.max() < 1e-4
        else:  # nowhere near what it was trained on, a candidate may be off by more than the rest
            assert off.median() < 1e-2 and off.max() < 5e-2


@pytest.mark.parametrize("config", GRAPHED.values(), ids=GRAPHED)
def test_captured_plans_are_the_eager_ones(planned_model, on_gpu, config):  # noqa: F811
    limits = ([-1.5, -1.5], [1.5, 1.5])
    kind = type(make_solver(on_gpu, config))
    graphed, eager = (
        kind(FastRollout(on_gpu), config, None, limits, [0.5, 0.5], capture)
        for capture in (True, False)
    )
    committed = torch.full((3, 2, 2), 0.2, device="cuda")
    for seed, rows, decided in (
        (5, 3, None), (6, 3, None), (5, 1, None), (7, 3, committed), (8, 3, committed),
        (5, 3, None),
    ):
        task = task_there(planned_model, seed, rows)
        plans = [solver.plan(**task, committed=decided) for solver in (graphed, eager)]
        torch.testing.assert_close(plans[0].blocks, plans[1].blocks, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(plans[0].cost, plans[1].cost, atol=1e-3, rtol=1e-3)
        assert plans[0].rounds == plans[1].rounds and plans[0].dropped == plans[1].dropped
    assert len(graphed._graphs._captured) == 3


@pytest.mark.parametrize("config", GRAPHED.values(), ids=GRAPHED)
def test_no_stage_waits(planned_model, on_gpu, config):  # noqa: F811
    solver = make_solver(on_gpu, config)
    task = task_there(planned_model)
    problem = Problem.checked(
        solver.model, **task, horizon=solver.horizon, initial_mean=None, committed=None
    )
    solver.plan(**task)
    with torch.inference_mode(config.kind != "adam"), torch.no_grad():
        eager_plan(solver, problem)
        with never_waiting():
            run = solver._graphs.run(problem)
            for number in range(solver.rounds):
                run.improve(number)
            run.finish()
            eager_plan(solver, problem)


def test_a_deadline_ends_the_rounds(planned_model, on_gpu):  # noqa: F811
    config = SEARCHES["cem"].model_copy(update={"rounds": 2000})
    solver = make_solver(on_gpu, config)
    task = task_there(planned_model)
    whole = solver.plan(**task)
    assert whole.rounds == 2000
    assert solver.plan(**task, deadline=time.perf_counter() - 1.0).rounds == 1
    began = time.perf_counter()
    plan = solver.plan(**task, deadline=began + whole.duration_s / 4)
    assert 1 < plan.rounds < 2000
    assert time.perf_counter() - began < whole.duration_s


def test_graphs_in_and_out_of_inference_mode_share_a_process(planned_model, on_gpu):  # noqa: F811
    task = task_there(planned_model)
    for name in ("cem", "adam", "cem", "adam"):
        assert torch.isfinite(make_solver(on_gpu, SEARCHES[name]).plan(**task).cost).all()


def test_pictures_are_encoded_while_a_plan_is_captured():
    model = lewm_core.load(CHECKPOINTS[0]).cuda()
    size, channels = model.config.image_size, model.config.picture_channels
    frames = torch.randint(0, 256, (1, 2, channels, size, size), dtype=torch.uint8)
    stop, failures, embeddings = threading.Event(), [], []

    def encode() -> None:
        try:
            while not stop.is_set():
                with torch.inference_mode():
                    embeddings.append(model.encode(frames.cuda()).cpu())
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=encode)
    thread.start()
    try:
        solver = make_solver(model, load_planner_config("default").solver)
        for known in range(1, model.history + 1):
            history = torch.randn(1, known, model.latent_dim, device="cuda")
            goal = torch.randn(1, model.embedding_dim, device="cuda")
            assert torch.isfinite(solver.plan(history, goal).cost).all()
    finally:
        stop.set()
        thread.join()
    assert not failures and embeddings
    assert all(torch.equal(embeddings[0], other) for other in embeddings)


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_pictures_are_encoded_as_on_the_cpu(folder):
    model = lewm_core.load(folder)
    size, channels = model.config.image_size, model.config.picture_channels
    frames = torch.randint(0, 256, (2, 3, channels, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model.encode(frames)
        found = model.cuda().encode(frames.cuda()).cpu()
    # Convolutions are TF32 there.
    assert (found - expected).norm() < 1e-2 * expected.norm()
