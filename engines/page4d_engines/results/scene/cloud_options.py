"""`CloudOptions`: which pixels become points of a cloud, for `points.ply` and every other format."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from page4d.errors import UsageError

EDGES = 0.03
"""Of a pixel's depth: a neighbour that differs by more makes it a flying pixel, where nothing else is asked for."""
DYNAMIC = 0.5
"""A pixel is dynamic if the mask has this probability or more."""


class CloudOptions(msgspec.Struct, frozen=True):
    """What is asked of the clouds of a run; the defaults leave out points of low confidence and flying pixels.

    Raises:
        UsageError: a number is out of range.
    """

    points_from: str | None = None
    """A `PointsSource`; None: depth with cameras where the engines give these, else the points head."""
    min_confidence: float | None = None
    """Least probability, for engines that give one; None, without a percentile: 0.1."""
    confidence_percentile: float | None = None
    """Least confidence as a percentile of all images of a window; None: 50 for engines without a probability, 40 for
    Depth Anything 3."""
    edges: float | None = EDGES
    """A pixel is left out if the depth of one of its eight neighbours differs by more than this share of its own; None
    keeps them."""
    normals: float | None = None
    """A pixel is left out if the surface's normal there is further than this from the ray to the camera, in degrees;
    None keeps them."""
    static_only: bool = False
    """Whether pixels that the mask says are dynamic are left out."""
    max_points: int | None = None
    """The most points of a scene, chosen evenly among those that are left; None keeps all."""
    voxel: float | None = None
    """Side of a cube of which only the most confident point is kept, in the scene's unit; None keeps all."""

    def __post_init__(self) -> None:
        # of the confidence the engines decide what is allowed: see CloudChoice
        ranges = (
            ("--edge-depth", self.edges, self.edges is None or 0 < self.edges < math.inf, "a share above 0"),
            ("--edge-normal", self.normals, self.normals is None or 0 < self.normals <= 90, "0 to 90 degrees"),
            ("--max-points", self.max_points, self.max_points is None or self.max_points >= 1, "1 or more"),
            ("--voxel", self.voxel, self.voxel is None or 0 < self.voxel < math.inf, "a length above 0"),
        )
        for flag, value, is_allowed, allowed in ranges:
            if not is_allowed:
                raise UsageError(f"{flag} is out of range", got=value, allowed=allowed)

    @property
    def thins(self) -> bool:
        """Whether the points of a scene are thinned out, all of its images together."""
        return self.max_points is not None or self.voxel is not None

    def with_flags(
        self,
        *,
        points_from: str | None = None,
        min_confidence: float | None = None,
        confidence_percentile: float | None = None,
        edge_depth: float | None = None,
        edge_normal: float | None = None,
        static_only: bool | None = None,
        max_points: int | None = None,
        voxel: float | None = None,
    ) -> CloudOptions:
        """With what flags of a command say; None: as it is, 0: without that rule.

        Raises:
            UsageError: a number is out of range.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        if min_confidence is not None or confidence_percentile is not None:  # one replaces the other
            values |= {"min_confidence": min_confidence, "confidence_percentile": confidence_percentile}
        if points_from is not None:
            values["points_from"] = str(points_from)
        if static_only is not None:
            values["static_only"] = static_only
        rules = {"edges": edge_depth, "normals": edge_normal, "max_points": max_points, "voxel": voxel}
        values |= {name: value or None for name, value in rules.items() if value is not None}
        return CloudOptions(**values)
