"""Paints: what colour a surface has at each of its points, as functions of the points alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Paint = Callable[[Floats], Floats]  # points [n,3] in the shape's own axes -> linear RGB [n,3]


def plain(colour: Floats) -> Paint:
    """One colour all over."""
    return lambda at: colour * _mottle(at, 0.10)


def stripes(first: Floats, second: Floats, axis: int, per_metre: float) -> Paint:
    """Two colours in turn along an axis, so many stripes to a metre."""
    return lambda at: _pick(np.floor(at[:, axis] * per_metre), (first, second)) * _mottle(at, 0.08)


def checks(first: Floats, second: Floats, size: float) -> Paint:
    """Two colours in turn in cubes, `size` metres wide."""
    return lambda at: _pick(np.floor(at / size + 1e-6).sum(1), (first, second)) * _mottle(at, 0.08)


def wedges(colours: Sequence[Floats]) -> Paint:
    """Colours in turn around the z axis, one wedge each."""
    return lambda at: _pick(np.floor((np.arctan2(at[:, 1], at[:, 0]) / (2 * np.pi) + 0.5) * len(colours)), colours)


def bricks(brick: Floats, joint: Floats) -> Paint:
    """Courses of bricks of uneven brightness with joints between them."""

    def paint(at: Floats) -> Floats:
        row = np.floor(at[:, 2] / 0.15)
        along = (at[:, 0] + at[:, 1] + 0.15 * (row % 2)) / 0.3
        gap = (np.abs(at[:, 2] / 0.15 - row - 0.5) > 0.42) | (np.abs(along % 1 - 0.5) > 0.46)
        tint = 0.75 + 0.5 * _hash(row, np.floor(along))
        return np.where(gap[:, None], joint * 0.8, brick * tint[:, None]) * _mottle(at, 0.1)

    return paint


def walls(half: Floats, colour: Floats) -> Paint:
    """The room: a floor of tiles, walls with a panel below and a pattern of rhombs above."""
    pale = 0.55 + 0.45 * colour / colour.max()

    def paint(at: Floats) -> Floats:
        x, y, z = at.T + half[:, None] * np.array([[0.0], [0.0], [1.0]])
        tile = np.floor(at[:, :2] / 0.65)
        tiles = _pick(tile.sum(1), (np.array([0.62, 0.47, 0.31]), np.array([0.23, 0.13, 0.085])))
        tiles = tiles * (0.8 + 0.4 * _hash(tile[:, 0], tile[:, 1]))[:, None]
        along = np.where(np.abs(x) > half[0] - 1e-6, y, x)
        rhomb = np.abs((along / 0.5) % 1 - 0.5) + np.abs((z / 0.7) % 1 - 0.5)
        paper = np.where(
            (np.abs(rhomb - 0.5) < 0.06)[:, None],
            0.85 * np.ones(3),
            np.where((rhomb < 0.16)[:, None], colour * 0.9, pale * 0.50),
        )
        panel = np.array([0.56, 0.50, 0.42]) * np.where((along / 0.65) % 1 < 0.035, 0.55, 1.0)[:, None]
        wall = np.where((z < 0.9)[:, None], np.where((z > 0.84)[:, None], np.array([0.80, 0.76, 0.68]), panel), paper)
        return np.where((z < 1e-6)[:, None], tiles, wall) * _mottle(at, 0.10)

    return paint


def _pick(number: Floats, colours: Sequence[Floats]) -> Floats:
    return np.stack(list(colours))[number.astype(np.intp) % len(colours)]


def _hash(first: Floats, second: Floats) -> Floats:
    """Numbers in [0, 1) that look random, from pairs of whole numbers."""
    return np.asarray((np.sin(first * 12.9898 + second * 78.233) * 4375.8545) % 1, np.float64)


def _mottle(at: Floats, depth: float) -> Floats:
    """A fine, uneven brightness `[n,1]` around 1: something to match where the colour alone is flat."""
    x, y, z = at.T
    wave = (
        np.sin(17 * x + 3 * np.sin(11 * y + 5 * z))
        + np.sin(19 * y + 3 * np.sin(13 * z + 7 * x))
        + np.sin(23 * z + 2 * np.sin(9 * x + 12 * y))
    )
    return np.asarray(1 + depth / 2 * wave[:, None], np.float64)
