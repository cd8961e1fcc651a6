"""The causal transformer that predicts the next latent state from states and actions.

Its layers are conditioned by AdaLN-zero (Peebles and Xie, arXiv 2212.09748): the action gives
shift, scale and gate of both halves of a layer, and all of them start at zero, so that every
layer starts as the identity.
"""

from __future__ import annotations

from torch import Tensor, nn, randn
from torch.nn.functional import scaled_dot_product_attention

from lewm_core.model.config import MlpPredictorConfig, PredictorConfig
from lewm_core.model.mlp_predictor import MlpPredictor


class CausalAttention(nn.Module):
    """Multi-head attention; a token looks at itself and at earlier ones."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.dropout = config.dropout
        self.norm = nn.LayerNorm(config.width)
        self.to_qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, config.width), nn.Dropout(config.dropout))

    def forward(self, tokens: Tensor, last_only: bool = False) -> Tensor:
        """Map tokens (N, T, width) to (N, T, width), or to (N, 1, width) with ``last_only``."""
        query, key, value = self.to_qkv(self.norm(tokens)).chunk(3, dim=-1)
        if last_only:
            query = query[:, -1:]
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        attended = scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            # The last token may see all of them, so it needs no mask.
            is_causal=not last_only and tokens.shape[1] > 1,
        )
        return self.to_out(attended.transpose(1, 2).flatten(-2))


class ConditionedLayer(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the action."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.attention = CausalAttention(config)
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.mlp_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_dim, config.width),
            nn.Dropout(config.dropout),
        )
        # Without weights of their own: shift and scale come from the action.
        self.attention_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.mlp_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))
        nn.init.zeros_(self.modulation[-1].weight)
        nn.init.zeros_(self.modulation[-1].bias)

    def forward(self, tokens: Tensor, modulation: Tensor, last_only: bool = False) -> Tensor:
        """Map tokens (N, T, width) under modulation (N, T, 6 * width) to the same shape.

        With ``last_only`` only the last token comes out: (N, 1, width).
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=-1)
        attended = self.attention(self.attention_norm(tokens) * (1 + scale) + shift, last_only)
        if last_only:
            tokens, gate = tokens[:, -1:], gate[:, -1:]
            mlp_shift, mlp_scale, mlp_gate = (
                part[:, -1:] for part in (mlp_shift, mlp_scale, mlp_gate)
            )
        tokens = tokens + gate * attended
        return tokens + mlp_gate * self.mlp(self.mlp_norm(tokens) * (1 + mlp_scale) + mlp_shift)


class Predictor(nn.Module):
    """Latent states and the conditions of the blocks that leave them to next latent states.

    Positions count from the oldest state given, so a short history uses the first positions.
    """

    def __init__(self, embedding_dim: int, history: int, config: PredictorConfig) -> None:
        super().__init__()
        # Positions are added before the input map, as in the released model.
        self.positions = nn.Parameter(randn(1, history, embedding_dim))
        same = config.width == embedding_dim
        self.input = nn.Identity() if same else nn.Linear(embedding_dim, config.width)
        self.layers = nn.ModuleList(ConditionedLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        # A residual model without a projector still needs a last linear map, so that the
        # predicted change is not confined to what a layer norm can put out.
        last = same and not (config.residual and config.projector is None)
        self.output = nn.Identity() if last else nn.Linear(config.width, embedding_dim)

    def modulations(self, conditions: Tensor) -> list[Tensor]:
        """Return for each layer the modulation (..., 6 * width) of conditions (..., width)."""
        return [layer.modulation(conditions) for layer in self.layers]

    def forward(self, z: Tensor, modulations: list[Tensor], last_only: bool = False) -> Tensor:
        """Predict from states (N, T, D) and the layers' modulations (N, T, 6 * width).

        Returns:
            (N, T, D): at place t the state after state t; only the last, (N, 1, D), with
            ``last_only``.
        """
        tokens = self.input(z + self.positions[:, : z.shape[1]])
        final = len(self.layers) - 1
        for number, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            tokens = layer(tokens, modulation, last_only and number == final)
        return self.output(self.norm(tokens))


def condition_dim(history: int, config: PredictorConfig | MlpPredictorConfig) -> int:
    """Return the size of the condition that a predictor's `modulations` takes."""
    return history * config.width if isinstance(config, MlpPredictorConfig) else config.width


def make_predictor(
    embedding_dim: int, history: int, config: PredictorConfig | MlpPredictorConfig
) -> Predictor | MlpPredictor:
    """Build the predictor that ``config.kind`` names."""
    if isinstance(config, MlpPredictorConfig):
        return MlpPredictor(embedding_dim, history, config)
    return Predictor(embedding_dim, history, config)
