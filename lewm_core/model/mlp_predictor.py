"""A predictor without attention: the history laid side by side, then residual layers.

A history of three states is too short to need attention, and attention over three tokens of a
hundred numbers is what a CPU does worst. On frozen embeddings this one had two thirds of the
error of the small transformer after the same minutes (docs/recipes.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lewm_core.model.config import MlpPredictorConfig
from lewm_core.model.residual import ResidualLayer


class MlpPredictor(nn.Module):
    """Latent states and the conditions of the blocks that leave them to next latent states.

    States and blocks have a weight for every age: 0 is the newest, ``history - 1`` the oldest.
    What a short history lacks is made up by a learned vector, one for every number of states.
    """

    def __init__(self, embedding_dim: int, history: int, config: MlpPredictorConfig) -> None:
        super().__init__()
        self.history = history
        self.states = nn.Linear(history * embedding_dim, config.width, bias=False)
        self.lengths = nn.Parameter(torch.zeros(history, config.width))
        self.layers = nn.ModuleList(ResidualLayer(config.width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, embedding_dim)

    def modulations(self, conditions: Tensor) -> list[Tensor]:
        """Split conditions (..., history * width) by the age at which they act: (..., width)."""
        return list(conditions.chunk(self.history, dim=-1))

    def forward(self, z: Tensor, modulations: list[Tensor], last_only: bool = False) -> Tensor:
        """Predict from states (N, T, D) and the modulations (N, T, width) of every age.

        Returns:
            (N, T, D): at place t the state after state t; only the last, (N, 1, D), with
            ``last_only``.
        """
        number = z.shape[1]
        x = torch.stack(
            [
                self._look(z[:, :end], [part[:, :end] for part in modulations])
                for end in range(number if last_only else 1, number + 1)
            ],
            dim=1,
        )
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))

    def _look(self, z: Tensor, modulations: list[Tensor]) -> Tensor:
        """Map a history (N, T, D), newest last, to the hidden state (N, width)."""
        number, size = z.shape[1], z.shape[2]
        newest_first = z.flip(1).flatten(1)
        weight = self.states.weight[:, : number * size]
        x = nn.functional.linear(newest_first, weight, self.lengths[number - 1])
        for age in range(number):
            x = x + modulations[age][:, number - 1 - age]
        return x
