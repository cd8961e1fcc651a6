"""SIGReg against closed forms, against the plain formula, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from lewm_core.model import SIGReg


def knots_and_weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Knots t and trapezoid weights times window, written out from the paper."""
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    weights = torch.full((17,), 2 * 3 / 16, dtype=torch.float64)
    weights[0] = weights[-1] = 3 / 16
    return t, weights * torch.exp(-t.square() / 2)


def plain_statistic(z: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The statistic as the paper writes it: one sine and one cosine per knot."""
    t, weights = knots_and_weights()
    phases = (z @ directions).unsqueeze(-1) * t
    error = (phases.cos().mean(-3) - torch.exp(-t.square() / 2)).square()
    error = error + phases.sin().mean(-3).square()
    return z.shape[-2] * (error @ weights).mean()


def mean_over_batches(draw, batches: int) -> tuple[float, float]:
    """Mean of the statistic over batches (batches, N, 1), and the mean's standard error."""
    sigreg = SIGReg(directions=1)
    values = torch.stack(
        [sigreg.statistic(batch, torch.ones(1, 1).double()) for batch in draw(batches)]
    )
    return values.mean().item(), (values.std() / batches**0.5).item()


@pytest.mark.parametrize("count", [16, 128])
def test_a_standard_gaussian_gets_the_expected_value_whatever_the_batch(count):
    torch.manual_seed(0)
    t, weights = knots_and_weights()
    expected = (weights * (1 - torch.exp(-t.square()))).sum().item()
    value, error = mean_over_batches(lambda n: torch.randn(n, count, 1).double(), 800)
    # Without the cut at 3 the sum is an integral of two Gaussians.
    assert expected == pytest.approx(math.sqrt(2 * math.pi) * (1 - 3**-0.5), abs=0.01)
    assert abs(value - expected) < 4 * error
    assert error < 0.05


@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_a_gaussian_of_another_width_gets_the_expected_value(deviation):
    torch.manual_seed(1)
    count = 64
    t, weights = knots_and_weights()
    characteristic = torch.exp(-((deviation * t).square()) / 2)
    bias = count * (characteristic - torch.exp(-t.square() / 2)).square()
    expected = (weights * (bias + 1 - characteristic.square())).sum().item()
    value, error = mean_over_batches(lambda n: deviation * torch.randn(n, count, 1).double(), 400)
    assert abs(value - expected) < 4 * error
    assert expected > 2


def test_a_heavy_tailed_sample_gets_the_expected_value():
    """Cauchy: the characteristic function is exp(-|t|), though no moment exists."""
    torch.manual_seed(2)
    count = 64
    t, weights = knots_and_weights()
    characteristic = torch.exp(-t)
    bias = count * (characteristic - torch.exp(-t.square() / 2)).square()
    expected = (weights * (bias + 1 - characteristic.square())).sum().item()
    cauchy = torch.distributions.Cauchy(0.0, 1.0)
    value, error = mean_over_batches(lambda n: cauchy.sample((n, count, 1)).double(), 400)
    assert abs(value - expected) < 4 * error


@pytest.mark.parametrize("place", [0.0, 0.7])
def test_a_collapsed_batch_gets_the_exact_value(place):
    """All samples at one point c: mean cos = cos(t c), mean sin = sin(t c), no randomness."""
    t, weights = knots_and_weights()
    gaussian = torch.exp(-t.square() / 2)
    deviation = ((place * t).cos() - gaussian).square() + (place * t).sin().square()
    expected = 96 * (weights * deviation).sum()
    z = torch.full((4, 96, 1), place, dtype=torch.float64)
    assert SIGReg(directions=7)(z).item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_collapsed_batch_in_many_dimensions_is_far_above_a_gaussian():
    torch.manual_seed(3)
    sigreg = SIGReg(directions=64)
    healthy = sigreg(torch.randn(3, 256, 32))
    flat = torch.randn(3, 256, 32)
    flat[..., 1:] = 0
    assert healthy < 1.5
    assert sigreg(torch.zeros(3, 256, 32)) > 20 * healthy
    assert sigreg(flat) > 10 * healthy


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_angle_addition_is_the_plain_formula(dtype, tolerance):
    torch.manual_seed(4)
    sigreg = SIGReg(directions=32)
    z = (2 * torch.randn(3, 40, 6) + 0.5).to(dtype).requires_grad_()
    directions = sigreg.draw_directions(z)
    value = sigreg.statistic(z, directions)
    (gradient,) = torch.autograd.grad(value, z)
    plain_z = z.detach().double().requires_grad_()
    plain = plain_statistic(plain_z, directions.double())
    (plain_gradient,) = torch.autograd.grad(plain, plain_z)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(plain.item(), rel=tolerance)
    assert (gradient - plain_gradient).abs().max() < tolerance * plain_gradient.abs().max()


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(5)
    sigreg = SIGReg(directions=5)
    z = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    directions = sigreg.draw_directions(z)
    assert torch.autograd.gradcheck(lambda states: sigreg.statistic(states, directions), (z,))


def test_window_upper_and_knots_change_the_quadrature():
    """At c = 0 the statistic is N times a plain integral, which finer knots approach."""
    z = torch.zeros(10, 1, dtype=torch.float64)
    value = SIGReg(directions=1, knots=401, upper=8.0, window=2.0)(z).item() / 10
    # integral over the real line of exp(-t^2/8) (1 - exp(-t^2/2))^2, all three terms Gaussian
    exact = sum(
        factor * math.sqrt(math.pi / rate)
        for factor, rate in ((1, 1 / 8), (-2, 5 / 8), (1, 9 / 8))
    )
    assert value == pytest.approx(exact, rel=1e-3)


def test_time_steps_are_compared_one_by_one():
    """Two steps around different points: each alone is far from N(0, I), mixed they are not."""
    torch.manual_seed(6)
    sigreg = SIGReg(directions=16)
    z = torch.randn(2, 50, 4)
    directions = sigreg.draw_directions(z)
    both = sigreg.statistic(z, directions)
    apart = torch.stack([sigreg.statistic(step, directions) for step in z])
    assert both.item() == pytest.approx(apart.mean().item(), rel=1e-5)


def test_directions_are_fresh_unit_vectors_that_a_generator_repeats():
    z = torch.randn(8, 5)
    first = SIGReg(directions=9, generator=torch.Generator().manual_seed(1))
    second = SIGReg(directions=9, generator=torch.Generator().manual_seed(1))
    drawn = first.draw_directions(z)
    assert drawn.shape == (5, 9)
    torch.testing.assert_close(drawn.norm(dim=0), torch.ones(9))
    assert torch.equal(drawn, second.draw_directions(z))
    assert not torch.equal(drawn, first.draw_directions(z))


def test_autocast_does_not_round_the_statistic():
    torch.manual_seed(7)
    sigreg = SIGReg(directions=16)
    z = torch.randn(64, 8)
    directions = sigreg.draw_directions(z)
    with torch.autocast("cpu", torch.bfloat16):
        value = sigreg.statistic(z, directions)
    assert value.dtype == torch.float32
    assert value.item() == sigreg.statistic(z, directions).item()


@pytest.mark.parametrize(
    "z", [torch.zeros(5), torch.zeros(4, 5, dtype=torch.int64)], ids=["one dimension", "integers"]
)
def test_states_that_it_cannot_judge_are_refused(z):
    with pytest.raises(ValueError, match=r"floating-point states \(\.\.\., N, D\)"):
        SIGReg()(z)


@pytest.mark.parametrize("wrong", [{"directions": 0}, {"knots": 1}, {"upper": 0}, {"window": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="SIGReg needs"):
        SIGReg(**wrong)
