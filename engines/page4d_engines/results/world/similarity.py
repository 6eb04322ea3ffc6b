"""`Similarity`: scale, rotation and translation from one world to another, and the one that brings points together."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.network.poses import nearest_rotation

Floats = NDArray[np.float64]

_FLAT = 1e-9  # spread of points across a line, as a share of that along it, below which they lie on it
_DRAWS, _JUDGED = 100, 1000  # triples that start the robust fit, and points that they are judged by
_ROUNDS, _SETTLED = 30, 1e-10  # of the refinement; it ends where the weights change by a smaller share
_RANK, _AT_RANK = 40, 1.3672  # percentile that tells the errors' deviation, and that of a normal vector's length
_BISQUARE = 4.685  # standard deviations from which on a point has no weight: 95 % efficiency for normal errors


@dataclass(frozen=True)
class Similarity:
    """The map x -> scale * rotation @ x + translation.

    Attributes:
        scale: above 0.
        rotation: float64 `[3,3]`, proper.
        translation: float64 `[3]`, in the unit of the world that the map leads to.
    """

    scale: float
    rotation: Floats
    translation: Floats

    class Numbers(msgspec.Struct, frozen=True):
        """A similarity as JSON has it: x -> scale * rotation @ x + translation."""

        scale: float
        rotation: list[list[float]]
        """Three rows."""
        translation: list[float]

    @classmethod
    def identity(cls) -> Similarity:
        """The map that changes nothing."""
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def scaling(cls, scale: float) -> Similarity:
        """The map that only scales, about the origin."""
        return cls(scale, np.eye(3), np.zeros(3))

    @classmethod
    def from_numbers(cls, numbers: Similarity.Numbers | None) -> Similarity:
        """Of what `numbers` gave; None is the identity."""
        if numbers is None:
            return cls.identity()
        return cls(numbers.scale, np.array(numbers.rotation, np.float64), np.array(numbers.translation, np.float64))

    @property
    def numbers(self) -> Similarity.Numbers:
        """For JSON."""
        return self.Numbers(
            scale=float(self.scale), rotation=self.rotation.tolist(), translation=self.translation.tolist()
        )

    def of_points(self, points: NDArray[np.floating]) -> Floats:
        """Where points `[...,3]` go, float64; NaN stays NaN."""
        with np.errstate(invalid="ignore", over="ignore"):
            turned: Floats = np.asarray(points, np.float64) @ (self.scale * self.rotation.T)
            return turned + self.translation

    def of_pose(self, camera_to_world: NDArray[np.floating]) -> Floats:
        """Where cameras go, poses `[...,4,4]`: their centres as points, their rotations stay rotations."""
        pose = np.array(camera_to_world, np.float64)
        pose[..., :3, 3] = self.of_points(pose[..., :3, 3])
        with np.errstate(invalid="ignore"):
            pose[..., :3, :3] = self.rotation @ pose[..., :3, :3]
        return pose

    def after(self, first: Similarity) -> Similarity:
        """The map that does `first`, then this one."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self.of_points(first.translation))

    def inverse(self) -> Similarity:
        """The map back."""
        return Similarity(1 / self.scale, self.rotation.T, -(self.rotation.T @ self.translation) / self.scale)

    @property
    def degrees(self) -> float:
        """The angle of its rotation, 0 to 180 degrees."""
        sine = np.linalg.norm(self.rotation - self.rotation.T) / np.sqrt(8)
        return float(np.degrees(np.arctan2(sine, (np.trace(self.rotation) - 1) / 2)))

    @classmethod
    def closest(
        cls, source: NDArray[np.floating], target: NDArray[np.floating], weights: NDArray[np.floating] | None = None
    ) -> Similarity:
        """The map with the least weighted sum of squared distances from source to target (Umeyama 1991).

        Args:
            source: points `[n,3]`.
            target: where each should go, `[n,3]`.
            weights: `[n]`; None: all the same. A point with a value that is not finite, or a weight that is not above
                0, takes no part.

        Raises:
            UsageError: the shapes differ; no three points that are not on a line, in one of both.
        """
        return _similarity(*_closest(*_usable(source, target, weights), even=False))

    @classmethod
    def robust(
        cls, source: NDArray[np.floating], target: NDArray[np.floating], weights: NDArray[np.floating] | None = None
    ) -> Similarity:
        """As `robust_fit`, the map alone."""
        return robust_fit(source, target, weights).similarity


@dataclass(frozen=True)
class RobustFit:
    """A similarity, and how well it fits.

    Attributes:
        similarity: from source to target.
        used: points that took part, finite and with a weight.
        error: median of the points' distances from where they should be, each times the root of its weight. Without
            weights it is in the target's unit.
        share: of the points' weight, that of the points that agree: those whose weight the refinement left above 0.
    """

    similarity: Similarity
    used: int
    error: float
    share: float


