"""Scores of depth: relative error and share of pixels within a quarter, scaled by the median and as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

_WITHIN = 1.25


class DepthScores(msgspec.Struct, frozen=True):
    """How good the depth is: means over images of the mean over an image's pixels; None where that cannot be said."""

    images: int
    """That have a depth in both."""
    abs_rel: float | None
    """|estimate - truth| / truth, each image's estimate scaled so that its median is the truth's."""
    delta_125: float | None
    """Share of pixels where the larger of both is less than 1.25 times the smaller, scaled so."""
    abs_rel_metric: float | None
    """As `abs_rel`, unscaled."""
    delta_125_metric: float | None
    """As `delta_125`, unscaled."""


@dataclass
class DepthTally:
    """Sums over images.

    Attributes:
        reasons: why a score is missing, by its name.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    _images: int = 0
    _scaled: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    _metric: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    _of_metric: int = 0

    def add(self, depth: NDArray[np.floating], truth: NDArray[np.floating], other_unit: str | None) -> None:
        """Add an image, `[H,W]` each: pixels where one is not finite or not positive take no part.

        Args:
            depth, truth: z in the camera.
            other_unit: why they cannot be compared unscaled; None: they can.
        """
        known = np.isfinite(depth) & np.isfinite(truth) & (depth > 0) & (truth > 0)
        if not known.any():
            return
        here, there = depth[known].astype(np.float64), truth[known].astype(np.float64)
        self._images += 1
        self._scaled += _errors(here * (np.median(there) / np.median(here)), there)
        if other_unit is not None:
            for name in ("abs_rel_metric", "delta_125_metric"):
                self.reasons.setdefault(name, other_unit)
            return
        self._of_metric += 1
        self._metric += _errors(here, there)

    def scores(self) -> DepthScores:
        """Of all images."""
        scaled = (self._scaled / self._images).tolist() if self._images else (None, None)
        metric = (self._metric / self._of_metric).tolist() if self._of_metric else (None, None)
        if not self._images:
            for name in ("abs_rel", "delta_125", "abs_rel_metric", "delta_125_metric"):
                self.reasons.setdefault(name, "no image has a depth in both")
        return DepthScores(
            images=self._images,
            abs_rel=scaled[0],
            delta_125=scaled[1],
            abs_rel_metric=metric[0],
            delta_125_metric=metric[1],
        )


def _errors(depth: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        ratio = np.maximum(depth / truth, truth / depth)
    return np.array([(np.abs(depth - truth) / truth).mean(), (ratio < _WITHIN).mean()])
