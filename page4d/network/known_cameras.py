"""Known cameras for Depth Anything 3: what its camera encoder reads, and the scale of its results. numpy only.

After ByteDance-Seed/Depth-Anything-3 @ 2c21ea8.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.network.poses import inverse_pose, nearest_rotation, quaternion
from page4d.published import QUATERNION_NUMBERS

_LEAST_DISTANCE = 0.1  # of a camera from the first one, at the median; nearer cameras are not spread further
_LEAST_VARIANCE = 1e-12  # of known points
_ROBUST_FROM = 10  # cameras, as in the public code
_MOST_SAMPLED = 16  # points whose triples are tried: 560
_DEVIATIONS = 2.5  # standard deviations, within which a point agrees
_NORMAL_MEDIAN = 1.4826  # standard deviations per median of absolute errors; with a factor for few points
_LEAST_SPREAD = 1e-6  # of the points' extent: nearer ones agree, whatever the median, which rounding decides there


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

    def of_present(self, present: NDArray[np.bool_]) -> KnownCameras:
        """The cameras whose images are there, by `[V]`."""
        return KnownCameras(self.world_to_camera[present], self.K[present])

    def encoded(self, H: int, W: int, present: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """The camera encoder's input for images of H x W pixels.

        Args:
            H, W: of the images.
            present: which images are there, `[V]`: the others' cameras do not count, and their rows are 0. None: all.

        Returns:
            `[V,9]`: camera to world as translation and quaternion x y z w (w >= 0), in the first camera's frame and
            with the median distance of the cameras from it as unit; vertical and horizontal field of view.
        """
        if present is not None:
            rows = np.zeros((len(present), QUATERNION_NUMBERS))
            rows[present] = self.of_present(present).encoded(H, W)
            return rows
        poses = inverse_pose(self.world_to_camera @ self.camera_to_world[0])
        distances = np.sort(np.linalg.norm(poses[:, :3, 3], axis=-1))
        unit = max(distances[(len(distances) - 1) // 2], _LEAST_DISTANCE)
        fov = 2 * np.arctan(np.stack((H / 2 / self.K[:, 1, 1], W / 2 / self.K[:, 0, 0]), axis=-1))
        quaternions = np.stack([quaternion(pose) for pose in poses])
        return np.concatenate((poses[:, :3, 3] / unit, quaternions, fov), axis=-1)

    def scale(self, camera: NDArray[np.float64], present: NDArray[np.bool_] | None = None) -> float:
        """How many of the network's units one unit of the known cameras is, by the cameras `[V,4,4]` that it estimates:
        depth is divided by that. 1 where the cameras' centres tell no scale.

        From ten cameras on, those that are estimated far from where they are known to be do not count; so in the public
        code, whose random draws are replaced: see `robust_scale`. Nor do images that are not `present`, `[V]`.
        """
        if present is not None:
            return self.of_present(present).scale(camera[present])
        if not np.isfinite(camera[:, :3, 3]).all():
            return 1.0
        estimate = robust_scale if len(camera) >= _ROBUST_FROM else similarity_scale
        scale = estimate(self.camera_to_world[:, :3, 3], camera[:, :3, 3])
        return scale if np.isfinite(scale) and scale > 0 else 1.0


@dataclass(frozen=True)
class _Similarity:
    """`scale * rotation @ point + shift`, of one or many: `[..]`, `[..,3,3]`, `[..,3]`."""

    scale: NDArray[np.float64]
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def between(cls, known: NDArray[np.float64], estimated: NDArray[np.float64]) -> _Similarity:
        """What brings known points `[..,n,3]` closest to estimated ones (Umeyama 1991)."""
        count = known.shape[-2]
        known_mean, estimated_mean = known.mean(-2, keepdims=True), estimated.mean(-2, keepdims=True)
        known_off, estimated_off = known - known_mean, estimated - estimated_mean
        rotation, values = nearest_rotation(np.swapaxes(estimated_off, -1, -2) @ known_off / count)
        scale = values.sum(-1) / np.maximum((known_off**2).sum((-1, -2)) / count, _LEAST_VARIANCE)
        shift = estimated_mean[..., 0, :] - scale[..., None] * np.einsum("...ij,...j", rotation, known_mean[..., 0, :])
        return cls(scale, rotation, shift)

    def distances(self, known: NDArray[np.float64], estimated: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the moved known points `[n,3]` from the estimated ones: `[..,n]`."""
        moved = self.scale[..., None, None] * np.einsum("...ij,nj->...ni", self.rotation, known)
        distances: NDArray[np.float64] = np.linalg.norm(moved + self.shift[..., None, :] - estimated, axis=-1)
        return distances


def similarity_scale(known: NDArray[np.float64], estimated: NDArray[np.float64]) -> float:
    """The scale of the similarity that brings known points `[n,3]` closest to estimated ones."""
    return float(_Similarity.between(known, estimated).scale)


def robust_scale(known: NDArray[np.float64], estimated: NDArray[np.float64]) -> float:
    """`similarity_scale` of those of the points `[n,3]`, n >= 4, that agree on a similarity; up to half may not.

    Least median of squares (Rousseeuw 1984), without chance: of every three among the points, or among 16 that are
    spread evenly over them, the similarity is computed, and the one with the least median distance is taken, of equal
    ones the first. Points further than 2.5 standard deviations, as that median tells them, are left out. The public
    code draws ten random halves of the points (seed 42), counts those within a distance that a fit of all points tells,
    and fits those of the best half: its scale and this one differ as much as the noise of the points does, and where
    each of its ten halves has an outlier in it, by more.
    """
    count = len(known)
    places: Sequence[int] = range(count)
    if count > _MOST_SAMPLED:
        places = [place * (count - 1) // (_MOST_SAMPLED - 1) for place in range(_MOST_SAMPLED)]
    triples = np.array(list(itertools.combinations(places, 3)))
    candidates = _Similarity.between(known[triples], estimated[triples]).distances(known, estimated)
    medians = np.sort(candidates, axis=-1)[:, count // 2]
    best = int(np.argmin(medians))
    spread = np.linalg.norm(estimated - estimated.mean(0), axis=-1).max()
    deviations = _DEVIATIONS * _NORMAL_MEDIAN * (1 + 5 / (count - 3))
    agree = candidates[best] <= max(deviations * medians[best], _LEAST_SPREAD * spread)
    return similarity_scale(known[agree], estimated[agree])
