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
            overlays = list(self._write_overlays(name, times, inputs.images, result.mask))
            means = {camera: mean_of(result.mask[:, v].ravel().tolist()) for v, camera in enumerate(cameras)}
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
        )
        pictures = window_pictures(inputs.images, result, predictions, cameras, times) if with_pictures else ()
        return summary, list(pictures)

    def _write_overlays(
        self, window: str, times: list[str], images: NDArray[np.uint8], mask: NDArray[np.float32]
    ) -> Iterator[str]:
        """Write every frame with its mask over it; the paths, relative to the output folder."""
        for v, camera in enumerate(self._cameras):
            place = self.folder / "masks" / window / camera
            place.mkdir(parents=True)
            for t, time in enumerate(times):
                path = place / f"{time}.png"
                # a fast level: overlays are looked at once, and zlib's best takes longer than a small model
                Image.fromarray(overlay(images[t, v], mask[t, v])).save(path, compress_level=1)
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
        )

    @property
    def _cameras(self) -> list[str]:
        return list(self.reader.folder.camera_names)

    def _times(self, window: range) -> list[str]:
        return [self.reader.folder.frame_names[t] for t in window]

    def _name(self, window: range) -> str:
        width = len(str(self.reader.folder.count - 1))
        return f"window_{window[0]:0{width}d}-{window[-1]:0{width}d}"


def window_pictures(
    images: NDArray[np.uint8],
    result: Result,
    predictions: Predictions | None,
    cameras: Sequence[str],
    times: Sequence[str],
) -> Iterator[Picture]:
    """A window's pictures for the report.

    Args:
        images: uint8 RGB `[T,V,H,W,3]`.
        result: of the window.
        predictions: of the window; None without heads.
        cameras: V names.
        times: T names.
    """
    if result.mask is not None:
        yield Picture(
            contact_sheet(images, result.mask, cameras, times),
            f"Rows are cameras: {', '.join(cameras)}. Columns are timesteps."
            " Each cell is a frame, and the frame with the mask over it.",
        )
    if predictions is not None:
        yield from predictions.pictures(cameras, times)
