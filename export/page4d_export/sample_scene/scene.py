"""The scene that a clip shows: its shapes, the rays traced to them, their light, and what stands and moves where."""

from __future__ import annotations

import colorsys
import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_export.sample_scene.paint import Floats, Paint, bricks, checks, plain, stripes, walls, wedges

_LOOP = 48  # frames after which the movement repeats
SAMPLES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # where a pixel's colour is taken
_LAMP, _LAMP_RADIUS, _LAMP_POINTS = np.array([1.9, -2.6, 4.7]), 0.4, 5  # metres; points per colour sample
_CONTACT = 0.18  # metres over which a shape darkens what stands next to it


# ---- shapes


class _Kind(enum.Enum):
    BALL = enum.auto()
    BOX = enum.auto()
    ROOM = enum.auto()  # a box seen from within


@dataclass(frozen=True)
class _Shape:
    """A ball or a box: half its size `[3]`, its middle `[3]`, its axes as columns `[3,3]`."""

    kind: _Kind
    half: Floats
    place: Floats
    axes: Floats
    paint: Paint
    gloss: float = 0.0

    @property
    def radius(self) -> float:
        """Of a ball around all of it."""
        return float(self.half[0] if self.kind is _Kind.BALL else np.linalg.norm(self.half))

    def hit(self, origin: Floats, rays: Floats) -> Floats:
        """Distance `[n]` at which each ray meets the surface first; inf where it does not."""
        start, toward = (origin - self.place) @ self.axes, rays @ self.axes
        if self.kind is _Kind.BALL:
            along = _dot(toward, start)
            root = along**2 - start @ start + self.half[0] ** 2
            return np.where((root >= 0) & (along < 0), -along - np.sqrt(np.maximum(root, 0)), np.inf)
        inverse = 1 / np.where(toward == 0, 1e-300, toward)
        first, second = (-self.half - start) * inverse, (self.half - start) * inverse
        nearer, farther = np.minimum(first, second).T, np.maximum(first, second).T
        # a reduction over an axis of three is many times slower
        enter = np.maximum(np.maximum(nearer[0], nearer[1]), nearer[2])
        leave = np.minimum(np.minimum(farther[0], farther[1]), farther[2])
        if self.kind is _Kind.ROOM:
            return np.asarray(leave, np.float64)
        return np.where((enter <= leave) & (enter > 0), enter, np.inf)

    def local(self, points: Floats) -> Floats:
        """World points in the shape's axes."""
        local: Floats = (points - self.place) @ self.axes
        return local

    def normals(self, points: Floats) -> Floats:
        """Unit normals `[n,3]` at surface points."""
        local = self.local(points)
        if self.kind is not _Kind.BALL:
            side = np.abs(local / self.half).argmax(1)[:, None]
            local = np.where(np.arange(3) == side, np.sign(local), 0.0) * (-1 if self.kind is _Kind.ROOM else 1)
        return unit(local @ self.axes.T)

    def nearness(self, points: Floats, normals: Floats) -> Floats:
        """How much the shape hides of the sky above points close to it, 0 to 1 `[n]`; 0 for its own."""
        if self.kind is _Kind.ROOM:
            return np.zeros(len(points))
        local = self.local(points)
        inside = unit(local) * self.half[0] if self.kind is _Kind.BALL else np.clip(local, -self.half, self.half)
        facing = _dot(normals, unit(self.place - points))
        hidden: Floats = np.maximum(facing, 0) * np.exp(-np.sqrt(_dot(local - inside, local - inside)) / _CONTACT)
        return hidden


