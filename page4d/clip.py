"""`Clip`: a moving scene seen by calibrated cameras, ray cast in numpy, with its exact masks, surface points and cameras.

For demonstrations, examples and tests that need frames whose geometry is known; no footage has to be shipped.
"""

from __future__ import annotations

import colorsys
import enum
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera, write_cameras
from page4d.errors import UsageError

Floats = NDArray[np.float64]
Paint = Callable[[Floats], Floats]  # points [n,3] in the shape's own axes -> linear RGB [n,3]

_LOOP = 48  # frames after which the movement repeats
_SAMPLES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # where a pixel's colour is taken
_LAMP, _LAMP_RADIUS, _LAMP_POINTS = np.array([1.9, -2.6, 4.7]), 0.4, 5  # metres; points per colour sample
_CONTACT = 0.18  # metres over which a shape darkens what stands next to it


@dataclass(frozen=True)
class Clip:
    """A scene of T times seen by V static cameras.

    Attributes:
        frames: RGB, uint8 `[T,V,H,W,3]`.
        masks: uint8 `[T,V,H,W]`, 255 where the pixel's centre shows a surface that moves, else 0.
        points: float64 `[T,V,H,W,3]`, world coordinates, in metres (z up), of the surface seen through the pixel's centre (x + 0.5, y + 0.5).
        cameras: by name, in the order of the views.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    points: Floats
    cameras: dict[str, Camera]


def render(T: int, V: int, width: int, height: int, seed: int = 0) -> Clip:
    """Render the scene: a room with boxes and balls at rest, and three things that move.

    A frame depends on its time, not on T; the same arguments give the same clip.

    Args:
        T: times, 24 to a second.
        V: cameras, on an arc around the scene, all looking at its middle.
        width, height: of every image, in pixels.
        seed: varies colours, places, movements and the cameras.

    Raises:
        UsageError: a size below 1, a seed below 0.
    """
    for name, value in (("T", T), ("V", V), ("width", width), ("height", height)):
        if value < 1:
            raise UsageError(f"a clip's {name} is too small", got=value, allowed="1 or more")
    if seed < 0:
        raise UsageError("a clip's seed is negative", got=seed, allowed="0 or more")
    scene = _Scene(seed)
    cameras = {f"cam{v}": camera for v, camera in enumerate(_rig(V, width, height, seed))}
    frames = np.empty((T, V, height, width, 3), np.uint8)
    masks = np.empty((T, V, height, width), np.uint8)
    points = np.empty((T, V, height, width, 3))
    view = lambda v: _render_view(scene, cameras[f"cam{v}"], frames[:, v], masks[:, v], points[:, v])
    with ThreadPoolExecutor(max_workers=4) as pool:  # numpy lets go of the interpreter's lock; a few only, as each holds its view's surfaces
        list(pool.map(view, range(V)))
    return Clip(frames, masks, points, cameras)


def _render_view(scene: _Scene, camera: Camera, frames: NDArray[np.uint8], masks: NDArray[np.uint8], points: Floats) -> None:
    """Fill one camera's frames `[T,H,W,3]`, masks `[T,H,W]` and points `[T,H,W,3]`."""
    origin = camera.centre
    centre = _rays(camera, 0.5, 0.5)
    reach, _ = _trace(scene.static, origin, centre)
    samples = []
    for part, offset in enumerate(_SAMPLES):
        rays = _rays(camera, *offset)
        far, which = _trace(scene.static, origin, rays)
        surface = _Surface.of(scene.static, which, origin + rays * far[:, None], origin, part)
        samples.append((rays, far, surface, _display(surface.colour())))
    for t in range(len(frames)):
        moving = scene.moving(t)
        near, _ = _trace(moving, origin, centre)
        near = np.where(near < reach, near, np.inf)
        masks[t] = np.where(np.isfinite(near), 255, 0).reshape(masks[t].shape)
        points[t] = (origin + centre * np.minimum(near, reach)[:, None]).reshape(frames[t].shape)
        light = np.zeros((camera.height * camera.width, 3))
        for part, (rays, far, surface, at_rest) in enumerate(samples):
            colour = at_rest.copy()
            near_by = surface.touched(moving)
            colour[near_by] = _display(surface.among(moving, near_by))
            near, which = _trace(moving, origin, rays)
            front = np.flatnonzero(near < far)
            hits = origin + rays[front] * near[front, None]
            colour[front] = _display(_Surface.of([*moving, *scene.static], which[front], hits, origin, part).colour())
            light += colour
        frames[t] = np.rint(light * (255 / len(_SAMPLES))).astype(np.uint8).reshape(frames[t].shape)


