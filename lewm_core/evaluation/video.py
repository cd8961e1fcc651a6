"""Videos of what a policy did: the camera beside the goal, with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

_CAPTION_HEIGHT = 40  # px
_BACKGROUND = (24, 26, 30)  # RGB
_TEXT = (235, 235, 235)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def side_by_side(
    panels: Sequence[Picture], titles: Sequence[str], caption: str, height: int = 320
) -> Picture:
    """Put pictures next to each other under their titles, with a caption below.

    Args:
        panels: RGB pictures, each ``(H, W, 3)`` uint8; scaled to one height.
        titles: One for each panel.
        caption: One line under all of them.
        height: px of the scaled panels.

    Returns:
        ``(height + 80, W, 3)`` uint8 RGB; both sides are even, as H.264 needs.

    Raises:
        ValueError: As many titles as panels are needed, and at least one.
    """
    if not panels or len(panels) != len(titles):
        raise ValueError(f"{len(panels)} panels and {len(titles)} titles; one title for each panel")
    columns = []
    for panel, title in zip(panels, titles, strict=True):
        width = max(2, round(panel.shape[1] * height / panel.shape[0]) // 2 * 2)
        scaled = cv2.resize(panel, (width, height), interpolation=cv2.INTER_CUBIC)
        columns.append(np.concatenate([_banner(width, title), scaled], axis=0))
    row = np.concatenate(columns, axis=1)
    return np.concatenate([row, _banner(row.shape[1], caption)], axis=0)


def _banner(width: int, text: str) -> Picture:
    banner = np.full((_CAPTION_HEIGHT, width, 3), _BACKGROUND, np.uint8)
    cv2.putText(banner, text, (10, 26), _FONT, 0.55, _TEXT, 1, cv2.LINE_AA)
    return banner


class VideoWriter:
    """Writes RGB frames as H.264 in MP4, which browsers play.

    Use it as a context manager: the file is complete only after `close`.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        """Open ``path`` for writing when the first frame comes.

        Args:
            path: The MP4 file; replaced if it exists.
            frames_per_second: Hz of the playback.
        """
        self._path = path
        self._rate = frames_per_second
        self._size: tuple[int, int] | None = None
        self._sink = None

    def add(self, frame: Picture) -> None:
        """Append a frame.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB with even H and W; all frames have one size.

        Raises:
            ValueError: The size is odd or differs from the first frame's.
        """
        height, width = frame.shape[:2]
        if self._sink is None:
            if height % 2 or width % 2:
                raise ValueError(f"{width} x {height} px: H.264 needs even sides")
            self._size = (width, height)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = imageio_ffmpeg.write_frames(
                str(self._path), self._size, fps=self._rate, codec="libx264", macro_block_size=2
            )
            self._sink.send(None)
        if self._size != (width, height):
            raise ValueError(f"a frame of {width} x {height} px in a video of {self._size} px")
        self._sink.send(np.ascontiguousarray(frame))

    def close(self) -> None:
        """Finish the file."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
