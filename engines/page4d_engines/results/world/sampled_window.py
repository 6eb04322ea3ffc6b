"""`SampledWindow`: points of a grid of a window's pixels, as much of it as an alignment takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.world.similarity import Floats

_PIXELS = 2500  # of an image: a 50 x 50 grid tells a pose as well as all of them, whose errors go together
_LEAST = np.float32(1e-6)  # weight: where the confidence says nothing anywhere, all pixels count alike


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
    def of(cls, geometry: WindowGeometry) -> SampledWindow:
        """Of a window whose engines give points in the world."""
        confidence, choice = geometry.confidence, geometry.choice
        assert confidence is not None and choice is not None
        T, V, H, W = confidence.shape
        rows, columns = grid(H, W)
        points = np.empty((T, V, len(rows), 3), np.float32)
        depth = np.empty((T, V, len(rows)), np.float32)
        camera = geometry.result.camera
        # one image after the other: points of all in float64 take gigabytes
        for place in geometry.places():
            world = geometry.points(place)[rows, columns]
            with np.errstate(over="ignore", invalid="ignore"):
                points[place] = world
                depth[place] = _depth(world, None if camera is None else camera[place])
        weight = confidence[:, :, rows, columns]
        if choice.confidence != "confidence":  # which is a probability; others begin at 1, which stands for none
            weight = np.maximum(weight - 1, _LEAST)
        weight = np.where(np.isfinite(weight), weight, np.float32(0))
        return cls(points, depth, weight, None if camera is None else camera.copy())

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
