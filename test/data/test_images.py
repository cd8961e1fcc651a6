"""Pictures: every encoding gives the same RGB, and what cannot be one is refused."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from lewm_core.data.images import (
    decode_compressed,
    decode_image,
    picture_size,
    prepare_picture,
)
from lewm_core.errors import ImageError

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encoded(encoding: str) -> np.ndarray:
    """Return `RGB` in another encoding, ``(H, W, C)``."""
    if encoding == "mono8":
        return RGB[..., :1]
    alpha = np.full((6, 8, 1), 77, np.uint8)
    return {
        "rgb8": RGB,
        "bgr8": RGB[..., ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[..., ::-1], alpha], axis=2),
    }[encoding]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("container", [bytes, bytearray, np.array])
def test_encodings(encoding: str, padding: int, container: type) -> None:
    pixels = encoded(encoding)
    row = 8 * pixels.shape[2]
    rows = np.concatenate(
        [pixels.reshape(6, row), np.full((6, padding), 255, np.uint8)], axis=1
    )
    data = rows.reshape(-1) if container is np.array else container(rows.tobytes())
    decoded = decode_image(encoding, 6, 8, row + padding, data)
    expected = np.repeat(RGB[..., :1], 3, axis=2) if encoding == "mono8" else RGB
    np.testing.assert_array_equal(decoded, expected)


def test_rgb8_is_a_view() -> None:
    data = np.ascontiguousarray(RGB).reshape(-1)
    assert np.shares_memory(decode_image("rgb8", 6, 8, 24, data), data)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_compressed(kind: str) -> None:
    smooth = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    packed = cv2.imencode(kind, cv2.cvtColor(smooth, cv2.COLOR_RGB2BGR))[1].tobytes()
    assert picture_size(packed) == (60, 40)
    decoded = decode_compressed(packed)
    assert decoded.shape == (40, 60, 3)
    np.testing.assert_allclose(decoded.astype(int), smooth.astype(int), atol=4)


def test_unknown_encodings_are_named() -> None:
    with pytest.raises(ImageError, match=r"'rgb'.*rgb8.*known are"):
        decode_image("rgb", 6, 8, 24, bytes(144))
    with pytest.raises(ImageError, match="'yuv422_yuy2'.*known are rgb8, bgr8"):
        decode_image("yuv422_yuy2", 6, 8, 16, bytes(96))


def test_sizes_that_contradict_each_other() -> None:
    with pytest.raises(ImageError, match="too few"):
        decode_image("rgb8", 6, 8, 24, bytes(100))
    with pytest.raises(ImageError, match="step 20 is under the 24"):
        decode_image("rgb8", 6, 8, 20, bytes(144))
    with pytest.raises(ImageError, match="empty"):
        decode_image("rgb8", 0, 8, 24, b"")


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="60000 x 60000 px; more than 64 megapixels"):
        decode_compressed(bomb)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a.....", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF"]
)
def test_damaged_compressed_pictures(data: bytes) -> None:
    with pytest.raises(ImageError, match="JPEG|header"):
        decode_compressed(data)


def test_a_picture_that_breaks_off() -> None:
    packed = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))[1]
    with pytest.raises(ImageError, match="damaged"):
        decode_compressed(packed.tobytes()[:200])


def test_a_png_that_claims_a_chunk_of_a_gigabyte_is_refused_before_that_is_asked_for() -> None:
    data = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    # OpenCV would take the memory first and look for the bytes then.
    data[data.index(b"IDAT") - 4 : data.index(b"IDAT")] = struct.pack(">I", 2**30)
    with pytest.raises(ImageError, match="claims a chunk of 1073741824 bytes"):
        decode_compressed(bytes(data))


def test_prepare_crops_then_averages() -> None:
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[2:10:2, 4:12] = 100
    prepared = prepare_picture(pixels, (4, 2, 8, 8), 4)
    assert prepared.shape == (3, 4, 4)
    assert prepared.flags.c_contiguous
    np.testing.assert_array_equal(prepared, np.full((3, 4, 4), 50))


def test_prepare_keeps_channels_apart_and_owns_its_pixels() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 2] = 9
    prepared = prepare_picture(pixels, None, 4)
    assert [int(channel.max()) for channel in prepared] == [0, 0, 9]
    assert not np.shares_memory(prepared, pixels)


def test_prepare_refuses_what_is_no_picture() -> None:
    with pytest.raises(ImageError, match=r"\(H, W, 3\)"):
        prepare_picture(np.zeros((4, 4), np.uint8), None, 4)
    with pytest.raises(ImageError, match="outside"):
        prepare_picture(np.zeros((4, 4, 3), np.uint8), (2, 0, 4, 4), 4)
