"""Sums over the processes of a run, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def in_process_group() -> bool:
    """Whether a group of two or more processes is initialised."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of all processes' ``value`` (any shape, the same in all of them).

    The gradient of what a process put in is the sum of all processes' gradients of the sum, since
    each of them uses it. Written here because ``torch.distributed.nn``, which had such a
    function, is deprecated.
    """
    return _SumOverProcesses.apply(value)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(value: Tensor) -> Tensor:
    total = value.contiguous().clone()
    distributed.all_reduce(total)
    return total
