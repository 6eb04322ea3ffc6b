"""`write_nerfstudio`: a scene as `transforms.json`, in the pixels of the photos as they are on disk."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from page4d.files import write_atomically
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.scene_parts import has_camera
from page4d_engines.results.scene.cloud import Cloud, write_ply

TRANSFORMS, CLOUD = "transforms.json", "points.ply"

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # a camera's y down, z forward (OpenCV's) to y up, z backward (OpenGL's)


def write_nerfstudio(
    folder: pathlib.Path, scene: Scene, place: pathlib.Path | None = None, warn: Callable[[str], None] | None = None
) -> list[pathlib.Path]:
    """Write `transforms.json`, and beside it `points.ply` with the scene's points where there is none.

    Args:
        folder: an existing one.
        scene: is read once, and once more for `points.ply`.
        place: where the folder will lie when it is finished: photos are named relative to it. None: where it is.
        warn: is told what was left out; None: nobody.

    Returns:
        The files, without a `points.ply` that was there.
    """
    photos = os.path.relpath(os.path.realpath(photo_root(scene)), os.path.realpath(place or folder))
    frames, left_out, parts = [], [], []
    for image in scene.images():
        if has_camera(image):
            frames.append(_frame(image, photos))
        else:
            left_out.append(image.name)
"""
