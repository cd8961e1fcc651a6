"""SIGReg: keeps the latent states from collapsing by making them an isotropic Gaussian.

Sketched Isotropic Gaussian Regularisation (LeJEPA, arXiv 2511.08544, as used by LeWM,
arXiv 2603.19312). A distribution is N(0, I) exactly if every projection on a unit vector is
N(0, 1), so random directions are drawn at every step, and on each the Epps-Pulley statistic
compares the empirical characteristic function with that of N(0, 1):

    N * integral over t in [-u, u] of w(t) |mean_n exp(i t x_n) - exp(-t^2 / 2)|^2,

w(t) = exp(-t^2 / 2), by the trapezoid rule on [0, u], twice by symmetry. For N(0, 1) samples the
expected value is ``sum_k w_k (1 - exp(-t_k^2))``, whatever N is: about 1 for the default knots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from lewm_core.model.processes import in_process_group, sum_over_processes


class SIGReg(nn.Module):
    """The regulariser; defaults are the published ones.

    In an initialised process group the characteristic functions are averaged over all processes,
    with gradients: processes with a part of the batch each get the value, and after the averaging
    of gradients that `torch.nn.parallel.DistributedDataParallel` does, the gradient, of one
    process with all of it. Directions are drawn by the first process and sent to the others.

    Args:
        directions: Random unit vectors per call.
        knots: Points of the trapezoid rule, equally spaced on [0, ``upper``].
        upper: Last knot u.
        window: Width s of the weight exp(-t^2 / (2 s^2)).
        generator: Source of the directions, on the device of the states; PyTorch's own if None.
    """

    knots: Tensor
    gaussian: Tensor
    weights: Tensor

    def __init__(
        self,
        directions: int = 1024,
        knots: int = 17,
        upper: float = 3.0,
        window: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if directions < 1 or knots < 2 or upper <= 0 or window <= 0:
            raise ValueError(
                "SIGReg needs directions >= 1, knots >= 2, upper > 0 and window > 0, got "
                f"{directions}, {knots}, {upper} and {window}"
            )
        self.directions = directions
        self.spacing = upper / (knots - 1)
        self.generator = generator
        t = torch.arange(knots, dtype=torch.float64) * self.spacing
        # Twice the spacing, because the integrand is even; the ends count half.
        trapezoid = torch.full_like(t, 2 * self.spacing)
        trapezoid[[0, -1]] = self.spacing
        # In double precision, so that a float64 check of the gradient is one of the formula.
        self.register_buffer("knots", t, persistent=False)
        self.register_buffer("gaussian", torch.exp(-t.square() / 2), persistent=False)
        self.register_buffer(
            "weights", trapezoid * torch.exp(-t.square() / (2 * window**2)), persistent=False
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the statistic, averaged over directions and leading dimensions.

        Args:
            z: (..., N, D). The N samples are compared with N(0, I), each leading index (LeWM: each
                time step, so pass (T, B, D)) by itself.

        Returns:
            Scalar, float32, or float64 if ``z`` is.

        Raises:
            ValueError: Fewer than two dimensions, or not floating point.
        """
        if z.ndim < 2 or not z.is_floating_point():
            raise ValueError(
                f"SIGReg needs floating-point states (..., N, D), got {z.dtype} {tuple(z.shape)}"
            )
        return self.statistic(z, self.draw_directions(z))

    def draw_directions(self, z: Tensor) -> Tensor:
        """Return fresh unit vectors (D, directions), the same in every process."""
        drawn = torch.randn(
            z.shape[-1],
            self.directions,
            device=z.device,
            dtype=torch.float64 if z.dtype == torch.float64 else torch.float32,
            generator=self.generator,
        )
        drawn /= drawn.norm(dim=0)
        if in_process_group():
            distributed.broadcast(drawn, src=0)
        return drawn

    def statistic(self, z: Tensor, directions: Tensor) -> Tensor:
        """Return the statistic of states (..., N, D) on given unit vectors (D, M): a scalar."""
        # In bfloat16 the deviations that this measures would be rounded away.
        with torch.autocast(z.device.type, enabled=False):
            projected = z.to(directions.dtype) @ directions
            sums = _PhaseSums.apply(projected, self.spacing, len(self.knots))
            # A plain number where one process has all: a tensor made of it would let the host wait
            # for the GPU in every step.
            count: Tensor | int = projected.shape[-2]
            if in_process_group():
                sums = sum_over_processes(sums)
                count = projected.new_tensor(count)
                distributed.all_reduce(count)
            cosine, sine = (sums / count).unbind(0)
            shape = (-1,) + (1,) * (cosine.ndim - 1)
            gaussian = self.gaussian.to(cosine.dtype).view(shape)
            weights = self.weights.to(cosine.dtype).view(shape)
            deviation = (cosine - gaussian).square() + sine.square()
            return count * (weights * deviation).sum(0).mean()


class _PhaseSums(torch.autograd.Function):
    """Sums of cos(k a x) and sin(k a x) over the samples, for k = 0..K-1.

    One cosine and one sine of the angle a x; the multiples follow by angle addition, which is a
    complex multiplication each. Backward is a polynomial in exp(i a x), taken by Horner's scheme
    from that same pair, so nothing is kept for the knots in between: a fraction of the time and
    of the memory of K sines and cosines that are all remembered.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spacing: float, knots: int) -> Tensor:
        """Return (2, knots, ..., M), cosines first, for x (..., N, M)."""
        angle = x * spacing
        cosine, sine = angle.cos(), angle.sin()
        sums = x.new_empty(2, knots, *x.shape[:-2], x.shape[-1])
        sums[0, 0], sums[1, 0] = x.shape[-2], 0.0
        real, imaginary = cosine, sine
        for k in range(1, knots):
            if k > 1:
                turned = torch.addcmul(real * cosine, imaginary, sine, value=-1)
                imaginary = torch.addcmul(real * sine, imaginary, cosine)
                real = turned
            torch.sum(real, dim=-2, out=sums[0, k])
            torch.sum(imaginary, dim=-2, out=sums[1, k])
        ctx.save_for_backward(cosine, sine)
        ctx.spacing = spacing
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient (..., N, M) for that of the sums.

        With gradients c_k and s_k: a * sum_k k (s_k cos(k a x) - c_k sin(k a x)), the real part
        of a * sum_k k (s_k + i c_k) exp(i k a x).
        """
        cosine, sine = ctx.saved_tensors
        order = torch.arange(gradient.shape[1], device=gradient.device, dtype=gradient.dtype)
        order = order.view(-1, *(1,) * (gradient.ndim - 2))
        along_cosine, along_sine = (gradient * order * ctx.spacing).unsqueeze(-2).unbind(0)
        real = along_sine[-1].expand_as(cosine)
        imaginary = along_cosine[-1].expand_as(cosine)
        for k in range(gradient.shape[1] - 2, -1, -1):
            turned = torch.addcmul(along_sine[k] + real * cosine, imaginary, sine, value=-1)
            if k > 0:
                imaginary = torch.addcmul(along_cosine[k] + real * sine, imaginary, cosine)
            real = turned
        return real, None, None
