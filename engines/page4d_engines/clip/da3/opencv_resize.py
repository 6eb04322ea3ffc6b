"""OpenCV's resize of 8-bit RGB images, bit for bit: INTER_AREA where no side grows, INTER_CUBIC where one does.

Depth Anything 3 sees photos that these two filters scaled. What is followed is OpenCV's own code. Its wheels for x86
hand INTER_CUBIC to Intel's IPP instead, which does not round the weights: 5 % of the numbers differ, by at most two.
numpy alone; engines/cpp/src/resize/opencv_resize.cpp does the same in the same order of operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIXED_POINT = 2048  # what OpenCV multiplies a cubic's weights with, to have them in integers
_LANES = 8  # numbers of a row that OpenCV's vector code takes at once; it leaves the rest to integer arithmetic
_CUBIC = np.float32(-0.75)
_LEAST_SHARE = 1e-3  # of a source pixel; less is left out
_BLOCK_ROWS = 256  # of the source that are averaged at a time
_AREA_ROWS = 32  # of the result that are computed at a time


@dataclass(frozen=True)
class _Taps:
    """Which source pixels a result pixel is made of, for one axis of n pixels.

    Attributes:
        first: index of the first, before clamping to the axis: int `[n]`.
        weights: of the first and those after it, 0 past the last: float32 `[n,taps]`.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]

    def pixels(self, tap: int, size: int) -> NDArray[np.int64]:
        """The tap's source pixels `[n]`; beyond the border, the pixel at the border."""
        return np.clip(self.first + tap, 0, size - 1)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`cv2.resize` with INTER_AREA where no side grows, with INTER_CUBIC where one does.

    Args:
        image: uint8 `[rows,columns,3]`, not empty.
        width: pixels of the result, at least 1.
        height: likewise.

    Returns:
        uint8 `[height,width,3]`.
    """
    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return image
    if width > columns or height > rows:
        return _cubic(image, width, height)
    if columns % width == 0 and rows % height == 0:
        return _block_means(image, width, height)
    return _area(image, width, height)


def _scale(source: int, target: int) -> float:
    # source / target as OpenCV computes it, which is not the same to the last bit
    return 1.0 / (target / source)


def _block_means(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    down, across = image.shape[0] // height, image.shape[1] // width
    result = np.empty((height, width, 3), np.uint8)
    step = max(1, _BLOCK_ROWS // down)
    for begin in range(0, height, step):
        blocks = image[begin * down : (begin + step) * down].reshape(-1, down, width, across, 3)
        sums = blocks.sum((1, 3), dtype=np.int64)
        if (down, across) == (2, 2):
            result[begin : begin + step] = (sums + 2) >> 2
        else:
            result[begin : begin + step] = np.rint(
                sums.astype(np.float32) * (np.float32(1) / np.float32(down * across))
            )
    return result


def _area(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    across, down = _area_taps(columns, width), _area_taps(rows, height)
    sums = np.zeros((height, width, 3), np.float32)
    # source rows in their order: each adds to one row of the result, or to two
    for begin in range(0, height, _AREA_ROWS):
        first, weights = down.first[begin : begin + _AREA_ROWS], down.weights[begin : begin + _AREA_ROWS]
        low, high = int(first[0]), min(int(first[-1]) + weights.shape[1], rows)
        strip = _across(image[low:high], across, columns)
        for tap in range(weights.shape[1]):
            source = np.minimum(first + tap, high - 1) - low
            sums[begin : begin + _AREA_ROWS] += weights[:, tap, None, None] * strip[source]
    return _bytes(np.rint(sums))


def _across(rows: NDArray[np.uint8], taps: _Taps, columns: int) -> NDArray[np.float32]:
    sums = np.zeros((len(rows), len(taps.first), 3), np.float32)
    for tap in range(taps.weights.shape[1]):
        sums += rows[:, taps.pixels(tap, columns)].astype(np.float32) * taps.weights[:, tap, None]
    return sums


def _area_taps(source: int, target: int) -> _Taps:
    scale = _scale(source, target)
    begins = np.arange(target) * scale
    ends = begins + scale
    cells = np.minimum(scale, source - begins)
    last = np.minimum(np.floor(ends).astype(np.int64), source - 1)
    whole = np.minimum(np.ceil(begins).astype(np.int64), last)
    before, after = whole - begins > _LEAST_SHARE, ends - last > _LEAST_SHARE
    first = whole - before
    counts = last - first + after
    places = first[:, None] + np.arange(int(counts.max()))
    inside = (places >= whole[:, None]) & (places < last[:, None])
    weights = np.where(inside, (1.0 / cells)[:, None], 0.0)
    weights = np.where(before[:, None] & (places < whole[:, None]), ((whole - begins) / cells)[:, None], weights)
    part = np.minimum(np.minimum(ends - last, 1.0), cells) / cells
    weights = np.where(after[:, None] & (places == last[:, None]), part[:, None], weights)
    return _Taps(first, weights.astype(np.float32))


def _cubic(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    across, down = _cubic_taps(columns, width), _cubic_taps(rows, height)
    between = np.zeros((rows, width, 3), np.int32)
    for tap in range(4):
        weights = across.weights[:, tap, None].astype(np.int32)
        between += image[:, across.pixels(tap, columns)] * weights
    # OpenCV sums up from the last tap to the first, in float32; what is left of a row at its end, in integers
    unit = np.float32(1) / np.float32(_FIXED_POINT**2)
    sums = np.zeros((height, width * 3), np.float32)
    flat = between.reshape(rows, -1)
    for tap in (3, 2, 1, 0):
        sums += flat[down.pixels(tap, rows)].astype(np.float32) * (down.weights[:, tap, None] * unit)
    result = _bytes(np.rint(sums))
    rest = width * 3 // _LANES * _LANES
    exact = np.full((height, width * 3 - rest), _FIXED_POINT**2 // 2, np.int64)
    for tap in range(4):
        exact += flat[down.pixels(tap, rows), rest:] * down.weights[:, tap, None].astype(np.int64)
    result[:, rest:] = _bytes(exact // _FIXED_POINT**2)
    return result.reshape(height, width, 3)


def _cubic_taps(source: int, target: int) -> _Taps:
    """Weights in units of 1 / `_FIXED_POINT`."""
    at = ((np.arange(target) + 0.5) * _scale(source, target) - 0.5).astype(np.float32)
    floor = np.floor(at)
    x, a, one = at - floor, _CUBIC, np.float32(1)
    two, three, four, five, eight = (np.float32(number) for number in (2, 3, 4, 5, 8))
    weights = np.empty((target, 4), np.float32)
    weights[:, 0] = ((a * (x + one) - five * a) * (x + one) + eight * a) * (x + one) - four * a
    weights[:, 1] = ((a + two) * x - (a + three)) * x * x + one
    weights[:, 2] = ((a + two) * (one - x) - (a + three)) * (one - x) * (one - x) + one
    weights[:, 3] = one - weights[:, 0] - weights[:, 1] - weights[:, 2]
    return _Taps(floor.astype(np.int64) - 1, np.rint(weights * np.float32(_FIXED_POINT)))


def _bytes(values: NDArray[np.float32] | NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)
