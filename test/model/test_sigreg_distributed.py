"""SIGReg over two real gloo processes is SIGReg of one process with the whole batch."""

from __future__ import annotations

import faulthandler
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from lewm_core.model import SIGReg

TIME, BATCH, INPUT, LATENT = 3, 16, 6, 5
#: How the batch is split between the two processes.
SHARES = ((8, 8), (5, 11))


def make_network() -> nn.Linear:
    torch.manual_seed(11)
    return nn.Linear(INPUT, LATENT).double()


def make_batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(12)
    return 2 * torch.randn(TIME, BATCH, INPUT, generator=generator, dtype=torch.float64) + 0.3


def seeded_sigreg(seed: int) -> SIGReg:
    return SIGReg(directions=12, generator=torch.Generator().manual_seed(seed))


def train_on_parts(rank: int, folder: str) -> None:
    """What one of the two processes does; its values and gradients go into a file."""
    faulthandler.enable()
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = []
    for shares in SHARES:
        network = nn.parallel.DistributedDataParallel(make_network())
        mine = make_batch().split(shares, dim=1)[rank].clone().requires_grad_()
        # Different seeds: the processes must agree on directions all the same.
        value = seeded_sigreg(rank)(network(mine))
        value.backward()
        results.append((value.detach(), network.module.weight.grad, mine.grad))
        # Its reducer holds the process group, which has to go before the process does.
        del network
    torch.save(results, f"{folder}/{rank}.pt")
    # Who leaves first closes the connection; gloo aborts a process that still listens to it.
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def from_two_processes(tmp_path_factory) -> list[list[tuple[torch.Tensor, ...]]]:
    """What both processes found: per process, per pair of shares."""
    folder: Path = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(train_on_parts, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", range(len(SHARES)), ids=["halves", "uneven"])
def test_two_processes_have_the_value_and_gradient_of_one(from_two_processes, case):
    parts = [results[case] for results in from_two_processes]

    network, batch = make_network(), make_batch().requires_grad_()
    value = seeded_sigreg(0)(network(batch))
    value.backward()

    for part_value, weight_gradient, _ in parts:
        torch.testing.assert_close(part_value, value.detach(), rtol=1e-10, atol=0)
        torch.testing.assert_close(weight_gradient, network.weight.grad, rtol=1e-8, atol=1e-12)
    # DistributedDataParallel averages over the processes, so each one's share before that is
    # twice the whole gradient's.
    shared = torch.cat([input_gradient for _, _, input_gradient in parts], dim=1) / 2
    torch.testing.assert_close(shared, batch.grad, rtol=1e-8, atol=1e-12)


def test_parts_judged_apart_would_differ():
    """Without the average over processes the value is another: the test above can tell."""
    network, batch = make_network(), make_batch()
    apart = [seeded_sigreg(0)(network(part)).item() for part in batch.split(SHARES[0], dim=1)]
    assert abs(sum(apart) / 2 - seeded_sigreg(0)(network(batch)).item()) > 1e-2
