"""Noise over the control steps of a plan whose steps have to do with each other.

White noise in every control step mostly cancels itself out: candidates tremble and get nowhere.
Coloured noise (Pinneri et al., 2020, arXiv 2008.06389) moves further. Both kinds here are a matrix
that white noise is multiplied with.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exponential(correlation: float, steps: int) -> Tensor | None:
    """Noise whose correlation falls by a constant factor from step to step; variances are 1.

    Args:
        correlation: Of one step with the next, 0 to below 1.
        steps: Control steps of a plan.

    Returns:
        ``(steps, steps)`` float64; None for white noise.
    """
    if correlation == 0.0:
        return None
    number = torch.arange(steps, dtype=torch.float64)
    return torch.linalg.cholesky(correlation ** (number[:, None] - number).abs())


def power_law(exponent: float, steps: int) -> Tensor | None:
    """Noise whose power falls with the frequency to the power of ``exponent``; variances are 1.

    The frequencies are those of a period of twice the steps: a period of the steps themselves
    would make the last step a neighbour of the first.

    Args:
        exponent: beta of arXiv 2008.06389: 0 white, 1 pink, 2 red.
        steps: Control steps of a plan.

    Returns:
        ``(steps, steps)`` float64; None for white noise.
    """
    if exponent == 0.0:
        return None
    number = torch.arange(steps, dtype=torch.float64)
    frequency = torch.arange(1, steps + 1, dtype=torch.float64) / (2 * steps)
    power = frequency**-exponent
    lag = (number[:, None] - number).abs()
    waves = torch.cos(2 * torch.pi * lag[..., None] * frequency)
    covariance = (waves * power).sum(dim=-1) / power.sum()
    # Steep spectra are nearly singular; a little white noise keeps the factor well defined.
    covariance = (1 - 1e-6) * covariance + 1e-6 * torch.eye(steps, dtype=torch.float64)
    return torch.linalg.cholesky(covariance)
