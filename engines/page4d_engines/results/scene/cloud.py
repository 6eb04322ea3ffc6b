"""`Cloud`: the coloured points of a window, in the world, and the PLY file that viewers open."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.files import write_atomically

_Number = TypeVar("_Number", bound=np.number[Any])
_MOST_FLYING = 0.5  # of an image's points
_VERTEX = np.dtype([("place", "<f4", 3), ("colour", "u1", 3), ("confidence", "<f4")])  # packed, as PLY has it


@dataclass(frozen=True)
class Cloud:
    """n points; every value is finite.

    Attributes:
        points: float32 `[n,3]`, in the world, in the unit of the result.
        colours: uint8 RGB `[n,3]`.
        confidence: float32 `[n]`, as the model has it: Pi3's is the probability that the point is right, others' have
            no fixed scale.
    """

    points: NDArray[np.float32]
    colours: NDArray[np.uint8]
    confidence: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8],
        points: NDArray[np.floating],
        depth: NDArray[np.floating] | None,
        confidence: NDArray[np.float32],
        least: float,
        edges: float | None = 0.03,
    ) -> Cloud:
        """The points of all images together, in the images' order, row by row.

        Left out are pixels with a value that is not finite or a depth that is not positive, pixels of less confidence,
        and "flying pixels": at the border of a near object the network's depth slides from the near surface to the far
        one, and these pixels hang in the air between both. An image of which most pixels would be such has no surfaces
        that they could hang between: it keeps them.

        Args:
            images: uint8 RGB `[...,H,W,3]`.
            points: `[...,H,W,3]`, each pixel's point in the world.
            depth: `[...,H,W]`, the points' z in their cameras; None: it is not known, and no pixel flies.
            confidence: `[...,H,W]`.
            least: confidence of a point that is kept.
            edges: a pixel flies if the depth of one of its eight neighbours differs by more than this share of its own
                depth; None keeps them.

        Raises:
            UsageError: the shapes do not go together.
        """
        arrays = [images, points, confidence] if depth is None else [images, points, confidence, depth]
        shapes = [list(array.shape) for array in arrays]
        lead = list(images.shape[:-1])
        if images.ndim < 3 or shapes != [[*lead, 3], [*lead, 3], lead, lead][: len(arrays)]:
            got, allowed = " ".join(map(str, shapes)), "[...,H,W,3] [...,H,W,3] [...,H,W] [...,H,W]"
            raise UsageError(
                "images, points, confidence and depth of a cloud do not go together", got=got, allowed=allowed
            )
        parts = []
        for place in np.ndindex(*lead[:-2]):
            with np.errstate(over="ignore", invalid="ignore"):
                world = points[place].astype(np.float32)
            sure = confidence[place]
            kept = np.isfinite(world).all(-1) & np.isfinite(sure) & (sure >= least)
            if depth is not None:
                kept &= np.isfinite(depth[place]) & (depth[place] > 0)
                kept &= ~_flying(depth[place], kept, edges)
            parts.append(cls(world[kept], images[place][kept], sure[kept]))
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Sequence[Cloud]) -> Cloud:
        """Several clouds as one, in their order."""
        if not parts:
            return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
        return cls(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.colours for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )


def extreme(which: np.ufunc, values: NDArray[_Number]) -> NDArray[_Number]:
    """The maximum or minimum (`which`) of each value and its eight neighbours, fewer at the border: `[H,W]`."""
    tall = values.copy()
    which(tall[1:], values[:-1], out=tall[1:])
    which(tall[:-1], values[1:], out=tall[:-1])
    result = tall.copy()
    which(result[:, 1:], tall[:, :-1], out=result[:, 1:])
    which(result[:, :-1], tall[:, 1:], out=result[:, :-1])
    return result


def write_ply(path: pathlib.Path, cloud: Cloud) -> None:
    """Write a binary little-endian PLY, whole or not at all.

    Its vertices have x, y, z as float, red, green, blue as uchar, and confidence as float.
    """
    vertices = np.empty(len(cloud.points), _VERTEX)
    vertices["place"], vertices["colour"], vertices["confidence"] = cloud.points, cloud.colours, cloud.confidence
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        "property float confidence",
        "end_header",
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode() + vertices.tobytes())


def _flying(depth: NDArray[np.floating], kept: NDArray[np.bool_], share: float | None) -> NDArray[np.bool_]:
    """Which of an image's pixels `[H,W]` hang between two surfaces.

    One of eight neighbours has a finite depth that differs by more than a share of theirs. None do where most of the
    kept ones would.
    """
    if share is None:
        return np.zeros_like(kept)
    known = np.isfinite(depth)
    highest = extreme(np.maximum, np.where(known, depth, -np.inf))
    lowest = extreme(np.minimum, np.where(known, depth, np.inf))
    with np.errstate(over="ignore", invalid="ignore"):
        flying = kept & (np.maximum(highest - depth, depth - lowest) > share * depth)
    return flying if flying.sum() <= _MOST_FLYING * kept.sum() else np.zeros_like(kept)
