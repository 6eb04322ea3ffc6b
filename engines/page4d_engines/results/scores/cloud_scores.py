"""Scores of the point cloud: how far its points are from the true surface, and the true surface from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d_engines.results.world.similarity import Similarity

Floats = NDArray[np.float64]

MOST_POINTS, MOST_PAIRS = 100_000, 20_000
"""Points of a scene whose distances are computed, on each side; pixels that align it."""

_NO_SCIPY = 'distances need scipy, which is not installed: pip install "page4d[eval]"'


class CloudScores(msgspec.Struct, frozen=True):
    """How good the points are, in the reference's unit: means over scenes; None where that cannot be said."""

    scenes: int
    """That could be aligned."""
    accuracy_mean: float | None
    """Distance from a point of the cloud to the nearest true one."""
    accuracy_median: float | None
    completeness_mean: float | None
    """Distance from a true point to the nearest one of the cloud."""
    completeness_median: float | None


_NAMES = CloudScores.__struct_fields__[1:]


@dataclass
class ScenePoints:
    """Some points of a scene, evenly chosen from every image.

    Attributes:
        images: of the scene, so that its points keep below `MOST_POINTS` on each side.
    """

    images: int
    _cloud: list[Floats] = field(default_factory=list)
    _truth: list[Floats] = field(default_factory=list)
    _pairs: list[tuple[Floats, Floats]] = field(default_factory=list)

    def add(self, points: NDArray[np.floating], kept: NDArray[np.bool_], truth: NDArray[np.floating]) -> None:
        """Add an image: points `[H,W,3]` and which of them are in the cloud, and the true ones, NaN where unknown."""
        known = np.isfinite(truth).all(-1)
        usable = kept & np.isfinite(points).all(-1)
        self._cloud.append(_some(points[usable], MOST_POINTS // self.images))
        self._truth.append(_some(truth[known], MOST_POINTS // self.images))
        both, most = usable & known, MOST_PAIRS // self.images
        self._pairs.append((_some(points[both], most), _some(truth[both], most)))

    @property
    def empty(self) -> bool:
        """Whether no image was added."""
        return not self._pairs

    def distances(self) -> tuple[Floats, Floats]:
        """From each of the aligned cloud's points to the nearest true one, and the other way round.

        Raises:
            UsageError: too few points to align the cloud.
            ImportError: scipy is not installed.
        """
        from scipy.spatial import cKDTree  # type: ignore[import-untyped, import-not-found, unused-ignore]

        source, target = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
        fit = Similarity.robust(source, target)
        cloud, truth = fit.of_points(np.concatenate(self._cloud)), np.concatenate(self._truth)
        return cKDTree(truth).query(cloud)[0], cKDTree(cloud).query(truth)[0]


@dataclass
class CloudTally:
    """Sums over scenes.

    Attributes:
        reasons: why a score is missing, by its name.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    _scenes: int = 0
    _sums: Floats = field(default_factory=lambda: np.zeros(4))

    def add_scene(self, points: ScenePoints) -> None:
        """Add what a scene's images gave."""
        try:
            accuracy, completeness = points.distances()
        except ImportError:
            self.reasons |= dict.fromkeys(_NAMES, _NO_SCIPY)
            return
        except UsageError as error:
            reason = f"the points determine no alignment ({error.got}): 3 are needed, not on a line"
            self.reasons |= {name: reason for name in _NAMES if name not in self.reasons}
            return
        self._scenes += 1
        self._sums += [accuracy.mean(), np.median(accuracy), completeness.mean(), np.median(completeness)]

    def scores(self) -> CloudScores:
        """Of all scenes."""
        if not self._scenes:
            self.reasons |= {name: "no image has points in both" for name in _NAMES if name not in self.reasons}
            return CloudScores(0, None, None, None, None)
        self.reasons.clear()
        return CloudScores(self._scenes, *(self._sums / self._scenes).tolist())


def _some(points: NDArray[np.floating], most: int) -> Floats:
    """At most so many of points `[n,3]`, at least one, evenly chosen in their order."""
    most = max(1, most)
    if len(points) > most:
        points = points[np.linspace(0, len(points) - 1, most).astype(np.intp)]
    return points.astype(np.float64)
