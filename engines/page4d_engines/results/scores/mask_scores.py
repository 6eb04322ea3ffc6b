"""Scores of the dynamic mask, in patches: IoU and F1."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray


class MaskScores(msgspec.Struct, frozen=True):
    """How good the mask is, over the patches of all images together; None where nothing moves in either."""

    images: int
    """That have a mask in both."""
    iou: float | None
    """Patches that move in both, as a share of those that move in one."""
    f1: float | None
    """Harmonic mean of precision and recall."""


@dataclass
class MaskTally:
    """Counts of patches over images.

    Attributes:
        reasons: why a score is missing, by its name.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    _images: int = 0
    _both: int = 0
    _either: int = 0

    def add(self, moves: NDArray[np.bool_], truth: NDArray[np.bool_], shown: NDArray[np.bool_]) -> None:
        """Add an image: which patches `[h,w]` move, and which count."""
        self._images += 1
        self._both += int((moves & truth & shown).sum())
        self._either += int(((moves | truth) & shown).sum())

    def scores(self) -> MaskScores:
        """Of all images."""
        if not self._either:
            reason = "no patch moves, in either" if self._images else "no image has a mask in both"
            self.reasons |= dict.fromkeys(("iou", "f1"), reason)
            return MaskScores(self._images, None, None)
        return MaskScores(
            images=self._images,
            iou=self._both / self._either,
            f1=2 * self._both / (self._both + self._either),
        )
