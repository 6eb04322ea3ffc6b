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
from page4d.system.plain_text import listed
from page4d_engines.clip.bags.bag import is_bag
from page4d_engines.clip.fit import FitMode, scaled_as_published
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.names import readable
from page4d_engines.clip.window_reader import WindowReader
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.batch.batch_summary import read_batch_summary
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.finished.stored_result import stored_result
from page4d_engines.results.made_by import MadeBy, frames_hash, inputs_hash
from page4d_engines.results.scene.calibration import Calibration
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.cloud_thinning import Candidates, CloudThinning
from page4d_engines.results.scene.given_heads import GivenHeads
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.window_geometry import Place, WindowGeometry
from page4d_engines.results.summary import SUMMARY, Summary, WindowSummary, read_summary
from page4d_engines.results.world.similarity import Similarity

_MOST_NAMED = 8  # folders of a batch that an error names


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
        _refuse_batch(path)
        summary = read_summary(path / SUMMARY)
        if summary.made_by is None:
            raise UsageError(
                "the run is of an earlier version, and does not say how its photos came to the engines' size",
                got=path,
                hint="page4d-run again",
            )
        clip = _clip(summary, summary.made_by, frames)
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
        as_published = scaled_as_published(self.summary.model)
        return WindowReader(self.clip, self.layout, self.fit, False, False, as_published)

    def timesteps(self, window: WindowSummary) -> range:
        """Of the clip, that a window has."""
        names = self.clip.frame_names
        return range(names.index(window.first_frame), names.index(window.last_frame) + 1)

    def geometry(self, window: WindowSummary) -> WindowGeometry:
        """What the heads gave in a window, from its file.

        Raises:
            UsageError: the file is gone or damaged; the engines lack what the options ask for.
        """
        unit = None if window.predictions is None else window.predictions.unit
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
        """Each image once, in the order of its window, timestep and view; of overlapping windows the earlier one's.

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
        """Of all images; their points are looked at once before any is given, where they are to be thinned."""
        candidates = (part.candidates(place) for part in self._parts() for place in part.places)
        return CloudThinning.of(candidates, self.run.options)

    @functools.cached_property
    def _names(self) -> dict[tuple[int, int], str]:
        """Of the images, by timestep and view."""
        clip = self.run.clip
        times = sorted({t for window in self.windows for t in self.run.timesteps(window)})
        names = ImageNames.of(clip.camera_names, [clip.frame_names[t] for t in times], clip.photos).cameras
        places = [(t, v) for t in times for v in range(len(clip.camera_names))]
        return dict(zip(places, names, strict=True))

    def _parts(self) -> Iterator[_Part]:
        seen: set[int] = set()
        for window in self.windows:
            timesteps = self.run.timesteps(window)
            fresh = [t not in seen for t in timesteps]
            seen.update(timesteps)
            geometry = self.run.geometry(window)
            places = [place for place in geometry.places() if fresh[place[0]]]
            yield _Part(window, timesteps, geometry, places)


@dataclass(frozen=True)
class _Part:
    """A window of a scene.

    Attributes:
        window: its summary.
        timesteps: its frames in the clip.
        geometry: in the window's own world.
        places: of the images that no earlier window has.
    """

    window: WindowSummary
    timesteps: range
    geometry: WindowGeometry
    places: list[Place]

    @functools.cached_property
    def world(self) -> Similarity:
        """From the window's own world to the scene's."""
        return Similarity.from_numbers(self.window.world)

    def candidates(self, place: Place) -> Candidates:
        """An image's points in the scene's world, and which of them are good enough."""
        geometry, layout = self.geometry, self.geometry.fits[0].layout
        if geometry.confidence is None:
            size = (layout.H, layout.W)
            return Candidates(np.zeros(size, np.bool_), np.full((*size, 3), np.nan), np.full(size, np.nan))
        points = geometry.points(place)
        kept = geometry.kept(place, points)
        points = points if self.window.world is None else self.world.of_points(points)
        return Candidates(kept, points, geometry.confidence[place])

    def calibration(self, place: Place) -> Calibration:
        """An image's camera in the scene's world; NaN where the engines give none."""
        return self._calibrations[place].moved(self.world)

    @functools.cached_property
    def _calibrations(self) -> dict[Place, Calibration]:
        geometry = self.geometry
        known = geometry.calibrations
        if known is None:
            camera = geometry.result.camera
            K, pose = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
            poses = (pose if camera is None else camera[place] for place in geometry.places())
            known = [Calibration.given(K, pose, fit) for pose, fit in zip(poses, geometry.fits, strict=True)]
        return dict(zip(geometry.places(), known, strict=True))


def photo_path(clip: FrameFolder, t: int, v: int) -> str:
    """Path of a photo under the clip's folder, with `/`; frames of a video or a bag as if a camera had a folder."""
    frame = clip.frame_files[v][t]
    if not frame.is_whole_file:
        return f"{clip.camera_names[v]}/{frame.stem}.png"
    root = clip.places["the folder of frames"]
    return readable(frame.file.relative_to(root).as_posix())


def _refuse_batch(path: pathlib.Path) -> None:
    batch = read_batch_summary(path)
    if batch is not None:
        names = [folder.name for folder in batch.folders if folder.has_report]
        raise UsageError(
            "the folder holds the runs of several clips",
            got=path,
            allowed=f"one of its folders: {listed(names, _MOST_NAMED)}" if names else "the output of one run",
            hint=str(path / names[0]) if names else None,
        )


def _clip(summary: Summary, made_by: MadeBy, frames: str | os.PathLike[str] | None) -> FrameFolder:
    """The clip that a run read."""
    place = pathlib.Path(summary.frames if frames is None else frames)
    hint = "--frames FOLDER, where the run's frames lie"
    if frames is None and not place.exists():
        raise UsageError("the run's frames are no longer where they were", got=place, hint=hint)
    try:
        topics = summary.cameras if is_bag(place) else None
        clip = FrameFolder.open(place, loose=UngroupedImages.of(Layout(**summary.layout)), topics=topics)
    except UsageError as error:
        raise UsageError(f"the run's frames cannot be read: {error.what}", got=error.got, hint=hint) from None
    hashes = {frames_hash(clip), inputs_hash(clip)}
    if not hashes & {summary.frame_files, made_by.inputs}:
        raise UsageError(
            "the frames are not those that the run read: files are gone, new or changed",
            got=place,
            allowed=f"the frames of {summary.frames}, as they were",
            hint=f"{hint}, or page4d-run again",
        )
    return clip
