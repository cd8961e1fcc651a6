"""From a block of actions to the vector that conditions the predictor."""

from __future__ import annotations

from torch import Tensor, nn

from lewm_core.model.config import ActionEncoderConfig


class ActionEncoder(nn.Module):
    """A 1x1 convolution over time, then Linear-SiLU-Linear (arXiv 2603.19312).

    Nothing in it mixes time steps: block t only ever reaches condition t.
    """

    def __init__(self, block_dim: int, output_dim: int, config: ActionEncoderConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(block_dim, config.smoothed, kernel_size=1)
        self.embed = nn.Sequential(
            nn.Linear(config.smoothed, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, output_dim),
        )

    def forward(self, blocks: Tensor) -> Tensor:
        """Map normalised blocks (..., T, F*A) to conditions (..., T, output_dim)."""
        # A convolution of kernel size 1 is a linear map: as a matrix product it needs no
        # transposes and takes any leading shape. Its weight keeps the published shape.
        smoothed = nn.functional.linear(
            blocks, self.convolution.weight.squeeze(-1), self.convolution.bias
        )
        return self.embed(smoothed)
