"""Confidences: a probability from a logit, and `Threshold`, which of them are high enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Threshold:
    """The least confidence of a point that is kept: a number, or a percentile of a window.

    Attributes:
        least: the number, where there is no percentile.
        percentile: 0 to 100, of the confidences of all images of a window together.
    """

    least: float = 0.0
    percentile: float | None = None

    def of(self, confidence: NDArray[np.floating]) -> float:
        """The least confidence of a window, `[...]`; infinity where a percentile is asked of no finite number."""
        if self.percentile is None:
            return self.least
        known = confidence[np.isfinite(confidence)]
        return float(np.percentile(known, self.percentile)) if known.size else math.inf


def probability(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logits of any shape as probabilities, float32; NaN stays NaN."""
    # clipped: the exponential of 89 is no float32
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)
