"""The results of Pi3 as files: a coloured point cloud, the cameras, and a depth image of every photo."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d_engines.clip.fit import Fit
from page4d_engines.pipeline import Result
from page4d_engines.results.calibration import Calibration, calibrate, write_calibration
from page4d_engines.results.cloud import Cloud, write_ply
from page4d_engines.results.cloud_view import render_view
from page4d_engines.results.depth import depth_scale, depth_sheet, write_depth

CLOUD, CAMERAS, DEPTH = "points.ply", "cameras.json", "depth"


class CameraSummary(msgspec.Struct, frozen=True):
    """An estimated camera. A length is in the window's own unit: the network knows no metres."""

    position: list[float | None]
    """In the world, `[3]`."""
    focal: list[float]
    """fx, fy in pixels of the photo."""
    fitted: bool
    """Whether the focal lengths were fitted to the points; a guess otherwise."""
    residual: float | None
    """Of the fit, root mean square in pixels of the photo."""


class PredictionSummary(msgspec.Struct, frozen=True):
    """The files of one window, relative to the output folder, with `/`."""

    cloud: str
    points: int
    """In the cloud."""
    cameras: str
    depth: list[str]
    """16-bit PNG files; 0 stands for no value."""
    depth_scale: float
    """Depth of one step of these, in the window's unit."""
    rig: dict[str, CameraSummary]
    """By view."""
    warnings: list[str] = []


@dataclass(frozen=True)
class Predictions:
    """Points, confidence and cameras of one window, `[1,V,..]`, with the photos that they are of.

    Attributes:
        images: uint8 RGB `[1,V,H,W,3]`.
        result: of the pipeline.
        fits: how each view's photo came to the engine's size.
        views: V names.
        min_confidence: least probability of a point in the cloud.
    """

    images: NDArray[np.uint8]
    result: Result
    fits: list[Fit]
    views: list[str]
    min_confidence: float

    def write(self, out: pathlib.Path, place: pathlib.Path, frames: list[str]) -> PredictionSummary:
        """Write a window's files.

        Args:
            out: the output folder.
            place: where in it, an existing folder.
            frames: names of the depth images, one per view, without suffix.
        """
        points, confidence, camera = self._arrays
        cloud = self.cloud
        write_ply(place / CLOUD, cloud)
        rig = {
            name: calibrate(points[0, v], confidence[0, v], camera[0, v], self.fits[v])
            for v, name in enumerate(self.views)
        }
        left_out = write_calibration(place / CAMERAS, rig)
        scale = depth_scale(points[..., 2])
        pictures = []
        for v, frame in enumerate(frames):
            path = place / DEPTH / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_depth(path, points[0, v, ..., 2], scale)
            pictures.append(path.relative_to(out).as_posix())
        cameras = {name: _summary(calibration) for name, calibration in rig.items()}
        return PredictionSummary(
            cloud=(place / CLOUD).relative_to(out).as_posix(),
            points=len(cloud.points),
            cameras=(place / CAMERAS).relative_to(out).as_posix(),
            depth=pictures,
            depth_scale=scale,
            rig=cameras,
            warnings=list(self._warnings(rig, left_out)),
        )

    def pictures(self) -> tuple[Image.Image, Image.Image]:
        """For the report: the cloud from a viewpoint of its own, and the photos with their depth."""
        points, _, camera = self._arrays
        view = render_view(self.cloud, camera.reshape(-1, 4, 4))
        return view, depth_sheet(self.images, points[..., 2], self.views, [""])

    @functools.cached_property
    def cloud(self) -> Cloud:
        """The points that are probable enough, in the world."""
        return Cloud.of(self.images, *self._arrays, self.min_confidence)

    @property
    def _arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        points, confidence, camera = self.result.points, self.result.confidence, self.result.camera
        assert points is not None and confidence is not None and camera is not None
        return points, confidence, camera

    def _warnings(self, rig: dict[str, Calibration], left_out: list[str]) -> Iterator[str]:
        guessed = [name for name, calibration in rig.items() if not calibration.fitted]
        if guessed:
            yield f"no focal length fits the points of {', '.join(guessed)}: {CAMERAS} holds a guess"
        if left_out:
            yield f"no pose was found for {', '.join(left_out)}: not in {CAMERAS}"


def _summary(calibration: Calibration) -> CameraSummary:
    K = calibration.camera.K
    return CameraSummary(
        position=[_finite(coordinate) for coordinate in calibration.camera_to_world[:3, 3]],
        focal=[float(K[0, 0]), float(K[1, 1])],
        fitted=calibration.fitted,
        residual=_finite(calibration.residual),
    )


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
