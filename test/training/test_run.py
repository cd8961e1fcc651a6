"""Who may use a run's folder."""

from __future__ import annotations

import pytest

from lewm_core.errors import ConfigError
from lewm_core.training.run import episodes_digest, open_run, read_run_config
from test.training.spots import spot_config

RECORD = {"episodes": "abc", "contract": {"name": "spots"}, "command": "lewm-train"}


@pytest.fixture
def run(tmp_path):
    """A folder that holds a run, and its settings."""
    config = spot_config(tmp_path)
    with open_run(tmp_path / "run", config, RECORD, resume=False):
        pass
    return tmp_path / "run", config


def test_a_new_run_writes_its_settings(run):
    folder, config = run
    assert read_run_config(folder) == config
    assert (folder / "run.json").exists()


def test_a_run_is_not_overwritten(run):
    folder, config = run
    before = (folder / "config.yaml").read_bytes()
    with (
        pytest.raises(ConfigError, match="already holds a run; add --resume"),
        open_run(folder, config, RECORD, resume=False),
    ):
        pass
    assert (folder / "config.yaml").read_bytes() == before


def test_other_settings_do_not_continue_it(run, tmp_path):
    folder, _ = run
    other = spot_config(tmp_path, "loss.weight=0.1")
    with (
        pytest.raises(ConfigError, match=r"loss\.weight: 0\.5 in the run, 0\.1 now"),
        open_run(folder, other, RECORD, resume=True),
    ):
        pass


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("episodes", "abd", "other episodes"), ("contract", {"name": "x"}, "another contract")],
)
def test_other_data_do_not_continue_it(run, key, value, words):
    folder, config = run
    with (
        pytest.raises(ConfigError, match=words),
        open_run(folder, config, {**RECORD, key: value}, resume=True),
    ):
        pass


def test_more_threads_continue_it(run, tmp_path):
    folder, _ = run
    with open_run(folder, spot_config(tmp_path, "threads=2"), RECORD, resume=True) as opened:
        assert read_run_config(opened.path).threads == 2


def test_resume_without_a_run_begins_one(tmp_path):
    with open_run(tmp_path / "new", spot_config(tmp_path), RECORD, resume=True) as folder:
        assert folder.config.exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with (
        pytest.raises(ConfigError, match="holds other files"),
        open_run(folder, spot_config(tmp_path), RECORD, resume=True),
    ):
        pass
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ConfigError, match="is a file"),
        open_run(tmp_path / "file", spot_config(tmp_path), RECORD, resume=False),
    ):
        pass


def test_two_processes_do_not_share_a_run(run):
    folder, config = run
    with (
        open_run(folder, config, RECORD, resume=True),
        pytest.raises(ConfigError, match="in use by another lewm-train"),
        open_run(folder, config, RECORD, resume=True),
    ):
        pass


def test_what_a_killed_save_left_is_swept_up(run):
    folder, config = run
    (folder / ".checkpoint.abc.tmp").mkdir()
    with open_run(folder, config, RECORD, resume=True):
        assert not (folder / ".checkpoint.abc.tmp").exists()


def test_the_digest_tells_the_sides_apart():
    assert episodes_digest(["a", "b"], ["c"]) == episodes_digest(["a", "b"], ["c"])
    assert episodes_digest(["a", "b"], ["c"]) != episodes_digest(["a"], ["b", "c"])
