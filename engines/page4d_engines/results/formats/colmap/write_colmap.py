"""`write_colmap`: a scene as a COLMAP sparse model, in the pixels of the photos as they are on disk."""

from __future__ import annotations

import dataclasses
import pathlib
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
from page4d_engines.results.formats.scene_parts import at_most, has_camera, is_of_depth, save_video_frame
from page4d_engines.results.formats.written import Written

BINARY, TEXT = "colmap/sparse/0", "colmap/sparse_text/0"
MOST_POINTS = 100_000
"""Where `--max-points` does not say: splatting begins with about so many, and more of them make COLMAP slow."""

_FEWEST_JOINED = 0.1  # of the points: that a second image sees
_MOST_SEEN = 1_000_000  # observations of other images' points, of all images together ..
_FEWEST_SEEN = 1_024  # .. but every image has so many


def write_colmap(folder: pathlib.Path, scene: Scene, shared_camera: bool = False) -> Written:
    """Write `colmap/sparse/0` (binary) and `colmap/sparse_text/0`; of videos their frames, too, to `images/`.

    The points are the scene's, at most `MOST_POINTS` where its options do not say how many, and of these the ones that
    a second image sees: COLMAP's bundle adjustment stops at others. Where hardly any would be left, all stay. A track
    has the image that the point comes from, and every image that shows the same surface there.

    Memory: a window of the scene, 60 bytes a point, and 40 bytes an observation, which are one million, or a thousand
    an image, at most, beside the points themselves.

    Args:
        folder: an existing one.
        scene: is read twice, and once more where its points are thinned out.
        shared_camera: whether photos of one folder and one size share a camera, the median of theirs: those of one
            physical camera, or all photos in a folder. Otherwise each has its own.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    scene = at_most(scene, MOST_POINTS)
    parts = _Parts.of(scene, folder)
    warnings = []
    if parts.left_out:
        warnings.append(f"no pose or focal length is known of {', '.join(parts.left_out)}: not in the COLMAP model")
    if not parts.images:
        return Written([], (*warnings, "no image has a camera: there is no COLMAP model"))
    if shared_camera:
        parts = parts.shared()
    seen, lengths = _seen(scene, parts)
    joined = lengths > 1
    if joined.sum() < _FEWEST_JOINED * len(joined):
        joined = lengths > 0
        warnings.append(
            f"hardly any point is seen by a second image, at the same place to 2%: all {len(joined)} points are in the"
            " COLMAP model, and its bundle adjustment does not take those of a single image"
        )
    seen, chosen = _only(seen, joined), parts.points.only(joined)
    points = _with_tracks(parts, chosen, seen)

    models: list[BinaryModel | TextModel] = [BinaryModel(_existing(folder / BINARY))]
    spaced = [image.name for image in parts.images.values() if len(image.name.split()) != 1]
    if spaced:
        warnings.append(f"COLMAP's text files have no place for names with spaces, and were not written: {spaced[0]}")
    else:
        models.append(TextModel(_existing(folder / TEXT)))
    for model in models:
        model.write_cameras(list(parts.cameras.values()))
        model.write_images(list(parts.images.values()), seen)
        model.write_points(points)
    return Written([*(file for model in models for file in model.files), *parts.frames], tuple(warnings))


def _existing(folder: pathlib.Path) -> pathlib.Path:
    """The folder, which is there then."""
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
        frames: of videos, as files that were written.
    """

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    own: dict[int, range]
    points: ChosenPoints
    left_out: list[str]
    frames: list[pathlib.Path]

    @classmethod
    def of(cls, scene: Scene, folder: pathlib.Path) -> _Parts:
        """Read a scene, and write the frames of its videos into a folder."""
        cameras: dict[int, ColmapCamera] = {}
        images: dict[int, ColmapImage] = {}
        own: dict[int, range] = {}
        left_out: list[str] = []
        frames: list[pathlib.Path] = []
        gathered, count = _Gathered(), 0
        for image in scene.images():
            if not has_camera(image):
                left_out.append(image.name)
                continue
            number, camera = len(images) + 1, image.calibration.camera
            cameras[number] = pinhole(number, camera)
            images[number] = ColmapImage(number, image.photo, number, camera.world_to_camera)
            gathered.add(image)
            if (frame := save_video_frame(folder, image)) is not None:
                frames.append(frame)
            own[number] = range(count, count + int(image.kept.sum()))
            count = own[number].stop
        return cls(
            cameras=cameras,
            images=images,
            own=own,
            points=gathered.points(is_of_depth(scene)),
            left_out=left_out,
            frames=frames,
        )

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


def _seen(scene: Scene, parts: _Parts) -> tuple[list[Seen], NDArray[np.int64]]:
    """What each image sees, in the order of their numbers, and how many images see each point."""
    chosen = parts.points
    most = max(_FEWEST_SEEN, _MOST_SEEN // len(parts.images))
    seen = []
    lengths = np.zeros(len(chosen.places), np.int64)
    with_camera = (image for image in scene.images() if has_camera(image))
    for number, image in zip(parts.images, with_camera, strict=True):
        own = parts.own[number]
        seen.append(Seen.joined([own_points(image, chosen, own), points_of_others(image, chosen, own, most)]))
        lengths[seen[-1].points] += 1  # an image sees a point once
    return seen, lengths


def _only(seen: list[Seen], kept: NDArray[np.bool_]) -> list[Seen]:
    """What each image sees of the points that are kept, by their new indices."""
    indices = np.cumsum(kept) - 1
    return [Seen(indices[some.points[stays]], some.places[stays]) for some in seen for stays in [kept[some.points]]]


def _with_tracks(parts: _Parts, chosen: ChosenPoints, seen: list[Seen]) -> ColmapPoints:
    """The points with their tracks, by image number.

    Args:
        parts: the images and cameras.
        chosen: the points; each is seen by an image at least.
        seen: by image, in the order of their numbers.
    """
    off = np.zeros(len(chosen.places))
    for image, some in zip(parts.images.values(), seen, strict=True):
        projected = parts.cameras[image.camera].project(image.places(chosen.places[some.points]))
        off[some.points] += np.linalg.norm(projected - some.places, axis=1)
    counts = [len(some.points) for some in seen]
    every = np.concatenate([some.points.astype(np.int32) for some in seen])
    order = np.argsort(every, kind="stable")
    lengths = np.bincount(every, minlength=len(chosen.places))
    return ColmapPoints(
        places=chosen.places,
        colours=chosen.colours,
        errors=off / np.maximum(lengths, 1),
        lengths=lengths,
        track_images=np.repeat(np.arange(len(seen), dtype=np.uint32) + 1, counts)[order],
        track_places=np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])[order],
    )
