"""`SampledWindow`: points of a grid of a window's pixels, as much of it as an alignment takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.network.poses import world_points
from page4d_engines.pipeline import Result
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.confidence import probability
from page4d_engines.results.world.similarity import Floats

_PIXELS = 2500  # of an image: a 50 x 50 grid tells a pose as well as all of them, whose errors go together


@dataclass(frozen=True)
class SampledWindow:
    """Pixels on the same grid of every image of a window; n of each.

    Attributes:
        points: float32 `[T,V,n,3]`, in the window's world; NaN where unknown.
        depth: float32 `[T,V,n]`, the points' z in their cameras, above 0; NaN where unknown.
        confidence: float32 `[T,V,n]`, 0 or more: a weight. 0 where the pixel shows nothing of the photo.
        cameras: float64 `[T,V,4,4]`, camera to world; None where the engines give none.
    """

    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    cameras: Floats | None

    @classmethod
    def of(cls, result: Result, choice: CloudChoice, shown: NDArray[np.bool_] | None = None) -> SampledWindow:
        """Of the engines' results.

        Args:
            result: of the window.
            choice: what its points are made from.
            shown: `[T,V,H,W]`, which pixels show something of the photo; None: all.
        """
        confidence: NDArray[np.float32] = getattr(result, choice.confidence)
        T, V, H, W = confidence.shape
        rows, columns = grid(H, W)
        points = np.empty((T, V, len(rows), 3), np.float32)
        depth = np.empty((T, V, len(rows)), np.float32)
        # one image after the other: points of all in float64 take gigabytes
        for place in np.ndindex(T, V):
            arrays = (result.points, result.depth, result.camera, result.intrinsics)
            of_points, z, camera, K = (None if array is None else array[place] for array in arrays)
            with np.errstate(over="ignore", invalid="ignore"):
                world = world_points(of_points, result.points_frame, z, camera, K, str(choice.source))[rows, columns]
                points[place], depth[place] = world, _depth(world, camera)
        sure = confidence[:, :, rows, columns]
        # other confidences than probabilities begin at 1, which stands for none
        weight = probability(sure) if choice.confidence == "confidence" else np.maximum(sure - 1, np.float32(1e-6))
        if shown is not None:
            weight = np.where(shown[:, :, rows, columns], weight, np.float32(0))
        return cls(points, depth, weight, result.camera)

    def frames(self, which: range) -> SampledWindow:
        """Some of its timesteps, counted from 0, in memory of their own."""
        part = slice(which.start, which.stop)
        cameras = None if self.cameras is None else self.cameras[part].copy()
        return SampledWindow(self.points[part].copy(), self.depth[part].copy(), self.confidence[part].copy(), cameras)

    @property
    def typical_depth(self) -> float:
        """The median of the depth, 1.0 where there is none."""
        known = self.depth[np.isfinite(self.depth)]
        return float(np.median(known)) if known.size else 1.0

    @property
    def middle(self) -> Floats:
        """Where the cameras are, their median `[3]`; the origin where no pose is known."""
        if self.cameras is None:
            return np.zeros(3)
        centres = self.cameras[..., :3, 3].reshape(-1, 3)
        known = centres[np.isfinite(centres).all(1)]
        return np.median(known, axis=0) if len(known) else np.zeros(3)


def grid(H: int, W: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of evenly spread pixels of an image, at most `_PIXELS` or so of them."""
    step = max(1.0, float(np.sqrt(H * W / _PIXELS)))
    rows, columns = (np.unique(np.arange(step / 2, side, step).astype(np.intp)) for side in (H, W))
    down, across = np.meshgrid(rows, columns, indexing="ij")
    return down.ravel(), across.ravel()


def _depth(points: Floats, camera: Floats | None) -> Floats:
    """z of points of the world `[n,3]` in their camera; without one, their distance from the origin."""
    if camera is None:
        z: Floats = np.linalg.norm(points, axis=-1)
    else:
        z = (points - camera[:3, 3]) @ camera[:3, 2]
    return np.where(np.isfinite(z) & (z > 0), z, np.nan)
