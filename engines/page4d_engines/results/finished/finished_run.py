"""`FinishedRun`: a run's output folder, read back; and `Scene`, images of it that share a world."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.system.plain_text import as_text
from page4d_engines.clip.fit import FitMode, PhotoWay
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.finished.run_clip import clip_of_run, refuse_batch
from page4d_engines.results.finished.run_clip import photo_path as photo_path
from page4d_engines.results.finished.scene_part import ScenePart
from page4d_engines.results.finished.stored_result import stored_result
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.cloud_thinning import CloudThinning
from page4d_engines.results.scene.given_heads import GivenHeads
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.summary import SUMMARY, Summary, WindowSummary, read_summary


@dataclass(frozen=True)
class FinishedRun:
    """A run whose results are on disk, with its clip.

    Attributes:
        path: the output folder.
        summary: of the run.
        clip: as the run read it, but without masks, keypoints and cameras.
        options: which pixels become points of clouds.
        fit: what became of another aspect ratio.
    """

    path: pathlib.Path
    summary: Summary
    clip: FrameFolder
    options: CloudOptions
    fit: FitMode | None

    @classmethod
    def open(
        cls,
        out: str | os.PathLike[str],
        frames: str | os.PathLike[str] | None = None,
        options: CloudOptions | None = None,
    ) -> FinishedRun:
        """Read a run's summary and open its clip.

        Args:
            out: the output folder.
            frames: where the clip lies; None: where it was when the run read it.
            options: which pixels become points; None: as in the run.

        Raises:
            UsageError: `out` holds no run, or several; the clip is gone, or is not the one that the run read; the run's
                engines lack what the options ask for.
        """
        path = pathlib.Path(out)
        refuse_batch(path)
        summary = read_summary(path / SUMMARY)
        if summary.made_by is None:
            raise UsageError(
                "the run is of an earlier version, and does not say how its photos came to the engines' size",
                got=path,
                hint="page4d-run again",
            )
        clip = clip_of_run(summary, summary.made_by, frames)
        return cls.of(path, summary, clip, options)

    @classmethod
    def of(
        cls, path: pathlib.Path, summary: Summary, clip: FrameFolder, options: CloudOptions | None = None
    ) -> FinishedRun:
        """Of a summary and a clip that are known to belong together.

        Raises:
            UsageError: the run's engines lack what the options ask for.
        """
        assert summary.made_by is not None
        fit = summary.made_by.fit
        run = cls(
            path=path,
            summary=summary,
            clip=dataclasses.replace(clip, mask_files=None, keypoint_files=None, cameras=None),
            options=options or summary.made_by.cloud,
            fit=None if fit is None else FitMode(fit),
        )
        for window in summary.windows[:1]:
            run.geometry(window)  # the options are refused before anything is written
        return run

    def with_options(self, options: CloudOptions) -> FinishedRun:
        """The same run with other points.

        Raises:
            UsageError: its engines lack what the options ask for.
        """
        return self.of(self.path, self.summary, self.clip, options)

    def scenes(self) -> list[Scene]:
        """The images that share a world: those of all windows, or each window's."""
        windows = self.summary.windows
        if self.summary.alignment is not None or len(windows) == 1:
            return [Scene("", windows, self)]
        return [Scene(window.name, [window], self) for window in windows]

    @functools.cached_property
    def layout(self) -> Layout:
        """Of the engines."""
        return Layout(**self.summary.layout)

    def reader(self) -> WindowReader:
        """A reader of the clip, which brings photos to the engines' size as the run did.

        Raises:
            UsageError: the clip does not go with the engines.
        """
        return WindowReader(self.clip, self.layout, self.fit, False, False, PhotoWay.of(self.summary.model))

    def timesteps(self, window: WindowSummary) -> range:
        """Of the clip, that a window has."""
        names = [as_text(name) for name in self.clip.frame_names]  # as summary.json has them
        return range(names.index(as_text(window.first_frame)), names.index(as_text(window.last_frame)) + 1)

    def geometry(self, window: WindowSummary) -> WindowGeometry:
        """What the heads gave in a window, from its file: in the window's own world and the engines' unit.

        Raises:
            UsageError: the file is gone or damaged; the engines lack what the options ask for.
        """
        # the files hold what the engines gave: metres that came later, by `world`, are not their unit
        unit = None
        if window.predictions is not None and self.summary.metric is None:
            unit = window.predictions.unit
        result = stored_result(self.path / window.file, self.summary.model, unit)
        choice = CloudChoice.asked(GivenHeads.of_result(result, self.summary.model), self.options)
        fits = [self.fits.fit(t, v) for t in self.timesteps(window) for v in range(self.layout.V)]
        return WindowGeometry(result, fits, choice, self.options)

    @functools.cached_property
    def fits(self) -> WindowReader:
        """A reader that is asked for fits alone."""
        return self.reader()


