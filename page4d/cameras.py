"""Calibrated cameras: reading `cameras.json`, and the fundamental matrices of a rig. numpy only; float64 throughout."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError

_COINCIDENT = 1e-6  # centres closer than this (relative to their distance from the origin, at least 1) count as one


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        width, height: the images' size in pixels; pixel edges lie at integers, the first pixel's centre at (0.5, 0.5).
        K: intrinsics `[3,3]`, in pixels.
        world_to_camera: `[3,4]`, rotation and translation; x right, y down, z forward.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    world_to_camera: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        """The camera's place in the world, `[3]`."""
        rotation, translation = self.world_to_camera[:, :3], self.world_to_camera[:, 3]
        return -rotation.T @ translation

    @classmethod
    def from_mapping(cls, name: str, values: Mapping[str, Any]) -> Camera:
        """One entry of `cameras.json`.

        Raises:
            UsageError: a key is missing, a shape is wrong, a number is not finite, or the rotation is not one.
        """
        if isinstance(values, Camera):
            return values
        missing = [key for key in ("width", "height", "K", "world_to_camera") if key not in values]
        if missing:
            raise UsageError(f"camera {name} lacks {', '.join(missing)}", got=sorted(values), allowed="width, height, K, world_to_camera")
        intrinsics = _matrix(name, "K", values["K"], (3, 3))
        pose = _matrix(name, "world_to_camera", values["world_to_camera"], (3, 4))
        rotation = pose[:, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise UsageError(f"camera {name}: world_to_camera holds no rotation", got=rotation.round(4).tolist(), allowed="orthonormal rows, determinant +1")
        if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0 or abs(np.linalg.det(intrinsics)) < 1e-12:
            raise UsageError(f"camera {name}: K is not a calibration matrix", got=intrinsics.tolist(), allowed="positive focal lengths in pixels")
        return cls(int(values["width"]), int(values["height"]), intrinsics, pose)

    def to_mapping(self) -> dict[str, Any]:
        """The entry as `cameras.json` has it."""
        return {"width": self.width, "height": self.height, "K": self.K.tolist(), "world_to_camera": self.world_to_camera.tolist()}

    def resized(self, scale_x: float, scale_y: float, shift_x: float, shift_y: float, width: int, height: int) -> Camera:
        """The camera of an image that was scaled, then shifted (by a crop or a pad), in pixels of the new image."""
        intrinsics = self.K.copy()
        intrinsics[0] *= scale_x
        intrinsics[1] *= scale_y
        intrinsics[0, 2] += shift_x
        intrinsics[1, 2] += shift_y
        return Camera(width, height, intrinsics, self.world_to_camera)


def cameras_from_mapping(cameras: Mapping[str, Any]) -> dict[str, Camera]:
    """`cameras.json`'s content as cameras, in its order (= the order of the views)."""
    return {name: Camera.from_mapping(name, values) for name, values in cameras.items()}


def read_cameras(path: pathlib.Path) -> dict[str, Camera]:
    """Read `cameras.json`.

    Raises:
        UsageError: no such file, not JSON, or an entry that is not a camera.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise UsageError(f"{path} is not a mapping of camera names to cameras", allowed='{"cam0": {"width": .., "height": .., "K": .., "world_to_camera": ..}}')
    return cameras_from_mapping(content)


def write_cameras(path: pathlib.Path, cameras: Mapping[str, Camera]) -> None:
    """Write `cameras.json`."""
    path.write_text(json.dumps({name: camera.to_mapping() for name, camera in cameras.items()}, indent=1) + "\n")


def fundamental(cameras: Iterable[Camera] | Sequence[Camera]) -> NDArray[np.float64]:
    """Fundamental matrices of all ordered pairs of views, `[V,V,3,3]`.

    `F[a,b] @ (x, y, 1)` of a pixel in view a is its epipolar line in view b. Each is scaled to unit norm; it is zero, which
    stands for "no line, no penalty", for a view with itself and for two cameras at one centre.
    """
    rig = list(cameras)
    result = np.zeros((len(rig), len(rig), 3, 3))
    for a, source in enumerate(rig):
        for b, target in enumerate(rig):
            size = max(1.0, float(np.linalg.norm(source.centre)), float(np.linalg.norm(target.centre)))
            if np.linalg.norm(source.centre - target.centre) <= _COINCIDENT * size:
                continue
            rotation = target.world_to_camera[:, :3] @ source.world_to_camera[:, :3].T
            x, y, z = target.world_to_camera[:, 3] - rotation @ source.world_to_camera[:, 3]
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            line = np.linalg.inv(target.K).T @ cross @ rotation @ np.linalg.inv(source.K)
            result[a, b] = line / np.linalg.norm(line)
    return result


def _matrix(camera: str, key: str, value: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"camera {camera}: {key} is not a matrix of numbers", got=value, allowed=f"{shape[0]} rows of {shape[1]}") from None
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise UsageError(
            f"camera {camera}: {key} has the wrong shape or holds no finite numbers", got=matrix.tolist(), allowed=f"{shape[0]} rows of {shape[1]}"
        )
    return matrix
