"""The stages of a plan as CUDA graphs: launched as one, without the host in between.

A plan of the nano model is thousands of small kernels; to launch them one by one takes longer than
to run them. A graph is captured at the first plan of its shapes (in a node: the warm-up in
configure) and replayed from then on: inputs are copied into the tensors that were captured, every
stage is one launch, and results are read where the capture left them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lewm_core.planning.problem import Problem


class Staged(Protocol):
    """A plan in stages that never wait for the device (`lewm_core.planning.solver.BaseSolver`)."""

    generator: torch.Generator | None

    @property
    def rounds(self) -> int:
        """Rounds of a plan without a deadline."""
        ...

    def round_kind(self, number: int) -> Hashable:
        """What rounds have in common that are the same work, on the same shapes."""
        ...

    def begin(self, problem: Problem) -> Any:
        """Return the state that the rounds change."""
        ...

    def improve(self, state: Any, number: int) -> None:
        """Change the state's own tensors."""
        ...

    def finish(self, state: Any) -> Any:
        """Return what the plan came to."""
        ...

    def kept_randomness(self) -> contextlib.AbstractContextManager[None]:
        """Let the random numbers go on afterwards as if none had been drawn."""
        ...


class StageGraphs:
    """The graphs of a solver, one set for each combination of shapes.

    Args:
        solver: Whose stages are captured.
        most: Combinations that are kept; when there is one more, the oldest goes.
    """

    def __init__(self, solver: Staged, most: int = 16) -> None:
        self._solver, self._most = solver, most
        self._captured: dict[Hashable, GraphedRun] = {}

    def run(self, problem: Problem) -> GraphedRun | None:
        """Begin a plan; None where it has to run eagerly, because it is not on a GPU."""
        if not problem.history.is_cuda:
            return None
        problem = whole_start(problem)
        key = shapes_of(problem)
        if key not in self._captured:
            if len(self._captured) >= self._most:
                self._captured.pop(next(iter(self._captured)))
            self._captured[key] = GraphedRun(self._solver, problem, GpuCapture)
        run = self._captured[key]
        run.start(problem)
        return run


def whole_start(problem: Problem) -> Problem:
    """Let the start be of full length, which changes nothing: fewer shapes, fewer graphs."""
    size = problem.past_actions.shape[2]
    start = problem.history.new_zeros((problem.rows, problem.horizon, size))
    if problem.initial_mean is not None:
        start[:, : problem.initial_mean.shape[1]] = problem.initial_mean.to(start)
    return replace(problem, initial_mean=start)


def shapes_of(problem: Problem) -> Hashable:
    """What two problems have to have in common for the same graph."""
    values = (getattr(problem, field.name) for field in fields(problem))
    return tuple(
        (tuple(value.shape), value.dtype, value.device) if isinstance(value, Tensor) else value
        for value in values
    )


#: Makes a stage replayable: returns what replays it, and what the stage returned, whose tensors
#: every replay writes anew.
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]


class GraphedRun:
    """The captured stages of plans of one combination of shapes.

    Args:
        solver: Whose stages these are.
        problem: One of these shapes, copied.
        make_capture: Of the solver and the problem's device; see `GpuCapture`.

    Attributes:
        state: Of the plan that was begun last.
    """

    def __init__(
        self,
        solver: Staged,
        problem: Problem,
        make_capture: Callable[[Staged, torch.device], Capture],
    ) -> None:
        self._problem = Problem(
            **{
                field.name: value.clone() if isinstance(value, Tensor) else value
                for field in fields(problem)
                for value in [getattr(problem, field.name)]
            }
        )
        with solver.kept_randomness():
            capture = make_capture(solver, problem.history.device)
            self._begin, self.state = capture(lambda: solver.begin(self._problem))
            rounds: dict[Hashable, Callable[[], object]] = {}
            for number in range(solver.rounds):
                kind = solver.round_kind(number)
                if kind not in rounds:
                    rounds[kind], _ = capture(
                        lambda number=number: solver.improve(self.state, number)
                    )
            self._improve = [rounds[solver.round_kind(n)] for n in range(solver.rounds)]
            self._finish, self._outcome = capture(lambda: solver.finish(self.state))

    def start(self, problem: Problem) -> None:
        """Copy a problem of the same shapes in, and begin its plan."""
        for field in fields(problem):
            value = getattr(problem, field.name)
            if isinstance(value, Tensor):
                getattr(self._problem, field.name).copy_(value)
        self._begin()

    def improve(self, number: int) -> None:
        """Make round ``number``."""
        self._improve[number]()

    def finish(self) -> Any:
        """What the plan came to; the next plan overwrites it."""
        self._finish()
        return self._outcome


class GpuCapture:
    """Captures stages as CUDA graphs that share their memory, for replay in the same order.

    Args:
        solver: Whose stages they are, for its generator.
        device: Where they run. Streams are made there, whichever device is the current one.
    """

    def __init__(self, solver: Staged, device: torch.device) -> None:
        self._solver, self._device = solver, device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, stage: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """Run a stage beside the current stream first, so that libraries make what they need."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    stage()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            inference = torch.is_inference_mode_enabled()
            # Generators keep their seed for graphs in a tensor made at the first capture. If that
            # is in inference mode, some releases of torch fail every graph that is replayed
            # outside it (pytorch issue 166792): Adam's, and other people's. Stages themselves
            # stay in the mode they are in.
            with torch.inference_mode(False):
                if self._solver.generator is not None:
                    graph.register_generator_state(self._solver.generator)
                # Other threads may encode pictures meanwhile. The stream that torch would take is
                # of the device that was captured on first.
                with (
                    torch.cuda.graph(
                        graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
                    ),
                    torch.inference_mode(inference),
                    torch.no_grad(),
                ):
                    result = stage()
            # A capture computes nothing; the next stage is tried on what this one makes.
            graph.replay()
        return graph.replay, result
