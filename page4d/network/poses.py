"""Cameras from the values that camera heads give, points from depth, rotations. Conventions: docs/conventions.md."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.published import QUATERNION_NUMBERS, PointsFrame, PoseDirection


def camera_to_world(
    numbers: NDArray[np.floating], direction: PoseDirection = PoseDirection.WORLD_TO_CAMERA
) -> NDArray[np.float64]:
    """Pose matrices from a camera head's values, in either encoding: their count decides.

    Args:
        numbers: of any floating dtype. `[...,12]`, as Pi3 has them: the rotation is the nearest to the three rows,
            after each is scaled to length 1. `[...,9]`, as VGGT has them: the rotation is that of the quaternion
            divided by its length.
        direction: of nine numbers, as the model has them; twelve are camera to world.

    Returns:
        float64 `[...,4,4]`: a point of the camera's frame to the world; NaN where a value is not finite, or the
        quaternion is 0.
    """
    wide = np.asarray(numbers, np.float64)
    broken = np.asarray(~np.isfinite(wide).all(-1))
    if wide.shape[-1] == QUATERNION_NUMBERS:
        broken |= ~(np.linalg.norm(wide[..., 3:7], axis=-1) > 0)
        safe = np.where(broken[..., None], 1.0, wide)
        pose = _matrix(_rotation(safe[..., 3:7]), safe[..., :3])
        pose = inverse_pose(pose) if direction is PoseDirection.WORLD_TO_CAMERA else pose
    else:
        safe = np.where(broken[..., None], 0.0, wide)
        pose = _matrix(_scaled_rotation(safe[..., 3:].reshape(*safe.shape[:-1], 3, 3)), safe[..., :3])
    pose[broken] = np.nan
    return pose


def intrinsics(numbers: NDArray[np.floating], H: int, W: int) -> NDArray[np.float64]:
    """K from the fields of view of VGGT's encoding, for images of the network's size.

    Args:
        numbers: `[...,9]`.
        H, W: of the images, in pixels.

    Returns:
        float64 `[...,3,3]`; the principal point is the middle, (W/2, H/2). A focal length is NaN where its field of
        view is no camera's: 0 (which the head's ReLU gives), pi or more, not finite.
    """
    fov = np.asarray(numbers, np.float64)[..., 7:9]
    usable = (fov > 0) & (fov < np.pi)
    focal = np.array([H / 2, W / 2]) / np.tan(np.where(usable, fov, np.pi / 2) / 2)
    focal[~usable] = np.nan
    K = np.zeros((*fov.shape[:-1], 3, 3))
    K[..., 0, 0], K[..., 1, 1] = focal[..., 1], focal[..., 0]
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = W / 2, H / 2, 1.0
    return K


def unproject(depth: NDArray[np.floating], K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each pixel's point in its camera's frame, from its depth.

    Args:
        depth: `[...,H,W]`, z in the camera's frame.
        K: `[...,3,3]`, of the images.

    Returns:
        float64 `[...,H,W,3]`. Pixel (row, column) is seen at (u, v) = (column, row), without half a pixel, as VGGT is
        trained.
    """
    wide = np.asarray(depth, np.float64)
    H, W = wide.shape[-2:]
    u, v = np.arange(W), np.arange(H)[:, None]
    fx, fy, cx, cy = (K[..., row, column, None, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return np.stack(((u - cx) / fx * wide, (v - cy) / fy * wide, wide), axis=-1)


def to_world(points: NDArray[np.floating], camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of cameras' frames `[...,H,W,3]` in the world, float64; camera: `[...,4,4]`, camera to world."""
    turned = np.asarray(points, np.float64) @ np.swapaxes(camera[..., None, :3, :3], -1, -2)
    return turned + camera[..., None, None, :3, 3]


def points_source(fields: Collection[str], frame: PointsFrame | None, source: str | None = None) -> str:
    """What the world's points are made from.

    Args:
        fields: which of `points`, `depth`, `camera`, `intrinsics` there are.
        frame: of `points`; None, in older engine folders, is each camera's.
        source: `depth`, with cameras and intrinsics; `points`, those of the points head; None: depth where there is all
            that it takes, else points.

    Returns:
        `depth` or `points`.

    Raises:
        UsageError: no such source, or something that it takes is not there.
    """
    needed = {
        "depth": ("depth", "camera", "intrinsics"),
        "points": ("points",) if frame is PointsFrame.WORLD else ("points", "camera"),
    }
    if source is not None and source not in needed:
        raise UsageError("points come from no such source", got=source, allowed=", ".join(needed))
    usable = [name for name, inputs in needed.items() if set(inputs) <= set(fields)]
    if source is None and usable:
        return usable[0]
    if source is None or source not in usable:
        there = [name for name in ("camera", "intrinsics", "depth", "points") if name in fields]
        allowed = [", ".join(inputs) for name, inputs in needed.items() if source in (None, name)]
        raise UsageError(
            f"the model lacks what points in the world{f' from {source}' if source else ''} are made of",
            got=", ".join(there) or "none of it",
            allowed="; or ".join(allowed),
            hint=f"points from {usable[0]}" if usable else "page4d-export with the heads that give it",
        )
    return source


def world_points(
    points: NDArray[np.floating] | None,
    points_frame: PointsFrame | None,
    depth: NDArray[np.floating] | None,
    camera: NDArray[np.float64] | None,
    intrinsics: NDArray[np.float64] | None,
    source: str | None = None,
) -> NDArray[np.float64]:
    """Every pixel's point in the world, the same way for every model.

    Args:
        points: `[...,H,W,3]`, in their frame.
        points_frame: None counts as each camera's.
        depth: `[...,H,W]`.
        camera: `[...,4,4]`, camera to world.
        intrinsics: `[...,3,3]`, in pixels of the depth's image.
        source: as for `points_source`.

    Returns:
        float64 `[...,H,W,3]`; NaN where the pose or a focal length that it takes is NaN.

    Raises:
        UsageError: as `points_source`.
    """
    arrays = {"points": points, "depth": depth, "camera": camera, "intrinsics": intrinsics}
    fields = [name for name, array in arrays.items() if array is not None]
    if points_source(fields, points_frame, source) == "depth":
        assert depth is not None and camera is not None and intrinsics is not None
        return to_world(unproject(depth, intrinsics), camera)
    assert points is not None
    if points_frame is PointsFrame.WORLD:
        return np.asarray(points, np.float64)
    assert camera is not None
    return to_world(points, camera)


def inverse_pose(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of rigid poses, `[...,4,4]`."""
    rows = world_to_camera(pose)
    return _matrix(rows[..., :3], rows[..., 3])


def world_to_camera(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of rigid poses `[...,4,4]`, as `cameras.json` has it: `[...,3,4]`."""
    turned = np.swapaxes(pose[..., :3, :3], -1, -2)
    return np.concatenate((turned, -turned @ pose[..., :3, 3:]), axis=-1)


def quaternion(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """x y z w of the rotation of a pose `[4,4]` or `[3,4]`, w >= 0."""
    r = pose[:3, :3]
    trace = np.trace(r)
    # the largest of the four is computed from the diagonal, the others from it
    squares = np.array([1 - trace + 2 * r[0, 0], 1 - trace + 2 * r[1, 1], 1 - trace + 2 * r[2, 2], 1 + trace])
    products = np.array(
        [
            [squares[0], r[1, 0] + r[0, 1], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], squares[1], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[2, 1] + r[1, 2], squares[2], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]],
        ]
    )
    largest = np.argmax(squares)
    result = products[largest] / (2 * np.sqrt(squares[largest]))
    return np.asarray(result if result[3] >= 0 else -result)


def nearest_rotation(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rotation R for which trace(R^T M) is largest, which is the nearest one to M (Kabsch 1976).

    Args:
        matrices: M, finite, `[...,3,3]`.

    Returns:
        R `[...,3,3]`, and the singular values of M `[...,3]`, the last one negative where the nearest orthogonal matrix
        is a reflection; their sum is that trace.
    """
    left, values, right = np.linalg.svd(matrices)
    sign = np.where(np.linalg.det(left) * np.linalg.det(right) < 0, -1.0, 1.0)
    values[..., -1] *= sign  # the axis that costs least
    right[..., -1, :] *= sign[..., None]
    return left @ right, values


def _matrix(rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[...,3,3]` and `[...,3]` -> `[...,4,4]`."""
    pose = np.zeros((*translation.shape[:-1], 4, 4))
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = rotation, translation, 1.0
    return pose


def _scaled_rotation(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to three rows `[...,3,3]`, after each is scaled to length 1."""
    rotation, _ = nearest_rotation(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
    return rotation


def _rotation(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation `[...,3,3]` of quaternions `[...,4]` in the order x y z w, of any length above 0."""
    x, y, z, w = np.moveaxis(numbers / np.linalg.norm(numbers, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
