"""Pictures and stamps between messages and arrays."""

import importlib.util
import sys
import types

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")

from sensor_msgs.msg import Image  # noqa: E402

from lewm_core.errors import ImageError  # noqa: E402
from lewm_ros.codecs import (  # noqa: E402
    ImageFiller,
    decode_by_cv_bridge,
    decode_message,
    encode_compressed,
    encode_image,
    ns_to_stamp,
    stamp_to_ns,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_encodings_return_the_same_picture(encoding):
    message = encode_image(PICTURE, 5, "top", encoding)
    assert (message.height, message.width) == (48, 64)
    assert len(message.data) == message.step * message.height
    np.testing.assert_array_equal(decode_message(message), PICTURE)


def test_mono8_returns_the_luma_in_all_channels():
    decoded = decode_message(encode_image(PICTURE, encoding="mono8"))
    luma = PICTURE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded - luma[..., None]).max() <= 1.0
    assert (decoded[..., :1] == decoded).all()


def test_a_png_returns_the_same_picture_and_a_jpeg_nearly():
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 64, 3)).copy()
    np.testing.assert_array_equal(decode_message(encode_compressed(PICTURE, 0, "", "png")), PICTURE)
    jpeg = decode_message(encode_compressed(smooth)).astype(int)
    assert np.abs(jpeg - smooth).max() < 8


def test_padded_rows_are_skipped():
    message = Image(height=48, width=64, step=200, encoding="rgb8")
    padded = np.full((48, 200), 7, np.uint8)
    padded[:, :192] = PICTURE.reshape(48, 192)
    message.data = padded.tobytes()
    np.testing.assert_array_equal(decode_message(message), PICTURE)


def test_the_filler_reuses_its_message_and_follows_a_new_size():
    filler = ImageFiller("top", "rgb8")
    first = filler.fill(PICTURE, 1)
    data = first.data
    second = filler.fill(255 - PICTURE, 2_000_000_003)
    assert second is first and second.data is data
    assert (second.header.stamp.sec, second.header.stamp.nanosec) == (2, 3)
    np.testing.assert_array_equal(decode_message(second), 255 - PICTURE)
    np.testing.assert_array_equal(decode_message(filler.fill(PICTURE[:10], 3)), PICTURE[:10])


def test_a_picture_that_is_not_contiguous_is_filled():
    flipped = PICTURE[:, ::-1]
    for encoding in ("rgb8", "bgr8"):
        np.testing.assert_array_equal(decode_message(encode_image(flipped, 0, "", encoding)),
                                      flipped)  # fmt: skip


@pytest.mark.parametrize("bad", [PICTURE.astype(float), PICTURE[..., 0], PICTURE[..., :2]])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ImageError, match=r"\(H, W, 3\) uint8"):
        encode_image(bad)


def test_an_unknown_encoding_is_named_with_the_mend():
    with pytest.raises(ImageError, match="'yuv9'.*rgb8"):
        ImageFiller("", "yuv9")
    if importlib.util.find_spec("cv_bridge") is None:
        message = Image(height=2, width=2, step=4, encoding="16UC1", data=bytes(8))
        with pytest.raises(ImageError, match="16UC1.*cv_bridge"):
            decode_message(message)


def test_data_that_is_too_short_is_refused():
    message = encode_image(PICTURE)
    message.data = message.data[:-1000]
    with pytest.raises(ImageError):
        decode_message(message)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_cv_bridge_agrees(encoding):
    pytest.importorskip("cv_bridge", reason="cv_bridge comes with a ROS installation only")
    message = encode_image(PICTURE, 0, "", encoding)
    np.testing.assert_array_equal(decode_by_cv_bridge(message), decode_message(message))


def test_a_failing_cv_bridge_is_one_error(monkeypatch):
    class Bridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            raise RuntimeError("no way")

    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=Bridge))
    with pytest.raises(ImageError, match="no way"):
        decode_message(Image(height=1, width=1, step=2, encoding="16UC1", data=bytes(2)))


@pytest.mark.parametrize("time_ns", [0, 1, 999_999_999, 1_000_000_000, 1_795_184_885_931_603_356])
def test_stamps_return_to_the_nanosecond(time_ns):
    assert stamp_to_ns(ns_to_stamp(time_ns)) == time_ns