def save(clip: Clip, folder: str | os.PathLike[str]) -> None:
    """Write a clip as `frames/<camera>/<frame>.png`, `masks/<camera>/<frame>.png` and `cameras.json`; frames are named 000000, 000001, ..."""
    root = pathlib.Path(folder)
    for kind, images in (("frames", clip.frames), ("masks", clip.masks)):
        for v, camera in enumerate(clip.cameras):
            place = root / kind / camera
            place.mkdir(parents=True, exist_ok=True)
            for t, image in enumerate(images[:, v]):
                Image.fromarray(image).save(place / f"{t:06d}.png")
    write_cameras(root / "cameras.json", clip.cameras)


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
        one, other = (-self.half - start) * inverse, (self.half - start) * inverse
        nearer, farther = np.minimum(one, other).T, np.maximum(one, other).T
        enter = np.maximum(np.maximum(nearer[0], nearer[1]), nearer[2])  # a reduction over an axis of three is many times slower
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
        return _unit(local @ self.axes.T)

    def nearness(self, points: Floats, normals: Floats) -> Floats:
        """How much the shape hides of the sky above points close to it, 0 to 1 `[n]`; 0 for its own."""
        if self.kind is _Kind.ROOM:
            return np.zeros(len(points))
        local = self.local(points)
        inside = _unit(local) * self.half[0] if self.kind is _Kind.BALL else np.clip(local, -self.half, self.half)
        facing = _dot(normals, _unit(self.place - points))
        hidden: Floats = np.maximum(facing, 0) * np.exp(-np.sqrt(_dot(local - inside, local - inside)) / _CONTACT)
        return hidden


