"""Two gloo processes with half a batch each train as one process with all of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing, nn

import lewm_core
from lewm_core.errors import ConfigError
from lewm_core.training.config import TrainConfig
from lewm_core.training.data import TrainingData
from lewm_core.training.distributed import (
    Processes,
    SynchronisedBatchNorm1d,
    process_group,
    synchronise_batch_norm,
)
from lewm_core.training.loop import Trainer
from lewm_core.training.metrics import read_metrics
from lewm_core.training.pipeline import Batch
from lewm_core.training.run import RunFolder, open_run
from test.training.spots import open_spots

# Without dropout: each process draws its own masks, so only the means would agree.
OVERRIDES = ("steps=6", "model.predictor.dropout=0.0", "checkpoint_every=3")
CPU = torch.device("cpu")
ROWS, WIDTH = 12, 5


def norm_batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return 3 * torch.randn(ROWS, WIDTH, generator=generator) + 100


def norm_results(rows: torch.Tensor, layer: nn.Module) -> dict[str, torch.Tensor]:
    """Normalise, and differentiate a loss that no row has to itself."""
    rows = rows.clone().requires_grad_()
    out = layer(rows)
    (out**3).mean().backward()
    return {
        "out": out.detach(),
        "rows": rows.grad,
        "weight": layer.weight.grad,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }


def first_gradients(
    data: TrainingData, config: TrainConfig, run: RunFolder, processes: Processes
) -> dict[str, torch.Tensor]:
    """Gradients of the first step, and the loss before the weights are moved."""
    trainer = Trainer(data, config, run, CPU, processes)
    clips, share = data.train_sampler(config).batch(0), processes.share(config.batch_size)
    _, norm = trainer.make_step(Batch(0, clips.frames[share], clips.actions[share]), 1e-4)
    weights, buffers = trainer.model.named_parameters(), trainer.model.named_buffers()
    gradients = {name: weight.grad.contiguous() for name, weight in weights}
    statistics = {name: value for name, value in buffers if "running" in name}
    return {"norm": norm[None], **gradients, **statistics}


def train_as_one_of_two(rank: int, port: int, dataset: str, folder: str) -> None:
    """What each of the two processes does."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
    }
    torch.set_num_threads(1)
    with process_group("cpu") as processes:
        half = norm_batch()[rank * ROWS // 2 : (rank + 1) * ROWS // 2]
        layer = synchronise_batch_norm(nn.Sequential(nn.BatchNorm1d(WIDTH)))[0]
        save_file(norm_results(half, layer), f"{folder}/norm{rank}.safetensors")
        data, config = open_spots(Path(dataset), Path(folder, f"settings{rank}"), *OVERRIDES)
        with open_run(
            Path(folder, "run"), config, {"episodes": "x"}, False, leads=processes.leads
        ) as run:
            distributed.barrier()
            save_file(first_gradients(data, config, run, processes), f"{folder}/{rank}.safetensors")
            result = Trainer(data, config, run, CPU, processes).train()
            assert result.finished and result.step == 6


@pytest.fixture(scope="module")
def two_processes(spots, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    open_spots(spots, folder)
    for rank in range(2):
        (folder / f"settings{rank}").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(train_as_one_of_two, args=(port, str(spots), str(folder)), nprocs=2)
    return folder


def test_both_have_the_gradients_of_one_process_with_the_whole_batch(
    two_processes, spots, tmp_path
):
    data, config = open_spots(spots, tmp_path, *OVERRIDES)
    one = first_gradients(data, config, RunFolder(tmp_path / "none"), Processes())
    for rank in range(2):
        mine = load_file(two_processes / f"{rank}.safetensors")
        assert mine.keys() == one.keys()
        for name, value in one.items():
            assert torch.allclose(mine[name], value, rtol=1e-3, atol=1e-5), (rank, name)
    assert one["norm"] > 0.1


def test_only_the_first_process_writes_and_the_checkpoint_opens(two_processes):
    model = lewm_core.load(two_processes / "run" / "checkpoint")
    assert model.metadata["steps"] == 6
    steps = [row["step"] for row in read_metrics(two_processes / "run") if row["kind"] == "train"]
    assert steps == [5, 6]


def test_batch_statistics_and_gradients_are_those_of_the_whole_batch(two_processes):
    whole = norm_results(norm_batch(), nn.BatchNorm1d(WIDTH))
    parts = [load_file(two_processes / f"norm{rank}.safetensors") for rank in range(2)]
    for key, rtol in (("out", 1e-4), ("rows", 1e-3)):
        joined = torch.cat([part[key] for part in parts])
        # Each half's loss is the mean over half the rows: twice the share of the whole.
        scale = 2 if key == "rows" else 1
        assert torch.allclose(joined, scale * whole[key], rtol=rtol, atol=1e-4), key
    averaged = (parts[0]["weight"] + parts[1]["weight"]) / 2
    assert torch.allclose(averaged, whole["weight"], rtol=1e-4, atol=1e-4)
    for part in parts:
        for key in ("running_mean", "running_var"):
            assert torch.allclose(part[key], whole[key], rtol=1e-4), key


def test_alone_a_synchronised_norm_is_the_ordinary_one():
    layer = synchronise_batch_norm(nn.Sequential(nn.BatchNorm1d(WIDTH)))[0]
    assert isinstance(layer, SynchronisedBatchNorm1d)
    ordinary = nn.BatchNorm1d(WIDTH)
    assert torch.equal(layer(norm_batch()), ordinary(norm_batch()))
    assert layer.state_dict().keys() == ordinary.state_dict().keys()


def test_a_batch_must_be_divisible():
    assert Processes(1, 2).share(8) == slice(4, 8)
    with pytest.raises(ConfigError, match="batch_size=9"):
        Processes(0, 3).share(7)
