"""The MLP between a network's feature and the latent space."""

from __future__ import annotations

from torch import Tensor, nn

from lewm_core.model.config import ProjectorConfig


class Projector(nn.Module):
    """Linear, normalisation, GELU, Linear (arXiv 2603.19312, appendix on the architecture).

    The last map has no normalisation behind it: SIGReg, not a layer, gives the latent its scale.
    With batch normalisation the output of one picture depends on the others in the batch while
    training; in eval mode the running statistics are used and every picture stands alone.
    """

    def __init__(self, input_dim: int, output_dim: int, config: ProjectorConfig) -> None:
        super().__init__()
        norm = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": None}[config.norm]
        self.net = nn.Sequential(
            nn.Linear(input_dim, config.hidden),
            nn.Identity() if norm is None else norm(config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, output_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., input_dim) to (..., output_dim)."""
        flat = self.net(features.reshape(-1, features.shape[-1]))
        return flat.reshape(*features.shape[:-1], -1)
