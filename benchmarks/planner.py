"""How fast is a plan, against the reference implementation, and what bounds it?

The published architecture with weights drawn at random, the same in all; CEM with 300 candidates,
30 rounds and 5 blocks from one frame. First equality, then time, every way in turn in one run:

    pip install stable-worldmodel
    python benchmarks/planner.py --threads 2

Where stable-worldmodel is not installed, our own ways alone are compared, and a line says so. The
reference is given embeddings: neither side encodes pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from lewm_core.commands.runner import make_parser, run_command
from lewm_core.evaluation.report import describe_machine
from lewm_core.model import FastRollout, ModelConfig, WorldModel
from lewm_core.model import fused_linear as implementation
from lewm_core.planning import CEM, Candidates, CEMConfig, GoalDistance
from lewm_core.planning.graphs import GpuCapture
from lewm_core.planning.protocols import device_of
from lewm_core.planning.solvers import rollout_dtype

ACTION_DIM = 2


def published_model(device: torch.device, seed: int = 0) -> WorldModel:
    """Return the published architecture with random weights, none of them still at zero."""
    torch.manual_seed(seed)
    model = WorldModel(ModelConfig(action_dim=ACTION_DIM)).eval()
    with torch.no_grad():
        for parameter in model.predictor.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.07)
        norm = model.prediction_projector.net[1]
        norm.running_mean.normal_(0.0, 0.1)
        norm.running_var.uniform_(0.5, 2.0)
    return model.to(device)


def reference_model(model: WorldModel, device: torch.device) -> nn.Module:
    """Return stable-worldmodel's LeWM with the same predictor and action encoder.

    Raises:
        ImportError: stable-worldmodel is not installed.
    """
    from stable_worldmodel.wm.lewm import LeWM, module

    config, predictor = model.config, model.config.predictor
    width = predictor.width
    peer = LeWM(
        encoder=nn.Identity(),
        predictor=module.Predictor(
            num_frames=config.history, depth=predictor.depth, heads=predictor.heads,
            mlp_dim=predictor.mlp_dim, input_dim=width, hidden_dim=width,
            dim_head=predictor.head_dim, dropout=predictor.dropout,
        ),
        action_encoder=module.Embedder(
            input_dim=config.block_dim, smoothed_dim=config.action_encoder.smoothed, emb_dim=width
        ),
        pred_proj=module.MLP(
            width, predictor.projector.hidden, width, norm_fn=nn.BatchNorm1d
        ),
    )
    own = model.state_dict()
    renamed = {}
    for name, value in own.items():
        for ours, theirs in (
            ("predictor.positions", "predictor.pos_embedding"),
            ("predictor.layers", "predictor.transformer.layers"),
            ("predictor.norm", "predictor.transformer.norm"),
            (".attention.", ".attn."),
            (".mlp.", ".mlp.net."),
            (".modulation.", ".adaLN_modulation."),
            ("action_encoder.convolution", "action_encoder.patch_embed"),
            ("prediction_projector", "pred_proj"),
        ):
            name = name.replace(ours, theirs)
        if name.split(".")[0] in ("predictor", "action_encoder", "pred_proj"):
            renamed[name] = value
    peer.load_state_dict(renamed)
    return peer.eval().to(device)


class Recorder:
    """A callback of the reference's solver that keeps its first round."""

    output_key = "first_round"

    def __init__(self) -> None:
        self.history: dict[str, Tensor] = {}

    def reset(self) -> None:
        self.history = {}

    def start_batch(self) -> None:
        return None

    end_batch = end_solve = start_batch

    def __call__(self, step: int, **values: Tensor) -> None:
        if step == 0:
            names = ("candidates", "costs", "topk_inds")
            self.history = {name: values[name].clone() for name in names}


