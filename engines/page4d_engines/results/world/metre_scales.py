"""The scale of a scene, in metres per unit: from cameras, from the depth of another run, or from a distance."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d.system.plain_text import listed
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.results.finished.finished_run import FinishedRun, Scene, photo_path
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.world.camera_similarity import fit_cameras
from page4d_engines.results.world.sampled_window import grid
from page4d_engines.results.world.similarity import Floats, Similarity

_NAMED = 6  # names that an error lists
_PHOTOS = 500  # that depths are compared of, spread over the clip: a scene's scale is one number
_FEWEST = 100  # pixels that tell a ratio of depths

KnownDepths = dict[str, tuple[Floats, Floats]]
"""By photo: places in it, x and y, float64 `[n,2]` in its pixels, and their depths in metres, float64 `[n]`."""


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


# ---- from known cameras


def scale_by_cameras(scene: Scene, known: dict[str, Camera], reference: str) -> tuple[Similarity, float, int]:
    """A scene in the world of known cameras: the similarity, metres that are left between cameras, and their number.

    Raises:
        UsageError: no camera is one of the scene's; they are all in one place.
    """
    source, target = [], []
    names = []
    for image in scene.images():
        names.append(image.name)
        camera = next((known[name] for name in _names(image) if name in known), None)
        if camera is not None:
            source.append(image.calibration.camera_to_world)
            target.append(_pose(camera))
    if not source:
        raise other_cameras(reference, known, names)
    try:
        fit = fit_cameras(np.stack(source), np.stack(target))
    except UsageError as error:
        raise UsageError(
            f"--metric-from tells no scale: {error.what}", got=f"{reference}: {error.got}", allowed=error.allowed
        ) from None
    return fit.similarity, fit.residual, fit.cameras


def _names(image: PosedImage) -> Iterable[str]:
    """What a known camera of an image may be called, the more telling names first."""
    return (image.name, *clip_names(image.clip, image.t, image.v))


def clip_names(clip: FrameFolder, t: int, v: int) -> Iterable[str]:
    """What the camera of a clip's image may be called, the more telling names first."""
    camera, frame, photo = clip.camera_names[v], clip.frame_names[t], photo_path(clip, t, v)
    return (f"{camera}/{frame}", photo, pathlib.PurePosixPath(photo).name, frame, camera)


def _pose(camera: Camera) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = camera.world_to_camera[:, :3].T, camera.centre
    return pose


# ---- from a metric model's depth


def scale_by_depth(scene: Scene, metric: FinishedRun, known: KnownDepths) -> tuple[Similarity, float, int]:
    """A scene in the metres of a run on the same photos: the similarity, the share that ratios of depth deviate by, and
    the number of pixels.

    Args:
        scene: in a unit of its own.
        metric: the run in metres.
        known: of `known_depths`.

    Raises:
        UsageError: other photos, or too few pixels with depth in both.
    """
    ratios = [_ratios(image, *known[image.photo]) for image in scene.images() if image.photo in known]
    if not ratios:
        raise other_photos(metric, scene.run.summary.frames)
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


def known_depths(metric: FinishedRun, run: FinishedRun) -> KnownDepths:
    """Depths in metres of photos that both runs have, at least one of each of the run's scenes.

    Args:
        metric: the run in metres; each of its images is read once.
        run: whose scenes are to come to metres.

    Raises:
        UsageError: a photo or a window's file of the metric run is gone or damaged.
    """
    compared = _compared_photos(metric, run)
    known = {}
    for scene in metric.scenes():
        for image in scene.images():
            if image.depth is None or image.photo not in compared:
                continue
            rows, columns = grid(*image.depth.shape)
            depth = image.depth[rows, columns].astype(np.float64)
            usable = np.isfinite(depth) & (depth > 0) & image.fit.shown[rows, columns]
            known[image.photo] = (image.photo_pixels()[rows, columns][usable], depth[usable])
    return known


def _compared_photos(metric: FinishedRun, run: FinishedRun) -> set[str]:
    """About `_PHOTOS` of the photos that both runs have, spread over the clip; more, where the run has more scenes."""
    shared = {photo for scene in metric.scenes() for photo in _photos(scene)}
    candidates = [[photo for photo in _photos(scene) if photo in shared] for scene in run.scenes()]
    every = max(1, -(-sum(map(len, candidates)) // _PHOTOS))
    return {photo for photos in candidates for photo in photos[::every]}


def _photos(scene: Scene) -> Iterable[str]:
    """Paths of a scene's photos, each once."""
    run = scene.run
    times = dict.fromkeys(t for window in scene.windows for t in run.timesteps(window))
    present = run.clip.present
    return (photo_path(run.clip, t, v) for t in times for v in range(run.layout.V) if present[t, v])


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


def scale_by_distance(scene: Scene, distance: KnownDistance) -> tuple[Similarity, None, int]:
    """A scene in which two cameras are so far apart: the similarity, and one distance.

    Raises:
        UsageError: windows have worlds of their own; no cameras of these names, without a pose, or in one place.
    """
    if scene.name:
        raise many_worlds()
    centres: dict[str, list[Floats]] = {}
    images = []
    for image in scene.images():
        images.append(image.name)
        for name in dict.fromkeys(_names(image)):
            if name in (distance.first, distance.second):
                centres.setdefault(name, []).append(image.calibration.camera_to_world[:3, 3])
    missing = [name for name in (distance.first, distance.second) if name not in centres]
    if missing:
        raise unknown_names(missing, f"{distance.first},{distance.second},{distance.metres:g}", images)
    first, second = (_middle(centres[name]) for name in (distance.first, distance.second))
    if first is None or second is None:
        unknown = distance.first if first is None else distance.second
        raise UsageError(
            f"--known-distance: the run has no pose of {unknown}",
            got=unknown,
            allowed="cameras that the run has a pose of",
        )
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


def clip_images(clip: FrameFolder) -> Iterable[tuple[int, int]]:
    """Timestep and view of all images that there are."""
    return ((t, v) for t, v in np.argwhere(clip.present).tolist())


def other_cameras(reference: str, known: dict[str, Camera], names: list[str]) -> UsageError:
    """Known cameras have no name of the run."""
    return UsageError(
        "no camera of --metric-from is one of the run's",
        got=f"{reference}: {listed(list(known), _NAMED)}",
        allowed=f"names of the run's images or cameras: {listed(names, _NAMED)}",
    )


def other_photos(metric: FinishedRun, frames: str) -> UsageError:
    """A metric run has none of the photos."""
    return UsageError(
        "the run of --metric-from has none of this run's photos",
        got=f"{metric.path}, of {metric.summary.frames}",
        allowed=f"a run of {frames}",
    )


def many_worlds() -> UsageError:
    """A distance, of windows with worlds of their own."""
    return UsageError(
        "--known-distance is for one world, and each window has its own",
        got="several windows",
        allowed="a clip of one window, or windows in one world",
        hint="page4d-run --align",
    )


def unknown_names(missing: list[str], reference: str, names: list[str]) -> UsageError:
    """A distance between cameras that are not there."""
    return UsageError(
        f"--known-distance names {listed(missing, 2)}, which the run does not have",
        got=reference,
        allowed=f"names of images or cameras: {listed(names, _NAMED)}",
    )
