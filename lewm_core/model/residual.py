"""A layer that adds what it computes to what it was given."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualLayer(nn.Module):
    """``x + Linear(GELU(Linear(LayerNorm(x))))``; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return x + self.output(nn.functional.gelu(self.hidden(self.norm(x))))
