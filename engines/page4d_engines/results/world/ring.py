"""A ring of similarities that should lead back to where it begins, and what each has to change so that it does.

Changes are vectors of the Lie algebra of Sim(3), `[7]`: a translation, a rotation vector and the logarithm of a scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.world.similarity import Floats, Similarity

_ROUNDS, _CLOSED = 100, 1e-12
_TERMS = 40  # of the series of the exponential; the angle is at most pi


def close_ring(links: Sequence[Similarity], variances: NDArray[np.floating]) -> list[Similarity]:
    """The links that lie nearest to the given ones and close the ring: `links[0].after(links[1])...` is the identity.

    The pose graph of a ring: least squares of the changes under one constraint, by Gauss-Newton. A step solves seven
    equations however many links there are.

    Args:
        links: from each node of the ring to the one before, as measured; the last one leads from the first node back
            to the last one. They should be in frames whose origin and unit are those of what they show.
        variances: `[n]`, above 0: of each link, up to a factor.

    Returns:
        As many links. Of a ring that is far open, the steps may not come to an end: then it is open still, or they are
        NaN, which the caller has to look at.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _closed_ring(links, variances)


def _closed_ring(links: Sequence[Similarity], variances: NDArray[np.floating]) -> list[Similarity]:
    changes = np.zeros((len(links), 7))
    for _ in range(_ROUNDS):
        changed = _changed(links, changes)
        jacobians, whole = [], Similarity.identity()
        for link in changed:
            whole = whole.after(link)
            jacobians.append(_adjoint(whole))
        if not _is_finite(whole):
            break
        gap = logarithm(whole)
        if np.abs(gap).max() <= _CLOSED:
            break
        jacobian = np.stack(jacobians)
        spread = np.einsum("n,nij,nkj->ik", variances, jacobian, jacobian)
        linearized_gap = np.einsum("nij,nj->i", jacobian, changes) - gap
        force = np.linalg.solve(spread, linearized_gap)
        changes = variances[:, None] * np.einsum("nji,j->ni", jacobian, force)
    return _changed(links, changes)


def _is_finite(similarity: Similarity) -> bool:
    return bool(0 < similarity.scale < np.inf and np.isfinite(similarity.translation).all())


def exponential(change: Floats) -> Similarity:
    """The similarity of a change `[7]`."""
    scale, rotation = np.exp(change[6]), _rotation(change[3:6])
    return Similarity(float(scale), rotation, _spread(change[3:]) @ change[:3])


def logarithm(similarity: Similarity) -> Floats:
    """The change `[7]` whose exponential it is; the angle is at most pi."""
    turn = np.append(_rotation_vector(similarity.rotation), np.log(similarity.scale))
    return np.concatenate([np.linalg.solve(_spread(turn), similarity.translation), turn])


def _changed(links: Sequence[Similarity], changes: Floats) -> list[Similarity]:
    return [link.after(exponential(change)) for link, change in zip(links, changes, strict=True)]


def _cross(vector: Floats) -> Floats:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _spread(turn: Floats) -> Floats:
    """The mean of exp(a * M) over a in 0..1, M the generator of a rotation vector and a log scale: `[3,3]`."""
    generator = _cross(turn[:3]) + turn[3] * np.eye(3)
    term, whole = np.eye(3), np.eye(3)
    for n in range(1, _TERMS):
        term = term @ generator / (n + 1)
        whole = whole + term
    return whole


def _rotation(vector: Floats) -> Floats:
    angle = float(np.linalg.norm(vector))
    cross = _cross(vector)
    # sin(x)/x and (1 - cos(x))/x^2, which hold at 0
    half = np.sinc(angle / (2 * np.pi))
    rotation: Floats = np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * half**2 * cross @ cross
    return rotation


def _rotation_vector(rotation: Floats) -> Floats:
    sine = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    length, cosine = float(np.linalg.norm(sine)) / 2, float(np.trace(rotation) - 1) / 2
    angle = float(np.arctan2(length, cosine))
    if length > 1e-6:
        vector: Floats = sine / (2 * length) * angle
        return vector
    if cosine > 0:
        return sine / 2
    # half a turn: the axis is the eigenvector of 1
    column = int(np.argmax(np.diag(rotation)))
    axis = (rotation + np.eye(3))[:, column]
    axis = axis / np.linalg.norm(axis)
    return angle * (axis if sine @ axis >= 0 else -axis)


def _adjoint(similarity: Similarity) -> Floats:
    """`[7,7]`: the change before `similarity` that does what a change after it does."""
    adjoint = np.zeros((7, 7))
    adjoint[:3, :3] = similarity.scale * similarity.rotation
    adjoint[:3, 3:6] = _cross(similarity.translation) @ similarity.rotation
    adjoint[:3, 6] = -similarity.translation
    adjoint[3:6, 3:6] = similarity.rotation
    adjoint[6, 6] = 1.0
    return adjoint
