"""`ImageNames`: what the images of a window are called in its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageNames:
    """What the images of a window are called in its files; each has T*V names, t slow.

    Attributes:
        cameras: in `cameras.json`.
        depth: of the depth images, without suffix.
    """

    cameras: Sequence[str]
    depth: Sequence[str]

    @classmethod
    def of(cls, cameras: Sequence[str], times: Sequence[str], photos: bool) -> ImageNames:
        """Names that tell the images of a window apart, as short as they can be.

        Args:
            cameras: V names.
            times: T names.
            photos: whether the cameras' names are those of single photos.
        """
        whole = [f"{camera}/{time}" for time in times for camera in cameras]
        if len(times) == 1:
            return cls(cameras, cameras if photos else whole)
        names = times if len(cameras) == 1 else whole
        return cls(names, names)
