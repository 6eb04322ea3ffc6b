"""Calibrated cameras: reading `cameras.json`, and the fundamental matrices of a rig. numpy only; float64 throughout."""

from __future__ import annotations

import json
import math
import numbers
import pathlib
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.system.json_file import read_json

_COINCIDENT = 1e-6  # centres closer than this (relative to their distance from the origin, at least 1) count as equal
_EXACT = 1e-6  # how far a number that is 0 or 1 by definition may be off, by rounding in whatever wrote it
_LARGEST = 1e9  # of a number of K or of a translation: beyond it products of float64 lose all meaning, then overflow
_KEYS = ("width", "height", "K", "world_to_camera")
_MOST_PIXELS = 2**31 - 1  # along a side


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
        """The camera's position in the world, `[3]`."""
        rotation, translation = self.world_to_camera[:, :3], self.world_to_camera[:, 3]
        return -rotation.T @ translation

    @classmethod
    def from_mapping(cls, name: str, values: Mapping[str, Any]) -> Camera:
        """One entry of `cameras.json`; `world_to_camera` may also be 4x4, its last row 0 0 0 1.

        Raises:
            UsageError: a key is missing, a size is no whole number above 0, a shape is wrong, a number is not finite or
                absurdly large, the rotation is no rotation matrix, or K is no calibration matrix.
        """
        if isinstance(values, Camera):
            return values
        if not isinstance(values, Mapping):
            raise UsageError(f"camera {name} is no mapping", got=_short(values), allowed=", ".join(_KEYS))
        if missing := [key for key in _KEYS if key not in values]:
            is_inverse = missing == ["world_to_camera"] and "camera_to_world" in values
            raise UsageError(
                f"camera {name} lacks {', '.join(missing)}",
                got=_short(sorted(map(str, values))),
                allowed=", ".join(_KEYS),
                hint="the inverse of camera_to_world" if is_inverse else None,
            )
        width, height = (_side(name, key, values[key]) for key in ("width", "height"))
        intrinsics = _matrix(name, "K", values["K"], (3, 3))
        pose = _pose(name, values["world_to_camera"])
        _check_intrinsics(name, intrinsics)
        return cls(width, height, intrinsics, pose)

    def to_mapping(self) -> dict[str, Any]:
        """The entry as `cameras.json` has it."""
        return {
            "width": self.width,
            "height": self.height,
            "K": self.K.tolist(),
            "world_to_camera": self.world_to_camera.tolist(),
        }

    def resized(
        self, scale_x: float, scale_y: float, shift_x: float, shift_y: float, width: int, height: int
    ) -> Camera:
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


