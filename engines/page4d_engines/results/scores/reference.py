"""`Reference`: what a run is scored against: the truth of a clip, or another run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from page4d.layout import Layout
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage

MOVES = 0.5
"""The least probability, and the least share of a patch, that counts as moving."""


@dataclass(frozen=True)
class ReferenceImage:
    """What the reference says of one image; None where it says nothing.

    Attributes:
        pose: camera to world, float64 `[4,4]`; NaN where unknown.
        depth: z in the camera at the engine's pixels, float64 `[H,W]`; NaN where unknown.
        mask: which patches move, bool `[h,w]`.
        points: in the reference's world, float64 `[H,W,3]`; NaN where unknown.
    """

    pose: NDArray[np.float64] | None
    depth: NDArray[np.float64] | None
    mask: NDArray[np.bool_] | None
    points: NDArray[np.float64] | None


class Reference(Protocol):
    """What a run is scored against."""

    @property
    def lacks(self) -> dict[str, str]:
        """Why there is no reference, by what there is none for: `pose`, `depth`, `mask`, `cloud`."""

    @property
    def least_baseline(self) -> float:
        """Distance of two cameras, as a share of the largest, below which its direction says nothing."""

    def paired(self, scene: Scene) -> Iterator[tuple[PosedImage, ReferenceImage]]:
        """The scene's images, each with the reference's.

        Raises:
            UsageError: the reference has other images, or one that cannot be read.
        """

    def other_unit(self, unit: LengthUnit | None) -> str | None:
        """Why lengths in a run's unit cannot be compared as they are; None: they can."""


def moving_patches(mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which patches `[h,w]` move, of probabilities `[H,W]` that are the same for all pixels of a patch."""
    return np.asarray(mask[:: Layout.PATCH, :: Layout.PATCH] >= MOVES)


def shown_patches(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which patches `[h,w]` show the photo all over, of pixels `[H,W]` that do."""
    H, W, size = *shown.shape, Layout.PATCH
    return np.asarray(shown.reshape(H // size, size, W // size, size).all((1, 3)))
