"""Which Fast DDS profile is applied when, and what is cleaned up."""

import fcntl
import os
import time
import xml.etree.ElementTree as ElementTree

import pytest

from lewm_core.errors import ConfigError
from lewm_core.paths import shared_folder
from lewm_ros.dds import PROFILE_VARIABLES, apply_profile, clean_shared_memory

SPACE = "{http://www.eprosima.com}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for variable in (*PROFILE_VARIABLES.values(), "LEWM_DDS_PROFILE", "RMW_IMPLEMENTATION"):
        # Set and delete, so that what the test sets is undone as well.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("version", [2, 3])
def test_each_version_gets_its_variable_and_its_file(monkeypatch, tmp_path, version):
    package = "fastdds" if version == 3 else "fastrtps"
    (tmp_path / "share" / package).mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    applied = apply_profile()
    assert applied is not None and applied.name == f"host.fastdds{version}.xml"
    assert os.environ[PROFILE_VARIABLES[version]] == str(applied)
    assert PROFILE_VARIABLES[5 - version] not in os.environ


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FASTDDS_DEFAULT_PROFILES_FILE", "/my/own.xml"),
        ("FASTRTPS_DEFAULT_PROFILES_FILE", "/my/own.xml"),
        ("LEWM_DDS_PROFILE", "none"),
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp"),
    ],
)
def test_the_users_choice_is_left_alone(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    assert apply_profile() is None
    assert dict(os.environ) == before


def test_a_profile_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("LEWM_DDS_PROFILE", "hosst")
    with pytest.raises(ConfigError, match="hosst"):
        apply_profile()


def test_both_files_say_the_same():
    folder = shared_folder() / "config" / "fastdds"
    trees = [
        ElementTree.fromstring((folder / f"host.fastdds{version}.xml").read_text())
        for version in (2, 3)
    ]

    def content(tree):
        names = {"heartbeatPeriod": "heartbeat_period"}
        return [
            (names.get(tag := element.tag.removeprefix(SPACE), tag), (element.text or "").strip())
            for element in tree.iter()
        ]

    assert content(trees[0]) == content(trees[1])
    values = dict(content(trees[0]))
    # Seventeen pictures of 640x480, and one of 1080p in one piece.
    assert int(values["segment_size"]) >= 17 * 640 * 480 * 3
    assert int(values["maxMessageSize"]) >= 1920 * 1080 * 3


def test_only_segments_that_nobody_holds_are_removed(tmp_path):
    for name in ("fastrtps_dead", "fastrtps_alive", "fastrtps_young", "other"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / f"{name}_el").write_bytes(b"")
        if name != "fastrtps_young":
            os.utime(tmp_path / f"{name}_el", (time.time() - 60,) * 2)
    (tmp_path / "sem.fastrtps_dead_mutex").write_bytes(b"")
    with (tmp_path / "fastrtps_alive_el").open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_SH)
        removed = clean_shared_memory(tmp_path)
    assert sorted(removed) == ["fastrtps_dead", "fastrtps_dead_el", "sem.fastrtps_dead_mutex"]
    assert len(list(tmp_path.iterdir())) == 6