@dataclass(frozen=True)
class Scene:
    """Images that share a world. Reading them costs the memory of a window, however many there are.

    Attributes:
        name: of the window; empty where the run has one scene.
        windows: that it is made of.
        run: that it is of.
    """

    name: str
    windows: list[WindowSummary]
    run: FinishedRun = field(repr=False)

    @property
    def unit(self) -> LengthUnit | None:
        """Of all lengths; None: one of the scene's own."""
        predictions = self.windows[0].predictions
        return None if predictions is None or predictions.unit is None else LengthUnit(predictions.unit)

    @property
    def count(self) -> int:
        """Of images."""
        return len(self._names)

    def images(self) -> Iterator[PosedImage]:
        """Each image that there is once, by window, timestep and view; of overlapping windows the earlier one's.

        May be called again, and again before an iterator is through.

        Raises:
            UsageError: a photo or a window's file is gone or damaged.
        """
        thinning, index = self._thinning, 0
        timesteps = [self.run.timesteps(window) for window in self.windows]
        for part, (_, inputs) in zip(self._parts(), self.run.reader().read(timesteps), strict=True):
            for place in part.places:
                candidates = part.candidates(place)
                depth, confidence = part.geometry.depth, part.geometry.confidence
                t, v = part.timesteps[place[0]], place[1]
                yield PosedImage(
                    name=self._names[t, v],
                    photo=photo_path(self.run.clip, t, v),
                    camera_name=self.run.clip.camera_names[v],
                    frame_name=self.run.clip.frame_names[t],
                    t=t,
                    v=v,
                    window=part.window.name,
                    fit=self.run.fits.fit(t, v),
                    pixels=inputs.images[place].copy(),  # the reader fills its arrays again
                    calibration=part.calibration(place),
                    points=candidates.points.astype(np.float32),
                    depth=None if depth is None else (depth[place] * part.world.scale).astype(np.float32),
                    confidence=None if confidence is None else confidence[place],
                    mask=part.geometry.mask(place),
                    kept=thinning.kept(index, candidates.kept),
                    clip=self.run.fits.folder,  # transparent photos as the run took them
                )
                index += 1

    def __iter__(self) -> Iterator[PosedImage]:
        return self.images()

    @functools.cached_property
    def _thinning(self) -> CloudThinning:
        """Of all images; their points are read once before the first image is yielded, where they are to be thinned."""
        candidates = (part.candidates(place) for part in self._parts() for place in part.places)
        return CloudThinning.of(candidates, self.run.options)

    @functools.cached_property
    def _names(self) -> dict[tuple[int, int], str]:
        """Of the images, by timestep and view."""
        clip = self.run.clip
        times = sorted({t for window in self.windows for t in self.run.timesteps(window)})
        names = ImageNames.of(clip.camera_names, [clip.frame_names[t] for t in times], clip.photos).cameras
        places = [(t, v) for t in times for v in range(len(clip.camera_names))]
        return {place: name for place, name in zip(places, names, strict=True) if self.run.fits.present[place]}

    def _parts(self) -> Iterator[ScenePart]:
        seen: set[int] = set()
        for window in self.windows:
            timesteps = self.run.timesteps(window)
            fresh = [t not in seen for t in timesteps]
            seen.update(timesteps)
            geometry = self.run.geometry(window)
            present = self.run.fits.present[timesteps.start : timesteps.stop]
            places = [place for place in geometry.places() if fresh[place[0]] and present[place]]
            yield ScenePart(window, timesteps, geometry, places)
