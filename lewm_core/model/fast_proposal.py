"""The learned proposal for planning: the same numbers from fewer calls."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from lewm_core.model.fused_linear import FusedLinear
from lewm_core.model.proposal import Proposal


class FastProposal:
    """A proposal with its maps fused; called as `Proposal`. Gradients do not flow through it.

    Later changes of the proposal's weights do not reach it.

    Args:
        proposal: In eval mode.
        dtype: Of the matrix products.
    """

    def __init__(self, proposal: Proposal, dtype: torch.dtype = torch.float32) -> None:
        self.config = proposal.config
        self.device = proposal.output.weight.device
        first = proposal.input
        size = first.in_features - proposal.steps.embedding_dim
        # What the number of blocks to go adds is one row of a table.
        seen, steps = first.weight.detach().split([size, first.in_features - size], dim=1)
        self._steps = proposal.steps.weight.detach() @ steps.T + first.bias.detach()
        self._input = FusedLinear(seen, None, dtype)
        self._layers = [
            (
                FusedLinear(layer.hidden.weight, layer.hidden.bias, dtype, layer.norm),
                FusedLinear(layer.output.weight, layer.output.bias, dtype),
                layer.norm.eps,
            )
            for layer in proposal.layers
        ]
        self._width, self._eps = proposal.norm.normalized_shape, proposal.norm.eps
        self._output = FusedLinear(
            proposal.output.weight, proposal.output.bias, dtype, proposal.norm
        )

    def __call__(self, previous: Tensor, z: Tensor, goal: Tensor, blocks_to_go: Tensor) -> Tensor:
        """See `Proposal.forward`."""
        away = goal - z[..., : goal.shape[-1]]
        x = self._input(torch.cat([previous, z, goal, away], dim=-1)).float()
        x = x + self._steps[blocks_to_go.clamp(1, self.config.longest)]
        for hidden, output, eps in self._layers:
            x = x + output(hidden(layer_norm(x, self._width, eps=eps), "gelu")).float()
        return self._output(layer_norm(x, self._width, eps=self._eps)).float()
