"""What several formats need of a scene: fewer points, images with a camera."""

from __future__ import annotations

import dataclasses

import msgspec

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage


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
