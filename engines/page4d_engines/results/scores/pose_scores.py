"""Scores of camera poses: angles between pairs of cameras, and distances of their centres after alignment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d_engines.results.world.similarity import Similarity

Floats = NDArray[np.float64]

_WIDEST = 30  # degrees
_ROWS = 256  # cameras whose pairs are computed at once: their errors with all others, not all errors, are in memory


class PoseScores(msgspec.Struct, frozen=True):
    """How good the cameras are; None where that cannot be said."""

    images: int
    """That have a pose in both."""
    pairs: int
    """Of images that share a world."""
    auc_5: float | None
    """Mean recall over the thresholds 1, 2 .. 5 degrees of the larger of both angles; 0 to 1."""
    auc_15: float | None
    auc_30: float | None
    rotation_error: float | None
    """Degrees between the true and the estimated relative rotation, mean over pairs."""
    ate: float | None
    """Root mean square distance of the centres after a Sim(3), in the reference's unit."""
    ate_rigid: float | None
    """The same after a rotation and a translation alone: the run's scale counts."""


@dataclass
class PoseTally:
    """Sums over scenes, whose worlds have nothing to do with each other.

    Attributes:
        least_baseline: as `Reference.least_baseline`.
        reasons: why a score is missing, by its name.
    """

    least_baseline: float
    reasons: dict[str, str] = field(default_factory=dict)
    _images: int = 0
    _pairs: int = 0
    _degrees: float = 0.0
    _recalled: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_WIDEST, np.int64))
    _squares: dict[str, float] = field(default_factory=dict)
    _centres: dict[str, int] = field(default_factory=dict)

    def add_scene(self, poses: Floats, truth: Floats, other_unit: str | None) -> None:
        """Add the cameras of a scene, camera to world, `[n,4,4]` each.

        Args:
            poses, truth: those with a value that is not finite, in either, take no part.
            other_unit: why lengths cannot be compared without a scale; None: they can.
        """
        known = np.isfinite(poses).all((1, 2)) & np.isfinite(truth).all((1, 2))
        poses, truth = poses[known], truth[known]
        self._images += len(poses)
        for rotation, both in pair_angles(poses, truth, self.least_baseline):
            self._pairs += len(both)
            self._degrees += float(rotation.sum())
            self._recalled += np.histogram(both, np.arange(_WIDEST + 1))[0]
        here, there = poses[:, :3, 3], truth[:, :3, 3]
        try:
            fit = Similarity.closest(here, there)
        except UsageError as error:
            for name in ("ate", "ate_rigid"):
                self.reasons.setdefault(
                    name, f"the camera centres determine no alignment ({error.got}): 3 are needed, not on a line"
                )
            return
        self._add_centres("ate", fit.of_points(here) - there)
        if other_unit is not None:
            self.reasons.setdefault("ate_rigid", other_unit)
            return
        turned = here @ fit.rotation.T
        self._add_centres("ate_rigid", turned - turned.mean(0) - (there - there.mean(0)))

    def _add_centres(self, name: str, off: Floats) -> None:
        self._squares[name] = self._squares.get(name, 0.0) + float((off**2).sum())
        self._centres[name] = self._centres.get(name, 0) + len(off)

    def scores(self) -> PoseScores:
        """Of all scenes."""
        if not self._pairs:
            for name in ("auc_5", "auc_15", "auc_30", "rotation_error"):
                self.reasons.setdefault(name, f"no pairs of cameras that share a world: {self._images} with a pose")
        for name in self._squares:
            self.reasons.pop(name, None)  # missing in some scenes alone
        return PoseScores(
            images=self._images,
            pairs=self._pairs,
            auc_5=self._auc(5),
            auc_15=self._auc(15),
            auc_30=self._auc(30),
            rotation_error=self._degrees / self._pairs if self._pairs else None,
            ate=self._rms("ate"),
            ate_rigid=self._rms("ate_rigid"),
        )

    def _auc(self, degrees: int) -> float | None:
        if not self._pairs:
            return None
        return float(np.cumsum(self._recalled[:degrees]).mean() / self._pairs)

    def _rms(self, name: str) -> float | None:
        return math.sqrt(self._squares[name] / self._centres[name]) if name in self._squares else None


def pair_angles(poses: Floats, truth: Floats, least_baseline: float) -> Iterator[tuple[Floats, Floats]]:
    """Errors of all pairs of cameras in degrees, some pairs at a time.

    The relative pose of a pair is the second camera's in the first one's frame. Its translation counts as a direction
    without a sign, as in the public code of PoseDiffusion and VGGT; where the true one is too short to have a
    direction, the rotation alone counts.

    Args:
        poses, truth: camera to world, finite, `[n,4,4]`.
        least_baseline: as `Reference.least_baseline`.

    Yields:
        Angles between the relative rotations, and the larger of these and those between the translations.
    """
    count = len(poses)
    widest = max((_lengths(truth[:, :3, 3] - centre).max() for centre in truth[:, :3, 3]), default=0.0)
    for begin in range(0, count - 1, _ROWS):
        first, second = np.triu_indices(min(_ROWS, count - begin), 1, count - begin)
        first, second = first + begin, second + begin
        turn, move = _relative(poses, first, second)
        true_turn, true_move = _relative(truth, first, second)
        rotation = rotation_degrees(np.swapaxes(true_turn, 1, 2) @ turn)
        length, true_length = _lengths(move), _lengths(true_move)
        has_direction = true_length > max(least_baseline * widest, 1e-12)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.abs((move * true_move).sum(1)) / (length * true_length)
            sine = _lengths(np.cross(move, true_move)) / (length * true_length)
        direction = np.degrees(np.arctan2(sine, cosine))
        direction = np.where(length > 0, direction, 90.0)
        yield rotation, np.where(has_direction, np.fmax(rotation, direction), rotation)


def rotation_degrees(rotations: Floats) -> Floats:
    """The angle of each rotation `[n,3,3]`, 0 to 180 degrees; exact also near both ends."""
    sine = np.linalg.norm(rotations - np.swapaxes(rotations, 1, 2), axis=(1, 2)) / math.sqrt(8)
    cosine = (np.trace(rotations, axis1=1, axis2=2) - 1) / 2
    return np.asarray(np.degrees(np.arctan2(sine, cosine)))


def _relative(poses: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Rotation `[n,3,3]` and centre `[n,3]` of the second cameras in the frames of the first."""
    back = np.swapaxes(poses[first, :3, :3], 1, 2)
    off = poses[second, :3, 3] - poses[first, :3, 3]
    return back @ poses[second, :3, :3], (back @ off[..., None])[..., 0]


def _lengths(vectors: Floats) -> Floats:
    return np.asarray(np.linalg.norm(vectors, axis=1))
