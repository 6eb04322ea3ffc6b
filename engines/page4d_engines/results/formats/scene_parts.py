"""What several formats need of a scene: fewer points, images with a camera, photos that are files."""

from __future__ import annotations

import dataclasses
import pathlib

import msgspec

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage

IMAGES = "images"
"""Folder of a video's frames, beside the files that name them."""


def at_most(scene: Scene, points: int) -> Scene:
    """The scene with so many points at most, where `--max-points` does not say how many."""
    options = scene.run.options
    if options.max_points is not None:
        return scene
    run = dataclasses.replace(scene.run, options=msgspec.structs.replace(options, max_points=points))
    return dataclasses.replace(scene, run=run)


def has_camera(image: PosedImage) -> bool:
    """Whether pose and focal lengths are known, as `cameras.json` asks for it."""
    try:
        Camera.from_mapping(image.name, image.calibration.camera.to_mapping())
    except UsageError:
        return False
    return True


def is_of_depth(scene: Scene) -> bool:
    """Whether the scene's points are made of depth and cameras."""
    choice = scene.run.geometry(scene.windows[0]).choice
    return choice is not None and choice.source == "depth"


def photo_file(image: PosedImage) -> pathlib.Path | None:
    """The file of an image's photo; None of a frame of a video or a bag, which has none of its own."""
    frame = image.clip.frame_files[image.v][image.t]
    return frame.file if frame.is_whole_file else None


def save_video_frame(folder: pathlib.Path, image: PosedImage) -> pathlib.Path | None:
    """Write a frame of a video or a bag to `images/`, for programs that read photos; None of a photo, or where it is.

    Raises:
        UsageError: it cannot be decoded.
    """
    path = folder / IMAGES / image.photo
    if photo_file(image) is not None or path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    image.source().save(path, compress_level=1)  # a fast level: the frames are for training, not for keeping
    return path
