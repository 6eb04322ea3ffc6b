"""The results of heads as files: a coloured point cloud, the cameras, and a depth image of every photo."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.manifest import PREDICTIONS, PointsFrame
from page4d.network.poses import world_points
from page4d.network.sky import fill_sky
from page4d_engines.clip.fit import Fit
from page4d_engines.pipeline import LengthUnit, Result
from page4d_engines.results.depth import depth_scale, depth_sheet, write_depth
from page4d_engines.results.report import Picture
from page4d_engines.results.scene.calibration import Calibration, calibrate, write_calibration
from page4d_engines.results.scene.cloud import Cloud, write_ply
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_view import render_view
from page4d_engines.results.scene.confidence import probability
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.prediction_summary import CameraSummary, PredictionSummary, unit_in_words

CLOUD, CAMERAS, DEPTH = "points.ply", "cameras.json", "depth"

_LONGEST = 1e9  # focal length in pixels that `cameras.json` can hold


@dataclass(frozen=True)
class Predictions:
    """The heads' results of one window, `[T,V,..]`, with the photos that they are of.

    Attributes:
        images: uint8 RGB `[T,V,H,W,3]`.
        result: of the pipeline.
        fits: how each photo came to the engine's size, T*V, t slow.
        names: of the images.
        choice: what the cloud is made from; None: the engines give none.
    """

    images: NDArray[np.uint8]
    result: Result
    fits: Sequence[Fit]
    names: ImageNames
    choice: CloudChoice | None

    @classmethod
    def are_in(cls, result: Result) -> bool:
        """Whether a result has any."""
        return any(getattr(result, name) is not None for name in PREDICTIONS)

    def write(self, out: pathlib.Path, place: pathlib.Path) -> PredictionSummary:
        """Write a window's files.

        Args:
            out: the output folder.
            place: where in it, an existing folder.
        """
        cloud, choice, rig = self.cloud, self.choice, self.rig
        if cloud is not None:
            write_ply(place / CLOUD, cloud)
        unit = self.result.unit
        left_out = [] if rig is None else write_calibration(place / CAMERAS, rig, unit is LengthUnit.METRES)
        depth = self.depth
        scale = None if depth is None else depth_scale(depth)
        pictures = []
        for name, (t, v) in zip(self.names.depth, self._images, strict=True):
            if depth is None or scale is None:
                break
            path = place / DEPTH / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_depth(path, depth[t, v], scale)
            pictures.append(path.relative_to(out).as_posix())
        threshold = math.nan if cloud is None else self._least
        return PredictionSummary(
            cloud=None if cloud is None else (place / CLOUD).relative_to(out).as_posix(),
            points=0 if cloud is None else len(cloud.points),
            cameras=None if rig is None else (place / CAMERAS).relative_to(out).as_posix(),
            depth=pictures,
            depth_scale=scale,
            rig={name: _summary(calibration) for name, calibration in (rig or {}).items()},
            warnings=list(_warnings(rig or {}, left_out)),
            points_from=None if choice is None else str(choice.source),
            confidence=None if choice is None else choice.confidence,
            percentile=None if choice is None else choice.threshold.percentile,
            threshold=_finite(threshold),
            unit=None if unit is None else str(unit),
        )

    def pictures(self, cameras: Sequence[str], times: Sequence[str]) -> Iterator[Picture]:
        """For the report: the cloud from a viewpoint of its own, and the photos with their depth.

        Args:
            cameras: V names.
            times: T names.
        """
        cloud, camera, depth = self.cloud, self.result.camera, self.depth
        if cloud is not None:
            poses = np.zeros((0, 4, 4)) if camera is None else camera.reshape(-1, 4, 4)
            beside = "" if camera is None else " from beside the cameras, which are drawn as frames"
            yield Picture(render_view(cloud, poses), f"The point cloud{beside}.")
        if depth is not None:
            shown = [""] if len(times) == 1 else times
            caption = "Each photo and its depth: near is bright, far is dark, grey has none."
            unit = unit_in_words(self.result.unit)
            yield Picture(depth_sheet(self.images, depth, cameras, shown, unit), caption)

    @functools.cached_property
    def cloud(self) -> Cloud | None:
        """The points that are sure enough, in the world."""
        choice, result = self.choice, self.result
        if choice is None:
            return None
        depth = self.depth if choice.source == "depth" else self._points_depth
        confidence, least = self._confidence, self._least
        parts = []
        for place in self._images:  # one after the other: points of all images in float64 take gigabytes
            arrays = (result.points, depth, result.camera, result.intrinsics)
            points, z, camera, K = (None if array is None else array[place] for array in arrays)
            with np.errstate(over="ignore", invalid="ignore"):
                of_depth = z if choice.source == "depth" else None
                world = world_points(points, result.points_frame, of_depth, camera, K, str(choice.source))
            if z is not None and not np.isfinite(z).any():  # of points of the world, whose camera has no pose
                z = None
            parts.append(Cloud.of(self.images[place], world, z, confidence[place], least))
        return Cloud.joined(parts)

    @functools.cached_property
    def rig(self) -> dict[str, Calibration] | None:
        """Each image's camera; None where the engines give no cameras with intrinsics."""
        result = self.result
        camera, K, points, confidence = result.camera, result.intrinsics, result.points, result.confidence
        if camera is None:
            return None
        rig = {}
        for name, fit, place in zip(self.names.cameras, self.fits, self._images, strict=True):
            if K is not None:
                rig[name] = Calibration.given(K[place], camera[place], fit)
            elif points is not None and confidence is not None and result.points_frame is PointsFrame.CAMERA:
                rig[name] = calibrate(points[place], confidence[place], camera[place], fit)
            else:
                return None
        return rig

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
        for place in self._images:
            forward, centre = camera[place][:3, 2], camera[place][:3, 3]
            with np.errstate(over="ignore", invalid="ignore"):
                depth[place] = (points[place] - centre) @ forward
        return depth

    @functools.cached_property
    def _confidence(self) -> NDArray[np.float32]:
        """`[T,V,H,W]`, of the cloud's points; NaN where a photo was padded, since these pixels show nothing of it."""
        assert self.choice is not None
        confidence: NDArray[np.float32] = getattr(self.result, self.choice.confidence)
        confidence = probability(confidence) if self.choice.confidence == "confidence" else confidence
        if all(fit.shown.all() for fit in self.fits):
            return confidence
        shown = np.stack([fit.shown for fit in self.fits]).reshape(confidence.shape)
        return np.where(shown, confidence, np.float32(np.nan))

    @functools.cached_property
    def _least(self) -> float:
        """Confidence of a point in the cloud."""
        assert self.choice is not None
        return self.choice.threshold.of(self._confidence)

    @property
    def _images(self) -> list[tuple[int, ...]]:
        """t and v of each image, in the order of the names."""
        return list(np.ndindex(*self.images.shape[:2]))


def _warnings(rig: dict[str, Calibration], left_out: Sequence[str]) -> Iterator[str]:
    guessed = [name for name, calibration in rig.items() if calibration.fitted is False]
    if guessed:
        yield f"no focal length fits the points of {', '.join(guessed)}: {CAMERAS} holds a guess"
    no_focal = [name for name in left_out if np.isfinite(rig[name].camera_to_world).all() and not _has_focal(rig[name])]
    no_pose = [name for name in left_out if name not in no_focal]
    if no_pose:
        yield f"no pose was found for {', '.join(no_pose)}: not in {CAMERAS}"
    if no_focal:
        yield f"no focal length was found for {', '.join(no_focal)}: not in {CAMERAS}"


def _has_focal(calibration: Calibration) -> bool:
    return bool(np.abs(calibration.camera.K).max() <= _LONGEST)  # NaN is not


def _summary(calibration: Calibration) -> CameraSummary:
    K = calibration.camera.K
    return CameraSummary(
        position=[_finite(coordinate) for coordinate in calibration.camera_to_world[:3, 3]],
        focal=[_finite(K[0, 0]), _finite(K[1, 1])],
        fitted=calibration.fitted,
        residual=_finite(calibration.residual),
    )


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
