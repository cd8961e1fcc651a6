"""Names that come in messages and parameters stay inside their folder."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("lewm_ros.msg", reason="the interfaces are not built")

from lewm_core.errors import ImageError  # noqa: E402
from lewm_ros.planner.goals import goal_from_file  # noqa: E402
from lewm_ros.record_dataset.dataset_folder import free_folder  # noqa: E402
from test.data.synthetic import small_contract  # noqa: E402


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "..", "a/../..", "x\0y", "\n", "x" * 1000, "~root", ""]
)
def test_an_episode_is_recorded_into_the_datasets_folder(tmp_path, name):
    folder = free_folder(tmp_path, name, "episode_")
    assert folder.parent == tmp_path and folder.resolve().parent == tmp_path.resolve()
    folder.mkdir()


def test_a_recorder_does_not_leave_its_folder_by_the_prefix(graph):
    line = graph.refuse(
        "record_dataset", {"out": str(graph.folder / "data"), "episode_prefix": "../x"}
    )
    assert "episode_prefix is '../x'" in line


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-that-name/x", "x" * 5000, "/dev/zero", "."])
def test_a_goal_that_is_no_file_is_refused(name):
    with pytest.raises(ImageError, match="^goal "):
        goal_from_file(name, small_contract().cameras, 16)
