"""Which points an image sees, and where: those that are on the surface that the image's own points show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.finished.posed_image import PosedImage
from page4d_engines.results.formats.colmap.records import ColmapCamera, pinhole, places_in
from page4d_engines.results.scene.cloud_options import DYNAMIC

_AT_ONCE = 1 << 17  # points that are projected at a time
_DEPTH_OFF = 0.02  # of its depth: how far a point may lie in front of or behind the surface that an image shows there
# pixels of the engine's image on each axis between a point and the one that its pixel shows: half a pixel to the
# pixel's middle, and one by which the network's points may miss the network's camera
_FARTHEST = 1.5


@dataclass(frozen=True)
class ChosenPoints:
    """Points of all images, image by image.

    Attributes:
        places: float32 `[n,3]`, in the world.
        colours: uint8 `[n,3]`.
        timesteps: int32 `[n]`, of the image that a point comes from.
        moving: bool `[n]`, whether it is dynamic there.
        of_depth: whether they are made of depth: a network that is trained so reads a pixel at its corner, not in its
            middle (docs/conventions.md).
    """

    places: NDArray[np.float32]
    colours: NDArray[np.uint8]
    timesteps: NDArray[np.int32]
    moving: NDArray[np.bool_]
    of_depth: bool

    def only(self, kept: NDArray[np.bool_]) -> ChosenPoints:
        """Those that are kept, `[n]`."""
        return dataclasses.replace(
            self,
            places=self.places[kept],
            colours=self.colours[kept],
            timesteps=self.timesteps[kept],
            moving=self.moving[kept],
        )

    def pixels(self, image: PosedImage) -> NDArray[np.float64]:
        """Where in the photo the network takes each pixel of the image to be, `[H,W,2]`."""
        middles = image.photo_pixels()
        return middles - np.divide(0.5, image.fit.scale) if self.of_depth else middles


@dataclass(frozen=True)
class Seen:
    """What an image sees.

    Attributes:
        points: int64 `[n]`, indices of points.
        places: float64 `[n,2]`, where in the photo, in pixels.
    """

    points: NDArray[np.int64]
    places: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """Several as one, in their order."""
        points = np.concatenate([np.zeros(0, np.int64), *(part.points for part in parts)])
        return cls(points, np.concatenate([np.zeros((0, 2)), *(part.places for part in parts)]))


def own_points(image: PosedImage, chosen: ChosenPoints, own: range) -> Seen:
    """The image's own points, where its pixels are; `own` says which they are."""
    return Seen(np.arange(own.start, own.stop), chosen.pixels(image)[image.kept])


def points_of_others(image: PosedImage, chosen: ChosenPoints, own: range, most: int) -> Seen:
    """Points of other images that this one shows, too.

    A point counts if the image's own point at the pixel that it projects to is as far from the camera, to 2%, and it
    does not move, or is of the same timestep. It is seen where that pixel is, shifted as far as the projections of the
    two points lie apart: so a network whose points miss its cameras shows in the reprojection error.

    Args:
        image: with a camera.
        chosen: points of all images.
        own: which of them are the image's own.
        most: observations; of more, as many are chosen evenly.
    """
    parts = []
    for begin in range(0, len(chosen.places), _AT_ONCE):
        indices = np.arange(begin, min(begin + _AT_ONCE, len(chosen.places)))
        indices = indices[(indices < own.start) | (indices >= own.stop)]
        parts.append(_shown(image, chosen, indices))
    seen = Seen.joined(parts)
    if len(seen.points) <= most:
        return seen
    even = np.arange(most) * len(seen.points) // most
    return Seen(seen.points[even], seen.places[even])


def _shown(image: PosedImage, chosen: ChosenPoints, indices: NDArray[np.int64]) -> Seen:
    """Those of some points that an image shows."""
    fit, camera, pose = image.fit, pinhole(0, image.calibration.camera), image.calibration.camera.world_to_camera
    places = places_in(pose, chosen.places[indices])
    in_front = places[:, 2] > 0
    indices, places = indices[in_front], places[in_front]
    projected = camera.project(places)
    on_engine = projected * fit.scale + fit.shift
    left, top, width, height = fit.target
    inside = ((on_engine >= (left, top)) & (on_engine < (left + width, top + height))).all(-1)
    indices, places, projected = indices[inside], places[inside], projected[inside]
    columns, rows = np.floor(on_engine[inside]).astype(np.int64).T

    shown = places_in(pose, image.points[rows, columns])
    with np.errstate(invalid="ignore", divide="ignore"):
        near = np.abs(shown[:, 2] - places[:, 2]) <= _DEPTH_OFF * places[:, 2]  # NaN is not
        apart = projected - camera.project(shown)
        near &= (np.abs(apart * fit.scale) <= _FARTHEST).all(-1)
    same_time = chosen.timesteps[indices] == image.t
    near &= same_time | ~(chosen.moving[indices] | moving_pixels(image)[rows, columns])
    seen = chosen.pixels(image)[rows, columns] + apart
    near &= _in_photo(camera, seen)
    return Seen(indices[near], seen[near])


def moving_pixels(image: PosedImage) -> NDArray[np.bool_]:
    """Which pixels `[H,W]` the mask says are dynamic."""
    return np.zeros(image.kept.shape, np.bool_) if image.mask is None else np.asarray(image.mask >= DYNAMIC)


def _in_photo(camera: ColmapCamera, seen: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((seen >= 0) & (seen <= (camera.width, camera.height))).all(-1))
