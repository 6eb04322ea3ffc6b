"""`Cloud`: the coloured points of a window, in the world, and the PLY file that viewers open."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.files import write_atomically
from page4d_engines.results.scene.cloud_filter import CloudFilter

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

        `CloudFilter.kept` says which pixels are left out.

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
            z = None if depth is None else depth[place]
            kept = CloudFilter(least, edges).kept(points[place], z, confidence[place])
            parts.append(cls.of_pixels(images[place], points[place], confidence[place], kept))
        return cls.joined(parts)

    @classmethod
    def of_pixels(
        cls,
        pixels: NDArray[np.uint8],
        points: NDArray[np.floating],
        confidence: NDArray[np.float32],
        kept: NDArray[np.bool_],
    ) -> Cloud:
        """Those pixels of an image that are kept `[H,W]`, row by row; arguments are one image's, as `of` has them."""
        return cls(points[kept].astype(np.float32), pixels[kept], confidence[kept])

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


def write_ply(path: pathlib.Path, cloud: Cloud) -> None:
    """Write a binary little-endian PLY, whole or not at all.

    Its vertices have x, y, z as float, red, green, blue as uchar, and confidence as float.
    """
    write_atomically(path, ply_header(len(cloud.points)) + ply_vertices(cloud))


def ply_header(count: int, digits: int = 0) -> bytes:
    """The header of a PLY of so many points.

    Args:
        count: of the points.
        digits: the header is as long as that of a count of so many digits, so that it can be written over one.
    """
    pad = max(0, digits - len(str(count)))
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *([f"comment {'-' * pad}"] if digits else []),
        f"element vertex {count}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        "property float confidence",
        "end_header",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def ply_vertices(cloud: Cloud) -> bytes:
    """The points as they stand behind the header."""
    vertices = np.empty(len(cloud.points), _VERTEX)
    vertices["place"], vertices["colour"], vertices["confidence"] = cloud.points, cloud.colours, cloud.confidence
    return vertices.tobytes()
