"""Formats of cameras against OpenCV, byte for byte."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d_engines.clip.pixels.formats import PixelFormat
from tests.support.examples import examples

# OpenCV's codes. Of Bayer patterns the names after the upper left pixels; the older ones (BayerBG for RGGB) are others.
CODES = {
    PixelFormat.RGB8: None,
    PixelFormat.BGR8: cv2.COLOR_BGR2RGB,
    PixelFormat.RGBA8: cv2.COLOR_RGBA2RGB,
    PixelFormat.BGRA8: cv2.COLOR_BGRA2RGB,
    PixelFormat.MONO8: cv2.COLOR_GRAY2RGB,
    PixelFormat.NV12: cv2.COLOR_YUV2RGB_NV12,
    PixelFormat.NV21: cv2.COLOR_YUV2RGB_NV21,
    PixelFormat.YUYV: cv2.COLOR_YUV2RGB_YUYV,
    PixelFormat.UYVY: cv2.COLOR_YUV2RGB_UYVY,
    PixelFormat.BAYER_RGGB8: cv2.COLOR_BayerRGGB2RGB,
    PixelFormat.BAYER_BGGR8: cv2.COLOR_BayerBGGR2RGB,
    PixelFormat.BAYER_GBRG8: cv2.COLOR_BayerGBRG2RGB,
    PixelFormat.BAYER_GRBG8: cv2.COLOR_BayerGRBG2RGB,
}
ALL = pytest.mark.parametrize("pixels", PixelFormat, ids=lambda pixels: pixels.value)


def drawn(pixels, width, height, seed, extremes=False):
    """Random rows, or such of the values at which something is cut off."""
    generator = np.random.default_rng(seed)
    shape = pixels.rows(height), width * pixels.channels
    values = np.array([0, 1, 15, 16, 17, 127, 128, 129, 235, 240, 254, 255], np.uint8)
    return generator.choice(values, shape) if extremes else generator.integers(0, 256, shape, np.uint8)


def opencvs(pixels, rows):
    image = rows if pixels.channels == 1 else rows.reshape(len(rows), -1, pixels.channels)
    return image if CODES[pixels] is None else cv2.cvtColor(image, CODES[pixels])


@ALL
@examples(60)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 20), st.booleans(), st.integers(0, 1 << 30))
def test_every_format_is_opencvs(pixels, width, height, spare, extremes, seed):
    """Also where rows are padded: what lies there does not matter."""
    if pixels.size_needed(width, height):
        width, height = 2 * width + 2, 2 * height + 2
    rows = drawn(pixels, width, height, seed, extremes)
    padded = np.pad(rows, ((0, 0), (0, spare)), constant_values=77)
    rgb = pixels.rgb(padded.ravel(), width, height, rows.shape[1] + spare)
    assert rgb.dtype == np.uint8 and rgb.shape == (height, width, 3)
    np.testing.assert_array_equal(rgb, opencvs(pixels, rows))


@ALL
def test_large_images_are_opencvs(pixels):
    """By OpenCV's vector code, with some pixels left over: it gives the bytes of its scalar code."""
    rows = drawn(pixels, 1286, 90, 1)
    np.testing.assert_array_equal(pixels.rgb(rows.ravel(), 1286, 90), opencvs(pixels, rows))


def test_every_y_u_and_v_is_opencvs():
    """All 2^24 of them."""
    u, v = (plane.astype(np.uint8) for plane in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    for y in range(256):
        rows = np.stack([np.full_like(u, y), u, np.full_like(u, y), v], -1).reshape(256, -1)
        rgb = PixelFormat.YUYV.rgb(rows.ravel(), 512, 256)
        np.testing.assert_array_equal(rgb, opencvs(PixelFormat.YUYV, rows))


def test_grey_and_white_of_limited_range():
    """Y 16 is black, 235 is white, and nothing is brighter or darker."""
    for y, value in ((0, 0), (16, 0), (126, 128), (235, 255), (255, 255)):
        rgb = PixelFormat.UYVY.rgb(np.array([128, y, 128, y], np.uint8), 2, 1)
        assert (rgb == value).all()


@pytest.mark.parametrize(
    "pixels, width, height, needed",
    [
        (PixelFormat.NV12, 3, 2, "an even width and height"),
        (PixelFormat.NV21, 2, 3, "an even width and height"),
        (PixelFormat.YUYV, 5, 1, "an even width"),
        (PixelFormat.UYVY, 4, 1, None),
        (PixelFormat.BAYER_GRBG8, 2, 9, "at least 3x3"),
        (PixelFormat.BAYER_GRBG8, 3, 3, None),
        (PixelFormat.RGB8, 1, 1, None),
    ],
)
def test_sizes_that_a_format_has(pixels, width, height, needed):
    assert pixels.size_needed(width, height) == needed
