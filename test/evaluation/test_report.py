"""The video plays back what was written; the page shows what the report says."""

from __future__ import annotations

import html.parser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lewm_core.evaluation.report import GoalRow, Report, describe_machine, write_html
from lewm_core.evaluation.video import VideoWriter, side_by_side


def test_video_plays_back_the_frames_that_went_in(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    levels = [40, 120, 200]
    with VideoWriter(path, frames_per_second=10) as video:
        for level in levels:
            video.add(np.full((64, 96, 3), level, np.uint8))
    capture = cv2.VideoCapture(str(path))
    means = []
    while True:
        more, frame = capture.read()
        if not more:
            break
        assert frame.shape == (64, 96, 3)
        means.append(frame.mean())
    assert means == pytest.approx(levels, abs=4)


def test_video_refuses_frames_that_h264_cannot_hold(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "video.mp4", frames_per_second=10) as video:
        with pytest.raises(ValueError, match="even sides"):
            video.add(np.zeros((63, 96, 3), np.uint8))
        video.add(np.zeros((64, 96, 3), np.uint8))
        with pytest.raises(ValueError, match="in a video of"):
            video.add(np.zeros((64, 64, 3), np.uint8))


def test_side_by_side_scales_panels_to_one_height() -> None:
    red = np.zeros((50, 50, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((100, 200, 3), np.uint8)
    blue[..., 2] = 255
    frame = side_by_side([red, blue], ["camera", "goal"], "goal 1 of 10", height=100)
    assert frame.shape == (180, 300, 3)
    assert frame[90, 50].tolist() == [255, 0, 0]
    assert frame[90, 250].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="one title for each panel"):
        side_by_side([red], ["camera", "goal"], "")


class _Texts(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.images = 0

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"


def test_page_shows_every_goal_and_escapes_text(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    report = Report(
        title="Push-T <demo>",
        verdict="1 of 2 goals reached",
        totals=[("planner", "1 / 2", "50 %", "9 to 91 %")],
        goals=[
            GoalRow(1, {"start": picture, "goal": picture}, {"planner": True}, {"error": "3 mm"}),
            GoalRow(2, {"start": picture, "goal": picture}, {"planner": False}, {"error": "90 mm"}),
        ],
        timings={"plan p50": "12 ms"},
        configuration={"seed": 0},
    )
    write_html(tmp_path / "report.html", report)
    parser = _Texts()
    parser.feed((tmp_path / "report.html").read_text())
    assert "Push-T <demo>" in parser.texts
    assert parser.texts.count("reached") == 1 and parser.texts.count("no") == 1
    assert parser.images == 4
    assert {"3 mm", "90 mm", "12 ms"} <= set(parser.texts)


def test_machine_is_described_by_processor_and_cores() -> None:
    assert "cores" in describe_machine()
