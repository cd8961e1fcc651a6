"""What the monitors measure has closed forms; what they say names the thing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from lewm_core.training.config import MonitorConfig
from lewm_core.training.monitors import (
    GRID,
    Health,
    coarse_pictures,
    effective_rank,
    region_scores,
    spread,
    warnings,
)


@dataclass(frozen=True)
class Score:
    label: str
    fields: tuple[str, ...]
    r2: float


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    cloud = torch.randn(20000, 8)
    assert effective_rank(cloud) == pytest.approx(8, abs=0.02)
    cloud[:, 3:] = 0
    assert effective_rank(cloud) == pytest.approx(3, abs=0.01)
    line = torch.randn(500, 1) * torch.randn(1, 8)
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.full((10, 8), 3.0)) == 1.0


def test_effective_rank_does_not_care_for_rotation_or_scale():
    torch.manual_seed(1)
    cloud = torch.randn(2000, 4) * torch.tensor([1.0, 2.0, 3.0, 0.1])
    turned = cloud @ torch.linalg.qr(torch.randn(4, 4))[0] * 7 + 100
    assert effective_rank(turned) == pytest.approx(effective_rank(cloud), rel=1e-4)


def test_spread_is_per_dimension():
    values = torch.tensor([[0.0, 0.0], [2.0, 0.2]])
    assert spread(values) == (pytest.approx(0.55), pytest.approx(0.1))


def healthy(**changes):
    values = {"effective_rank": 8.0, "std_mean": 1.0, "std_min": 0.7}
    return Health(**{**values, **changes})


def test_a_healthy_representation_gets_no_warning():
    health = healthy(
        states=[Score("block", ("block_x", "block_y"), 0.9)], regions={"upper left": 0.8}
    )
    assert warnings(health, MonitorConfig(), 0.5) == []


@pytest.mark.parametrize("change", [{"effective_rank": 1.4}, {"std_mean": 0.02}])
def test_collapse_is_said_and_nothing_else(change):
    health = healthy(**change, states=[Score("angle", ("block_angle",), 0.0)])
    found = warnings(health, MonitorConfig(), 0.0)
    assert len(found) == 1
    assert "collapsed" in found[0]
    assert "loss.weight" in found[0]


def test_states_that_are_not_encoded_are_named_the_worst_first():
    health = healthy(
        states=[
            Score("agent", ("agent_x", "agent_y"), 0.31),
            Score("block", ("block_x", "block_y"), 0.99),
            Score("angle", ("block_angle",), 0.02),
            Score("lamp", ("lamp",), float("nan")),
        ]
    )
    found = warnings(health, MonitorConfig(), 0.09)
    assert len(found) == 2
    assert found[0].startswith("block_angle is not encoded (R² 0.02")
    assert "although the loss looks fine; raise loss.weight (lambda, now 0.09)" in found[0]
    assert found[1].startswith("agent_x, agent_y are not encoded (R² 0.31")


def test_regions_are_listed_in_one_sentence():
    some = healthy(regions={"upper left": 0.3, "middle left": 0.1, "lower right": 0.9})
    (text,) = warnings(some, MonitorConfig(), 0.09)
    assert text.startswith("what moves in the middle left and upper left of the picture is hardly")
    assert "R² 0.10" in text
    (text,) = warnings(healthy(regions={"upper left": 0.3}), MonitorConfig(), 0.09)
    assert text.startswith("what moves all over the picture")


def test_a_region_that_the_embedding_does_not_show_is_named():
    """Two spots move; the embedding knows only where the upper left one is."""
    torch.manual_seed(0)
    size, number = 48, 1600
    place = torch.rand(number, 4)
    axis = torch.arange(size).float()
    frames = torch.full((number, 3, size, size), 40.0)
    for x, y, corner in ((0, 1, 2.0), (2, 3, 34.0)):
        column = (axis - (corner + 10 * place[:, x : x + 1])) ** 2
        row = (axis - (corner + 10 * place[:, y : y + 1])) ** 2
        spot = torch.exp(-(row[:, :, None] + column[:, None, :]) / 20)
        frames += 200 * spot[:, None]
    pictures = coarse_pictures(frames.clamp(0, 255).to(torch.uint8))
    assert pictures.shape == (number, 3 * GRID * GRID)
    known = place[:, :2] @ torch.randn(2, 6)
    scores = region_scores(known[:1200], pictures[:1200], known[1200:], pictures[1200:])
    assert scores["upper left"] > 0.8
    assert scores["lower right"] < 0.1
    assert "upper right" not in scores  # nothing moves there
    found = warnings(healthy(regions=scores), MonitorConfig(), 0.09)
    assert len(found) == 1
    assert "lower right" in found[0]
