"""How far a tensor lies from a reference, and the sample of it that is kept for checks on other machines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.manifest import Accuracy
from page4d.published import SKY

SAMPLES = 16384
"""Elements kept of a tensor: enough to know its relative L2 error to a percent."""
_LEAST = {"sky": SKY}
"""Outputs that may be 0 everywhere, as `sky` is of a photo without any: the size that their values matter from."""
_STEP = 2654435761  # a prime beyond every tensor's size: samples are distinct and spread over all axes


def sampled(array: NDArray[Any], samples: int = SAMPLES) -> NDArray[np.float32]:
    """`[min(size, samples)]`: the elements at `i * 2654435761 % size` of the flat array."""
    flat = array.reshape(-1)
    places = np.arange(min(flat.size, samples), dtype=np.uint64) * np.uint64(_STEP) % np.uint64(max(flat.size, 1))
    return flat[places.astype(np.int64)].astype(np.float32)


def compare(value: NDArray[Any], reference: NDArray[Any], name: str = "") -> Accuracy:
    """Cosine, largest difference, relative L2, and how many entries are not finite; both of the same size.

    Relative L2 of an output `name` of `_LEAST` is relative to a reference of at least that root mean square.
    """
    y, x = np.asarray(value, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    nans = int(np.count_nonzero(~np.isfinite(y)))
    if nans:
        y = np.where(np.isfinite(y), y, 0.0)
    norm = max(float(np.linalg.norm(x)), 1e-30)
    scale = max(norm, _LEAST.get(name, 0.0) * x.size**0.5)
    difference = y - x
    return Accuracy(
        cosine=float(x @ y / (norm * max(float(np.linalg.norm(y)), 1e-30))),
        max_abs=float(np.abs(difference).max()),
        relative_l2=float(np.linalg.norm(difference)) / scale,
        nans=nans,
    )
