"""`write_nerfstudio`: a scene as `transforms.json`, in the pixels of the photos as they are on disk."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

from page4d.files import write_atomically
from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.scene_parts import IMAGES, has_camera, photo_file, save_video_frame
from page4d_engines.results.formats.written import Written
from page4d_engines.results.world.scene_files import CLOUD, PlyFile

TRANSFORMS = "transforms.json"

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # a camera's y down, z forward (OpenCV's) to y up, z backward (OpenGL's)


def write_nerfstudio(folder: pathlib.Path, scene: Scene, place: pathlib.Path | None = None) -> Written:
    """Write `transforms.json` and the `points.ply` that it names; of videos their frames, too, to `images/`.

    The memory is that of a window, and a kilobyte per image.

    Args:
        folder: an existing one; a `points.ply` in it is replaced: by the same where the scene's options are.
        scene: is read once, or twice where its points are thinned out.
        place: where the folder will lie when it is finished: photos are named relative to it. None: where it is.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    place = pathlib.Path(os.path.realpath(place or folder))
    frames: list[dict[str, Any]] = []
    left_out: list[str] = []
    files = [folder / TRANSFORMS, folder / CLOUD]
    with PlyFile(folder / CLOUD) as ply:
        for image in scene.images():
            ply.add(image)
            if not has_camera(image):
                left_out.append(image.name)
                continue
            if (frame := save_video_frame(folder, image)) is not None:
                files.append(frame)
            frames.append(_frame(image, place))
    document = {"camera_model": "PINHOLE", "ply_file_path": CLOUD, "frames": frames}
    write_atomically(folder / TRANSFORMS, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    warning = f"no pose or focal length is known of {', '.join(left_out)}: not in {TRANSFORMS}"
    return Written(files, (warning,) if left_out else ())


def _frame(image: PosedImage, place: pathlib.Path) -> dict[str, Any]:
    """An entry: the photo's file, its camera, and the pose of that, camera to world with OpenGL's axes."""
    camera, file = image.calibration.camera, photo_file(image)
    path = f"{IMAGES}/{image.photo}" if file is None else os.path.relpath(os.path.realpath(file), place)
    return {
        "file_path": pathlib.PurePath(path).as_posix(),
        "w": camera.width,
        "h": camera.height,
        "fl_x": float(camera.K[0, 0]),
        "fl_y": float(camera.K[1, 1]),
        "cx": float(camera.K[0, 2]),
        "cy": float(camera.K[1, 2]),
        "transform_matrix": (image.calibration.camera_to_world @ _FLIP).tolist(),
    }
