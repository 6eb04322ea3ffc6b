"""Depth of the sky, which has none: as Depth Anything 3 MONO and METRIC have it. numpy only: a host step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from page4d.published import SKY as SKY

_FEWEST, _QUANTILE = 10, 0.99


def fill_sky(depth: NDArray[np.floating], sky: NDArray[np.floating]) -> NDArray[np.floating]:
    """Depth `[..]` whose sky has the 0.99 quantile of all other pixels' depth, `sky` of the same shape.

    Unchanged where ten pixels or fewer are sky, or are not. The public code takes the quantile of 100,000 pixels drawn
    at random where there are more; this one of all.
    """
    is_sky = sky >= SKY
    if is_sky.sum() <= _FEWEST or (~is_sky).sum() <= _FEWEST:
        return depth
    return np.where(is_sky, np.quantile(depth[~is_sky], _QUANTILE).astype(depth.dtype), depth)
