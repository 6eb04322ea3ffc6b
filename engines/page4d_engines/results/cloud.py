"""`Cloud`: the coloured points of a window, in the world, and the PLY file that viewers open."""

from __future__ import annotations

import pathlib
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
        points: float32 `[n,3]`, in the world, in the clip's own unit.
        colours: uint8 RGB `[n,3]`.
        confidence: float32 `[n]`, probability that the point is right.
    """

    points: NDArray[np.float32]
    colours: NDArray[np.uint8]
    confidence: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8],
        points: NDArray[np.float32],
        confidence: NDArray[np.float32],
        camera: NDArray[np.float64],
        min_confidence: float = 0.1,
        edges: float | None = 0.03,
    ) -> Cloud:
        """The points of all images together, t slow, then v, row and column.

        Left out are pixels with a value that is not finite or a depth that is not positive (in an image whose pose is
        not finite, all of them), pixels below the least probability, and "flying pixels": at the border of a near
        object the network's depth slides from the near surface to the far one, and these pixels hang in the air
        between both. An image of which most pixels would be such has no surfaces that they could hang between: it
        keeps them.

        Args:
            images: uint8 RGB `[T,V,H,W,3]`.
            points: `[T,V,H,W,3]`, each pixel's point in its camera's frame (x right, y down, z forward).
            confidence: `[T,V,H,W]`, logits.
            camera: `[T,V,4,4]`, camera to world.
            min_confidence: least probability of a point that is kept.
            edges: a pixel flies if the depth of one of its eight neighbours differs by more than this share of its own
                depth; None keeps them.

        Raises:
            UsageError: the shapes do not go together.
        """
        shapes = [list(array.shape) for array in (images, points, confidence, camera)]
        lead = images.shape[:4]
        if images.ndim != 5 or shapes != [[*lead, 3], [*lead, 3], [*lead], [*lead[:2], 4, 4]]:
            got, allowed = " ".join(map(str, shapes)), "[T,V,H,W,3] [T,V,H,W,3] [T,V,H,W] [T,V,4,4]"
            raise UsageError(
                "images, points, confidence and camera of a cloud do not go together", got=got, allowed=allowed
            )
        parts = []
        for t, v in np.ndindex(*lead[:2]):
            sure = probability(confidence[t, v])
            kept = np.isfinite(points[t, v]).all(-1) & (points[t, v, ..., 2] > 0) & (sure >= min_confidence)
            if edges is not None:
                flying = kept & _flying(points[t, v, ..., 2], edges)
                if flying.sum() <= _MOST_FLYING * kept.sum():
                    kept &= ~flying
            places = np.flatnonzero(kept)
            with np.errstate(over="ignore", invalid="ignore"):
                seen: NDArray[np.float64] = points[t, v].reshape(-1, 3)[places].astype(np.float64)
                world = (seen @ camera[t, v, :3, :3].T + camera[t, v, :3, 3]).astype(np.float32)
            finite = np.isfinite(world).all(-1)
            if not finite.all():
                world, places = world[finite], places[finite]
            parts.append((world, images[t, v].reshape(-1, 3)[places], sure.reshape(-1)[places]))
        if not parts:
            return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
        worlds, colours, confidences = zip(*parts, strict=True)
        return cls(np.concatenate(worlds), np.concatenate(colours), np.concatenate(confidences))


def probability(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logits of any shape as probabilities, float32; NaN stays NaN."""
    # clipped: the exponential of 89 is no float32
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


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


def _flying(depth: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Which pixels `[H,W]` have one of eight neighbours whose finite depth differs by more than a share of theirs."""
    known = np.isfinite(depth)
    highest = extreme(np.maximum, np.where(known, depth, -np.inf))
    lowest = extreme(np.minimum, np.where(known, depth, np.inf))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.maximum(highest - depth, depth - lowest) > share * depth)