def read_entries(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """`cameras.json` as it stands: what each camera's name has for an entry.

    Raises:
        UsageError: as `read_json`, or not a mapping of names to mappings.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise UsageError(
            f"{path} is not a mapping of camera names to cameras",
            allowed='{"cam0": {"width": .., "height": .., "K": .., "world_to_camera": ..}}',
        )
    return content


def read_cameras(path: pathlib.Path) -> dict[str, Camera]:
    """Read `cameras.json`.

    Raises:
        UsageError: no such file, not JSON, or an entry that is not a camera.
    """
    return cameras_from_mapping(read_entries(path))


def write_cameras(path: pathlib.Path, cameras: Mapping[str, Camera]) -> None:
    """Write `cameras.json`."""
    path.write_text(json.dumps({name: camera.to_mapping() for name, camera in cameras.items()}, indent=1) + "\n")


def fundamental(cameras: Iterable[Camera]) -> NDArray[np.float64]:
    """Fundamental matrices of all ordered pairs of views, `[V,V,3,3]`.

    `F[a,b] @ (x, y, 1)` of a pixel in view a is its epipolar line in view b. Each matrix has norm 1, or is zero, "no
    line, no penalty": for a view with itself and for two cameras at the same centre.
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


def _check_intrinsics(camera: str, K: NDArray[np.float64]) -> None:
    what = f"camera {camera}: K is not a calibration matrix"
    with np.errstate(over="ignore", invalid="ignore"):
        singular = K[0, 0] <= 0 or K[1, 1] <= 0 or not abs(np.linalg.det(K)) >= 1e-12
    if singular:
        raise UsageError(what, got=K.tolist(), allowed="positive focal lengths in pixels")
    if np.abs(K[:2, 2]).max() <= _EXACT and np.abs(K[2, :2]).max() > _EXACT:
        raise UsageError(
            what, got=K.tolist(), allowed="fx s cx, 0 fy cy, 0 0 1", hint="transpose it: it is stored by columns"
        )
    if np.abs(K[2] - (0, 0, 1)).max() > _EXACT or abs(K[1, 0]) > _EXACT * K[1, 1]:
        raise UsageError(what, got=K.tolist(), allowed="fx s cx, 0 fy cy, 0 0 1")
    if np.abs(K).max() > _LARGEST:
        raise UsageError(what, got=K.tolist(), allowed=f"numbers of pixels, {_LARGEST:g} or less")


def _pose(camera: str, value: object) -> NDArray[np.float64]:
    """`world_to_camera`, `[3,4]`, from that or from a 4x4 matrix."""
    key = "world_to_camera"
    pose = _matrix(camera, key, value, (3, 4), (4, 4))
    if len(pose) == 4:
        if np.abs(pose[3] - (0, 0, 0, 1)).max() > _EXACT:
            transposed = np.abs(pose[:, 3] - (0, 0, 0, 1)).max() <= _EXACT
            hint = "transpose it: it is stored by columns" if transposed else None
            raise UsageError(
                f"camera {camera}: the last row of {key} is not 0 0 0 1",
                got=pose[3].tolist(),
                allowed="3 rows of 4, or a fourth of 0 0 0 1",
                hint=hint,
            )
        pose = pose[:3]
    rotation = pose[:, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = rotation.round(4).tolist()
        is_rotation = np.abs(rotation @ rotation.T - np.eye(3)).max() <= 1e-3 and np.linalg.det(rotation) >= 0
    if not is_rotation:
        raise UsageError(
            f"camera {camera}: {key} holds no rotation", got=rounded, allowed="orthonormal rows, determinant +1"
        )
    if np.abs(pose[:, 3]).max() > _LARGEST:
        raise UsageError(
            f"camera {camera}: the translation of {key} is out of range",
            got=pose[:, 3].tolist(),
            allowed=f"{_LARGEST:g} or less along an axis",
        )
    return pose


def _side(camera: str, key: str, value: object) -> int:
    """A width or height: a whole number, also where it is written as 640.0."""
    number = _as_float(value) if _is_number(value) else math.nan
    if not number.is_integer() or not 1 <= number <= _MOST_PIXELS:
        raise UsageError(
            f"camera {camera}: {key} is no size of an image",
            got=_short(value),
            allowed=f"a whole number of pixels, 1 to {_MOST_PIXELS}",
        )
    return int(number)


def _matrix(camera: str, key: str, value: object, *shapes: tuple[int, int]) -> NDArray[np.float64]:
    """A finite matrix in one of the shapes, from rows of numbers."""
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    allowed = f"{shapes[0][0]} rows of {shapes[0][1]}"
    if not isinstance(rows, (list, tuple)) or not all(map(_is_row, rows)):
        raise UsageError(f"camera {camera}: {key} is not a matrix of numbers", got=_short(value), allowed=allowed)
    matrix = [[_as_float(number) for number in row] for row in rows]
    widths = {len(row) for row in matrix}
    has_shape = len(widths) == 1 and (len(matrix), *widths) in shapes
    if not has_shape or not np.isfinite(matrix).all():
        got = matrix if len(matrix) <= 4 and max(widths, default=0) <= 4 else _short(matrix)
        raise UsageError(
            f"camera {camera}: {key} has the wrong shape or holds no finite numbers", got=got, allowed=allowed
        )
    return np.array(matrix, np.float64)


def _is_row(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of over 308 digits
        return math.inf


def _short(value: object) -> str:
    """A value that may be anything, of any size and depth, in an error."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return value[:80] if isinstance(value, str) else short.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return f"{type(value).__name__} too long to print"
