"""`points.ply` and `cameras.json` of a scene, written image by image: the memory is that of a window."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

import msgspec

from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.scene.calibration import write_calibration
from page4d_engines.results.scene.cloud import Cloud, ply_header, ply_vertices
from page4d_engines.results.scene.prediction_summary import PredictionSummary
from page4d_engines.results.scene.predictions import CAMERAS as CAMERAS
from page4d_engines.results.scene.predictions import CLOUD as CLOUD
from page4d_engines.results.summary import Summary, WindowSummary

_DIGITS = 20  # of the number of points, which the header has and which is known at the end


@dataclass(frozen=True)
class SceneFiles:
    """What was written of a scene.

    Attributes:
        points: in the cloud; None where the engines give no cloud.
        has_cameras: whether there is a `cameras.json`.
        left_out: names of the images whose cameras have no pose or no focal length.
    """

    points: int | None
    has_cameras: bool
    left_out: list[str]

    @classmethod
    def write(cls, place: pathlib.Path, scene: Scene, with_cloud: bool = True) -> SceneFiles:
        """Write both files into an existing folder, or the cameras alone, each as far as the engines give it."""
        has_cloud = has_cameras = False
        for window in scene.windows:
            if window.predictions is not None:
                has_cloud |= with_cloud and window.predictions.points_from is not None
                has_cameras |= bool(window.predictions.rig)
        if not has_cloud and not has_cameras:
            return cls(None, False, [])
        calibrations = {}
        with PlyFile(place / CLOUD if has_cloud else None) as ply:
            for image in scene.images():
                calibrations[image.name] = image.calibration
                ply.add(image)
        left_out: list[str] = []
        if has_cameras:
            left_out = write_calibration(place / CAMERAS, calibrations, scene.unit is LengthUnit.METRES)
        return cls(ply.count if has_cloud else None, has_cameras, left_out)

    def listed_in(self, summary: Summary, scene: Scene) -> Summary:
        """The summary of the scene's run, with these files: the scene's first window has them."""
        prefix = f"{scene.name}/" if scene.name else ""

        def with_files(predictions: PredictionSummary, is_first: bool) -> PredictionSummary:
            return msgspec.structs.replace(
                predictions,
                cloud=f"{prefix}{CLOUD}" if is_first and self.points is not None else None,
                points=self.points or 0 if is_first else 0,
                cameras=f"{prefix}{CAMERAS}" if is_first and self.has_cameras else None,
            )

        return with_predictions(summary, scene, with_files)


def with_predictions(
    summary: Summary, scene: Scene, change: Callable[[PredictionSummary, bool], PredictionSummary]
) -> Summary:
    """A run's summary with the predictions of a scene's windows changed.

    Args:
        summary: of the run.
        scene: of it.
        change: of a window's predictions; told whether it is the scene's first.
    """
    names = [window.name for window in scene.windows]

    def changed(window: WindowSummary) -> WindowSummary:
        if window.name not in names or window.predictions is None:
            return window
        return msgspec.structs.replace(window, predictions=change(window.predictions, window.name == names[0]))

    return msgspec.structs.replace(summary, windows=[changed(window) for window in summary.windows])


class PlyFile:
    """A PLY file that grows image by image, and appears whole or not at all.

    Args:
        path: of the file; None writes none.

    Attributes:
        count: points so far.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self._path, self.count = path, 0
        self._file: BinaryIO | None = None
        self._temporary = ""

    def __enter__(self) -> PlyFile:
        if self._path is not None:
            handle, self._temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            self._file = os.fdopen(handle, "wb")
            self._file.write(ply_header(0, _DIGITS))
        return self

    def add(self, image: PosedImage) -> None:
        """Append the points of an image."""
        if self._file is None or image.confidence is None:
            return
        cloud = Cloud.of_pixels(image.pixels, image.points, image.confidence, image.kept)
        self._file.write(ply_vertices(cloud))
        self.count += len(cloud.points)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self._path is None:
            return
        with self._file as file:
            if kind is None:
                file.seek(0)
                file.write(ply_header(self.count, _DIGITS))
                file.flush()
                os.fsync(file.fileno())
        if kind is None:
            os.chmod(self._temporary, 0o644)
            os.replace(self._temporary, self._path)
        else:
            pathlib.Path(self._temporary).unlink(missing_ok=True)
