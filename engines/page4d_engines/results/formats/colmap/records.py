"""What a COLMAP model is made of: cameras, images, points with tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.network.poses import quaternion


@dataclass(frozen=True)
class ColmapCamera:
    """A PINHOLE camera.

    Attributes:
        number: from 1.
        width, height: of the photo, in pixels.
        parameters: fx, fy, cx, cy in pixels; the centre of the first pixel is (0.5, 0.5), as page4d has it.
    """

    number: int
    width: int
    height: int
    parameters: tuple[float, float, float, float]

    def project(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points of the camera's frame `[n,3]` are seen, in pixels of the photo, `[n,2]`."""
        fx, fy, cx, cy = self.parameters
        return places[:, :2] / places[:, 2:] * (fx, fy) + (cx, cy)


@dataclass(frozen=True)
class ColmapImage:
    """A photo.

    Attributes:
        number: from 1.
        name: its path under the folder of photos.
        camera: number of its camera.
        world_to_camera: float64 `[3,4]`.
    """

    number: int
    name: str
    camera: int
    world_to_camera: NDArray[np.float64]

    @property
    def numbers(self) -> list[float]:
        """The rotation as a quaternion w x y z, then the translation: of the world to the camera."""
        x, y, z, w = quaternion(self.world_to_camera).tolist()
        return [w, x, y, z, *self.world_to_camera[:, 3].tolist()]

    def places(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the world `[n,3]` in the camera's frame."""
        return places_in(self.world_to_camera, points)


@dataclass(frozen=True)
class ColmapPoints:
    """Points, numbered from 1, with their tracks: the images that see them.

    Attributes:
        places: float32 `[n,3]`, in the world.
        colours: uint8 `[n,3]`.
        errors: float64 `[n]`, mean distance between where an image sees the point and where it projects to, in pixels.
        lengths: int64 `[n]`, images that see the point.
        track_images: uint32 `[sum of lengths]`, numbers of these images, point by point.
        track_places: uint32, as long: which of that image's observations it is.
    """

    places: NDArray[np.float32]
    colours: NDArray[np.uint8]
    errors: NDArray[np.float64]
    lengths: NDArray[np.int64]
    track_images: NDArray[np.uint32]
    track_places: NDArray[np.uint32]


def pinhole(number: int, camera: Camera) -> ColmapCamera:
    """Of a camera without skew."""
    K = camera.K
    return ColmapCamera(
        number=number,
        width=camera.width,
        height=camera.height,
        parameters=(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])),
    )


def places_in(world_to_camera: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points of the world `[...,3]` in a camera's frame, float64."""
    wide = points.astype(np.float64)
    return np.asarray(wide @ world_to_camera[:, :3].T + world_to_camera[:, 3])
