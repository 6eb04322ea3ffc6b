"""`write_colmap`: a scene as a COLMAP sparse model, in the pixels of the photos as they are on disk."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.colmap.binary_model import BinaryModel
from page4d_engines.results.formats.colmap.records import ColmapCamera, ColmapImage, ColmapPoints, pinhole
from page4d_engines.results.formats.colmap.text_model import TextModel
from page4d_engines.results.formats.colmap.tracks import (
    ChosenPoints,
    Seen,
    moving_pixels,
    own_points,
    points_of_others,
)
from page4d_engines.results.formats.scene_parts import at_most, has_camera, is_of_depth

BINARY, TEXT = "colmap/sparse/0", "colmap/sparse_text/0"
MOST_POINTS = 100_000
"""Where `--max-points` does not say: splatting begins with about so many, and more of them make COLMAP slow."""

_MOST_SEEN = 8_000_000  # observations of other images' points, of all images together ..
_FEWEST_SEEN = 2_048  # .. but every image has so many


def write_colmap(
    folder: pathlib.Path, scene: Scene, shared_camera: bool = False, warn: Callable[[str], None] | None = None
) -> list[pathlib.Path]:
    """Write `colmap/sparse/0` (binary) and `colmap/sparse_text/0`.

    The points are the scene's, at most `MOST_POINTS` where its options do not say how many. A point's track has the
    image that it comes from, and every image that shows the same surface there. Memory: a window of the scene, 40 bytes
    per point, and 12 bytes per observation, which are 8 million and two thousand per image at most, beside the points.

    Args:
        folder: an existing one.
        scene: is read twice.
        shared_camera: whether photos of one folder and one size share a camera, the median of theirs: those of one
            physical camera, or all photos in a folder. Otherwise each has its own.
        warn: is told what was left out; None: nobody.

    Returns:
        The files.
    """
    scene = at_most(scene, MOST_POINTS)
    parts = _Parts.of(scene)
    warn = warn or _nobody
    if parts.left_out:
        warn(f"no pose or focal length is known of {', '.join(parts.left_out)}: not in the COLMAP model")
    if not parts.images:
        warn("no image has a camera: there is no COLMAP model")
        return []
    cameras = parts.shared() if shared_camera else parts
    models: list[BinaryModel | TextModel] = [BinaryModel(_made(folder / BINARY), len(parts.images))]
    spaced = [image.name for image in parts.images.values() if len(image.name.split()) != 1]
    if spaced:
        warn(f"names with spaces have no place in COLMAP's text files: only the binary model has {', '.join(spaced)}")
    else:
        models.append(TextModel(_made(folder / TEXT), len(parts.images)))
    try:
        points = _write_images(scene, cameras, models)
    finally:
        for model in models:
            model.close()
    for model in models:
        model.write_cameras(list(cameras.cameras.values()))
        model.write_points(points)
    return [file for model in models for file in model.files]


def _nobody(sentence: str) -> None:
    """Is told a sentence."""


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class _Parts:
    """A scene before its tracks are known.

    Attributes:
        cameras, images: by number.
        own: by image number: which points are its own.
        points: of all images with a camera.
        left_out: names of the others.
    """

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    own: dict[int, range]
    points: ChosenPoints
    left_out: list[str]

    @classmethod
    def of(cls, scene: Scene) -> _Parts:
        """Read a scene."""
        cameras: dict[int, ColmapCamera] = {}
        images: dict[int, ColmapImage] = {}
        own: dict[int, range] = {}
        left_out: list[str] = []
        gathered, count = _Gathered(), 0
        for image in scene.images():
            if not has_camera(image):
                left_out.append(image.name)
                continue
            number, camera = len(images) + 1, image.calibration.camera
            cameras[number] = pinhole(number, camera)
            images[number] = ColmapImage(number, image.photo, number, camera.world_to_camera)
            gathered.add(image)
            own[number] = range(count, count + int(image.kept.sum()))
            count = own[number].stop
        return cls(cameras, images, own, gathered.points(is_of_depth(scene)), left_out)

    def shared(self) -> _Parts:
        """With one camera for all photos of a folder and a size."""
        groups: dict[tuple[str, int, int], list[int]] = {}
        for number, image in self.images.items():
            camera = self.cameras[image.camera]
            key = (pathlib.PurePosixPath(image.name).parent.as_posix(), camera.width, camera.height)
            groups.setdefault(key, []).append(number)
        cameras, images = {}, {}
        for camera_number, numbers in enumerate(groups.values(), 1):
            first = self.cameras[numbers[0]]
            fx, fy, cx, cy = np.median([self.cameras[number].parameters for number in numbers], axis=0).tolist()
            cameras[camera_number] = dataclasses.replace(first, number=camera_number, parameters=(fx, fy, cx, cy))
            images.update({n: dataclasses.replace(self.images[n], camera=camera_number) for n in numbers})
        return dataclasses.replace(self, cameras=cameras, images=dict(sorted(images.items())))


@dataclass
class _Gathered:
    """The points of images, as lists of arrays."""

    places: list[NDArray[np.float32]] = field(default_factory=list)
    colours: list[NDArray[np.uint8]] = field(default_factory=list)
    timesteps: list[NDArray[np.int32]] = field(default_factory=list)
    moving: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, image: PosedImage) -> None:
        self.places.append(image.points[image.kept])
        self.colours.append(image.pixels[image.kept])
        self.timesteps.append(np.full(int(image.kept.sum()), image.t, np.int32))
        self.moving.append(moving_pixels(image)[image.kept])

    def points(self, of_depth: bool) -> ChosenPoints:
        return ChosenPoints(
            places=np.concatenate([np.zeros((0, 3), np.float32), *self.places]),
            colours=np.concatenate([np.zeros((0, 3), np.uint8), *self.colours]),
            timesteps=np.concatenate([np.zeros(0, np.int32), *self.timesteps]),
            moving=np.concatenate([np.zeros(0, np.bool_), *self.moving]),
            of_depth=of_depth,
        )


def _write_images(scene: Scene, parts: _Parts, models: list[BinaryModel | TextModel]) -> ColmapPoints:
    """Write what each image sees, and give the points with their tracks."""
    chosen = parts.points
    count = len(chosen.places)
    most = max(_FEWEST_SEEN, _MOST_SEEN // len(parts.images))
    off = np.zeros(count)
    seen_points: list[NDArray[np.int32]] = []
    with_camera = (image for image in scene.images() if has_camera(image))
    for (number, record), image in zip(parts.images.items(), with_camera, strict=True):
        own = parts.own[number]
        seen = _joined(own_points(image, chosen, own), points_of_others(image, chosen, own, most))
        projected = parts.cameras[record.camera].project(record.places(chosen.places[seen.points]))
        off[seen.points] += np.linalg.norm(projected - seen.places, axis=1)  # an image sees a point once
        for model in models:
            model.write_image(record, seen.places, seen.points + 1)
        seen_points.append(seen.points.astype(np.int32))
    return _with_tracks(chosen, off, seen_points)


def _joined(first: Seen, second: Seen) -> Seen:
    return Seen(np.concatenate([first.points, second.points]), np.concatenate([first.places, second.places]))


def _with_tracks(chosen: ChosenPoints, off: NDArray[np.float64], seen: list[NDArray[np.int32]]) -> ColmapPoints:
    """The points with their tracks, by image number.

    Args:
        chosen: the points; each is seen by its own image at least.
        off: of each, distances between where it is seen and projected to, summed over its images, in pixels.
        seen: by image, in the order of their numbers: the points that it sees.
    """
    every = np.concatenate(seen)
    order = np.argsort(every, kind="stable").astype(np.int64)
    lengths = np.bincount(every, minlength=len(chosen.places)).astype(np.int64)
    images = np.repeat(np.arange(len(seen), dtype=np.uint32) + 1, [len(points) for points in seen])
    places = np.concatenate([np.arange(len(points), dtype=np.uint32) for points in seen])
    return ColmapPoints(
        places=chosen.places,
        colours=chosen.colours,
        errors=off / np.maximum(lengths, 1),
        lengths=lengths,
        track_images=images[order],
        track_places=places[order],
    )
