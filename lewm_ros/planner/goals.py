"""Pictures the model is shown: of its cameras and of goals, checked against the contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.contract import Camera
from lewm_core.data.images import LARGEST_COMPRESSED, decode_compressed, prepare_picture
from lewm_core.errors import ImageError
from lewm_ros.codecs import decode_message

#: Stands for a camera's name in the path of a goal.
_CAMERA = "{camera}"


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
    return prepare_picture(picture, camera.crop, image_size)
