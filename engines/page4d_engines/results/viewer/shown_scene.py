"""`ShownScene`: what of a scene a viewer draws, in memory: points, cameras, timesteps, which way is up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d_engines.results.finished.finished_run import FinishedRun, Scene
from page4d_engines.results.scene.cloud_view import viewpoint
from page4d_engines.results.scene.prediction_summary import unit_in_words
from page4d_engines.results.viewer.shown_image import ShownImage
from page4d_engines.results.viewer.shown_points import ShownPoints, Thinning

MAX_POINTS = 1_000_000
"""Of all scenes together: what a browser draws smoothly, and an ssh connection carries in seconds (15 MB)."""

_SPREAD = 0.02  # of the cameras' right-hand sides, at least, that says which way is up
_UP = np.array([0.0, -1.0, 0.0])  # of the first camera
_LEAST_FORWARD = 0.1  # length of the cameras' mean line of sight, along the ground


@dataclass(frozen=True)
class ShownScene:
    """Images and points that share a world.

    Attributes:
        name: of the scene; empty where a run has one.
        unit: what lengths are in, in words.
        points: that are drawn.
        total: points that the cloud has; no fewer than are drawn.
        images: in the order of timesteps and views.
    """

    name: str
    unit: str
    points: ShownPoints
    total: int
    images: list[ShownImage]

    @classmethod
    def read(cls, scene: Scene, max_points: int, tell: Callable[[str], None] = lambda name: None) -> ShownScene:
        """Read a scene image by image.

        Args:
            scene: of a finished run.
            max_points: how many points are kept, evenly spaced.
            tell: is called with the name of every image that was read.

        Raises:
            UsageError: a photo or a window's file is gone or damaged.
        """
        thinning, images = Thinning(max_points), []
        for image in scene.images():
            thinning.add(ShownPoints.of(image))
            images.append(ShownImage.of(image))
            tell(image.name)
        unit = None if scene.unit is None else str(scene.unit)
        images.sort(key=lambda image: (image.t, image.v))
        return cls(scene.name, unit_in_words(unit), thinning.points(), thinning.total, images)

    @property
    def times(self) -> dict[int, str]:
        """Names of the timesteps, in their order."""
        return {image.t: image.frame_name for image in self.images}

    @functools.cached_property
    def posed(self) -> list[ShownImage]:
        """The images whose pose is known."""
        return [image for image in self.images if image.pose is not None]

    @functools.cached_property
    def poses(self) -> NDArray[np.float64]:
        """Of the images that have one, `[n,4,4]`."""
        poses = [image.pose for image in self.images if image.pose is not None]
        return np.stack(poses) if poses else np.zeros((0, 4, 4))

    @functools.cached_property
    def up(self) -> NDArray[np.float64]:
        """As `up_of` has it, of all cameras. `[3]`"""
        return up_of(self.poses)

    @functools.cached_property
    def overview(self) -> tuple[NDArray[np.float64], float]:
        """A pose `[4,4]` (camera to world) that shows points and cameras, and the distance of what it shows.

        It is held level, behind, above and beside the cameras, and looks the way that these look on the whole.
        """
        poses, down = self.poses, -self.up
        level = np.eye(4)
        forward = poses[:, :3, 2].mean(0) if len(poses) else np.array([0.0, 0.0, 1.0])
        forward = forward - down * (forward @ down)
        if np.linalg.norm(forward) < _LEAST_FORWARD:  # they look up or down, or all around
            forward = np.cross(down, np.eye(3)[np.abs(down).argmin()])
        forward /= np.linalg.norm(forward)
        level[:3, :3] = np.stack([np.cross(down, forward), down, forward], 1)
        if len(poses):
            level[:3, 3] = poses[0, :3, 3]
        turn, place, distance = viewpoint(self.points.points.astype(np.float64), np.stack([level, *poses]))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn.T, turn.T @ place
        return pose, distance

    @functools.cached_property
    def point_size(self) -> float:
        """Side of a point that leaves no gaps on a surface seen from a camera, in the scene's unit."""
        pixels = [
            2 * image.distance * math.tan(image.fov / 2) / image.size[1]
            for image in self.images
            if image.fov is not None and math.isfinite(image.distance)
        ]
        if pixels:
            return float(np.median(pixels)) * math.sqrt(max(1.0, self.total / max(1, len(self.points))))
        return 2e-3 * self.extent

    @functools.cached_property
    def extent(self) -> float:
        """Of the middle nine tenths of the points, or of the cameras; in the scene's unit, above 0."""
        places = self.points.points if len(self.points) else self.poses[:, :3, 3]
        if not len(places):
            return 1.0
        low, high = np.percentile(places, [5, 95], axis=0)
        return max(float(np.linalg.norm(high - low)), 1e-6)


def up_of(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector `[3]` to the sky, as far as cameras tell, given their poses `[n,4,4]` (camera to world).

    People hold cameras level: what is at a right angle to all cameras' right-hand sides is up. Where these all point
    one way, the mean of the pictures' upper sides is taken.
    """
    if not len(poses):
        return _UP
    right, mean = poses[:, :3, 0], -poses[:, :3, 1].mean(0)
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    level = vectors[:, 0] * (1.0 if vectors[:, 0] @ mean > 0 else -1.0)
    is_clear = values[1] > _SPREAD and values[1] > 10 * values[0] and level @ mean > 0.5 * np.linalg.norm(mean)
    best = level if is_clear else mean
    length = float(np.linalg.norm(best))
    return best / length if length > 1e-6 else _UP


def read_scenes(run: FinishedRun, max_points: int, tell: Callable[[str], None] = lambda name: None) -> list[ShownScene]:
    """All scenes of a run, as `ShownScene.read` does; they share the points that may be drawn.

    Raises:
        UsageError: there is neither a point nor a camera in the run; a photo or a window's file is gone or damaged.
    """
    scenes = run.scenes()
    share = max(1, max_points // len(scenes))
    shown = [ShownScene.read(scene, share, tell) for scene in scenes]
    if not any(len(scene.points) or scene.posed for scene in shown):
        raise UsageError(
            "the run has neither points nor cameras to look at",
            got=run.path,
            allowed="the output of engines with heads for points or depth, and cameras",
            hint="its masks are in report.html",
        )
    return shown
