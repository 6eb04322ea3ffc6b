"""Which pixels of an image become points: sure ones, on surfaces, seen from in front, at rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.scene.cloud_options import DYNAMIC, EDGES, CloudOptions

_Number = TypeVar("_Number", bound=np.number[Any])
_MOST_FLYING = 0.5  # of an image's points


@dataclass(frozen=True)
class CloudFilter:
    """What a pixel needs to become a point of a cloud.

    Attributes:
        least: confidence.
        edges: share of a pixel's depth by which a neighbour's may differ; None: any.
        normals: degrees between the surface's normal and the ray to the camera; None: any.
        static_only: whether it must be at rest.
    """

    least: float
    edges: float | None = EDGES
    normals: float | None = None
    static_only: bool = False

    @classmethod
    def of(cls, options: CloudOptions, least: float) -> CloudFilter:
        """With the least confidence of a window."""
        return cls(least, options.edges, options.normals, options.static_only)

    def kept(
        self,
        points: NDArray[np.floating],
        depth: NDArray[np.floating] | None,
        confidence: NDArray[np.floating],
        centre: NDArray[np.float64] | None = None,
        mask: NDArray[np.floating] | None = None,
    ) -> NDArray[np.bool_]:
        """Which pixels of an image become points, `[H,W]`.

        Left out are pixels with a value that is not finite or a depth that is not positive, pixels of less confidence,
        and "flying pixels": at the border of a near object the network's depth slides from the near surface to the far
        one, and these pixels hang in the air between both. An image of which most pixels would be such has no surfaces
        that they could hang between: it keeps them.

        Args:
            points: `[H,W,3]`, each pixel's point in the world.
            depth: `[H,W]`, the points' z in their camera; None: it is not known, and no pixel flies.
            confidence: `[H,W]`.
            centre: the camera's position in the world, `[3]`; None, or not finite: it is not known, and neither is from
                where a surface is seen.
            mask: `[H,W]`, the probability that a pixel is dynamic; None: none is known to be.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            world = points.astype(np.float32)
        kept: NDArray[np.bool_] = np.isfinite(world).all(-1) & np.isfinite(confidence) & (confidence >= self.least)
        if depth is not None:
            kept &= np.isfinite(depth) & (depth > 0)
            kept &= ~_flying(depth, kept, self.edges)
        if self.normals is not None and centre is not None and np.isfinite(centre).all():
            kept &= ~_grazing(points, centre, self.normals)
        if self.static_only and mask is not None:
            kept &= mask < DYNAMIC
        return kept


def _extreme(which: np.ufunc, values: NDArray[_Number]) -> NDArray[_Number]:
    """The maximum or minimum (`which`) of each value and its eight neighbours, fewer at the border: `[H,W]`."""
    tall = values.copy()
    which(tall[1:], values[:-1], out=tall[1:])
    which(tall[:-1], values[1:], out=tall[:-1])
    result = tall.copy()
    which(result[:, 1:], tall[:, :-1], out=result[:, 1:])
    which(result[:, :-1], tall[:, 1:], out=result[:, :-1])
    return result


def _flying(depth: NDArray[np.floating], kept: NDArray[np.bool_], share: float | None) -> NDArray[np.bool_]:
    """Which of an image's pixels `[H,W]` hang between two surfaces.

    One of eight neighbours has a finite depth that differs by more than a share of theirs. None do where most of the
    kept ones would.
    """
    if share is None:
        return np.zeros_like(kept)
    known = np.isfinite(depth)
    highest = _extreme(np.maximum, np.where(known, depth, -np.inf))
    lowest = _extreme(np.minimum, np.where(known, depth, np.inf))
    with np.errstate(over="ignore", invalid="ignore"):
        flying = kept & (np.maximum(highest - depth, depth - lowest) > share * depth)
    return flying if flying.sum() <= _MOST_FLYING * kept.sum() else np.zeros_like(kept)


def _grazing(points: NDArray[np.floating], centre: NDArray[np.float64], degrees: float) -> NDArray[np.bool_]:
    """Which pixels `[H,W]` show a surface whose normal is further than so many degrees from the ray to the camera.

    The normal is that of the surface through a pixel's neighbours, left and right, above and below; at the border, or
    where a neighbour has no point, through the pixel itself and the other one. A pixel with none on either side has no
    normal, and stays.
    """
    wide = points.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        normal = np.cross(_slope(wide, 1), _slope(wide, 0))
        ray = wide - centre
        along = np.abs(np.einsum("ijk,ijk->ij", normal, ray))
        lengths = np.linalg.norm(normal, axis=-1) * np.linalg.norm(ray, axis=-1)
        return np.asarray((lengths > 0) & (along < np.cos(np.deg2rad(degrees)) * lengths), np.bool_)


def _slope(points: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """From each pixel's neighbour on one side to that on the other, `[H,W,3]`; NaN where neither has a point."""
    usable = np.logical_and.reduce(np.isfinite(points), axis=-1, keepdims=True)
    before, after = np.full_like(points, np.nan), np.full_like(points, np.nan)
    first, last = (slice(None, -1), slice(1, None)) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
    before[last] = np.where(usable[first], points[first], np.nan)
    after[first] = np.where(usable[last], points[last], np.nan)
    before, after = np.where(np.isnan(before), points, before), np.where(np.isnan(after), points, after)
    return after - before
