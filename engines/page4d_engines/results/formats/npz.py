"""`scene.npz`: every array of every image of a scene, for numpy."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.finished.finished_run import Scene
from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.written import Written

NPZ = "scene.npz"


def write_npz(folder: pathlib.Path, scene: Scene) -> Written:
    """Write a scene's images, n of them in the scene's order; the memory is that of a window.

    | array | is |
    |---|---|
    | `name`, `photo`, `window` `[n]` | of the image, its file and its window, as text |
    | `t`, `v` int64 `[n]` | timestep and view in the clip |
    | `image` uint8 `[n,H,W,3]` | what the engine saw, RGB |
    | `points` float32 `[n,H,W,3]` | each pixel's point in the scene's world; NaN where unknown |
    | `kept` bool `[n,H,W]` | the points of the cloud |
    | `depth`, `confidence`, `mask` float32 `[n,H,W]` | as far as the engines give them |
    | `size` int64 `[n,2]` | width and height of the photo |
    | `K`, `K_image` float64 `[n,3,3]` | intrinsics in pixels of the photo, and of `image` |
    | `world_to_camera` float64 `[n,3,4]`, `camera_to_world` `[n,4,4]` | poses; NaN where unknown |
    | `unit` text `[]` | of all lengths; empty: one of the scene's own |

    Args:
        folder: an existing one.
        scene: to be written.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    path = folder / NPZ
    work = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=f".{NPZ}."))
    try:
        arrays: dict[str, NDArray[Any]] = {}
        texts: dict[str, list[str]] = {"name": [], "photo": [], "window": []}
        for index, image in enumerate(scene):
            for name, values in texts.items():
                values.append(getattr(image, name))
            for name, value in _arrays(image).items():
                if name not in arrays:
                    shape = (scene.count, *value.shape)
                    arrays[name] = np.lib.format.open_memmap(work / f"{name}.npy", "w+", value.dtype, shape)
                arrays[name][index] = value
        for name, values in texts.items():
            np.save(work / f"{name}.npy", np.array(values))
        np.save(work / "unit.npy", np.array(str(scene.unit or "")))
        del arrays  # written to their files
        whole = work / NPZ
        with zipfile.ZipFile(whole, "w") as archive:
            for file in sorted(work.glob("*.npy")):
                # an entry of no time: the same run gives the same bytes
                with file.open("rb") as array, archive.open(zipfile.ZipInfo(file.name), "w", force_zip64=True) as entry:
                    shutil.copyfileobj(array, entry, 1 << 20)
                file.unlink()  # the disk holds the larger ones once
        os.replace(whole, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Written([path])


def _arrays(image: PosedImage) -> dict[str, NDArray[Any]]:
    camera = image.calibration.camera
    arrays = {
        "t": np.array(image.t),
        "v": np.array(image.v),
        "image": image.pixels,
        "points": image.points,
        "kept": image.kept,
        "depth": image.depth,
        "confidence": image.confidence,
        "mask": image.mask,
        "size": np.array([camera.width, camera.height]),
        "K": camera.K,
        "K_image": image.fit.camera(camera).K,
        "world_to_camera": camera.world_to_camera[:3],
        "camera_to_world": image.calibration.camera_to_world,
    }
    return {name: array for name, array in arrays.items() if array is not None}
