"""The learned proposal: a network that says what to do next to be at a goal so many blocks later.

It is goal-conditioned inverse dynamics on the embeddings of a world model that is trained already
(GC-IDM, arXiv 2605.08732): from the state before, the state now, the goal, and the number of
blocks to go to the next block of actions. Rolled out through the world model it is a whole plan,
made in a few network calls; as the start of a search it is most of the way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lewm_core.model.config import ModelConfig, ProposalConfig
from lewm_core.model.residual import ResidualLayer

#: Numbers that encode how many blocks are to go.
_STEP_FEATURES = 64


class Proposal(nn.Module):
    """Proposes the next block of actions for a goal so many blocks away.

    Letters in shapes: N rows, D latent, E of these that a goal has, F control steps in a block, A
    numbers in a command.

    Args:
        latent_dim: D.
        goal_dim: E.
        block_dim: F * A.
        config: Sizes.
    """

    def __init__(
        self, latent_dim: int, goal_dim: int, block_dim: int, config: ProposalConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.steps = nn.Embedding(config.longest + 1, _STEP_FEATURES)
        self.input = nn.Linear(2 * (latent_dim + goal_dim) + _STEP_FEATURES, config.width)
        self.layers = nn.ModuleList(ResidualLayer(config.width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, block_dim)
        # Starts at the mean action, whatever it sees.
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)

    def forward(self, previous: Tensor, z: Tensor, goal: Tensor, blocks_to_go: Tensor) -> Tensor:
        """Propose.

        Args:
            previous: (N, D) state one block ago; where it is not known, the state now.
            z: (N, D) state now.
            goal: (N, E).
            blocks_to_go: (N,) integers; clamped to 1 .. ``config.longest``.

        Returns:
            (N, F*A), a normalised block; float32 also under autocast.
        """
        steps = self.steps(blocks_to_go.clamp(1, self.config.longest))
        away = goal - z[..., : goal.shape[-1]]
        x = self.input(torch.cat([previous, z, goal, away, steps], dim=-1))
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x)).float()


def make_proposal(model: ModelConfig, config: ProposalConfig) -> Proposal:
    """Build a proposal that fits a world model."""
    return Proposal(model.latent_dim, model.embedding_dim, model.block_dim, config)