class Reference:
    """stable-worldmodel's `CEMSolver` on its `LeWM`."""

    def __init__(self, model: WorldModel, config: CEMConfig, device: torch.device) -> None:
        self.model = reference_model(model, device)
        from stable_worldmodel.solver import CEMSolver

        self._config, self._device, self._solver_class = config, device, CEMSolver

    def plan(
        self, history: Tensor, goal: Tensor, rounds: int, recorder: Recorder | None = None
    ) -> Tensor:
        """Return the mean after the last round ``(B, horizon, F * A)``."""
        config = self._config
        solver = self._solver_class(
            self.model, batch_size=len(history), num_samples=config.candidates, var_scale=1.0,
            n_steps=rounds, topk=config.elites, device=str(self._device), seed=config.seed,
            **({} if recorder is None else {"callbacks": [recorder]}),
        )
        box = gymnasium.spaces.Box(-1.0, 1.0, (len(history), ACTION_DIM))
        block = self.model.action_encoder.input_dim // ACTION_DIM
        solver.configure(
            action_space=box, n_envs=len(history),
            config=SimpleNamespace(horizon=config.horizon, action_block=block),
        )
        empty = torch.zeros(len(history), history.shape[1], 1)
        information = {
            "pixels": empty, "goal": empty, "emb": history, "goal_emb": goal[:, None],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            return solver.solve(information)["actions"]


@contextlib.contextmanager
def counted_arithmetic() -> Iterator[list[int]]:
    """Count the operations of the matrix products of `FastRollout`: multiply and add are two."""
    counts: list[int] = []
    original = implementation.FusedLinear.__call__

    def counting(self: Any, x: Tensor, activation: str = "none") -> Tensor:
        rows, size = self.weight.shape
        counts.append(2 * x.numel() // size * rows * size)
        return original(self, x, activation)

    implementation.FusedLinear.__call__ = counting
    try:
        yield counts
    finally:
        implementation.FusedLinear.__call__ = original


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the machine's rate for square matrix products, GFLOP/s, the best of ten."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(10)) / 1e9


def solvers(model: WorldModel, config: CEMConfig) -> dict[str, CEM]:
    """Return our ways to make the same plan."""
    ways = {"eager": CEM(model, config, capture=False)}
    for dtype in types_of(device_of(model)):
        name = str(dtype).removeprefix("torch.")
        ways[name] = CEM(FastRollout(model, dtype), config)
    return ways


def types_of(device: torch.device) -> list[torch.dtype]:
    """Return float32, and bfloat16 where the processor computes in it; emulated it takes ages."""
    return sorted({torch.float32, rollout_dtype("auto", device)}, key=lambda t: -t.itemsize)


def cost_of(predicted: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
    """Return the paper's cost of candidates ``(B, S)``."""
    return GoalDistance()(Candidates(predicted, actions), goal)


def compare_equality(
    model: WorldModel, config: CEMConfig, peer: Reference | None, history: Tensor, goal: Tensor
) -> dict[str, Any]:
    """Return how far the ways agree: costs and elites of the first round, the last plan's cost."""
    result: dict[str, Any] = {}
    recorder = Recorder()
    ways = solvers(model, config)
    reference_cost = None
    with torch.inference_mode():
        past = history.new_zeros((len(history), history.shape[1] - 1, model.config.block_dim))
        if peer is not None:
            theirs = peer.plan(history, goal, config.rounds, recorder).to(history)
            candidates = recorder.history["candidates"]
            costs, elites = recorder.history["costs"], recorder.history["topk_inds"]
            final = model.rollout(history, past, theirs[:, None])
            reference_cost = float(cost_of(final, theirs[:, None], goal)[0, 0])
        else:
            candidates = torch.randn(
                1, config.candidates, config.horizon, model.config.block_dim,
                device=history.device, generator=torch.Generator(history.device).manual_seed(0),
            )
            costs = cost_of(model.rollout(history, past, candidates), candidates, goal)
            elites = costs.topk(config.elites, largest=False).indices
    for name, solver in ways.items():
        with torch.inference_mode():
            own = cost_of(solver.model.rollout(history, past, candidates), candidates, goal)
            chosen = own.topk(config.elites, largest=False).indices
            common = len(set(chosen[0].tolist()) & set(elites[0].tolist()))
            solver.reset()
            plan = solver.plan(history, goal)
            blocks = plan.blocks.to(history)[:, None]
            cost = float(cost_of(model.rollout(history, past, blocks), blocks, goal)[0, 0])
        result[f"{name}_cost_error"] = float(((own - costs).abs() / costs).max())
        result[f"{name}_common_elites"] = common
        result[f"{name}_final_cost"] = cost
        against = ""
        if reference_cost is not None:
            result[f"{name}_final_cost_ratio"] = cost / reference_cost
            against = f", last plan's cost {cost / reference_cost:.4f} of the reference's"
        print(
            f"{name}: costs of the first round within {result[f'{name}_cost_error']:.1e}, "
            f"{common} of {config.elites} elites the same{against}", flush=True
        )
    return result


def compare_time(
    model: WorldModel, config: CEMConfig, peer: Reference | None, history: Tensor, goal: Tensor,
    repetitions: int, device: torch.device,
) -> dict[str, Any]:
    """Time whole plans, every way in turn."""
    ways: dict[str, Callable[[], object]] = {
        name: (lambda solver=solver: solver.plan(history, goal))
        for name, solver in solvers(model, config).items()
    }
    if peer is not None:
        ways = {"peer": lambda: peer.plan(history, goal, config.rounds), **ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, work in ways.items():
            times[name].append(seconds(work, device))
    result: dict[str, Any] = {}
    base = next(iter(ways))
    for name in ways:
        result[f"{name}_plan_s"] = round(median(times[name]), 5)
        ratios = [a / b for a, b in zip(times[base], times[name], strict=True)]
        result[f"{name}_faster"] = round(median(ratios), 2)
        print(f"{name}: {median(times[name]):.3g} s per plan, {median(ratios):.2f} times as fast "
              f"as {base} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return result


def compare_limit(
    model: WorldModel, config: CEMConfig, history: Tensor, device: torch.device
) -> dict[str, Any]:
    """Say how near one round's rollouts come to the machine's matrix rate."""
    result: dict[str, Any] = {}
    past = history.new_zeros((len(history), history.shape[1] - 1, model.config.block_dim))
    candidates = torch.randn(
        1, config.candidates, config.horizon, model.config.block_dim, device=device
    )
    for dtype in types_of(device):
        name = str(dtype).removeprefix("torch.")
        with torch.inference_mode():
            rollout = FastRollout(model, dtype).begin(history, past)
            rollout(candidates)
            with counted_arithmetic() as counts:
                rollout(candidates)
            work: Callable[[], object] = lambda rollout=rollout: rollout(candidates)  # noqa: E731
            if device.type == "cuda":
                # As a plan runs it; launched one by one, it is the launches that are timed.
                work, _ = GpuCapture(SimpleNamespace(generator=None), device)(work)
            times, rates = [], []
            for _ in range(7):
                rates.append(product_rate(dtype, device))
                times.append(seconds(work, device))
        arithmetic = sum(counts) / 1e9
        achieved, rate = arithmetic / median(times), median(rates)
        result[f"{name}_round_gflop"] = round(arithmetic, 1)
        result[f"{name}_gflops"] = round(achieved)
        result[f"{name}_machine_gflops"] = round(rate)
        result[f"{name}_of_limit"] = round(achieved / rate, 2)
        print(f"{name}: {arithmetic:.1f} GFLOP a round in {1e3 * median(times):.3g} ms: "
              f"{achieved:.0f} GFLOP/s, {100 * achieved / rate:.0f} % of this machine's "
              f"{rate:.0f}", flush=True)
    return result


def compare_scaling(
    model: WorldModel, config: CEMConfig, history: Tensor, goal: Tensor, device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Time plans with one setting changed at a time, three rounds each."""
    result: dict[str, Any] = {}
    base = config.model_copy(update={"rounds": 3})
    model = FastRollout(model, dtype)
    for key, values in (
        ("candidates", (75, 150, 300, 600)), ("horizon", (1, 3, 5, 8)), ("rounds", (1, 3, 6)),
        ("batch", (1, 2, 4)),
    ):
        line = []
        for value in values:
            changed = base if key == "batch" else base.model_copy(update={key: value})
            rows = value if key == "batch" else 1
            solver = CEM(model, changed)
            start, end = history.expand(rows, -1, -1), goal.expand(rows, -1)
            work = lambda s=solver, a=start, b=end: s.plan(a, b)  # noqa: E731
            work()
            ms = 1e3 * median(seconds(work, device) for _ in range(3))
            result[f"{key}_{value}_ms"] = round(ms, 2)
            line.append(f"{value}: {ms:.3g}")
        print(f"ms by {key} (3 rounds): {', '.join(line)}", flush=True)
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare, print, and return the numbers."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    model = published_model(device)
    config = CEMConfig(candidates=arguments.candidates, rounds=arguments.rounds,
                       horizon=arguments.horizon)
    peer = None
    try:
        peer = Reference(model, config, device)
    except ImportError as error:
        print(f"no comparison with the reference, stable-worldmodel cannot be imported ({error}): "
              "pip install stable-worldmodel")
    generator = torch.Generator().manual_seed(1)
    history = torch.randn(1, 1, model.latent_dim, generator=generator).to(device)
    goal = torch.randn(1, model.embedding_dim, generator=generator).to(device)
    result: dict[str, Any] = {
        "machine": describe_machine(), "threads": torch.get_num_threads(),
        "device": arguments.device, "torch": torch.__version__, "seed": config.seed,
        "candidates": config.candidates, "rounds": config.rounds, "horizon": config.horizon,
        "repetitions": arguments.repetitions, "peer": peer is not None,
    }
    print(f"{result['machine']}, {result['threads']} thread(s), torch {torch.__version__}, "
          f"numpy {np.__version__}")
    if len(types_of(device)) == 1:
        print("bfloat16 left out: this processor does not compute in it")
    result |= compare_equality(model, config, peer, history, goal)
    result |= compare_time(model, config, peer, history, goal, arguments.repetitions, device)
    result |= compare_limit(model, config, history, device)
    result |= compare_scaling(model, config, history, goal, device, types_of(device)[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = make_parser(
        "planner.py",
        "Compare plans of the published architecture with stable-worldmodel's, in one run.",
        "python benchmarks/planner.py --threads 2",
    )
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3, help="whole plans (default 3)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
