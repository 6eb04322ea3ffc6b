"""`ScenePart`: one window of a scene, its images in the scene's world."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from page4d_engines.results.scene.calibration import Calibration
from page4d_engines.results.scene.cloud_thinning import Candidates
from page4d_engines.results.scene.window_geometry import Place, WindowGeometry
from page4d_engines.results.summary import WindowSummary
from page4d_engines.results.world.similarity import Similarity


@dataclass(frozen=True)
class ScenePart:
    """A window of a scene.

    Attributes:
        window: its summary.
        timesteps: its frames in the clip.
        geometry: in the window's own world.
        places: of the images that no earlier window has.
    """

    window: WindowSummary
    timesteps: range
    geometry: WindowGeometry
    places: list[Place]

    @functools.cached_property
    def world(self) -> Similarity:
        """From the window's own world to the scene's."""
        return Similarity.from_numbers(self.window.world)

    def candidates(self, place: Place) -> Candidates:
        """An image's points in the scene's world, and which of them are good enough."""
        geometry, layout = self.geometry, self.geometry.fits[0].layout
        if geometry.confidence is None:
            size = (layout.H, layout.W)
            return Candidates(np.zeros(size, np.bool_), np.full((*size, 3), np.nan), np.full(size, np.nan))
        points = geometry.points(place)
        kept = geometry.kept(place, points)
        points = points if self.window.world is None else self.world.of_points(points)
        return Candidates(kept, points, geometry.confidence[place])

    def calibration(self, place: Place) -> Calibration:
        """An image's camera in the scene's world; NaN where the engines give none."""
        return self._calibrations[place].moved(self.world)

    @functools.cached_property
    def _calibrations(self) -> dict[Place, Calibration]:
        geometry = self.geometry
        known = geometry.calibrations
        if known is None:
            camera = geometry.result.camera
            K, pose = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
            poses = (pose if camera is None else camera[place] for place in geometry.places())
            known = [Calibration.given(K, pose, fit) for pose, fit in zip(poses, geometry.fits, strict=True)]
        return dict(zip(geometry.places(), known, strict=True))
