"""A page that shows what a run did: verdict, table, pictures, timings, configuration."""

from __future__ import annotations

import base64
import importlib.resources
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


@dataclass
class GoalRow:
    """One goal in a report.

    Attributes:
        number: From 1.
        pictures: What to show of it by title, each ``(H, W, 3)`` uint8 RGB.
        success: Policy name to whether it met the scene's criterion at any time.
        details: Column title to text, for example errors before and after.
    """

    number: int
    pictures: Mapping[str, Picture]
    success: Mapping[str, bool]
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What `write_html` lays out.

    Attributes:
        title: Heading of the page.
        verdict: One sentence with the main number.
        totals: Rows of the success table: policy, successes, goals, interval as text.
        goals: One row for each goal.
        timings: Name to text with its unit.
        configuration: Everything needed to run it again.
        video: File name beside the page, or None.
    """

    title: str
    verdict: str
    totals: Sequence[Sequence[str]]
    goals: Sequence[GoalRow]
    timings: Mapping[str, str]
    configuration: Mapping[str, Any]
    video: str | None = None


def describe_machine() -> str:
    """Return processor, cores in use and operating system, without the host's name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cores} cores, {platform.system()} {platform.machine()}"


def picture_as_data_url(picture: Picture) -> str:
    """Return ``picture`` ``(H, W, 3)`` uint8 RGB as a PNG inside a ``data:`` URL."""
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def write_html(path: Path, report: Report) -> None:
    """Write ``report`` as one page that needs no network; a video stays a file beside it.

    Args:
        path: The page; replaced if it exists.
        report: Its content.
    """
    template = importlib.resources.files("lewm_core.evaluation").joinpath("templates/report.html")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_url"] = picture_as_data_url
    page = environment.from_string(template.read_text()).render(report=report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