def trace(shapes: Sequence[_Shape], origin: Floats, rays: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Distance to the first surface along unit rays `[n,3]` from one place, inf without one, and the shape's index."""
    first, which = np.full(len(rays), np.inf), np.zeros(len(rays), np.intp)
    for index, shape in enumerate(shapes):
        near = np.arange(len(rays)) if shape.kind is _Kind.ROOM else np.flatnonzero(_within(rays, origin, shape, 0.0))
        distance = shape.hit(origin, rays[near])
        closer = distance < first[near]
        first[near[closer]], which[near[closer]] = distance[closer], index
    return first, which


def _within(rays: Floats, origin: Floats, shape: _Shape, margin: float) -> NDArray[np.bool_]:
    """Which rays pass the shape's surrounding ball within `margin`: one product per ray spares most the real test."""
    offset = shape.place - origin
    edge = float(offset @ offset) - (shape.radius + margin) ** 2
    return np.asarray(_dot(rays, offset) >= np.sqrt(max(edge, 0.0)) - 1e-9, np.bool_)


# ---- light


@dataclass(frozen=True)
class Surface:
    """Points of surfaces with their light: `ambient * open + lamp * share of the lamp that is seen`."""

    points: Floats
    normals: Floats
    ambient: Floats
    lamp: Floats
    open: Floats
    lamps: Floats
    visible: NDArray[np.bool_]
    beams: Floats
    squares: Floats

    @classmethod
    def of(cls, shapes: Sequence[_Shape], which: NDArray[np.intp], points: Floats, eye: Floats, part: int) -> Surface:
        """The surfaces of `shapes[which]` at `points`, seen from `eye`, lit by part `part` of the lamp's points."""
        normals, paint, gloss = np.zeros_like(points), np.zeros_like(points), np.zeros(len(points))
        for index, shape in enumerate(shapes):
            mine = np.flatnonzero(which == index)
            if mine.size:
                normals[mine], gloss[mine] = shape.normals(points[mine]), shape.gloss
                paint[mine] = shape.paint(shape.local(points[mine]))
        towards, back = unit(_LAMP - points), unit(eye - points)
        facing = np.maximum(_dot(normals, towards), 0)
        shine = np.maximum(_dot(normals, unit(towards + back)), 0) ** 48 * gloss
        sky = 0.5 + 0.5 * normals[:, 2:]
        ambient = paint * (sky * (0.30, 0.34, 0.42) + (1 - sky) * (0.20, 0.17, 0.15))
        lamp = (paint * facing[:, None] + shine[:, None]) * (1.02, 0.95, 0.84)
        turn = np.arange(part, _LAMP_POINTS * len(SAMPLES), len(SAMPLES))
        spread = _LAMP_RADIUS * np.sqrt((turn + 0.5) / (_LAMP_POINTS * len(SAMPLES)))
        lamps = _LAMP + np.stack([spread * np.cos(2.39996 * turn), spread * np.sin(2.39996 * turn), 0.0 * turn], 1)
        solid = [shape for shape in shapes if shape.kind is not _Kind.ROOM]
        return cls(
            points=points,
            normals=normals,
            ambient=ambient,
            lamp=lamp,
            open=_open(solid, points, normals),
            lamps=lamps,
            visible=_visible(solid, points, lamps),
            beams=-towards,
            squares=_dot(points, points),
        )

    def colour(self) -> Floats:
        """Linear RGB `[n,3]`."""
        colour: Floats = self.ambient * self.open[:, None] + self.lamp * self.visible.mean(1, keepdims=True)
        return colour

    def touched(self, shapes: Sequence[_Shape]) -> NDArray[np.intp]:
        """Which points may lie in the shadow of further shapes, or close to them."""
        touched = np.zeros(len(self.points), np.bool_)
        for shape in shapes:
            apart = self.squares - 2 * _dot(self.points, shape.place) + shape.place @ shape.place
            touched |= _within(self.beams, _LAMP, shape, _LAMP_RADIUS) | (apart < (shape.radius + 5 * _CONTACT) ** 2)
        return np.flatnonzero(touched)

    def among(self, shapes: Sequence[_Shape], some: NDArray[np.intp]) -> Floats:
        """Linear RGB of some of the points with further shapes around them."""
        points = self.points[some]
        share = (self.visible[some] & _visible(shapes, points, self.lamps)).mean(1, keepdims=True)
        sky = self.open[some] * _open(shapes, points, self.normals[some])
        colour: Floats = self.ambient[some] * sky[:, None] + self.lamp[some] * share
        return colour


def _visible(shapes: Sequence[_Shape], points: Floats, lamps: Floats) -> NDArray[np.bool_]:
    """Which points of the lamp `[l,3]` each of the points `[n,3]` sees past the shapes, `[n,l]`."""
    seen = np.empty((len(points), len(lamps)), np.bool_)
    for index, lamp in enumerate(lamps):
        beams = points - lamp
        distance = np.sqrt(_dot(beams, beams))
        seen[:, index] = trace(shapes, lamp, beams / distance[:, None])[0] > distance - 1e-3
    return seen


def _open(shapes: Sequence[_Shape], points: Floats, normals: Floats) -> Floats:
    """How much of the sky the shapes leave to each point, 0 to 1 `[n]`; only what is near counts."""
    result = np.ones(len(points))
    for shape in shapes:
        offset = points - shape.place
        near = np.flatnonzero(_dot(offset, offset) < (shape.radius + 5 * _CONTACT) ** 2)
        result[near] *= 1 - 0.85 * shape.nearness(points[near], normals[near])
    return result


def display(linear: Floats) -> Floats:
    """Linear light as sRGB, 0 to 1."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


# ---- the scene


class Scene:
    """What stands and what moves, in metres, z up, floor at z = 0, the middle at the origin."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self._phase = chance.uniform(0, 2 * np.pi, 3)
        hue = chance.uniform() if seed else 0.0  # the default scene has the colours that its things are named for
        hues = (0.98, 0.05, 0.125, 0.36, 0.48, 0.58, 0.72)
        red, orange, yellow, green, teal, blue, violet = (
            np.array(colorsys.hsv_to_rgb((hue + at) % 1, 0.72, 0.84)) ** 2.2 for at in hues
        )
        cream, dark = np.array([0.78, 0.72, 0.60]), np.array([0.05, 0.055, 0.07])

        def box(
            x: float, y: float, z: float, size: tuple[float, float, float], paint: Paint, gloss: float = 0.08
        ) -> _Shape:
            place, axes = np.array([x, y, z + size[2] / 2]), _yaw(chance.uniform(-0.35, 0.35))
            return _Shape(_Kind.BOX, np.array(size) / 2, place, axes, paint, gloss)

        def ball(x: float, y: float, z: float, radius: float, paint: Paint, gloss: float = 0.5) -> _Shape:
            return _Shape(_Kind.BALL, np.full(3, radius), np.array([x, y, z + radius]), np.eye(3), paint, gloss)

        about = np.array([[-2.35, 1.45], [2.55, 1.5], [0.1, 2.3], [-2.75, -0.55]])
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = about + chance.uniform(-0.12, 0.12, (4, 2))
        room = np.array([5.2, 5.4, 2.6])
        self.static = (
            _Shape(_Kind.ROOM, room, np.array([0.0, -2.0, room[2]]), np.eye(3), walls(room, blue)),
            box(0.0, 0.0, 0.0, (0.62, 0.62, 0.55), stripes(cream, teal, 2, 9.0)),
            ball(0.0, 0.0, 0.55, 0.33, plain(cream * 0.9), 0.8),
            box(ax, ay, 0.0, (0.8, 0.8, 1.5), bricks(orange, cream)),
            ball(ax, ay, 1.5, 0.28, plain(green), 0.6),
            box(bx, by, 0.0, (1.1, 0.9, 0.6), checks(violet, cream, 0.2)),
            box(bx + 0.08, by, 0.6, (0.6, 0.55, 0.5), plain(yellow)),
            ball(cx, cy, 0.0, 0.5, stripes(red, cream, 2, 6.0), 0.6),
            ball(dx, dy, 0.0, 0.36, plain(teal), 0.7),
            box(2.9, -0.75, 0.0, (0.5, 0.5, 0.5), checks(red, cream, 0.125)),
        )
        self._beach, self._globe = wedges((red, cream, yellow, cream, blue, cream)), wedges((green, dark, green, cream))
        self._cart = stripes(blue, cream, 0, 8.0)

    def moving(self, t: int) -> tuple[_Shape, ...]:
        """What moves, at timestep t: a ball bounces around the middle, a box circles it, a ball rolls in front."""
        time = 2 * np.pi * t / _LOOP
        a, b, c = time + self._phase[0], -time + self._phase[1], time + self._phase[2]
        beat = (4 * a / (2 * np.pi)) % 1
        bounce = np.array([0.86 * np.cos(a), 0.86 * np.sin(a), 0.24 + 4.4 * beat * (1 - beat)])
        drive = np.array([1.95 * np.cos(b), 1.5 * np.sin(b), 0.21])
        heading = float(np.arctan2(-1.5 * np.cos(b), 1.95 * np.sin(b)))
        way = 1.35 * np.sin(2 * c)
        roll = np.array([way, -2.35, 0.3])
        spin = _yaw(3 * a) @ _roll(2 * a)
        return (
            _Shape(_Kind.BALL, np.full(3, 0.24), bounce, spin, self._beach, 0.5),
            _Shape(_Kind.BOX, np.array([0.42, 0.24, 0.21]), drive, _yaw(heading), self._cart, 0.3),
            _Shape(_Kind.BALL, np.full(3, 0.3), roll, _roll(way / 0.3) @ _yaw(0.5), self._globe, 0.6),
        )


def _dot(first: Floats, second: Floats) -> Floats:
    """Dot products of vectors `[n,3]` with as many others, or with one; `@` costs more here, for its threads."""
    return np.asarray(np.einsum("ij,ij->i" if second.ndim == 2 else "ij,j->i", first, second), np.float64)


def unit(vectors: Floats) -> Floats:
    """Vectors `[...,3]` scaled to length 1; zero stays zero."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-12)[..., None], np.float64)


def _yaw(angle: float) -> Floats:
    """Turn around z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _roll(angle: float) -> Floats:
    """Turn around y, as a ball does that rolls along x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