def _trace(shapes: Sequence[_Shape], origin: Floats, rays: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Distance to the first surface along unit rays `[n,3]` from one place, and the shape's index; inf where there is none."""
    first, which = np.full(len(rays), np.inf), np.zeros(len(rays), np.intp)
    for index, shape in enumerate(shapes):
        near = np.arange(len(rays)) if shape.kind is _Kind.ROOM else np.flatnonzero(_within(rays, origin, shape, 0.0))
        distance = shape.hit(origin, rays[near])
        closer = distance < first[near]
        first[near[closer]], which[near[closer]] = distance[closer], index
    return first, which


def _within(rays: Floats, origin: Floats, shape: _Shape, margin: float) -> NDArray[np.bool_]:
    """Which rays pass the shape's surrounding ball within `margin`: one product per ray, to spare most the real test."""
    offset = shape.place - origin
    edge = float(offset @ offset) - (shape.radius + margin) ** 2
    return np.asarray(_dot(rays, offset) >= np.sqrt(max(edge, 0.0)) - 1e-9, np.bool_)


# ---- light


@dataclass(frozen=True)
class _Surface:
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
    def of(cls, shapes: Sequence[_Shape], which: NDArray[np.intp], points: Floats, eye: Floats, part: int) -> _Surface:
        """The surfaces of `shapes[which]` at `points`, seen from `eye`, among all the shapes; `part` says which points of the lamp light them."""
        normals, paint, gloss = np.zeros_like(points), np.zeros_like(points), np.zeros(len(points))
        for index, shape in enumerate(shapes):
            mine = np.flatnonzero(which == index)
            if mine.size:
                normals[mine], paint[mine], gloss[mine] = shape.normals(points[mine]), shape.paint(shape.local(points[mine])), shape.gloss
        towards, back = _unit(_LAMP - points), _unit(eye - points)
        facing = np.maximum(_dot(normals, towards), 0)
        shine = np.maximum(_dot(normals, _unit(towards + back)), 0) ** 48 * gloss
        sky = 0.5 + 0.5 * normals[:, 2:]
        ambient = paint * (sky * (0.30, 0.34, 0.42) + (1 - sky) * (0.20, 0.17, 0.15))
        lamp = (paint * facing[:, None] + shine[:, None]) * (1.02, 0.95, 0.84)
        turn = np.arange(part, _LAMP_POINTS * len(_SAMPLES), len(_SAMPLES))
        spread = _LAMP_RADIUS * np.sqrt((turn + 0.5) / (_LAMP_POINTS * len(_SAMPLES)))
        lamps = _LAMP + np.stack([spread * np.cos(2.39996 * turn), spread * np.sin(2.39996 * turn), 0.0 * turn], 1)
        solid = [shape for shape in shapes if shape.kind is not _Kind.ROOM]
        return cls(points, normals, ambient, lamp, _open(solid, points, normals), lamps, _visible(solid, points, lamps), -towards, _dot(points, points))

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
        seen[:, index] = _trace(shapes, lamp, beams / distance[:, None])[0] > distance - 1e-3
    return seen


def _open(shapes: Sequence[_Shape], points: Floats, normals: Floats) -> Floats:
    """How much of the sky the shapes leave to each point, 0 to 1 `[n]`; only what is near counts."""
    result = np.ones(len(points))
    for shape in shapes:
        offset = points - shape.place
        near = np.flatnonzero(_dot(offset, offset) < (shape.radius + 5 * _CONTACT) ** 2)
        result[near] *= 1 - 0.85 * shape.nearness(points[near], normals[near])
    return result


def _display(linear: Floats) -> Floats:
    """Linear light as sRGB, 0 to 1."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


# ---- the scene


class _Scene:
    """What stands and what moves, in metres, z up, floor at z = 0, the middle at the origin."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self._phase = chance.uniform(0, 2 * np.pi, 3)
        hue = chance.uniform() if seed else 0.0  # the default scene has the colours that its things are named for
        hues = (0.98, 0.05, 0.125, 0.36, 0.48, 0.58, 0.72)
        red, orange, yellow, green, teal, blue, violet = (np.array(colorsys.hsv_to_rgb((hue + at) % 1, 0.72, 0.84)) ** 2.2 for at in hues)
        cream, dark = np.array([0.78, 0.72, 0.60]), np.array([0.05, 0.055, 0.07])

        def box(x: float, y: float, z: float, size: tuple[float, float, float], paint: Paint, gloss: float = 0.08) -> _Shape:
            return _Shape(_Kind.BOX, np.array(size) / 2, np.array([x, y, z + size[2] / 2]), _yaw(chance.uniform(-0.35, 0.35)), paint, gloss)

        def ball(x: float, y: float, z: float, radius: float, paint: Paint, gloss: float = 0.5) -> _Shape:
            return _Shape(_Kind.BALL, np.full(3, radius), np.array([x, y, z + radius]), np.eye(3), paint, gloss)

        about = np.array([[-2.35, 1.45], [2.55, 1.5], [0.1, 2.3], [-2.75, -0.55]])
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = about + chance.uniform(-0.12, 0.12, (4, 2))
        room = np.array([5.2, 5.4, 2.6])
        self.static = (
            _Shape(_Kind.ROOM, room, np.array([0.0, -2.0, room[2]]), np.eye(3), _walls(room, blue)),
            box(0.0, 0.0, 0.0, (0.62, 0.62, 0.55), _stripes(cream, teal, 2, 9.0)),
            ball(0.0, 0.0, 0.55, 0.33, _plain(cream * 0.9), 0.8),
            box(ax, ay, 0.0, (0.8, 0.8, 1.5), _bricks(orange, cream)),
            ball(ax, ay, 1.5, 0.28, _plain(green), 0.6),
            box(bx, by, 0.0, (1.1, 0.9, 0.6), _checks(violet, cream, 0.2)),
            box(bx + 0.08, by, 0.6, (0.6, 0.55, 0.5), _plain(yellow)),
            ball(cx, cy, 0.0, 0.5, _stripes(red, cream, 2, 6.0), 0.6),
            ball(dx, dy, 0.0, 0.36, _plain(teal), 0.7),
            box(2.9, -0.75, 0.0, (0.5, 0.5, 0.5), _checks(red, cream, 0.125)),
        )
        self._beach, self._globe = _wedges((red, cream, yellow, cream, blue, cream)), _wedges((green, dark, green, cream))
        self._cart = _stripes(blue, cream, 0, 8.0)

    def moving(self, t: int) -> tuple[_Shape, ...]:
        """What moves, at frame t: a ball that bounces around the middle, a box that drives around both, a ball that rolls in front."""
        time = 2 * np.pi * t / _LOOP
        a, b, c = time + self._phase[0], -time + self._phase[1], time + self._phase[2]
        beat = (4 * a / (2 * np.pi)) % 1
        bounce = np.array([0.86 * np.cos(a), 0.86 * np.sin(a), 0.24 + 4.4 * beat * (1 - beat)])
        drive, heading = np.array([1.95 * np.cos(b), 1.5 * np.sin(b), 0.21]), float(np.arctan2(-1.5 * np.cos(b), 1.95 * np.sin(b)))
        way = 1.35 * np.sin(2 * c)
        roll = np.array([way, -2.35, 0.3])
        spin = _yaw(3 * a) @ _roll(2 * a)
        return (
            _Shape(_Kind.BALL, np.full(3, 0.24), bounce, spin, self._beach, 0.5),
            _Shape(_Kind.BOX, np.array([0.42, 0.24, 0.21]), drive, _yaw(heading), self._cart, 0.3),
            _Shape(_Kind.BALL, np.full(3, 0.3), roll, _roll(way / 0.3) @ _yaw(0.5), self._globe, 0.6),
        )


def _rig(V: int, width: int, height: int, seed: int) -> list[Camera]:
    """V cameras on an arc of at most 88 degrees, looking at the middle; no two alike."""
    chance = np.random.default_rng((seed, 1))
    span = np.deg2rad(min(88.0, 30.0 * (V - 1)))
    rig = []
    for angle in np.linspace(-span / 2, span / 2, V) if V > 1 else (0.0,):
        away, up = 6.2 + chance.uniform(-0.15, 0.15), 2.75 + chance.uniform(-0.3, 0.3)
        place = np.array([away * np.sin(angle), -away * np.cos(angle), up])
        forward = _unit(np.array([0.0, 0.15, 0.62]) - place)
        right = _unit(np.cross(forward, (0.0, 0.0, 1.0)))
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal = 1.12 * max(width, height) * chance.uniform(0.97, 1.03)
        middle = np.array([width, height]) * (0.5 + chance.uniform(-0.015, 0.015, 2))
        K = np.array([[focal, 0.0, middle[0]], [0.0, focal * 1.001, middle[1]], [0.0, 0.0, 1.0]])
        rig.append(Camera(width, height, K, np.concatenate([rotation, -rotation @ place[:, None]], 1)))
    return rig


def _rays(camera: Camera, dx: float, dy: float) -> Floats:
    """Unit directions `[H*W,3]` in the world through the points (x + dx, y + dy) of all pixels."""
    y, x = np.mgrid[: camera.height, : camera.width].reshape(2, -1)
    pixels = np.stack([x + dx, y + dy, np.ones(x.size)], 1)
    return _unit(pixels @ (np.linalg.inv(camera.K).T @ camera.world_to_camera[:, :3]))


def _dot(one: Floats, other: Floats) -> Floats:
    """Products of vectors `[n,3]` with as many others, or with one; not `@`, whose threads cost more here than they save."""
    return np.asarray(np.einsum("ij,ij->i" if other.ndim == 2 else "ij,j->i", one, other), np.float64)


def _unit(vectors: Floats) -> Floats:
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


# ---- paint


def _plain(colour: Floats) -> Paint:
    return lambda at: colour * _mottle(at, 0.10)


def _stripes(one: Floats, other: Floats, axis: int, per_metre: float) -> Paint:
    return lambda at: _pick(np.floor(at[:, axis] * per_metre), (one, other)) * _mottle(at, 0.08)


def _checks(one: Floats, other: Floats, size: float) -> Paint:
    return lambda at: _pick(np.floor(at / size + 1e-6).sum(1), (one, other)) * _mottle(at, 0.08)


def _wedges(colours: Sequence[Floats]) -> Paint:
    return lambda at: _pick(np.floor((np.arctan2(at[:, 1], at[:, 0]) / (2 * np.pi) + 0.5) * len(colours)), colours)


def _bricks(brick: Floats, joint: Floats) -> Paint:
    def paint(at: Floats) -> Floats:
        row = np.floor(at[:, 2] / 0.15)
        along = (at[:, 0] + at[:, 1] + 0.15 * (row % 2)) / 0.3
        gap = (np.abs(at[:, 2] / 0.15 - row - 0.5) > 0.42) | (np.abs(along % 1 - 0.5) > 0.46)
        tint = 0.75 + 0.5 * _hash(row, np.floor(along))
        return np.where(gap[:, None], joint * 0.8, brick * tint[:, None]) * _mottle(at, 0.1)

    return paint


def _walls(half: Floats, colour: Floats) -> Paint:
    """The room: a floor of tiles, walls with a panel below and a pattern of rhombs above."""
    pale = 0.55 + 0.45 * colour / colour.max()

    def paint(at: Floats) -> Floats:
        x, y, z = at.T + half[:, None] * np.array([[0.0], [0.0], [1.0]])
        tile = np.floor(at[:, :2] / 0.65)
        tiles = _pick(tile.sum(1), (np.array([0.62, 0.47, 0.31]), np.array([0.23, 0.13, 0.085])))
        tiles = tiles * (0.8 + 0.4 * _hash(tile[:, 0], tile[:, 1]))[:, None]
        along = np.where(np.abs(x) > half[0] - 1e-6, y, x)
        rhomb = np.abs((along / 0.5) % 1 - 0.5) + np.abs((z / 0.7) % 1 - 0.5)
        paper = np.where((np.abs(rhomb - 0.5) < 0.06)[:, None], 0.85 * np.ones(3), np.where((rhomb < 0.16)[:, None], colour * 0.9, pale * 0.50))
        panel = np.array([0.56, 0.50, 0.42]) * np.where((along / 0.65) % 1 < 0.035, 0.55, 1.0)[:, None]
        wall = np.where((z < 0.9)[:, None], np.where((z > 0.84)[:, None], np.array([0.80, 0.76, 0.68]), panel), paper)
        return np.where((z < 1e-6)[:, None], tiles, wall) * _mottle(at, 0.10)

    return paint


def _pick(number: Floats, colours: Sequence[Floats]) -> Floats:
    return np.stack(list(colours))[number.astype(np.intp) % len(colours)]


def _hash(one: Floats, other: Floats) -> Floats:
    """Numbers in [0, 1) that look random, from pairs of whole numbers."""
    return np.asarray((np.sin(one * 12.9898 + other * 78.233) * 4375.8545) % 1, np.float64)


def _mottle(at: Floats, depth: float) -> Floats:
    """A fine, uneven brightness `[n,1]` around 1: something to match where the colour alone is flat."""
    x, y, z = at.T
    wave = np.sin(17 * x + 3 * np.sin(11 * y + 5 * z)) + np.sin(19 * y + 3 * np.sin(13 * z + 7 * x)) + np.sin(23 * z + 2 * np.sin(9 * x + 12 * y))
    return np.asarray(1 + depth / 2 * wave[:, None], np.float64)
