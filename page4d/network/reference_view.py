"""The choice of the view that is told apart from all others, as Depth Anything 3 makes it. numpy only: a host step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_view(tokens: NDArray[np.floating], present: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The view that is nearest to the middle of its clip, by three measures of its cls token: the mean cosine with the
    other views' tokens, the token's length, and the variance of its direction's channels.

    Each measure is scaled over the views to 0 to 1; the view nearest to 0.5 in all three is chosen, of equal ones the
    first. Of one or two views it is the first. Float64 inside: the variances differ by about 1e-5.

    Args:
        tokens: cls tokens `[..,V,C]`.
        present: which views are there, `[..,V]`, at least one of each clip: the choice is among them alone. None: all.

    Returns:
        int64 `[..]`, 0 to V - 1.
    """
    wide = np.asarray(tokens, np.float64)
    if present is not None:
        chosen = np.empty(wide.shape[:-2], np.int64)
        for clip in np.ndindex(chosen.shape):
            views_present = np.flatnonzero(present[clip])
            chosen[clip] = views_present[balanced_view(wide[clip][views_present])]
        return chosen
    views = wide.shape[-2]
    if views < 3:
        return np.zeros(wide.shape[:-2], np.int64)
    length = np.linalg.norm(wide, axis=-1)
    direction = wide / length[..., None]
    cosine = (np.einsum("...vc,...wc->...v", direction, direction) - 1) / (views - 1)
    variance = direction.var(axis=-1, ddof=1)
    off = sum(np.abs(_scaled(measure) - 0.5) for measure in (cosine, length, variance))
    return np.argmin(off, axis=-1)


def _scaled(measure: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[..,V]`, from 0 to 1 over the views."""
    least, most = measure.min(axis=-1, keepdims=True), measure.max(axis=-1, keepdims=True)
    return (measure - least) / (most - least + 1e-8)
