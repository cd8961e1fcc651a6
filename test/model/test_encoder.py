"""The two encoders and their settings."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from lewm_core.model import KeypointEncoderConfig, ModelConfig, VitEncoderConfig
from lewm_core.model.encoder import KeypointEncoder, VitEncoder, make_encoder
from test.model.models import keypoint_config, vit_config


def without_norm(encoder: KeypointEncoder) -> KeypointEncoder:
    """In eval mode, with statistics under which the norm changes nothing: plain coordinates."""
    encoder.norm.running_var.fill_(1.0)
    return encoder.eval()


def test_keypoints_are_the_expected_places_of_their_maps():
    """Against softmax and a sum over pixel centres, written out."""
    torch.manual_seed(0)
    encoder = KeypointEncoder(KeypointEncoderConfig(image_size=32, channels=(4, 6), keypoints=5))
    without_norm(encoder)
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = encoder(pictures)
        weights = encoder.convolutions(pictures).flatten(2).softmax(-1).unflatten(2, (8, 8))
    centres = (torch.arange(8) + 0.5) / 8 * 2 - 1
    x = (weights.sum(2) * centres).sum(-1)
    y = (weights.sum(3) * centres).sum(-1)
    torch.testing.assert_close(features, torch.cat([x, y], 1), rtol=1e-4, atol=1e-6)


def test_a_keypoint_follows_what_its_map_looks_for():
    """A map that answers to brightness, a bright square: where the square is, and unmixed."""
    config = KeypointEncoderConfig(image_size=64, channels=(1, 1), keypoints=1)
    encoder = without_norm(KeypointEncoder(config))
    with torch.no_grad():
        for layer in encoder.convolutions[::2]:
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    places = []
    for left, top in ((8, 8), (40, 8), (40, 40)):
        picture = torch.zeros(1, 3, 64, 64)
        picture[..., top : top + 16, left : left + 16] = 1.0
        with torch.no_grad():
            places.append(encoder(picture)[0])
    # Centres at 16 and 48 of 64 px: -0.5 and 0.5 of the half edge; half a map's pixel of play.
    for place, expected in zip(places, ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5)), strict=True):
        torch.testing.assert_close(place, torch.tensor(expected), atol=1 / 16, rtol=0)


def test_large_activations_do_not_overflow():
    encoder = without_norm(KeypointEncoder(KeypointEncoderConfig(image_size=16)))
    with torch.no_grad():
        encoder.convolutions[-1].weight.mul_(1e6)
        features = encoder(torch.randn(2, 3, 16, 16))
    assert features.isfinite().all()
    assert features.abs().max() <= 1.001


def test_a_new_keypoint_encoder_already_spreads_its_features():
    """Its maps are nearly flat; the batch norm must still give every feature unit scale."""
    torch.manual_seed(1)
    encoder = KeypointEncoder(KeypointEncoderConfig()).train()
    features = encoder(torch.randn(32, 3, 64, 64))
    assert ((features.std(0) - 1).abs() < 0.1).all()


def test_eval_mode_agrees_with_training_soon_after_the_start():
    """Running statistics that start at 1 would show a collapsed model for a hundred steps."""
    torch.manual_seed(3)
    encoder = KeypointEncoder(KeypointEncoderConfig(image_size=32)).train()
    for _ in range(30):
        encoder(torch.randn(32, 3, 32, 32))
    features = encoder.eval()(torch.randn(64, 3, 32, 32))
    assert ((features.std(0) - 1).abs() < 0.4).all()


def test_vit_uses_its_class_token_and_its_size():
    torch.manual_seed(2)
    encoder = make_encoder(vit_config().encoder).eval()
    assert isinstance(encoder, VitEncoder)
    with torch.no_grad():
        picture = torch.randn(1, 3, 28, 28)
        feature = encoder(picture)
        tokens = encoder.backbone.forward_features(picture)
    assert tokens.shape == (1, 1 + 4, 12)
    assert torch.equal(feature, tokens[:, 0])


def test_the_keypoint_encoder_needs_no_timm():
    """timm takes seconds to import; the demo on a CPU does not pay for it."""
    code = (
        "import sys, lewm_core\n"
        "assert 'torch' not in sys.modules\n"
        "from lewm_core.model import WorldModel\n"
        "from test.model.models import keypoint_config\n"
        "WorldModel(keypoint_config())\n"
        "assert 'timm' not in sys.modules\n"
        "assert not any(name.split('.')[0] == 'rclpy' for name in sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("config", [keypoint_config(), vit_config(), ModelConfig(action_dim=7)])
def test_a_configuration_survives_json(config):
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VitEncoderConfig(image_size=225), "225 is not a multiple of patch_size 14"),
        (lambda: VitEncoderConfig(heads=5), "192 is not a multiple of heads 5"),
        (lambda: KeypointEncoderConfig(image_size=66), "66 is not a multiple of 4"),
        (lambda: ModelConfig(action_dim=0), "greater than or equal to 1"),
        (lambda: ModelConfig(action_dim=2, frameskip=5), "Extra inputs are not permitted"),
        (lambda: ModelConfig(action_dim=2, embedding_dim=10**9), "less than or equal to 16384"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValidationError, match=message):
        build()
