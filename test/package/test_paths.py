"""Where shipped files are found, and what is said when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lewm_core.errors import ConfigError
from lewm_core.paths import checkpoint_path, config_path, find_shared, preset_names, shared_folder
from test.package.conftest import ROOT


def test_source_tree_goes_before_an_installed_copy() -> None:
    assert shared_folder() == ROOT
    assert find_shared("config/robots/push_t.yaml") == ROOT / "config/robots/push_t.yaml"


def test_preset_by_name_and_by_path(tmp_path: Path) -> None:
    assert config_path("robots", "push_t") == ROOT / "config/robots/push_t.yaml"
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\n")
    assert config_path("robots", own) == own
    assert "push_t" in preset_names("robots")


def test_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"push_x: .*config/robots .*push_t"):
        config_path("robots", "push_x")


def test_missing_file_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"push_q\.yaml is missing; did you mean push_t\.yaml"):
        find_shared("config/robots/push_q.yaml")


def test_unknown_checkpoint_is_one_line(tmp_path: Path) -> None:
    assert checkpoint_path(tmp_path) == tmp_path
    with pytest.raises(ConfigError, match="nowhere: no such checkpoint folder") as caught:
        checkpoint_path("nowhere")
    assert "\n" not in str(caught.value)
