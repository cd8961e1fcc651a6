"""Which types a machine computes in."""

from __future__ import annotations

import pytest
import torch

from lewm_core.training import machine
from lewm_core.training.machine import choose_precision, stage_autocast

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("flags", "precision", "stages"),
    [
        ({"avx2"}, "float32", None),
        ({"avx512_bf16"}, "bfloat16", None),
        ({"avx512_bf16", "amx_bf16"}, "bfloat16", torch.bfloat16),
    ],
)
def test_small_matrices_are_bfloat16_only_where_a_tile_is_multiplied_at_once(
    monkeypatch, flags, precision, stages
):
    monkeypatch.setattr(machine, "_cpu_flags", lambda: flags)
    assert choose_precision("auto", CPU) == precision
    assert stage_autocast(precision, CPU) is stages


def test_who_asks_for_float32_gets_it_in_every_stage(monkeypatch):
    monkeypatch.setattr(machine, "_cpu_flags", lambda: {"avx512_bf16", "amx_bf16"})
    assert choose_precision("float32", CPU) == "float32"
    assert stage_autocast("float32", CPU) is None
    assert stage_autocast("float32", CUDA) is None
    assert stage_autocast("bfloat16", CUDA) is torch.bfloat16
