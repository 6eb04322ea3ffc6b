"""`CloudThinning`: which of a scene's points stay where there may be only so many, or one to a voxel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.scene.cloud_options import CloudOptions

_STEP = (0.7548776662466927, 0.5698402909980532)  # of the plane's evenest sequence, Roberts' R2


@dataclass(frozen=True)
class Candidates:
    """The points of one image that other filters keep.

    Attributes:
        kept: `[H,W]`.
        points: `[H,W,3]`, in the scene's world.
        confidence: `[H,W]`.
    """

    kept: NDArray[np.bool_]
    points: NDArray[np.floating]
    confidence: NDArray[np.floating]


@dataclass(frozen=True)
class CloudThinning:
    """Which points stay. It holds a number per image, and with voxels one per point that stays.

    Attributes:
        shares: how many points of each image stay; None: all.
        chosen: pixels of each image that voxels keep, as indices into its rows one after the other; None: all.
    """

    shares: Sequence[int] | None
    chosen: Sequence[NDArray[np.int64]] | None

    @classmethod
    def of(cls, images: Iterable[Candidates], options: CloudOptions) -> CloudThinning:
        """Look at the candidates of all images, in their order, each once."""
        chosen = None
        if options.voxel is not None:
            chosen = _of_voxels(images, options.voxel)
            counts = [len(pixels) for pixels in chosen]
        elif options.max_points is not None:
            counts = [int(image.kept.sum()) for image in images]
        else:
            return cls(None, None)
        total, most = sum(counts), options.max_points
        if most is None or total <= most:
            return cls(None, chosen)
        ends = [end * most // total for end in np.cumsum([0, *counts], dtype=object)]
        return cls([int(end - begin) for begin, end in itertools.pairwise(ends)], chosen)

    def kept(self, index: int, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of an image's candidates `[H,W]` that stay; `index` is its place in the order."""
        if self.chosen is not None:
            kept = np.zeros_like(kept)
            kept.ravel()[self.chosen[index]] = True
        return kept if self.shares is None else _evenly(kept, self.shares[index])


def _evenly(kept: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """So many of the pixels, spread over the image as evenly as they lie in it."""
    rows, columns = np.nonzero(kept)
    rank = (columns * _STEP[0] + rows * _STEP[1]) % 1.0
    first = np.argsort(rank, kind="stable")[:count]
    result = np.zeros_like(kept)
    result[rows[first], columns[first]] = True
    return result


def _of_voxels(images: Iterable[Candidates], side: float) -> list[NDArray[np.int64]]:
    """Of each image the pixels that are the most confident ones of their voxels; of equal ones the first."""
    best, waiting, count, pending = _Best.none(), [], 0, 0
    for image in images:
        waiting.append(_Best.of_image(image, side, count))
        count, pending = count + 1, pending + len(waiting[-1].pixels)
        if pending > len(best.pixels):  # joined when they are as many: each point is then sorted a few times
            best, waiting, pending = _Best.joined([best, *waiting]), [], 0
    best = _Best.joined([best, *waiting])
    order = np.lexsort((best.pixels, best.images))
    bounds = np.searchsorted(best.images[order], np.arange(count + 1))
    return [best.pixels[order[begin:end]] for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class _Best:
    """The most confident point of each voxel: the voxel `[n,3]`, its confidence, image and pixel `[n]`."""

    voxels: NDArray[np.float64]
    confidence: NDArray[np.floating]
    images: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Best:
        return cls(np.zeros((0, 3)), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of_image(cls, image: Candidates, side: float, index: int) -> _Best:
        pixels = np.flatnonzero(image.kept).astype(np.int64)
        # floats: a voxel far off has no number among integers
        voxels = np.floor(image.points[image.kept].astype(np.float64) / side)
        whole = cls(voxels, image.confidence[image.kept], np.full(len(pixels), index, np.int64), pixels)
        return cls.joined([whole])

    @classmethod
    def joined(cls, parts: Sequence[_Best]) -> _Best:
        voxels = np.concatenate([part.voxels for part in parts])
        confidence = np.concatenate([part.confidence for part in parts])
        images = np.concatenate([part.images for part in parts])
        pixels = np.concatenate([part.pixels for part in parts])
        order = np.lexsort((pixels, images, -confidence, *voxels.T))
        sorted_voxels = voxels[order]
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (sorted_voxels[1:] != sorted_voxels[:-1]).any(-1)
        first = order[is_first]
        return cls(voxels[first], confidence[first], images[first], pixels[first])
