"""Linear maps for inference, with what surrounds them folded in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, silu


class FusedLinear:
    """``x W^T + b`` in some type, with a scale and shift of x folded in."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        norm: nn.LayerNorm | None = None,
    ) -> None:
        weight = weight.detach().float()
        bias = None if bias is None else bias.detach().float()
        if norm is not None:
            shifted = weight @ norm.bias.detach().float()
            bias = shifted if bias is None else bias + shifted
            weight = weight * norm.weight.detach().float()
        self.weight = weight.to(dtype).contiguous()
        self.bias = None if bias is None else bias.to(dtype)
        self.packed: Tensor | None = None
        if self.weight.device.type == "cpu" and packs(dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """Map x; ``activation``: ``none``, ``gelu`` or ``swish`` (SiLU)."""
        x = x.to(self.weight.dtype)
        if self.packed is not None:
            # `linear` with a bias copies the bias into the output first, and an activation goes
            # over it once more: together as long as the product itself. oneDNN does all in one.
            return torch.ops.mkldnn._linear_pointwise(
                x, self.packed, self.bias, activation, [], "none" if activation == "gelu" else ""
            )
        return _ACTIVATIONS[activation](linear(x, self.weight, self.bias))


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes weights of this type here; bfloat16 needs AVX-512 or better."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": gelu,
    "swish": silu,
}
