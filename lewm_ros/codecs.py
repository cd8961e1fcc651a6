"""Between ROS messages and arrays, on the fast path.

Filling ``Image.data`` element by element takes 30 to 100 times longer than it need: the message
class checks every element of a list. It takes an ``array.array('B')`` as it is, and a memoryview
writes into that without a copy more than the one that is needed.
"""

from __future__ import annotations

import array
import importlib
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lewm_core.data.images import ENCODINGS
from lewm_core.data.images import decode_message as decode_directly
from lewm_core.errors import ImageError
from lewm_ros.stamps import ns_to_stamp, stamp_to_ns

__all__ = [
    "ImageFiller",
    "decode_by_cv_bridge",
    "decode_message",
    "encode_compressed",
    "encode_image",
    "ns_to_stamp",
    "stamp_to_ns",
]

#: Encodings that `encode_image` writes: number of channels, and the OpenCV conversion from RGB.
_FROM_RGB: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_RGB2BGR),
    "rgba8": (4, cv2.COLOR_RGB2RGBA),
    "bgra8": (4, cv2.COLOR_RGB2BGRA),
    "mono8": (1, cv2.COLOR_RGB2GRAY),
}


class ImageFiller:
    """Fills one reused `sensor_msgs.msg.Image`, without an allocation per picture.

    The message may be published again and again: publishing serialises it, so the next `fill`
    does not change what was sent.
    """

    def __init__(self, frame_id: str = "", encoding: str = "rgb8") -> None:
        """Make an empty message.

        Args:
            frame_id: Of the header.
            encoding: One of `lewm_core.data.images.ENCODINGS`.

        Raises:
            ImageError: For another encoding.
        """
        self.message = Image()
        self.message.header.frame_id = frame_id
        self.message.encoding = encoding
        self._channels, self._conversion = _conversion(encoding)
        self._view: memoryview = memoryview(b"")

    def fill(self, picture: np.ndarray, stamp_ns: int) -> Image:
        """Put a picture into the message and return it.

        Args:
            picture: (H, W, 3) uint8 RGB.
            stamp_ns: Time of the picture.

        Raises:
            ImageError: If the picture has another shape or type.
        """
        _check_picture(picture)
        height, width = picture.shape[:2]
        size = height * width * self._channels
        message = self.message
        if len(self._view) != size:
            message.data = array.array("B", bytes(size))
            # Of the message's own array: Jazzy keeps a copy of what it is given, Kilted the thing.
            self._view = memoryview(message.data)
        message.height, message.width = height, width
        message.step = width * self._channels
        message.header.stamp = ns_to_stamp(stamp_ns)
        if self._conversion is None:
            target = np.frombuffer(self._view, np.uint8).reshape(picture.shape)
            np.copyto(target, picture)
        else:
            converted = cv2.cvtColor(np.ascontiguousarray(picture), self._conversion)
            self._view[:] = memoryview(converted).cast("B")
        return message


def encode_image(
    picture: np.ndarray, stamp_ns: int = 0, frame_id: str = "", encoding: str = "rgb8"
) -> Image:
    """Return a new Image message.

    Args:
        picture: (H, W, 3) uint8 RGB.
        stamp_ns: Time of the picture.
        frame_id: Of the header.
        encoding: One of `lewm_core.data.images.ENCODINGS`.

    Raises:
        ImageError: If the picture or the encoding is another.
    """
    return ImageFiller(frame_id, encoding).fill(picture, stamp_ns)


def encode_compressed(
    picture: np.ndarray, stamp_ns: int = 0, frame_id: str = "", file_format: str = "jpeg"
) -> CompressedImage:
    """Return a new CompressedImage message.

    Args:
        picture: (H, W, 3) uint8 RGB.
        stamp_ns: Time of the picture.
        frame_id: Of the header.
        file_format: ``"jpeg"`` (quality 95) or ``"png"`` (without loss).

    Raises:
        ImageError: If the picture or the format is another.
    """
    _check_picture(picture)
    if file_format not in ("jpeg", "png"):
        raise ImageError(f"compressed format {file_format!r} is not known: use 'jpeg' or 'png'")
    _, data = cv2.imencode(f".{file_format}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    message = CompressedImage(format=file_format)
    message.header.frame_id = frame_id
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.data = array.array("B", data.tobytes())
    return message


def decode_message(message: Any) -> np.ndarray:
    """Return the picture in an Image or CompressedImage message.

    The common encodings become arrays without a copy where the layout allows it (the array is
    then a view of the message's data) or by OpenCV; other ones go through ``cv_bridge`` where it
    is installed.

    Args:
        message: `sensor_msgs.msg.Image` or `sensor_msgs.msg.CompressedImage`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: If the encoding is not known here and there is no ``cv_bridge``, or if the
            data do not fit the size that the message states.
    """
    if isinstance(message, CompressedImage) or message.encoding in ENCODINGS:
        return decode_directly(message)
    return decode_by_cv_bridge(message)


def decode_by_cv_bridge(message: Image) -> np.ndarray:
    """Return an Image's picture by ``cv_bridge``, as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: If ``cv_bridge`` is not installed or refuses the encoding.
    """
    try:
        # Part of a ROS installation, not on PyPI: the modules of that name there are for ROS 1.
        bridge = importlib.import_module("cv_bridge").CvBridge()
    except ImportError as error:
        raise ImageError(
            f"image encoding {message.encoding!r} is not one of {', '.join(ENCODINGS)}, "
            "and cv_bridge is not installed: convert the topic or install ros-$ROS_DISTRO-cv-bridge"
        ) from error
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except Exception as error:  # CvBridgeError, which is only there with cv_bridge
        raise ImageError(f"image encoding {message.encoding!r}: cv_bridge says {error}") from error


def _conversion(encoding: str) -> tuple[int, int | None]:
    if encoding not in _FROM_RGB:
        raise ImageError(
            f"image encoding {encoding!r} cannot be written: use one of {', '.join(_FROM_RGB)}"
        )
    return _FROM_RGB[encoding]


def _check_picture(picture: np.ndarray) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ImageError(
            f"a picture is (H, W, 3) uint8 RGB, not {picture.shape} {picture.dtype}"
        )
