"""What ``lewm-check`` measures: figures of models that are known, and the words for a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lewm_core.errors import UserError
from lewm_core.evaluation.check.data import unseen_episodes
from lewm_core.evaluation.check.latent import (
    STEPS_TO_GO,
    distance_follows_steps,
    measure_spread,
)
from lewm_core.evaluation.check.planning import _figures
from lewm_core.evaluation.check.thresholds import THRESHOLDS, judge

#: Well on the good side of every threshold.
GOOD = {
    row.key: row.can * (1.1 if row.better == "high" else 0.9) for row in THRESHOLDS
}
BAD = {
    row.key: row.cannot * (0.5 if row.better == "high" else 2.0) for row in THRESHOLDS
}


def test_only_episodes_that_were_not_trained_on_are_used() -> None:
    metadata = {"trained_episodes": ["a", "b"], "held_out_episodes": ["c"]}
    assert unseen_episodes(["a", "b", "c"], metadata, "model") == ["c"]
    # Data that the checkpoint has never seen may be used whole.
    assert unseen_episodes(["x", "y"], metadata, "model") == ["x", "y"]
    # A piece of a recording that was trained on looks like the rest of it.
    assert unseen_episodes(["a+1", "c", "c+1"], metadata, "model") == ["c", "c+1"]


def test_without_a_held_out_episode_there_is_no_check() -> None:
    with pytest.raises(UserError, match="no held-out episode: runs/x was trained on all 2"):
        unseen_episodes(["a", "b"], {"trained_episodes": ["a", "b", "d"]}, "runs/x")
    with pytest.raises(UserError, match="trained_episodes"):
        unseen_episodes(["a", "b"], {}, "runs/x")


def test_the_spread_of_a_gaussian_and_of_a_collapsed_cloud() -> None:
    random = torch.Generator().manual_seed(0)
    gaussian = torch.randn(4096, 16, generator=random)
    spread = measure_spread(gaussian)
    assert spread.sigreg == pytest.approx(1.0, abs=0.15)
    assert spread.effective_rank > 15.5 and spread.std_mean == pytest.approx(1.0, abs=0.02)
    assert len(spread.direction_variance) == 16
    assert spread.direction_variance == sorted(spread.direction_variance, reverse=True)
    assert sum(spread.direction_variance) == pytest.approx(16.0, rel=0.02)
    line = gaussian[:, :1] * torch.ones(16) * 0.01
    collapsed = measure_spread(line)
    assert collapsed.effective_rank == pytest.approx(1.0, abs=0.01)
    assert collapsed.std_mean == pytest.approx(0.01, rel=0.05)
    assert collapsed.sigreg > 10


def test_spread_is_the_same_for_the_same_seed() -> None:
    cloud = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    assert measure_spread(cloud, seed=3) == measure_spread(cloud, seed=3)
    assert measure_spread(cloud, seed=3).sigreg != measure_spread(cloud, seed=4).sigreg
    assert torch.equal(state, torch.get_rng_state())


def test_distance_that_shrinks_on_the_way_correlates_with_steps_to_go() -> None:
    along = torch.arange(20.0)[:, None] * torch.ones(3)
    assert distance_follows_steps([along]) == pytest.approx(1.0)
    # A goal in the middle of nothing: all the same, so no order at all.
    assert distance_follows_steps([torch.zeros(20, 3)]) == 0.0
    random = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert abs(distance_follows_steps([random])) < 0.05
    assert math.isnan(distance_follows_steps([torch.zeros(STEPS_TO_GO, 3)]))


def test_costs_are_summed_up_as_documented() -> None:
    costs = torch.tensor(
        [[1.0, 2.0, 3.0, 1.0, 5.0], [4.0, 2.0, 6.0, 8.0, 9.0]], dtype=torch.float64
    )
    figures = _figures(costs, torch.tensor([10.0, 20.0], dtype=torch.float64), half=2)
    # Below the recorded ones: of the others 0 and 1 of 2, of the noise an equal one counts half.
    assert figures.true_rank == pytest.approx(0.25)
    assert figures.true_rank_noise == pytest.approx(0.125)
    assert figures.true_gain == pytest.approx(np.median([0.9, 0.8]))
    assert figures.best_gain == pytest.approx(np.median([0.9, 0.9]))
    spreads = [np.std([2, 3, 1, 5]) / np.mean([2, 3, 1, 5]), np.std([2, 6, 8, 9]) / 6.25]
    assert figures.cost_spread == pytest.approx(np.median(spreads))
    assert (figures.goals, figures.candidates) == (2, 4)


def test_every_figure_alone_can_say_that_a_model_cannot_plan() -> None:
    assert judge(GOOD)[0] == "can plan"
    for row in THRESHOLDS:
        verdict, reason = judge(GOOD | {row.key: BAD[row.key]})
        assert verdict == "cannot plan"
        assert row.label in reason and f"{row.cannot:g}" in reason and row.mend in reason
        between = (row.can + row.cannot) / 2
        assert judge(GOOD | {row.key: between})[0] == "marginal"


def test_the_first_cause_comes_first_in_the_reason() -> None:
    verdict, reason = judge(BAD)
    assert verdict == "cannot plan"
    assert reason.startswith("the representation has collapsed")
    assert "The same say: " in reason


def test_what_no_bag_has_is_passed_over_and_what_is_broken_is_not() -> None:
    for row in THRESHOLDS:
        verdict, reason = judge(GOOD | {row.key: math.nan})
        assert verdict == ("cannot plan" if row.required else "can plan"), row.key
        assert not row.required or "not finite" in reason


def test_thresholds_are_in_order() -> None:
    for row in THRESHOLDS:
        assert (row.can > row.cannot) == (row.better == "high"), row.key
        assert row.can != row.cannot
