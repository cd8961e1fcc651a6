"""Settings: presets, overrides, and errors that name the nearest key."""

from __future__ import annotations

import pytest

from lewm_core.errors import ConfigError
from lewm_core.paths import preset_names
from lewm_core.training.config import config_differences, load_train_config
from test.training.spots import open_spots, write_settings


@pytest.mark.parametrize("preset", ["nano", "small", "paper"])
def test_presets_load_and_survive_a_round_trip(preset, tmp_path):
    config = load_train_config(preset, action_dim=2)
    assert config.name == preset
    written = tmp_path / "config.yaml"
    written.write_text(config.to_yaml())
    assert load_train_config(written, action_dim=2) == config
    assert preset in preset_names("train")


def test_paper_is_the_published_recipe():
    config = load_train_config("paper", action_dim=2)
    assert (config.batch_size, config.epochs, config.clip_length) == (128, 10, 4)
    assert (config.optimiser.learning_rate, config.optimiser.weight_decay) == (5e-5, 1e-3)
    assert (config.optimiser.warmup, config.optimiser.gradient_clip) == (0.01, 1.0)
    assert (config.loss.weight, config.loss.directions, config.loss.knots) == (0.09, 1024, 17)
    assert (config.loss.rollout_steps, config.loss.stop_gradient) == (1, False)
    assert (config.model.history, config.model.frame_skip) == (3, 5)
    assert config.model.predictor.dropout == 0.1
    assert config.model.image_size == 224


def test_overrides_win_and_are_typed(tmp_path):
    path = write_settings(tmp_path / "a.yaml")
    config = load_train_config(
        path, ["loss.weight=0.25", "batch_size=8", "compile=true"], action_dim=3
    )
    assert config.loss.weight == 0.25
    assert config.batch_size == 8
    assert config.compile is True
    assert config.model.action_dim == 3
    assert config.loss.directions == 32


def test_a_group_that_the_preset_leaves_out_is_made_by_naming_a_setting():
    assert load_train_config("paper", action_dim=2).refinement is None
    config = load_train_config("paper", ["refinement.steps=7000"], action_dim=2)
    assert config.refinement is not None
    assert (config.refinement.steps, config.refinement.batch_size) == (7000, 256)
    assert load_train_config("nano", ["refinement=null"], action_dim=2).refinement is None


def test_epochs_take_the_place_of_steps(tmp_path, spots):
    data, config = open_spots(spots, tmp_path, "epochs=2")
    clips = data.train_sampler(config).number_of_clips
    assert config.steps == round(2 * clips / config.batch_size)
    assert config.epochs is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lss.weight=1", ["'lss'", "did you mean 'loss'"]),
        ("loss.weigth=1", ["'loss.weigth'", "did you mean 'weight'"]),
        ("batch_sise=4", ["'batch_sise'", "did you mean 'batch_size'"]),
        ("model.encoder.keypoint=4", ["model.encoder", "did you mean 'keypoints'"]),
        ("model.encoder.image_size=17", ["model.encoder", "not a multiple of 4"]),
        ("batch_size=many", ["batch_size", "many"]),
        ("batch_size", ["'batch_size' is not key=value", "loss.weight=0.3"]),
        ("=3", ["is not key=value"]),
        ("batch_size=[1", ["is not a YAML value"]),
        ("batch_size.more=1", ["'batch_size' holds no further keys"]),
        ("loss.rollout_steps=6", ["clip_length 4 is too short", "needs 7"]),
        ("steps=null", ["either steps or epochs"]),
        ("model.action_dim=7", ["model.action_dim is 7", "has 2 action fields"]),
        ("device=gpu", ["device"]),
    ],
)
def test_bad_overrides_name_the_mend(override, words, tmp_path):
    path = write_settings(tmp_path / "a.yaml")
    with pytest.raises(ConfigError) as error:
        load_train_config(path, [override], action_dim=2)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_preset_lists_the_presets():
    with pytest.raises(ConfigError, match="nano, paper, small"):
        load_train_config("nanoo", action_dim=2)


def test_differences_leave_out_what_moves_no_weight(tmp_path):
    path = write_settings(tmp_path / "a.yaml")
    before = load_train_config(path, action_dim=2)
    after = load_train_config(
        path,
        ["threads=2", "log_every=1", "monitor.state_r2=0.3", "loss.weight=0.1", "seed=4"],
        action_dim=2,
    )
    assert config_differences(before, after) == [
        "loss.weight: 0.5 in the run, 0.1 now",
        "seed: 0 in the run, 4 now",
    ]
