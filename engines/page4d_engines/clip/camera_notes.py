"""Notes on cameras that can be used as they are, and still look as if something else was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera

_DISTORTION = re.compile(r"(?:lens_?)?(?:dist(?:ortion)?|radial|tangential)[a-z_]*|d|k[1-6]|p[12]", re.IGNORECASE)
_MODEL = re.compile(r"(?:camera_?|distortion_?|projection_?)?(?:model|type)", re.IGNORECASE)
_PINHOLE = re.compile(r"(?:simple_?|ideal_?)?pinhole(?:_?camera)?|perspective|none|linear", re.IGNORECASE)
# of the image's side: a principal point farther from the middle than any lens is mounted off its axis
_OFF_CENTRE = 0.1
_WIDE, _LONG = 0.2, 20.0  # focal lengths in sides of the image: 136 and 3 degrees of view
_OBLONG = 1.25  # fx / fy, or the other way round: pixels of no sensor
# how far axes must turn from each other to meet somewhere, as the variance of their direction: 8 degrees
_AXES_APART = 0.02
_NEAR_AXIS = 0.94  # cosine of 20 degrees: a camera that is turned towards a point
_AROUND = 0.2  # places of cameras that stand around a point: their spread, in distances from it


def camera_notes(cameras: Mapping[str, Camera], entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Sentences about the cameras of a clip, one for each kind of suspicion; empty where nothing is odd.

    Args:
        cameras: those of the clip's views.
        entries: of `cameras.json`, from which they come: for what a `Camera` does not have.
    """
    suspects = {
        "K looks normalised (a focal length of a few pixels): multiply its rows by width and height, page4d wants"
        " pixels": _with(cameras, _is_normalised),
        "the principal point lies far from the image's middle: is K of these images, neither resized, turned nor"
        " cropped?": _with(cameras, _is_off_centre),
        "the focal length is an unusual one: is K that of these images, in pixels?": _with(cameras, _is_odd_focal),
        "lens distortion is not applied: undistort the frames first, as with cv2.undistort": [
            name for name in cameras if _is_distorted(entries[name])
        ],
    }
    sentences = [f"cameras.json, {', '.join(names)}: {text}" for text, names in suspects.items() if names]
    if _looks_inverted(list(cameras.values())):
        sentences.append(
            "cameras.json: read as camera-to-world all cameras would face one point, as they are read, world-to-camera,"
            " they do not: if the poses are camera-to-world, invert them"
        )
    return tuple(sentences)


def _with(cameras: Mapping[str, Camera], odd: Callable[[Camera], bool]) -> list[str]:
    return [name for name, camera in cameras.items() if odd(camera)]


def _is_normalised(camera: Camera) -> bool:
    """Whether K is in widths and heights, or in half of them, instead of pixels."""
    K, side = camera.K, max(camera.width, camera.height)
    return bool(side >= 16 and max(K[0, 0], K[1, 1]) < min(16.0, _WIDE * side) and np.abs(K[:2, 2]).max() <= 2)


def _is_off_centre(camera: Camera) -> bool:
    sides = np.array([camera.width, camera.height])
    return bool((np.abs(camera.K[:2, 2] / sides - 0.5) >= _OFF_CENTRE).any()) and not _is_normalised(camera)


def _is_odd_focal(camera: Camera) -> bool:
    focal, side = np.array([camera.K[0, 0], camera.K[1, 1]]), max(camera.width, camera.height)
    odd = focal.min() < _WIDE * side or focal.max() > _LONG * side or focal.max() > _OBLONG * focal.min()
    return bool(odd) and not _is_normalised(camera)


def _is_distorted(entry: Mapping[str, Any]) -> bool:
    for key, value in entry.items():
        if _DISTORTION.fullmatch(key) and _has_value(value):
            return True
        if _MODEL.fullmatch(key) and isinstance(value, str) and not _PINHOLE.fullmatch(value):
            return True
    return False


def _has_value(value: Any) -> bool:
    """Whether there is a number in it that is not 0."""
    if isinstance(value, dict):
        return any(map(_has_value, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_value, value))
    return isinstance(value, (int, float)) and value != 0


def _looks_inverted(cameras: list[Camera]) -> bool:
    """Whether the poses are probably camera-to-world: only when they are read so do all cameras face one point.

    Read the wrong way round, cameras around a point look away from one, or stand all at one place, or face nothing in
    common. Of two cameras the last says little, so with them it takes one of the others.
    """
    if len(cameras) < 2:
        return False
    rotations = np.stack([camera.world_to_camera[:, :3] for camera in cameras])
    translations = np.stack([camera.world_to_camera[:, 3] for camera in cameras])
    inverted = _facing(translations, rotations[:, :, 2])
    if inverted is None or not (inverted > _NEAR_AXIS).all():
        return False
    read = _facing(-np.einsum("nji,nj->ni", rotations, translations), rotations[:, 2])
    if read is None or (read < -_NEAR_AXIS).all():
        return True
    return len(cameras) > 2 and not (read > 0).all()


def _facing(places: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """For each camera the cosine between its axis and the direction to the point nearest to all axes.

    None where the axes are nearly parallel, or the cameras stand too close together, measured by the distance to that
    point, to stand around it.
    """
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # projections onto the planes that the axes stand on
    equations = across.mean(0)
    if np.linalg.eigvalsh(equations)[0] < _AXES_APART:
        return None
    point = np.linalg.solve(equations, np.einsum("nij,nj->ni", across, places).mean(0))
    towards = point - places
    distances = np.linalg.norm(towards, axis=1)
    spread = np.linalg.norm(places - places.mean(0), axis=1).max()
    if distances.min() <= 0 or spread < _AROUND * distances.mean():
        return None
    return np.asarray(np.einsum("ni,ni->n", axes, towards) / distances)
