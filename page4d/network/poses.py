"""Camera poses from the 12 values that the camera head gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POSE_NUMBERS = 12
"""A translation, then three rows."""


def camera_to_world(numbers: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pose matrices, whose rotation is the nearest to the head's three rows after each row is scaled to length 1.

    Args:
        numbers: `[...,12]` of any floating dtype: the translation, then the three rows.

    Returns:
        float64 `[...,4,4]`: a point of the camera's frame to the world, which is no camera's frame; NaN where a value
        is not finite.
    """
    wide = np.asarray(numbers, np.float64)
    broken = np.asarray(~np.isfinite(wide).all(-1))
    rows = np.where(broken[..., None], 0.0, wide[..., 3:]).reshape(*wide.shape[:-1], 3, 3)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    left, _, right = np.linalg.svd(rows)
    sign = np.linalg.det(left @ right)
    left[..., 2] *= sign[..., None]  # the axis that costs least, where the nearest orthogonal matrix is a reflection
    pose = np.zeros((*wide.shape[:-1], 4, 4))
    pose[..., :3, :3] = left @ right
    pose[..., :3, 3] = wide[..., :3]
    pose[..., 3, 3] = 1.0
    pose[broken] = np.nan
    return pose


def world_to_camera(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of rigid poses `[...,4,4]`, as `cameras.json` has it: `[...,3,4]`."""
    turned = np.swapaxes(pose[..., :3, :3], -1, -2)
    return np.concatenate((turned, -turned @ pose[..., :3, 3:]), axis=-1)
