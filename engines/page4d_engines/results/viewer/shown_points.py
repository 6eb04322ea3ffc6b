"""`ShownPoints`: the points of a scene that a viewer draws, with all that they can be coloured and chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.scene.cloud_options import DYNAMIC


@dataclass(frozen=True)
class ShownPoints:
    """n points, in the order of their images.

    Attributes:
        points: float32 `[n,3]`, in the scene's world.
        colours: of the photos, uint8 RGB `[n,3]`.
        depth: float32 `[n]`, z in the camera that saw it, in the scene's unit; NaN where unknown.
        confidence: float32 `[n]`, as the model has it; NaN where unknown.
        mask: float32 `[n]`, the probability of being dynamic; NaN without a mask.
        t: int32 `[n]`, the clip's timestep.
    """

    points: NDArray[np.float32]
    colours: NDArray[np.uint8]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    mask: NDArray[np.float32]
    t: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def of(cls, image: PosedImage) -> ShownPoints:
        """The points that an image adds to the cloud."""
        kept = image.kept & np.isfinite(image.points).all(-1)
        unknown = np.full(kept.shape, np.nan, np.float32)
        maps = (image.depth, image.confidence, image.mask)
        depth, confidence, mask = (unknown[kept] if values is None else values[kept] for values in maps)
        t = np.full(len(depth), image.t, np.int32)
        return cls(image.points[kept], image.pixels[kept], depth, confidence, mask, t)

    @classmethod
    def joined(cls, parts: list[ShownPoints]) -> ShownPoints:
        """All points of some; at least one of them."""
        return cls(
            points=np.concatenate([part.points for part in parts]),
            colours=np.concatenate([part.colours for part in parts]),
            depth=np.concatenate([part.depth for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            mask=np.concatenate([part.mask for part in parts]),
            t=np.concatenate([part.t for part in parts]),
        )

    @classmethod
    def none(cls) -> ShownPoints:
        """No points."""
        empty = np.zeros(0, np.float32)
        return cls(
            points=np.zeros((0, 3), np.float32),
            colours=np.zeros((0, 3), np.uint8),
            depth=empty,
            confidence=empty,
            mask=empty,
            t=np.zeros(0, np.int32),
        )

    def chosen(self, which: NDArray[np.generic] | slice) -> ShownPoints:
        """Some of the points: by a mask, by indices, or a slice."""
        return ShownPoints(
            points=self.points[which],
            colours=self.colours[which],
            depth=self.depth[which],
            confidence=self.confidence[which],
            mask=self.mask[which],
            t=self.t[which],
        )

    @property
    def dynamic(self) -> NDArray[np.bool_]:
        """Which of them move, by the mask; none without one. `[n]`"""
        return self.mask >= DYNAMIC  # NaN is not


class Thinning:
    """Collects points and keeps an even share of them, so that memory does not grow with the clip.

    Args:
        most: how many points are kept at the end.
    """

    def __init__(self, most: int) -> None:
        self._most, self._step, self._next = most, 1, 0
        self._parts: list[ShownPoints] = []
        self.total = 0
        """Points that were added."""

    def add(self, points: ShownPoints) -> None:
        """Add the points of an image."""
        self._parts.append(points.chosen(slice(self._next, None, self._step)))
        self.total += len(points)
        if sum(map(len, self._parts)) > 2 * self._most + 1:
            joined = ShownPoints.joined(self._parts)
            self._parts = [joined.chosen(slice(None, None, 2))]
            self._step *= 2
        self._next = -self.total % self._step  # every step-th of all points, whichever image they are of

    def points(self) -> ShownPoints:
        """At most as many as were asked for, evenly spaced in the order in which they were added."""
        joined = ShownPoints.joined(self._parts) if self._parts else ShownPoints.none()
        if len(joined) <= self._most:
            return joined
        return joined.chosen(np.arange(self._most, dtype=np.int64) * len(joined) // self._most)
