"""Known cameras for Depth Anything 3: what its camera encoder reads, and the scale of its results. numpy only.

After ByteDance-Seed/Depth-Anything-3 @ 2c21ea8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.network.poses import inverse_pose, quaternion

_LEAST_DISTANCE = 0.1  # of a camera from the first one, at the median; nearer cameras are not spread further


@dataclass(frozen=True)
class KnownCameras:
    """The calibration of V images.

    Attributes:
        world_to_camera: `[V,4,4]`.
        K: `[V,3,3]`, in pixels of the network's images.
    """

    world_to_camera: NDArray[np.float64]
    K: NDArray[np.float64]

    @classmethod
    def of(cls, cameras: Iterable[Camera]) -> KnownCameras:
        """The images' cameras, in their order."""
        rig = list(cameras)
        world_to_camera = np.stack([np.concatenate((camera.world_to_camera, [[0.0, 0.0, 0.0, 1.0]])) for camera in rig])
        return cls(world_to_camera, np.stack([camera.K for camera in rig]))

    @property
    def camera_to_world(self) -> NDArray[np.float64]:
        """`[V,4,4]`."""
        return inverse_pose(self.world_to_camera)

    def encoded(self, H: int, W: int) -> NDArray[np.float64]:
        """The camera encoder's input for images of H x W pixels.

        Returns:
            `[V,9]`: camera to world as translation and quaternion x y z w (w >= 0), in the first camera's frame and
            with the median distance of the cameras from it as unit; vertical and horizontal field of view.
        """
        poses = inverse_pose(self.world_to_camera @ self.camera_to_world[0])
        distances = np.sort(np.linalg.norm(poses[:, :3, 3], axis=-1))
        unit = max(distances[(len(distances) - 1) // 2], _LEAST_DISTANCE)
        fov = 2 * np.arctan(np.stack((H / 2 / self.K[:, 1, 1], W / 2 / self.K[:, 0, 0]), axis=-1))
        quaternions = np.stack([quaternion(pose) for pose in poses])
        return np.concatenate((poses[:, :3, 3] / unit, quaternions, fov), axis=-1)

    def scale(self, camera: NDArray[np.float64]) -> float:
        """How many of the network's units one unit of the known cameras is, by the cameras `[V,4,4]` that it estimates:
        depth is divided by that. 1 where the cameras' centres tell no scale."""
        scale = similarity_scale(self.camera_to_world[:, :3, 3], camera[:, :3, 3])
        return scale if np.isfinite(scale) and scale > 0 else 1.0


def similarity_scale(known: NDArray[np.float64], estimated: NDArray[np.float64]) -> float:
    """The scale of the similarity that brings known points `[n,3]` closest to estimated ones (Umeyama 1991)."""
    known_off, estimated_off = known - known.mean(0), estimated - estimated.mean(0)
    left, values, right = np.linalg.svd(estimated_off.T @ known_off / len(known))
    values[-1] *= np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0
    return float(values.sum() / max((known_off**2).sum() / len(known), 1e-12))
