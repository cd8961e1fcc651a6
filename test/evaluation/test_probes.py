"""Probes: exact on what is exact, zero on noise, angles across the wrap."""

from __future__ import annotations

import math

import pytest
import torch

from lewm_core.evaluation.probes import format_table, group_states, probe_states
from lewm_core.training.regression import fit_mlp, fit_ridge, r2_score

PUSH_T = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
PUSH_T_UNITS = ["m", "m", "m", "m", "rad"]


def test_push_t_states_become_agent_block_angle():
    groups = group_states(PUSH_T, PUSH_T_UNITS)
    assert [(group.label, group.fields, group.angle) for group in groups] == [
        ("agent", ("agent_x", "agent_y"), False),
        ("block", ("block_x", "block_y"), False),
        ("angle", ("block_angle",), True),
    ]


def test_other_states_stay_fields():
    groups = group_states(
        ["shoulder", "elbow", "gripper", "left_angle", "right_angle"],
        ["rad", "rad", "m", "rad", "rad"],
    )
    assert [group.label for group in groups] == [
        "shoulder",
        "elbow",
        "gripper",
        "left_angle",
        "right_angle",
    ]
    assert [group.angle for group in groups] == [True, True, False, True, True]


def test_ridge_recovers_a_linear_map_and_its_offset():
    torch.manual_seed(0)
    x = torch.randn(400, 5)
    weights = torch.randn(5, 2)
    y = x @ weights + torch.tensor([3.0, -100.0])
    fitted = fit_ridge(x[:300], y[:300], penalty=1e-8)
    assert torch.allclose(fitted(x[300:]).float(), y[300:], atol=1e-3)


def test_r2_is_one_for_the_truth_zero_for_the_mean_and_nan_where_nothing_varies():
    y = torch.tensor([[1.0], [2.0], [6.0]])
    mean = y.mean(0)
    assert r2_score(y, y, mean) == 1.0
    assert r2_score(mean.expand(3, 1), y, mean) == 0.0
    assert math.isnan(r2_score(y * 0, y * 0, mean * 0))


def test_the_mlp_reads_what_the_line_cannot_and_leaves_the_random_state_alone():
    torch.manual_seed(0)
    x = torch.randn(3000, 2)
    y = (x[:, :1] * x[:, 1:]).sin()
    before = torch.get_rng_state()
    network = fit_mlp(x[:2400], y[:2400])
    assert torch.equal(before, torch.get_rng_state())
    mean = y[:2400].mean(0)
    assert r2_score(network(x[2400:]), y[2400:], mean) > 0.9
    assert r2_score(fit_ridge(x[:2400], y[:2400])(x[2400:]), y[2400:], mean) < 0.1


def test_an_mlp_on_noise_stops_early_and_scores_about_zero():
    torch.manual_seed(0)
    x, y = torch.randn(1500, 4), torch.randn(1500, 1)
    score = r2_score(fit_mlp(x[:1000], y[:1000])(x[1000:]), y[1000:], y[:1000].mean(0))
    assert -0.2 < score < 0.1


def test_probe_scores_tell_what_is_encoded_and_what_is_not():
    torch.manual_seed(0)
    states = torch.rand(2000, 5) * 2 - 1
    states[:, 4] = (torch.rand(2000) * 2 - 1) * math.pi
    seen = torch.cat([states[:, 2:4], states[:, 4:].sin(), states[:, 4:].cos()], 1)
    z = seen @ torch.randn(4, 12)
    states[::7, 2] = math.nan
    scores = probe_states(
        z[:1500], states[:1500], z[1500:], states[1500:], PUSH_T, PUSH_T_UNITS, epochs=30
    )
    by_label = {score.label: score for score in scores}
    assert list(by_label) == ["agent", "block", "angle"]
    assert by_label["block"].linear > 0.99
    assert by_label["angle"].linear > 0.99
    assert by_label["angle"].mlp > 0.98
    assert by_label["agent"].mlp < 0.1
    assert by_label["angle"].r2 == by_label["angle"].mlp
    assert "block" in format_table(scores)


def test_states_that_never_came_score_nan():
    z = torch.randn(100, 3)
    states = torch.full((100, 1), math.nan)
    (score,) = probe_states(z, states, z, states, ["lamp"], ["1"])
    assert math.isnan(score.linear) and math.isnan(score.mlp)


def test_names_must_fit_the_states():
    z = torch.randn(10, 3)
    with pytest.raises(ValueError, match="1 state names"):
        probe_states(z, torch.zeros(10, 2), z, torch.zeros(10, 2), ["a"], ["m"])