def robust_fit(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
    least: float = 0.0,
) -> RobustFit:
    """The map from source to target that most of the points agree on; half of them may be anywhere.

    Triples of points start it: the one whose map leaves 40 of 100 points the least error. The closed form refines it,
    with weights that Tukey's bisquare of the errors lowers to 0. Source and target count alike: the scale is the ratio
    of their spreads, which noise in both leaves unbiased, while the scale of least squares shrinks with it.

    Args:
        source: points `[n,3]`.
        target: where each should go, `[n,3]`.
        weights: `[n]`, the inverse of each point's variance up to a factor; as for `Similarity.closest`.
        least: standard deviation of the errors, each times the root of its weight, that is always allowed for.

    Raises:
        UsageError: as `Similarity.closest`.
    """
    source, target, weights = _usable(source, target, weights)
    _closest(source, target, weights, even=True)  # says what is wrong with all of them together
    least = max(least, _rounding(target) * float(np.sqrt(np.median(weights))))
    fit = _start(source, target, weights)
    trust = weights
    errors = _errors(fit, source, target, weights)
    for _ in range(_ROUNDS):
        deviation = max(float(np.percentile(errors, _RANK)) / _AT_RANK, least)
        before = trust
        trust = weights * np.clip(1 - (errors / (_BISQUARE * deviation)) ** 2, 0, None) ** 2
        try:
            fit = _similarity(*_closest(source, target, trust, even=True))
        except UsageError:  # what agrees lies on a line
            break
        errors = _errors(fit, source, target, weights)
        if abs(trust - before).sum() <= _SETTLED * before.sum():
            break
    return RobustFit(fit, len(source), float(np.median(errors)), float(weights[trust > 0].sum() / weights.sum()))


def _usable(
    source: NDArray[np.floating], target: NDArray[np.floating], weights: NDArray[np.floating] | None
) -> tuple[Floats, Floats, Floats]:
    """In float64, the points that are finite and have a weight."""
    here, there = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weight = np.ones(here.shape[:1]) if weights is None else np.asarray(weights, np.float64)
    if here.ndim != 2 or here.shape[1] != 3 or there.shape != here.shape or weight.shape != here.shape[:1]:
        raise UsageError(
            "source, target and weights of a similarity do not go together",
            got=f"{list(here.shape)} {list(there.shape)} {list(weight.shape)}",
            allowed="[n,3] [n,3] [n]",
        )
    usable = np.isfinite(here).all(1) & np.isfinite(there).all(1) & np.isfinite(weight) & (weight > 0)
    return here[usable], there[usable], weight[usable]


def _closest(source: Floats, target: Floats, weights: Floats, even: bool) -> tuple[Floats, Floats, Floats]:
    """Scale `[]`, rotation `[3,3]` and translation `[3]` of finite points.

    Args:
        source, target: `[n,3]`.
        weights: `[n]`.
        even: the scale is the ratio of the spreads; else that of least squares.

    Raises:
        UsageError: no three points that are not on a line.
    """
    named = weights > 0
    count = int(named.sum())
    if count < 3:
        raise _undetermined(f"{count} of them")
    share = (weights / weights.sum())[:, None]
    middle, goal = (share * source).sum(0), (share * target).sum(0)
    here, there = source - middle, target - goal
    for points, place in ((here, source), (there, target)):
        spread = np.linalg.svd(np.sqrt(share) * points, compute_uv=False)
        if not spread[1] > max(_FLAT * spread[0], _rounding(place)):
            raise _undetermined(f"{count} on a line" if spread[0] > _rounding(place) else f"{count} in one place")
    rotation, values = nearest_rotation((share * there).T @ here)
    variance = float((share * here**2).sum())
    scale = np.sqrt((share * there**2).sum() / variance) if even else values.sum() / variance
    return scale, rotation, goal - scale * rotation @ middle


def _undetermined(got: str) -> UsageError:
    return UsageError(
        "the points determine no similarity", got=got, allowed="three or more that do not lie on a line, in both worlds"
    )


def _rounding(points: Floats) -> float:
    """What float64's rounding makes of coordinates of this size."""
    return float(1e-13 * np.abs(points).max(initial=0.0)) or 1e-300


def _similarity(scale: Floats, rotation: Floats, translation: Floats) -> Similarity:
    if not (np.isfinite(scale) and scale > 0):
        raise _undetermined("a scale of 0")
    return Similarity(float(scale), rotation, translation)


def _errors(fit: Similarity, source: Floats, target: Floats, weights: Floats) -> Floats:
    """Each point's distance from where it should be, times the root of its weight: `[n]`."""
    distances: Floats = np.linalg.norm(fit.of_points(source) - target, axis=1)
    return distances * np.sqrt(weights)


def _start(source: Floats, target: Floats, weights: Floats) -> Similarity:
    """The map of the triple of points that 40 of 100 points agree on best; the same points give the same map."""
    chance = np.random.default_rng(0)
    judges = np.unique(np.linspace(0, len(source) - 1, _JUDGED).astype(np.intp))
    best, least = None, np.inf
    for _ in range(_DRAWS):
        triple = chance.choice(len(source), 3, replace=False)
        try:
            fit = _similarity(*_closest(source[triple], target[triple], np.ones(3), even=True))
        except UsageError:
            continue
        error = float(np.percentile(_errors(fit, source[judges], target[judges], weights[judges]), _RANK))
        if error < least:
            best, least = fit, error
    return best or _similarity(*_closest(source, target, weights, even=True))
