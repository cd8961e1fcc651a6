"""Several processes, one run: started by ``torchrun``, gloo on CPUs, nccl on GPUs.

Gradients are averaged by `DistributedDataParallel`; SIGReg averages its characteristic function
itself (`lewm_core.model.sigreg`); batch statistics are those of the whole batch, not of one
process's part of it (`synchronise_batch_norm`). Together they make n processes with a batch of
B / n each do what one process does with B.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lewm_core.errors import ConfigError
from lewm_core.model.processes import sum_over_processes


@dataclass(frozen=True)
class Processes:
    """Where this process stands among those of the run.

    Attributes:
        rank: 0 for the process that writes files and talks.
        count: Number of processes.
        local_rank: Number on this machine: the GPU it uses.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Return this process's part of a batch.

        Raises:
            ConfigError: The batch cannot be divided evenly.
        """
        if batch_size % self.count:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of the {self.count} processes; "
                f"set batch_size={-(-batch_size // self.count) * self.count}"
            )
        part = batch_size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)


@contextmanager
def process_group(device_type: str) -> Iterator[Processes]:
    """Join the group that ``torchrun`` describes in the environment; alone without it.

    Args:
        device_type: ``"cuda"`` chooses nccl, everything else gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local_rank)
        # Who leaves first closes its connections; gloo aborts a process that still listens.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def wait_for_all(processes: Processes) -> None:
    """Return when every process has come here."""
    if processes.count > 1:
        dist.barrier()


def agree(value: float, processes: Processes, device: torch.device) -> float:
    """Return rank 0's ``value`` in every process."""
    if processes.count == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64 if device.type == "cpu" else torch.float32)
    shared = shared.to(device)
    dist.broadcast(shared, src=0)
    return float(shared)


def any_of(flag: bool, processes: Processes, device: torch.device) -> bool:
    """Return whether ``flag`` is set in any process."""
    if processes.count == 1:
        return flag
    shared = torch.tensor([float(flag)], device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item() > 0)


class SynchronisedBatchNorm1d(nn.BatchNorm1d):
    """`BatchNorm1d` with the statistics of all processes' rows, on CPUs as well as on GPUs.

    Torch's own `SyncBatchNorm` exists for GPUs only. Every process must hold the same number of
    rows.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (N, C) or (N, C, L) by the statistics of all processes; same shape back."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(values)
        count = dist.get_world_size()
        wide = values.float()
        axes = [0] if values.dim() == 2 else [0, 2]
        mean = sum_over_processes(wide.mean(axes)) / count
        shape = [1, -1] if values.dim() == 2 else [1, -1, 1]
        centred = wide - mean.view(shape)
        # Around the common mean, not by E[x²] - E[x]²: that loses digits when the mean is large.
        variance = sum_over_processes((centred**2).mean(axes)) / count
        self._track(mean, variance, rows=count * values.numel() // values.shape[1])
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(values.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        if not self.track_running_stats or self.running_mean is None:
            return
        self.num_batches_tracked += 1
        step = self.momentum
        if step is None:
            step = 1.0 / float(self.num_batches_tracked)
        unbiased = variance * rows / max(1, rows - 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Let every `BatchNorm1d` inside ``module`` use the statistics of all processes.

    The class of the layers changes in place, so parameters, buffers and their names stay.

    Returns:
        ``module``.
    """
    for layer in module.modules():
        if type(layer) is nn.BatchNorm1d:
            layer.__class__ = SynchronisedBatchNorm1d
    return module
