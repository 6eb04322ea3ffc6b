"""The similarity between two worlds that the poses of the same cameras in both determine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from page4d.errors import UsageError
from page4d.network.poses import nearest_rotation
from page4d_engines.results.world.similarity import Floats, Similarity, robust_fit

_THIN = 0.02  # centres whose spread across their line is a smaller share of that along it tell no turn about the line
_APART = 1e-9  # of two centres, as a share of their distance from the origin
_ROUNDS = 30
_MOST_PAIRS = 100_000  # whose distances are compared


@dataclass(frozen=True)
class CameraFit:
    """A similarity between the worlds of cameras.

    Attributes:
        similarity: from source to target.
        cameras: that took part.
        residual: median distance between the centres, in the target's unit.
        turned: whether the rotation is that of the cameras' rotations, because their centres tell none.
    """

    similarity: Similarity
    cameras: int
    residual: float
    turned: bool


def fit_cameras(source: Floats, target: Floats, scale: float | None = None) -> CameraFit:
    """The map from source to target, robust: outlying cameras do not count.

    Three centres or more that do not lie on a line determine it. Of others, the cameras' rotations give the rotation,
    and the distances of the centres the scale.

    Args:
        source, target: poses `[n,4,4]`, camera to world; one with a value that is not finite takes no part.
        scale: what it is where the centres tell none, since there is one alone; None makes that an error.

    Raises:
        UsageError: no cameras with poses in both; their centres are all in one place, and no `scale`.
    """
    usable = np.isfinite(source).all((1, 2)) & np.isfinite(target).all((1, 2))
    source, target = source[usable], target[usable]
    if not len(source):
        raise UsageError("no camera has a pose in both worlds", got="0 cameras", allowed="two or more")
    here, there = source[:, :3, 3], target[:, :3, 3]
    if len(source) >= 3 and not (_is_thin(here) or _is_thin(there)):
        fit = robust_fit(here, there)
        return CameraFit(fit.similarity, len(source), _residual(fit.similarity, here, there), turned=False)
    rotation = _mean_rotation(target[:, :3, :3] @ np.swapaxes(source[:, :3, :3], 1, 2))
    ratio = _ratio(here, there)
    if ratio is None and scale is None:
        raise UsageError(
            "the cameras are all in one place, which tells no scale",
            got=f"{len(source)} camera{'' if len(source) == 1 else 's'}",
            allowed="two cameras or more, at different places",
        )
    factor = scale if ratio is None else ratio
    assert factor is not None
    turned = Similarity(factor, rotation, np.zeros(3))
    similarity = Similarity(factor, rotation, np.median(there - turned.of_points(here), axis=0))
    return CameraFit(similarity, len(source), _residual(similarity, here, there), turned=True)


def _residual(similarity: Similarity, here: Floats, there: Floats) -> float:
    return float(np.median(np.linalg.norm(similarity.of_points(here) - there, axis=1)))


def _is_thin(centres: Floats) -> bool:
    """Whether they lie on a line, or nearly."""
    spread = np.linalg.svd(centres - np.median(centres, axis=0), compute_uv=False)
    return not spread[1] > _THIN * spread[0]


def _ratio(here: Floats, there: Floats) -> float | None:
    """The median ratio of the distances between centres; None where these are in one place."""
    count = len(here)
    if count * (count - 1) // 2 <= _MOST_PAIRS:
        first, second = np.triu_indices(count, 1)
    else:  # all pairs of a long clip's cameras take gigabytes; the same cameras give the same draw
        first, second = np.random.default_rng(0).integers(count, size=(2, _MOST_PAIRS))
    before = np.linalg.norm(here[first] - here[second], axis=1)
    behind = np.linalg.norm(there[first] - there[second], axis=1)
    apart = (before > _APART * np.abs(here).max(initial=0)) & (behind > _APART * np.abs(there).max(initial=0))
    return float(np.median(behind[apart] / before[apart])) if apart.any() else None


def _mean_rotation(rotations: Floats) -> Floats:
    """The rotation `[3,3]` with the least sum of distances (of matrices) from rotations `[n,3,3]`."""
    weights = np.ones(len(rotations))
    mean = np.eye(3)
    for _ in range(_ROUNDS):
        mean, _ = nearest_rotation((weights[:, None, None] * rotations).sum(0))
        weights = 1 / np.maximum(np.linalg.norm(rotations - mean, axis=(1, 2)), 1e-6)
    return mean
