"""The results of heads as files: a coloured point cloud, the cameras, and a depth image of every photo."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.manifest import PREDICTIONS
from page4d_engines.pipeline import LengthUnit, Result
from page4d_engines.results.depth import depth_scale, depth_sheet, write_depth
from page4d_engines.results.report import Picture
from page4d_engines.results.scene.calibration import Calibration, write_calibration
from page4d_engines.results.scene.cloud import Cloud, write_ply
from page4d_engines.results.scene.cloud_thinning import Candidates, CloudThinning
from page4d_engines.results.scene.cloud_view import render_view
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.prediction_summary import CameraSummary, PredictionSummary, unit_in_words
from page4d_engines.results.scene.window_geometry import Place, WindowGeometry

CLOUD, CAMERAS, DEPTH = "points.ply", "cameras.json", "depth"

_LONGEST = 1e9  # focal length in pixels that `cameras.json` can hold


@dataclass(frozen=True)
class Predictions:
    """The heads' results of one window, `[T,V,..]`, with the photos that they are of.

    Attributes:
        images: uint8 RGB `[T,V,H,W,3]`.
        geometry: what the heads give.
        names: of the images.
        present: which of them there are, bool `[T,V]`; the others are left out. None: all.
    """

    images: NDArray[np.uint8]
    geometry: WindowGeometry
    names: ImageNames
    present: NDArray[np.bool_] | None = None

    @classmethod
    def are_in(cls, result: Result) -> bool:
        """Whether a result has any."""
        return any(getattr(result, name) is not None for name in PREDICTIONS)

    def write(
        self, out: pathlib.Path, place: pathlib.Path, with_cloud: bool = True, with_cameras: bool = True
    ) -> PredictionSummary:
        """Write a window's files.

        Args:
            out: the output folder.
            place: where in it, an existing folder.
            with_cloud, with_cameras: whether these are written, too, in the window's own world.
        """
        choice, rig, unit = self.geometry.choice, self.rig, self.geometry.result.unit
        cloud = self.cloud if with_cloud else None
        if cloud is not None:
            write_ply(place / CLOUD, cloud)
        has_cameras = rig is not None and with_cameras
        left_out: list[str] = []
        if rig is not None and with_cameras:
            left_out = write_calibration(place / CAMERAS, rig, unit is LengthUnit.METRES)
        depth = self.geometry.depth
        scale = None if depth is None else depth_scale(depth)
        pictures = []
        for name, (t, v) in zip(self.names.depth, self.geometry.places(), strict=True):
            if depth is None or scale is None:
                break
            if not self._is_present((t, v)):
                continue
            path = place / DEPTH / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_depth(path, depth[t, v], scale)
            pictures.append(path.relative_to(out).as_posix())
        threshold = math.nan if self.geometry.confidence is None else self.geometry.least
        return PredictionSummary(
            cloud=None if cloud is None else (place / CLOUD).relative_to(out).as_posix(),
            points=0 if cloud is None else len(cloud.points),
            cameras=None if not has_cameras else (place / CAMERAS).relative_to(out).as_posix(),
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
        cloud, camera, depth = self.cloud, self.geometry.result.camera, self.geometry.depth
        if cloud is not None:
            poses = np.zeros((0, 4, 4)) if camera is None else camera[self._all_present]
            beside = "" if camera is None else " from beside the cameras, which are drawn as frames"
            yield Picture(render_view(cloud, poses), f"The point cloud{beside}.")
        if depth is not None:
            shown = [""] if len(times) == 1 else times
            caption = "Each photo and its depth: near is bright, far is dark, grey has none."
            unit = unit_in_words(self.geometry.result.unit)
            yield Picture(depth_sheet(self.images, depth, cameras, shown, unit), caption)

    @functools.cached_property
    def cloud(self) -> Cloud | None:
        """The points that are sure enough, in the world."""
        geometry = self.geometry
        confidence = geometry.confidence
        if confidence is None:
            return None
        thinning = CloudThinning.of(self._candidates(confidence), geometry.options)
        parts = []
        # one after the other: points of all images in float64 take gigabytes
        for index, place in enumerate(geometry.places()):
            points = geometry.points(place)
            kept = thinning.kept(index, geometry.kept(place, points))
            parts.append(Cloud.of_pixels(self.images[place], points, confidence[place], kept))
        return Cloud.joined(parts)

    def _candidates(self, confidence: NDArray[np.float32]) -> Iterator[Candidates]:
        for place in self.geometry.places():
            points = self.geometry.points(place)
            yield Candidates(self.geometry.kept(place, points), points, confidence[place])

    @functools.cached_property
    def rig(self) -> dict[str, Calibration] | None:
        """Each image's camera; None where the engines give no cameras with intrinsics."""
        calibrations = self.geometry.calibrations
        if calibrations is None:
            return None
        images = zip(self.names.cameras, calibrations, self.geometry.places(), strict=True)
        return {name: calibration for name, calibration, place in images if self._is_present(place)}

    @property
    def _all_present(self) -> NDArray[np.bool_]:
        return np.ones(self.images.shape[:2], np.bool_) if self.present is None else self.present

    def _is_present(self, place: Place) -> bool:
        return bool(self._all_present[place])


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
