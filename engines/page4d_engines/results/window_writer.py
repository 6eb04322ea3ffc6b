"""`WindowWriter`: the results of one window, as files and as pictures of the report."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.files import save_tensors
from page4d_engines.clip.window_reader import WindowInputs, WindowReader
from page4d_engines.pipeline import Result
from page4d_engines.results.overlay import contact_sheet, overlay
from page4d_engines.results.report import Picture
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.predictions import Predictions
from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.summary import WindowSummary, mean_of


@dataclass(frozen=True)
class WindowWriter:
    """Writes windows of a clip.

    Attributes:
        folder: the output folder.
        reader: of the clip.
        alone: whether the clip is a single window, whose files then lie in the output folder itself.
        choice: what a point cloud is made from; None: the engines give none.
        options: which pixels become its points.
        writes_cloud, writes_cameras: whether these are written, in the window's own world; else whoever knows another
            one writes them.
    """

    folder: pathlib.Path
    reader: WindowReader
    alone: bool
    choice: CloudChoice | None
    options: CloudOptions
    writes_cloud: bool = True
    writes_cameras: bool = True

    def write(
        self, window: range, inputs: WindowInputs, result: Result, seconds: float, with_pictures: bool
    ) -> tuple[WindowSummary, list[Picture]]:
        """Write one window.

        Args:
            window: its frames.
            inputs: what the engines read.
            result: of the run.
            seconds: that the run took.
            with_pictures: whether the report shows this window.

        Returns:
            What the summary says of the window, and its pictures for the report.
        """
        name, times, cameras = self._name(window), self._times(window), self._cameras
        predictions = self._predictions(window, inputs, result)
        save_tensors(self.folder / f"{name}.safetensors", result.tensors())
        overlays: list[str] = []
        means: dict[str, float | None] = {}
        if result.mask is not None:
            overlays = list(self._write_overlays(name, times, inputs, result.mask))
            by_camera = {camera: result.mask[inputs.present[:, v], v] for v, camera in enumerate(cameras)}
            means = {camera: mean_of(mask.ravel().tolist()) for camera, mask in by_camera.items() if mask.size}
        files = None
        if predictions is not None:
            files = predictions.write(self.folder, self._place(name), self.writes_cloud, self.writes_cameras)
        summary = WindowSummary(
            name=name,
            first_frame=times[0],
            last_frame=times[-1],
            file=f"{name}.safetensors",
            seconds=seconds,
            mask_mean=means,
            overlays=overlays,
            predictions=files,
            absent=absent_times(inputs.present, cameras, times),
        )
        pictures = window_pictures(inputs, result, predictions, cameras, times) if with_pictures else ()
        return summary, list(pictures)

    def _write_overlays(
        self, window: str, times: list[str], inputs: WindowInputs, mask: NDArray[np.float32]
    ) -> Iterator[str]:
        """Write every frame that there is with its mask over it; the paths, relative to the output folder."""
        for v, camera in enumerate(self._cameras):
            place = self.folder / "masks" / window / camera
            place.mkdir(parents=True)
            for t, time in enumerate(times):
                if not inputs.present[t, v]:
                    continue
                path = place / f"{time}.png"
                # a fast level: overlays are looked at once, and zlib's best takes longer than a small model
                Image.fromarray(overlay(inputs.images[t, v], mask[t, v])).save(path, compress_level=1)
                yield path.relative_to(self.folder).as_posix()

    def _place(self, window: str) -> pathlib.Path:
        """The folder of a window's predictions, which is there then."""
        place = self.folder if self.alone else self.folder / window
        place.mkdir(exist_ok=True)
        return place

    def geometry(self, window: range, result: Result) -> WindowGeometry:
        """What the heads give in a window."""
        fits = [self.reader.fit(t, v) for t in window for v in range(len(self._cameras))]
        return WindowGeometry(result, fits, self.choice, self.options)

    def _predictions(self, window: range, inputs: WindowInputs, result: Result) -> Predictions | None:
        if not Predictions.are_in(result):
            return None
        return Predictions(
            images=inputs.images,
            geometry=self.geometry(window, result),
            names=ImageNames.of(self._cameras, self._times(window), self.reader.folder.photos),
            present=inputs.present,
        )

    @property
    def _cameras(self) -> list[str]:
        return list(self.reader.folder.camera_names)

    def _times(self, window: range) -> list[str]:
        return [self.reader.folder.frame_names[t] for t in window]

    def _name(self, window: range) -> str:
        width = len(str(self.reader.folder.count - 1))
        return f"window_{window[0]:0{width}d}-{window[-1]:0{width}d}"


def absent_times(present: NDArray[np.bool_], cameras: Sequence[str], times: Sequence[str]) -> dict[str, list[str]]:
    """By camera the timesteps of which it has no image, of `[T,V]`; cameras that have all are left out."""
    absent = {
        camera: [time for time, is_there in zip(times, column, strict=True) if not is_there]
        for camera, column in zip(cameras, present.T.tolist(), strict=True)
    }
    return {camera: lacking for camera, lacking in absent.items() if lacking}


def window_pictures(
    inputs: WindowInputs,
    result: Result,
    predictions: Predictions | None,
    cameras: Sequence[str],
    times: Sequence[str],
) -> Iterator[Picture]:
    """A window's pictures for the report.

    Args:
        inputs: that the engines read.
        result: of the window.
        predictions: of the window; None without heads.
        cameras: V names.
        times: T names.
    """
    if result.mask is not None:
        holes = "" if inputs.present.all() else " Black: the camera has no image."
        # black, and not the colour of a mask that is no number
        mask = np.where(inputs.present[..., None, None], result.mask, np.float32(0))
        yield Picture(
            contact_sheet(inputs.images, mask, cameras, times),
            f"Rows are cameras: {', '.join(cameras)}. Columns are timesteps."
            f" Each cell is a frame, and the frame with the mask over it.{holes}",
        )
    if predictions is not None:
        yield from predictions.pictures(cameras, times)
