"""Metres: the similarity that brings a world to them, from known cameras, a metric run, or a distance."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera, read_cameras
from page4d.errors import UsageError
from page4d.files import sha256
from page4d.system.plain_text import listed
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.pipeline import LengthUnit
from page4d_engines.results.finished.finished_run import FinishedRun, Scene, photo_path
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.summary import SUMMARY, Summary
from page4d_engines.results.world.camera_similarity import fit_cameras
from page4d_engines.results.world.placing import placed
from page4d_engines.results.world.sampled_window import grid
from page4d_engines.results.world.similarity import Floats, Similarity
from page4d_engines.results.world.world_summary import MetricScale, MetricSummary

_NAMED = 6  # names that an error lists
_PHOTOS = 500  # that depths are compared of, spread over the clip: the scale is one number
_FEWEST = 100  # pixels that tell a ratio of depths


@dataclass(frozen=True)
class KnownDistance:
    """The metres between the centres of two cameras."""

    first: str
    second: str
    metres: float

    @classmethod
    def of(cls, text: str) -> KnownDistance:
        """Of `A,B,metres`.

        Raises:
            UsageError: it is something else, or not above 0.
        """
        parts = [part.strip() for part in text.split(",")]
        try:
            metres = float(parts[-1])
        except ValueError:
            metres = math.nan
        if len(parts) != 3 or not all(parts) or not (math.isfinite(metres) and metres > 0) or parts[0] == parts[1]:
            raise UsageError(
                "--known-distance is no distance between two cameras",
                got=text,
                allowed="two different names and a number of metres above 0",
                hint="--known-distance cam0,cam1,1.25",
            )
        return cls(parts[0], parts[1], metres)


@dataclass(frozen=True)
class MetricSource:
    """What metres come from: one of the three.

    Attributes:
        given: as it was given.
        digest: of what it holds, for `MadeBy`.
        cameras: known ones, in metres.
        run: output folder of a run in metres, on the same photos.
        distance: between two cameras.
    """

    given: str
    digest: str
    cameras: dict[str, Camera] | None = None
    run: FinishedRun | None = None
    distance: KnownDistance | None = None

    @classmethod
    def of(cls, path: pathlib.Path | None, distance: str | None) -> MetricSource | None:
        """Of `--metric-from` and `--known-distance`; None where neither is given.

        Raises:
            UsageError: both are given; a file that is no `cameras.json`, or has one camera; a folder that is no run, or
                one without depth in metres; a distance that is none.
        """
        if path is not None and distance is not None:
            raise UsageError(
                "metres are given twice",
                got=f"--metric-from {path} and --known-distance {distance}",
                allowed="one of them",
            )
        if distance is not None:
            return cls(given=distance, digest=distance, distance=KnownDistance.of(distance))
        if path is None:
            return None
        if path.is_dir():
            return cls(given=str(path), digest=_digest(path / SUMMARY), run=_metric_run(path))
        cameras = read_cameras(path)
        if len(cameras) < 2:
            raise UsageError(
                "one camera says nothing of metres",
                got=f"--metric-from {path}, with {listed(list(cameras), _NAMED) or 'no camera'}",
                allowed="two cameras or more, at different places",
            )
        return cls(given=str(path), digest=_digest(path), cameras=cameras)

    def check(self, clip: FrameFolder, in_one_world: bool) -> None:
        """Whether it can say anything of a clip, before this is run.

        Args:
            clip: of the run.
            in_one_world: whether all of its windows will be.

        Raises:
            UsageError: its cameras or photos are others; a distance, of windows with worlds of their own.
        """
        images = list(_images(clip))
        if self.run is not None:
            known = {photo_path(self.run.clip, t, v) for t, v in _images(self.run.clip)}
            if known.isdisjoint(photo_path(clip, t, v) for t, v in images):
                raise _other_photos(self.run, str(clip.path))
            return
        names = {name for t, v in images for name in _clip_names(clip, t, v)}
        shown = [*clip.camera_names, *clip.frame_names]
        if self.cameras is not None and names.isdisjoint(self.cameras):
            raise _other_cameras(self.given, self.cameras, shown)
        if self.distance is not None:
            if not in_one_world:
                raise _many_worlds()
            missing = [name for name in (self.distance.first, self.distance.second) if name not in names]
            if missing:
                raise _unknown_names(missing, self.given, shown)

    def summary(self, run: FinishedRun) -> Summary:
        """The summary of a run, with its lengths in metres: `world` of the windows, depth scales, positions, unit.

        Raises:
            UsageError: the source has nothing to do with the run: no cameras or photos of these names, no depth.
        """
        changes: dict[str, Similarity] = {}
        worlds: dict[str, MetricScale] = {}
        windows = []
        for scene in run.scenes():
            change, residual, measured = self._of_scene(scene)
            changes[scene.name] = change
            worlds[scene.name] = MetricScale(scale=change.scale, residual=residual, measured=measured)
            windows += [placed(window, change, str(LengthUnit.METRES)) for window in scene.windows]
        metric = MetricSummary(source=self._kind, given=self.given, worlds=worlds)
        return msgspec.structs.replace(run.summary, windows=windows, metric=metric)

    def applied(self, run: FinishedRun) -> FinishedRun:
        """A finished run with its lengths in metres; its files are as they were.

        Raises:
            UsageError: as `summary`.
        """
        self.check(run.clip, in_one_world=len(run.scenes()) == 1)
        return dataclasses.replace(run, summary=self.summary(run))

    @property
    def _kind(self) -> str:
        if self.cameras is not None:
            return "cameras"
        return "depth" if self.run is not None else "distance"

    def _of_scene(self, scene: Scene) -> tuple[Similarity, float | None, int]:
        if self.cameras is not None:
            return _by_cameras(scene, self.cameras, self.given)
        if self.run is not None:
            return _by_depth(scene, self.run)
        assert self.distance is not None
        return _by_distance(scene, self.distance)


def _digest(path: pathlib.Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""  # whoever reads it says what is wrong


def _metric_run(path: pathlib.Path) -> FinishedRun:
    run = FinishedRun.open(path)
    units = {window.predictions.unit for window in run.summary.windows if window.predictions is not None}
    has_depth = all(window.predictions and window.predictions.depth_scale for window in run.summary.windows)
    if units != {str(LengthUnit.METRES)} or not has_depth:
        what = "no depth" if not has_depth else "depth in a unit of its own"
        raise UsageError(
            "the run of --metric-from has no depth in metres",
            got=f"{path}, with {what}",
            allowed="cameras.json, or a run of Pi3X, or of Depth Anything 3 METRIC with focal lengths",
        )
    return run


# ---- from known cameras


def _by_cameras(scene: Scene, known: dict[str, Camera], given: str) -> tuple[Similarity, float, int]:
    source, target = [], []
    names = []
    for image in scene.images():
        names.append(image.name)
        camera = next((known[name] for name in _names(image) if name in known), None)
        if camera is not None:
            source.append(image.calibration.camera_to_world)
            target.append(_pose(camera))
    if not source:
        raise _other_cameras(given, known, names)
    try:
        fit = fit_cameras(np.stack(source), np.stack(target))
    except UsageError as error:
        raise UsageError(
            f"--metric-from tells no scale: {error.what}", got=f"{given}: {error.got}", allowed=error.allowed
        ) from None
    return fit.similarity, fit.residual, fit.cameras


def _names(image: PosedImage) -> Iterable[str]:
    """What a known camera of an image may be called, the more telling names first."""
    return (image.name, *_clip_names(image.clip, image.t, image.v))


def _clip_names(clip: FrameFolder, t: int, v: int) -> Iterable[str]:
    camera, frame, photo = clip.camera_names[v], clip.frame_names[t], photo_path(clip, t, v)
    return (f"{camera}/{frame}", photo, pathlib.PurePosixPath(photo).name, frame, camera)


def _pose(camera: Camera) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = camera.world_to_camera[:, :3].T, camera.centre
    return pose


# ---- from a metric model's depth


def _by_depth(scene: Scene, metric: FinishedRun) -> tuple[Similarity, float, int]:
    known = _known_depths(metric)
    ratios = [_ratios(image, *known[image.photo]) for image in scene.images() if image.photo in known]
    if not ratios:
        raise _other_photos(metric, scene.run.summary.frames)
    logs = np.log(np.concatenate(ratios))
    if len(logs) < _FEWEST:
        raise UsageError(
            "the photos of both runs have too few pixels with depth in common",
            got=f"{len(logs)} pixels",
            allowed=f"{_FEWEST} or more",
        )
    middle = float(np.median(logs))
    residual = math.expm1(float(np.median(np.abs(logs - middle))))
    return Similarity.scaling(math.exp(middle)), residual, len(logs)


def _known_depths(metric: FinishedRun) -> dict[str, tuple[Floats, Floats]]:
    """By photo: places in it, x and y, `[n,2]`, and their depth in metres `[n]`."""
    total = sum(1 for scene in metric.scenes() for window in scene.windows for _ in metric.timesteps(window))
    every = max(1, -(-total * metric.layout.V // _PHOTOS))
    known = {}
    count = 0
    for scene in metric.scenes():
        for image in scene.images():
            count += 1
            if image.depth is None or (count - 1) % every:
                continue
            rows, columns = grid(*image.depth.shape)
            depth = image.depth[rows, columns].astype(np.float64)
            usable = np.isfinite(depth) & (depth > 0) & image.fit.shown[rows, columns]
            known[image.photo] = (image.photo_pixels()[rows, columns][usable], depth[usable])
    return known


def _ratios(image: PosedImage, places: Floats, depth: Floats) -> Floats:
    """Known depth over the image's own, at those of the photo's places that the image has."""
    if image.depth is None:
        return np.zeros(0)
    H, W = image.depth.shape
    pixel = np.floor(places * np.array(image.fit.scale) + np.array(image.fit.shift)).astype(np.intp)
    inside = ((pixel >= 0) & (pixel < (W, H))).all(1)
    columns, rows = pixel[inside].T
    own = image.depth[rows, columns].astype(np.float64)
    sure: NDArray[np.bool_] = image.kept if image.kept.any() else image.fit.shown
    usable = np.isfinite(own) & (own > 0) & sure[rows, columns]
    return np.asarray(depth[inside][usable] / own[usable], np.float64)


# ---- from a distance


def _by_distance(scene: Scene, distance: KnownDistance) -> tuple[Similarity, None, int]:
    if scene.name:
        raise _many_worlds()
    centres: dict[str, list[Floats]] = {}
    images = []
    for image in scene.images():
        images.append(image.name)
        for name in dict.fromkeys(_names(image)):
            if name in (distance.first, distance.second):
                centres.setdefault(name, []).append(image.calibration.camera_to_world[:3, 3])
    missing = [name for name in (distance.first, distance.second) if name not in centres]
    if missing:
        raise _unknown_names(missing, f"{distance.first},{distance.second},{distance.metres:g}", images)
    first, second = (_middle(centres[name]) for name in (distance.first, distance.second))
    if first is None or second is None:
        unknown = distance.first if first is None else distance.second
        raise UsageError(f"--known-distance: the run has no pose of {unknown}", got=unknown)
    length = float(np.linalg.norm(first - second))
    if not length > 0:
        raise UsageError(
            "--known-distance: the run has both cameras in the same place",
            got=f"{distance.first} and {distance.second}",
            allowed="cameras at different places",
        )
    return Similarity.scaling(distance.metres / length), None, 1


def _middle(centres: list[Floats]) -> Floats | None:
    """Where a camera is, at the median over its images; None where no pose is known."""
    known = [centre for centre in centres if np.isfinite(centre).all()]
    return np.median(known, axis=0) if known else None


# ---- errors


def _images(clip: FrameFolder) -> Iterable[tuple[int, int]]:
    return ((t, v) for t in range(clip.count) for v in range(len(clip.camera_names)))


def _other_cameras(given: str, known: dict[str, Camera], names: list[str]) -> UsageError:
    return UsageError(
        "no camera of --metric-from is one of the run's",
        got=f"{given}: {listed(list(known), _NAMED)}",
        allowed=f"names of the run's images or cameras: {listed(names, _NAMED)}",
    )


def _other_photos(metric: FinishedRun, frames: str) -> UsageError:
    return UsageError(
        "the run of --metric-from has none of this run's photos",
        got=f"{metric.path}, of {metric.summary.frames}",
        allowed=f"a run of {frames}",
    )


def _many_worlds() -> UsageError:
    return UsageError(
        "--known-distance is for one world, and each window has its own",
        got="several windows",
        allowed="a clip of one window, or windows in one world",
        hint="--align",
    )


def _unknown_names(missing: list[str], given: str, names: list[str]) -> UsageError:
    return UsageError(
        f"--known-distance names {listed(missing, 2)}, which the run does not have",
        got=given,
        allowed=f"names of images or cameras: {listed(names, _NAMED)}",
    )
