"""Pictures the model is shown: of its cameras and of goals, checked against the contract."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.bags import BagReader
from lewm_core.data.contract_parts import Camera
from lewm_core.data.images import LARGEST_COMPRESSED, decode_compressed, prepare_picture
from lewm_core.data.images import decode_message as decode_recorded
from lewm_core.errors import ImageError
from lewm_ros.codecs import decode_message

#: s after a bag's last picture that still mean it.
_BAG_END_S = 1.0
#: Brightness (0 to 255) that 99 of 100 values of a black picture do not reach, and the spread of
#: each colour in a picture that shows nothing: sensors have more noise, scenes more contrast.
_BLACK_BELOW = 16
_PLAIN_BELOW = 4
#: Stands for a camera's name in the path of a goal.
_CAMERA = "{camera}"
#: A goal out of a bag: ``bag:FOLDER@12.5s`` or ``bag:FOLDER@end``.
_BAG = "bag:"
_BAG_GOAL = re.compile(r"(?P<path>.+)@(?:(?P<seconds>\d+(?:\.\d*)?|\.\d+)s?|end)")

#: A goal that is what the cameras show at the moment.
CAPTURE = "capture"


def picture_from_message(message: Any, camera: Camera, image_size: int) -> NDArray[np.uint8]:
    """Return the part of a message's picture that the model sees.

    Args:
        message: ``sensor_msgs/msg/Image`` or ``CompressedImage``.
        camera: The contract's; the picture must have its size.
        image_size: Edge of the model's picture, px.

    Returns:
        ``(3, S, S)`` uint8 RGB.

    Raises:
        ImageError: The encoding is not known, the data are damaged, or the size is another.
    """
    return _prepare(decode_message(message), camera, image_size, f"picture on {camera.topic}")


def goal_from_messages(
    messages: Sequence[Any], cameras: Sequence[Camera], image_size: int
) -> NDArray[np.uint8]:
    """Return a goal that came in a request, one picture of each of the model's cameras.

    Args:
        messages: ``sensor_msgs/msg/Image``, in the order of ``cameras``.
        cameras: C that the model sees.
        image_size: Edge of the model's picture, px.

    Returns:
        ``(3 C, S, S)`` uint8 RGB.

    Raises:
        ImageError: One picture too many or too few, one cannot be decoded, or has another size
            than its camera's pictures.
    """
    if len(messages) != len(cameras):
        raise ImageError(
            f"the goal has {len(messages)} pictures: give one of each camera of the model, "
            f"{', '.join(camera.name for camera in cameras)}, in this order"
        )
    pictures = [
        _prepare(decode_message(message), camera, image_size, "goal picture")
        for message, camera in zip(messages, cameras, strict=True)
    ]
    return np.concatenate(pictures)


def goal_from_text(
    text: str, cameras: Sequence[Camera], image_size: int
) -> NDArray[np.uint8]:
    """Read a goal that is named: a picture file, or a moment of a bag.

    Args:
        text: A path for `goal_from_file`, or ``bag:FOLDER@12.5s``: seconds since the bag's first
            picture; ``bag:FOLDER@end`` is its last picture.
        cameras: C that the model sees.
        image_size: Edge of the model's picture, px.

    Returns:
        ``(3 C, S, S)`` uint8 RGB.

    Raises:
        UserError: It cannot be read, or holds no picture that fits.
    """
    if not text.startswith(_BAG):
        return goal_from_file(text, cameras, image_size)
    match = _BAG_GOAL.fullmatch(text.removeprefix(_BAG))
    if match is None:
        raise ImageError(
            f"goal {text}: write bag:FOLDER@12.5s (seconds since the first picture) or "
            "bag:FOLDER@end"
        )
    seconds = math.inf if match["seconds"] is None else float(match["seconds"])
    path = Path(match["path"]).expanduser()
    with BagReader(path) as bag:
        pictures = [
            _prepare(_picture_at(bag, camera, seconds), camera, image_size, f"goal {text}")
            for camera in cameras
        ]
    return np.concatenate(pictures)


def _picture_at(bag: BagReader, camera: Camera, seconds: float) -> NDArray[np.uint8]:
    """Return the newest picture of a camera at a time of a bag, (H, W, 3)."""
    first_ns = newest = None
    # Not decoded on the way: a bag is long.
    for message in bag.raw([camera.topic]):
        first_ns = message.receive_ns if first_ns is None else first_ns
        if newest is not None and (message.receive_ns - first_ns) * 1e-9 > seconds:
            break
        newest = message
    else:
        if newest is not None and math.isfinite(seconds):
            lasts_s = (newest.receive_ns - first_ns) * 1e-9
            if seconds > lasts_s + _BAG_END_S:
                raise ImageError(
                    f"{bag.path} has pictures on {camera.topic} for {lasts_s:.1f} s, "
                    f"{seconds:g} s is past its end: write @end for the last one"
                )
    if newest is None:
        raise ImageError(
            f"{bag.path} has no picture on {camera.topic}; it has {', '.join(sorted(bag.topics))}"
        )
    return decode_recorded(bag.decode(newest.type_name, newest.data))


def goal_from_file(
    path: str | Path, cameras: Sequence[Camera], image_size: int
) -> NDArray[np.uint8]:
    """Read a goal from PNG or JPEG files.

    Args:
        path: For several cameras with ``{camera}`` in it, which stands for each one's name.
        cameras: C that the model sees.
        image_size: Edge of the model's picture, px.

    Returns:
        ``(3 C, S, S)`` uint8 RGB.

    Raises:
        ImageError: A file is missing, too large, not a picture, or of another size.
    """
    if len(cameras) == 1:
        return _read_file(Path(path), cameras[0], image_size)
    if _CAMERA not in str(path):
        raise ImageError(
            f"goal {path} is one file, the model sees {len(cameras)} cameras "
            f"({', '.join(camera.name for camera in cameras)}): write {_CAMERA} in its name where "
            "theirs belong"
        )
    return np.concatenate(
        [
            _read_file(Path(str(path).replace(_CAMERA, camera.name)), camera, image_size)
            for camera in cameras
        ]
    )


def _read_file(path: Path, camera: Camera, image_size: int) -> NDArray[np.uint8]:
    """Read one picture as ``(3, S, S)``."""
    try:
        file = path.expanduser()
    except RuntimeError as error:
        raise ImageError(f"goal {path}: {error}; give a whole path") from error
    try:
        # Of a pipe or a device, reading might never end.
        if not file.is_file():
            raise ImageError(f"goal {file} is not a file: give a PNG or JPEG")
        size = file.stat().st_size
        if size > LARGEST_COMPRESSED:
            raise ImageError(
                f"goal {file} has {size} bytes; a picture of the camera has less than "
                f"{LARGEST_COMPRESSED}"
            )
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        # ValueError: a name with a zero byte in it.
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"goal {file} cannot be read: {reason}") from error
    try:
        picture = decode_compressed(data)
    except ImageError as error:
        raise ImageError(f"goal {file}: {error}") from error
    return _prepare(picture, camera, image_size, f"goal {file}")


def _prepare(
    picture: NDArray[np.uint8], camera: Camera, image_size: int, what: str
) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if (width, height) != tuple(camera.size):
        raise ImageError(
            f"{what} is {width}x{height} px, but the contract's camera {camera.name!r} has "
            f"{camera.size[0]}x{camera.size[1]} px: use a picture of that camera"
        )
    prepared = prepare_picture(picture, camera.crop, image_size)
    problem = _blank(prepared)
    if problem:
        raise ImageError(f"{what} shows nothing: {problem}")
    return prepared


def _blank(picture: NDArray[np.uint8]) -> str:
    """Return why a picture ``(3, S, S)`` shows nothing; empty if it shows something."""
    if np.count_nonzero(picture >= _BLACK_BELOW) < picture.size / 100:
        return "it is black; take off the lens cap, give light, look at the exposure"
    if np.ptp(picture.reshape(3, -1), axis=1).max() < _PLAIN_BELOW:
        return "it is all of one colour; look at the lens and the exposure"
    return ""
