"""From a picture, or those of several cameras, to a feature: two networks behind one protocol."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lewm_core.model.config import (
    EncoderConfig,
    InputsConfig,
    KeypointEncoderConfig,
    VitEncoderConfig,
)


class Encoder(Protocol):
    """What the world model needs of an encoder."""

    feature_dim: int

    def __call__(self, pictures: Tensor) -> Tensor:
        """Map normalised float pictures (N, 3 C, H, W) to features (N, feature_dim)."""


class VitEncoder(nn.Module):
    """A vision transformer by timm, from scratch; the feature is the normalised [CLS] token.

    The defaults of `VitEncoderConfig` are ViT-tiny with patches of 14 px at 224 px, the encoder
    of arXiv 2603.19312. It has the weights, activations, layer-norm epsilon and initialisation of
    the released model's, so that trained weights of one can become weights of the other.
    """

    def __init__(self, config: VitEncoderConfig, channels: int = 3) -> None:
        super().__init__()
        # Imported here: timm takes seconds, and the keypoint encoder does without.
        from timm.models.vision_transformer import VisionTransformer

        self.feature_dim = config.width
        self.backbone = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            in_chans=channels,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_dim / config.width,
            num_classes=0,
            global_pool="token",
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-12),
        )
        for weight in (
            self.backbone.patch_embed.proj.weight,
            self.backbone.cls_token,
            self.backbone.pos_embed,
        ):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.backbone.patch_embed.proj.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map normalised pictures (N, channels, H, W) to features (N, width)."""
        return self.backbone(pictures)


class KeypointEncoder(nn.Module):
    """Convolutions, then for each map the place where it is active (spatial soft-argmax).

    The feature is the expected x and y of each map, in [-1, 1] and then batch-normalised. It is
    trained end to end from pixels by the same two loss terms; nobody labels a keypoint. A network
    that can only say *where* cannot fill the latent with functions of one easily predicted
    position, which is how a plain small network forgot the block's angle.
    """

    def __init__(self, config: KeypointEncoderConfig, channels: int = 3) -> None:
        super().__init__()
        first, second = config.channels
        self.feature_dim = 2 * config.keypoints
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, kernel_size=5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, config.keypoints, kernel_size=3, padding=1),
        )
        # Before training all maps are nearly flat and all coordinates nearly 0: the norm gives
        # them the scale that the next layer needs. Their variance is then about 1e-6, far below
        # the usual epsilon of 1e-5, which would leave them small, and below the 1 that running
        # statistics usually start at, which would make a model in eval mode look collapsed for
        # its first hundred steps.
        self.norm = nn.BatchNorm1d(self.feature_dim, eps=1e-8)
        nn.init.constant_(self.norm.running_var, 1e-4)
        edge = config.image_size // 4
        axis = (torch.arange(edge, dtype=torch.float32) * 2 + 1) / edge - 1
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        # One product with (x, y, 1) gives the weighted sums and the sum of the weights.
        moments = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
        self.register_buffer("moments", moments, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map normalised pictures (N, channels, H, W) to features (N, 2 * keypoints).

        The feature is first every map's x, then every map's y; x to the right and y down, as in
        the picture.
        """
        maps = self.convolutions(pictures)
        with torch.autocast(pictures.device.type, enabled=False):
            # Pixels before maps: with the channels last in memory this is a view.
            logits = maps.float().flatten(2).transpose(1, 2)
            peak = logits.detach().amax(dim=1, keepdim=True)
            sums = self.moments @ (logits - peak).exp()
            return self.norm((sums[:, :2] / sums[:, 2:]).flatten(1))


class SideBySide(nn.Module):
    """An encoder for each of C cameras; their features one after the other."""

    def __init__(self, encoders: Sequence[VitEncoder | KeypointEncoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.feature_dim = sum(encoder.feature_dim for encoder in encoders)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map normalised pictures (N, 3 C, H, W) to features (N, feature_dim)."""
        views = pictures.chunk(len(self.encoders), dim=1)
        return torch.cat(
            [encoder(view) for encoder, view in zip(self.encoders, views, strict=True)], dim=1
        )


def make_encoder(
    config: EncoderConfig, inputs: InputsConfig | None = None
) -> VitEncoder | KeypointEncoder | SideBySide:
    """Build the encoder that ``config.kind`` names, for the cameras that ``inputs`` names."""
    inputs = inputs or InputsConfig()
    kind = VitEncoder if isinstance(config, VitEncoderConfig) else KeypointEncoder
    if inputs.number_of_cameras == 1:
        return kind(config)
    if inputs.fusion == "images":
        return kind(config, 3 * inputs.number_of_cameras)
    return SideBySide([kind(config) for _ in range(inputs.number_of_cameras)])
