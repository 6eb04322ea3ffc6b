"""`Result`: what the engines give for one clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.manifest import PointsFrame
from page4d.network.poses import world_points
from page4d.published import Choice
from page4d_engines.timing import Timing


class LengthUnit(Choice):
    """What lengths of a result are in, where they are not in a unit of the clip's own."""

    METRES = "metres"
    CAMERAS = "cameras"
    """The unit of the cameras that were given."""


@dataclass(frozen=True)
class Result:
    """What a clip gives: the reference model's fields, as arrays.

    The arrays are the pipeline's own buffers. They are valid from the return of `run` until the next `run` of the same
    pipeline begins, in whatever thread, and overwrites them. They keep the buffers alive after the pipeline. `copy()`
    keeps the values.

    Attributes:
        mask: M float32 `[T,V,h,w]`, the probability that a patch is dynamic; None where the model has no mask head.
        layers: per kept layer its tokens `[T,V,N,S*C]`.
        memory: `[S,M,C]`, an argument of the next window's run, where the model has memory; else None.
        points: float32 `[T,V,H,W,3]`, every pixel's point in `points_frame`, in `unit`. None without that head, as
            every field below.
        points_confidence: float32 `[T,V,H,W]`, over 1 and no probability (VGGT, PAGE-4D).
        confidence: float32 `[T,V,H,W]`, of the points, a logit (Pi3, Pi3X).
        depth: float32 `[T,V,H,W]`, z in each image's camera, in `unit`; of the sky some number (see `sky`).
        depth_confidence: float32 `[T,V,H,W]`, over 1 and no probability.
        camera: float64 `[T,V,4,4]`, camera-to-world; NaN where the engines gave no finite values. The given ones, where
            the engines take known cameras.
        intrinsics: float64 `[T,V,3,3]`, K in pixels of the engine's image; None for Pi3. NaN where the engines gave no
            field of view. The given ones, where cameras are known.
        metric: float32 `[]` (`[B]` with several clips), the metres of the network's own unit, by which `points` and the
            positions of `camera` were multiplied (Pi3X).
        sky: float32 `[T,V,H,W]`, 0 or more: a pixel is sky from 0.3 on (Depth Anything 3 MONO and METRIC).
        points_frame: whose frame the points are in; None without points.
        unit: of all lengths; None: one of the clip's own.
        timing: seconds and floating-point operations of each stage in this run.
    """

    mask: NDArray[np.float32] | None
    layers: dict[int, NDArray[np.generic]]
    memory: NDArray[np.generic] | None
    points: NDArray[np.float32] | None = None
    points_confidence: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None
    depth_confidence: NDArray[np.float32] | None = None
    camera: NDArray[np.float64] | None = None
    intrinsics: NDArray[np.float64] | None = None
    metric: NDArray[np.float32] | None = None
    sky: NDArray[np.float32] | None = None
    points_frame: PointsFrame | None = None
    unit: LengthUnit | None = None
    timing: Timing = field(default_factory=Timing)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What there is, by name: `layers.<i>`, and the fields that hold an array, each by its own."""
        named = {name: getattr(self, name) for name in _ARRAYS}
        return {name: array for name, array in named.items() if array is not None} | {
            f"layers.{i}": layer for i, layer in self.layers.items()
        }

    def world_points(self, source: str | None = None) -> NDArray[np.float64]:
        """Every pixel's point in the world, in memory of its own.

        Args:
            source: `depth`, from depth, cameras and intrinsics; `points`, those of the points head; None: depth where
                the engines give all that it takes, else points.

        Returns:
            float64 `[T,V,H,W,3]`; NaN where the pose or a focal length that it takes is NaN.

        Raises:
            UsageError: no such source, or the engines do not give what it takes.
        """
        return world_points(self.points, self.points_frame, self.depth, self.camera, self.intrinsics, source)

    def copy(self) -> Result:
        """The same in memory of its own."""
        copied = {name: array.copy() for name, array in self.tensors().items()}
        layers = {i: copied.pop(f"layers.{i}") for i in self.layers}
        return dataclasses.replace(self, layers=layers, **copied)


_ARRAYS = (
    "mask",
    "memory",
    "points",
    "points_confidence",
    "confidence",
    "depth",
    "depth_confidence",
    "camera",
    "intrinsics",
    "metric",
    "sky",
)
