"""Weights of a resize by Pillow's bicubic filter with antialias, in the integers that Pillow computes with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PRECISION = 22
"""Bits of a weight behind the point."""
_SUPPORT = 2.0  # of the cubic, in pixels to each side


class Axis(NamedTuple):
    """What the pixels of an axis are made of.

    Attributes:
        first: int32 `[pixels]`: of each the first source pixel.
        weights: int32 `[pixels,most]`, times 2^PRECISION; zeros behind those that a pixel has.
        stop: the source pixel behind the last that is read.
    """

    first: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32]
    stop: int


def axis(source: int, low: float, high: float, scaled: int, begin: int, stop: int) -> Axis:
    """Pixels `begin` to `stop` of the `scaled` that the source from `low` to `high` becomes.

    Args:
        source: pixels of the source.
        low, high: pixel edges lie at integers. Pillow has them in float32.
        scaled: pixels of the result, were it whole.
        begin, stop: those that are computed.
    """
    low, high = float(np.float32(low)), float(np.float32(high))
    scale = float(np.float32(high) - np.float32(low)) / scaled
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    first = np.zeros(stop - begin, np.int32)
    weights = np.zeros((stop - begin, 2 * math.ceil(support) + 1), np.int32)
    last = 0
    for number, pixel in enumerate(range(begin, stop)):
        centre = low + (pixel + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        exact = [_cubic((tap - centre + 0.5) * (1.0 / stretch)) for tap in range(start, last)]
        total = 0.0
        for weight in exact:  # sum() of Python 3.12 rounds less
            total += weight
        for tap, weight in enumerate(exact):
            share = weight / total if total else weight
            weights[number, tap] = int(share * (1 << PRECISION) + (-0.5 if share < 0 else 0.5))
        first[number] = start
    return Axis(first, weights, last)


def _cubic(x: float) -> float:
    """Keys' cubic, a = -0.5, in Pillow's order of operations."""
    a = -0.5
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0
