"""`WindowGeometry`: what the heads give in one window, image by image: points, depth, cameras, confidence, mask."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.layout import Layout
from page4d.manifest import PointsFrame
from page4d.network.heads.sky import fill_sky
from page4d.network.poses import world_points
from page4d_engines.clip.fit import Fit
from page4d_engines.pipeline import Result
from page4d_engines.results.scene.calibration import Calibration, calibrate
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_filter import CloudFilter
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.confidence import probability

Place = tuple[int, ...]
"""t and v of an image in its window."""


@dataclass(frozen=True)
class WindowGeometry:
    """The heads' results of one window, `[T,V,..]`.

    Attributes:
        result: of the pipeline.
        fits: how each photo came to the engine's size, T*V, t slow.
        choice: what the cloud is made from; None: the engines give none.
        options: which pixels become its points.
    """

    result: Result
    fits: Sequence[Fit]
    choice: CloudChoice | None
    options: CloudOptions

    def places(self) -> Iterator[Place]:
        """Of all images, t slow."""
        layout = self.fits[0].layout
        return np.ndindex(layout.T, layout.V)

    def points(self, place: Place) -> NDArray[np.float64]:
        """Each pixel's point in the window's world, `[H,W,3]`, as the cloud has it; only where there is a cloud."""
        assert self.choice is not None
        choice, result = self.choice, self.result
        of_depth = self.depth if choice.source == "depth" else None
        arrays = (result.points, of_depth, result.camera, result.intrinsics)
        points, z, camera, K = (None if array is None else array[place] for array in arrays)
        with np.errstate(over="ignore", invalid="ignore"):
            return world_points(points, result.points_frame, z, camera, K, str(choice.source))

    def kept(self, place: Place, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which pixels `[H,W]` become points of the cloud, before it is thinned; only where there is a cloud.

        Args:
            place: of the image.
            points: what `points` gives for it.
        """
        assert self.choice is not None and self.confidence is not None
        depth, camera = self.depth if self.choice.source == "depth" else self._points_depth, self.result.camera
        z = None if depth is None else depth[place]
        if z is not None and not np.isfinite(z).any():  # of points of the world, whose camera has no pose
            z = None
        centre = None if camera is None else camera[place][:3, 3]
        rules = CloudFilter.of(self.options, self.least)
        return rules.kept(points, z, self.confidence[place], centre, self.mask(place))

    def mask(self, place: Place) -> NDArray[np.float32] | None:
        """The probability that a pixel is dynamic, `[H,W]`, each patch's for all of its pixels."""
        mask = self.result.mask
        if mask is None:
            return None
        return np.repeat(np.repeat(mask[place], Layout.PATCH, 0), Layout.PATCH, 1)

    @functools.cached_property
    def calibrations(self) -> list[Calibration] | None:
        """Each image's camera; None where the engines give no cameras with intrinsics."""
        result = self.result
        camera, K, points, confidence = result.camera, result.intrinsics, result.points, result.confidence
        if camera is None:
            return None
        calibrations = []
        for fit, place in zip(self.fits, self.places(), strict=True):
            if K is not None:
                calibrations.append(Calibration.given(K[place], camera[place], fit))
            elif points is not None and confidence is not None and result.points_frame is PointsFrame.CAMERA:
                calibrations.append(calibrate(points[place], confidence[place], camera[place], fit))
            else:
                return None
        return calibrations

    @functools.cached_property
    def depth(self) -> NDArray[np.floating] | None:
        """`[T,V,H,W]`: of the depth head, with a depth for the sky where that is known; else z of the points in their
        cameras."""
        depth, sky = self.result.depth, self.result.sky
        if depth is None:
            return self._points_depth
        return depth if sky is None else fill_sky(depth, sky)

    @functools.cached_property
    def _points_depth(self) -> NDArray[np.floating] | None:
        """z of the points head's points in their cameras."""
        points, camera = self.result.points, self.result.camera
        if points is None or self.result.points_frame is not PointsFrame.WORLD:
            return None if points is None else points[..., 2]
        if camera is None:
            return None
        depth = np.empty(points.shape[:-1], np.float32)
        for place in self.places():
            forward, centre = camera[place][:3, 2], camera[place][:3, 3]
            with np.errstate(over="ignore", invalid="ignore"):
                depth[place] = (points[place] - centre) @ forward
        return depth

    @functools.cached_property
    def confidence(self) -> NDArray[np.float32] | None:
        """`[T,V,H,W]`, of the cloud's points; NaN where a photo was padded, since these pixels show nothing of it."""
        if self.choice is None:
            return None
        confidence: NDArray[np.float32] = getattr(self.result, self.choice.confidence)
        confidence = probability(confidence) if self.choice.confidence == "confidence" else confidence
        if all(fit.shown.all() for fit in self.fits):
            return confidence
        shown = np.stack([fit.shown for fit in self.fits]).reshape(confidence.shape)
        return np.where(shown, confidence, np.float32(np.nan))

    @functools.cached_property
    def least(self) -> float:
        """Confidence of a point in the cloud; only where there is one."""
        assert self.choice is not None and self.confidence is not None
        return self.choice.threshold.of(self.confidence)
