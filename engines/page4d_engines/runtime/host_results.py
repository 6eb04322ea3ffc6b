"""What the host makes of the heads' values, in float64: cameras, metres, the frame of known cameras."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.manifest import OF_IMAGES, Manifest
from page4d.network.known_cameras import KnownCameras
from page4d.network.poses import camera_to_world, intrinsics
from page4d.published import QUATERNION_NUMBERS
from page4d_engines.runtime.result import LengthUnit, Result

FOCAL_OF_METRES = 300.0
"""Focal length in pixels at which the depth of Depth Anything 3 METRIC is in metres; it grows with the focal length."""


def finished(
    result: Result,
    manifest: Manifest,
    numbers: NDArray[np.floating] | None,
    rig: KnownCameras | None,
    present: NDArray[np.bool_] | None = None,
) -> Result:
    """A result whose points and depth lie in the pipeline's buffers, where they are scaled in place.

    Args:
        result: of the run, without cameras.
        manifest: of the engines.
        numbers: of the camera head, `[T,V,9 or 12]`; None without it.
        rig: the images' cameras, where they were given.
        present: which images are there, `[T,V]`, in place of the others' values is NaN; None: all.
    """
    result = _scaled(result, manifest, numbers, rig, present)
    if present is not None:
        for name in OF_IMAGES:
            values: NDArray[np.floating] | None = getattr(result, name)
            if values is not None:
                values[~present] = np.nan
    return result


def _scaled(
    result: Result,
    manifest: Manifest,
    numbers: NDArray[np.floating] | None,
    rig: KnownCameras | None,
    present: NDArray[np.bool_] | None,
) -> Result:
    """A result with its cameras, in the unit that it can have."""
    if numbers is not None:
        result = dataclasses.replace(result, **_cameras(manifest, numbers))
    if result.metric is not None:
        return _in_metres(result)
    if rig is not None and manifest.knows_cameras:
        return _in_frame_of(rig, result, present)
    if rig is not None and manifest.metres_by_focal_length:
        return _by_focal_length(rig, result)
    return result


def _cameras(manifest: Manifest, numbers: NDArray[np.floating]) -> dict[str, Any]:
    fields: dict[str, Any] = {"camera": camera_to_world(numbers, manifest.direction)}
    if numbers.shape[-1] == QUATERNION_NUMBERS:
        fields["intrinsics"] = intrinsics(numbers, manifest.layout.H, manifest.layout.W)
    return fields


def _in_metres(result: Result) -> Result:
    """Of a model that gives the metres of its unit."""
    metric = np.asarray(result.metric, np.float64)
    if result.points is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(result.points, _over(metric, result.points), out=result.points, casting="same_kind")
    if result.camera is not None:
        result.camera[..., :3, 3] *= _over(metric, result.camera[..., :3, 3])
    return dataclasses.replace(result, unit=LengthUnit.METRES)


def _in_frame_of(rig: KnownCameras, result: Result, present: NDArray[np.bool_] | None) -> Result:
    """Of a model that was given the cameras; NaN depth where the poses that it found tell no scale."""
    if result.camera is None or result.intrinsics is None:
        return result
    clips = result.camera.reshape(-1, *rig.camera_to_world.shape)
    if present is None:
        scales = np.array([_scale(rig, clip) for clip in clips])
    else:
        by_clip = present.reshape(len(clips), -1)
        scales = np.array([_scale(rig.of_present(v), clip[v]) for clip, v in zip(clips, by_clip, strict=True)])
    if result.depth is not None:
        divisor = _over(scales.reshape(result.depth.shape[:-4]), result.depth)
        with np.errstate(over="ignore", invalid="ignore"):
            np.divide(result.depth, divisor, out=result.depth, casting="same_kind")
    camera = np.broadcast_to(rig.camera_to_world, result.camera.shape).copy()
    K = np.broadcast_to(rig.K, result.intrinsics.shape).copy()
    return dataclasses.replace(result, camera=camera, intrinsics=K, unit=LengthUnit.CAMERAS)


def _scale(rig: KnownCameras, estimated: NDArray[np.float64]) -> float:
    return rig.scale(estimated) if np.isfinite(estimated).all() else np.nan


def _by_focal_length(rig: KnownCameras, result: Result) -> Result:
    """Of Depth Anything 3 METRIC, which does not give cameras: K is the one that was given."""
    assert result.depth is not None
    focal = (rig.K[:, 0, 0] + rig.K[:, 1, 1]) / 2
    np.multiply(result.depth, (focal / FOCAL_OF_METRES)[:, None, None], out=result.depth, casting="same_kind")
    K = np.broadcast_to(rig.K, (*result.depth.shape[:-2], 3, 3)).copy()
    return dataclasses.replace(result, intrinsics=K, unit=LengthUnit.METRES)


def _over(factor: NDArray[np.float64], array: NDArray[Any]) -> NDArray[np.float64]:
    """The factor with an axis of 1 for each that it lacks; by a float64 without axes numpy would compute in float32."""
    return factor.reshape(*factor.shape, *(1 for _ in range(array.ndim - factor.ndim)))
