"""Pictures: from the bytes of ROS messages to the array that the model gets.

`prepare_picture` is the only place where pictures are cropped and resized: the trainer and the
planner both call it, so that what the model sees on the robot is what it was trained on.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from lewm_core.errors import ImageError
from lewm_core.reading import LARGEST_PIXELS
from lewm_core.validation import nearest

#: Channels of the raw encodings that need nothing but numpy and OpenCV.
ENCODINGS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of a JPEG or PNG file.
LARGEST_COMPRESSED = 64 * 2**20

_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}

# JPEG markers that begin a frame (SOF0 to SOF15 without DHT, JPG and DAC).
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_image(
    encoding: str,
    height: int,
    width: int,
    step: int,
    data: Any,
    is_bigendian: int = 0,
) -> np.ndarray:
    """Return the picture of a ``sensor_msgs/Image``.

    Args:
        encoding: One of `ENCODINGS`.
        height: px.
        width: px.
        step: Bytes per row; may be larger than the pixels need.
        data: The pixels: anything with the buffer protocol.
        is_bigendian: Of no consequence, since all known encodings have 8 bits a channel.

    Returns:
        ``(H, W, 3)`` uint8 RGB; for rgb8 a view of ``data`` (read it, do not keep it).

    Raises:
        ImageError: The encoding is unknown, or the sizes contradict each other.
    """
    channels = ENCODINGS.get(encoding)
    if channels is None:
        near = nearest(encoding, ENCODINGS)
        hint = f" (did you mean {near}?)" if near else ""
        raise ImageError(
            f"unknown encoding {encoding!r}{hint}; known are {', '.join(ENCODINGS)}: "
            "let the camera driver publish one of them"
        )
    _check_size(width, height)
    if step < width * channels:
        raise ImageError(
            f"step {step} is under the {width * channels} bytes that {width} px of {encoding} need"
        )
    pixels = np.frombuffer(data, dtype=np.uint8)
    # The last row may come without its padding.
    if pixels.size < step * (height - 1) + width * channels:
        raise ImageError(
            f"{pixels.size} bytes are too few for {width} x {height} px of {encoding} "
            f"with a step of {step}"
        )
    rows = np.lib.stride_tricks.as_strided(
        pixels,
        shape=(height, width, channels),
        strides=(step, channels, 1),
        writeable=False,
    )
    if encoding == "rgb8":
        return rows
    return cv2.cvtColor(np.ascontiguousarray(rows), _TO_RGB[encoding])


def decode_compressed(data: Any) -> np.ndarray:
    """Return the picture of a ``sensor_msgs/CompressedImage``.

    Args:
        data: A JPEG or PNG file: anything with the buffer protocol.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        ImageError: It is neither, is damaged, or has more than `LARGEST_PIXELS`.
    """
    packed = np.frombuffer(data, dtype=np.uint8)
    if packed.size > LARGEST_COMPRESSED:
        raise ImageError(
            f"a compressed picture has {packed.size} bytes, {LARGEST_COMPRESSED} are allowed"
        )
    width, height = picture_size(packed.data)
    _check_size(width, height)
    _check_png_chunks(packed.data)
    try:
        picture = cv2.imdecode(packed, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"a compressed picture of {width} x {height} px: {error}") from error
    # Two headers may say two sizes.
    if picture is None or picture.shape[:2] != (height, width):
        raise ImageError(f"a compressed picture of {width} x {height} px is damaged")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def decode_message(message: Any) -> np.ndarray:
    """Return the picture of an rclpy or rosbags ``Image`` or ``CompressedImage``.

    Returns:
        ``(H, W, 3)`` uint8 RGB, possibly a view of the message's data.

    Raises:
        ImageError: The picture cannot be decoded.
    """
    if hasattr(message, "encoding"):
        return decode_image(
            message.encoding,
            message.height,
            message.width,
            message.step,
            message.data,
            message.is_bigendian,
        )
    return decode_compressed(message.data)


def picture_size(data: bytes | memoryview) -> tuple[int, int]:
    """Return (width, height) in px of a JPEG or PNG file from its header alone.

    Raises:
        ImageError: It is neither, or its header is damaged.
    """
    view = memoryview(data)
    try:
        if bytes(view[:8]) == _PNG_SIGNATURE:
            width, height = struct.unpack_from(">II", view, 16)
            return width, height
        if bytes(view[:3]) == b"\xff\xd8\xff":
            return _jpeg_size(view)
    except (struct.error, IndexError) as error:
        raise ImageError("a compressed picture ends inside its header") from error
    raise ImageError("a compressed picture is neither JPEG nor PNG; publish one of these")


def prepare_picture(
    picture: np.ndarray, crop: Sequence[int] | None, image_size: int
) -> np.ndarray:
    """Crop a picture and resize it to what the model sees.

    A crop that is not square is squeezed, not cut: what the model must see stays in the picture.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        crop: ``[x, y, width, height]`` in px, None for the whole picture.
        image_size: S, px.

    Returns:
        ``(3, S, S)`` uint8, contiguous and owned by the caller.

    Raises:
        ImageError: The picture has another shape, or the crop reaches outside of it.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ImageError(
            f"a picture must be (H, W, 3) uint8, not {picture.shape} {picture.dtype}"
        )
    height, width = picture.shape[:2]
    if crop is not None:
        x, y, crop_width, crop_height = crop
        if x + crop_width > width or y + crop_height > height:
            raise ImageError(
                f"crop {list(crop)} reaches outside a picture of {width} x {height} px"
            )
        picture = picture[y : y + crop_height, x : x + crop_width]
        height, width = crop_height, crop_width
    if (height, width) != (image_size, image_size):
        # INTER_AREA averages, which is right for shrinking only: enlarging it repeats pixels.
        shrinks = height >= image_size and width >= image_size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (image_size, image_size), interpolation=method)
    return picture.transpose(2, 0, 1).copy()


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f"a picture of {width} x {height} px is empty")
    if width * height > LARGEST_PIXELS:
        raise ImageError(
            f"a picture claims {width} x {height} px; more than "
            f"{LARGEST_PIXELS // 1_000_000} megapixels are refused"
        )


def _check_png_chunks(view: memoryview) -> None:
    """Check that a PNG's chunks end inside it; another file has none.

    OpenCV asks for the memory that a chunk claims, up to 2 GiB, before it looks for its bytes.

    Raises:
        ImageError: One claims more bytes than there are.
    """
    if bytes(view[:8]) != _PNG_SIGNATURE:
        return
    position, kind = 8, b""
    # What comes after the end is not read.
    while kind != b"IEND" and position + 8 <= len(view):
        (length,) = struct.unpack_from(">I", view, position)
        kind = bytes(view[position + 4 : position + 8])
        position += 12 + length
        if position > len(view):
            raise ImageError(
                f"a PNG picture is damaged: it claims a chunk of {length} bytes that are not there"
            )


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    position = 2
    while True:
        if view[position] != 0xFF:
            raise ImageError("a JPEG picture has a damaged header")
        marker = view[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", view, position + 5)
            return width, height
        (length,) = struct.unpack_from(">H", view, position + 2)
        position += 2 + length
