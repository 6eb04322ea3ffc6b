"""A rendered view: the cloud and its cameras as one sees them from behind, above and to one side of the cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from page4d.errors import UsageError
from page4d_engines.results.cloud import Cloud, extreme
from page4d_engines.results.contact_sheet import BACKGROUND, DIM

_Float = TypeVar("_Float", bound=np.floating[Any])
CAMERA = (96, 214, 255)
"""Colour of the cameras' wireframes."""

_POINTS = 1_000_000  # more do not show in a picture of this size, and take longer; a sample of them is drawn
_FRAMING = 50_000  # points are enough to find the viewpoint
_FINE = 2  # pixels are drawn this much finer, then averaged: smooth lines and edges
_ABOVE, _ASIDE = 0.42, 0.38  # of the viewpoint, per length along the cameras' mean line of sight
_ONE_SIDED = 0.6  # least length of the cameras' mean place or line of sight, of 1, to look from there
_LENS = 1.15  # focal length per picture height: a normal lens
_FILLED = 0.46  # how far from the picture's middle the framed points may reach, per side length
_BEYOND = 0.1  # what is shown beyond the percentiles that are framed, per distance between them
_ASTRAY = 3.0  # times as far from the scene's middle as the median one, a camera is not framed
_FARTHEST = 2.0  # times as far as for the points alone the viewpoint may stand to have the cameras in the picture
_COVER = 2.0  # a splat's diameter per distance between neighbouring points: surfaces seen from elsewhere open up
_RADIUS = 5.0  # the largest splat's, in fine pixels
_RELIEF, _DARKEST = 14.0, 0.45  # how strongly a step in depth darkens its far side, and the limit
_NEAREST = 0.05  # per distance of the scene: what is closer to the viewpoint hides everything and shows nothing
_LARGEST = 1e38  # single precision's range, which the points have: a pose beyond it sees none of them
_OUTLYING = 1e6  # times the scene's size: beyond, single precision and Pillow's lines fail, and nothing could be seen


@dataclass(frozen=True)
class _Eye:
    """Where the picture is taken from. A point p is seen at `turn @ (p - place)`: x right, y down, z forward."""

    turn: NDArray[np.float64]
    place: NDArray[np.float64]
    focal: float
    size: tuple[int, int]
    """Width and height of the picture, in the pixels that `focal` counts."""

    def seen(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Pixel x, pixel y and depth of points `[n,3]`: `[n,3]`; x and y mean nothing where the depth is not
        positive."""
        local = (points - self.place.astype(points.dtype)) @ self.turn.T.astype(points.dtype)
        scale = self.focal / np.where(local[:, 2] > 0, local[:, 2], 1)
        return np.stack(
            [local[:, 0] * scale + self.size[0] / 2, local[:, 1] * scale + self.size[1] / 2, local[:, 2]], axis=1
        )


def render_view(cloud: Cloud, poses: NDArray[np.float64], width: int = 1200, height: int = 675) -> Image.Image:
    """A perspective picture of the cloud, its cameras drawn as small frusta.

    The viewpoint lies a little behind, above and to one side of the cameras' median place, and looks at the median of
    the surer half of the points; the points between the 5th and the 95th percentile fill the picture, together with the
    cameras unless the points would become too small by that. Of more than a million points a sample is drawn, always
    the same.

    Args:
        cloud: the points; there may be none.
        poses: float64 `[n,4,4]`, camera to world (x right, y down, z forward); those that are not finite are left out.
        width, height: of the picture, in pixels.

    Returns:
        An RGB image.

    Raises:
        UsageError: the poses' shape is another, or the picture has no pixels.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise UsageError("the poses of a view cannot be used", got=list(poses.shape), allowed="[n,4,4]")
    if width < 1 or height < 1:
        raise UsageError("a view has no pixels", got=f"{width}x{height}", allowed="1x1 or more")
    if len(cloud.points) > _POINTS:  # about as many, in their order, which keeps neighbours close in memory
        some = np.flatnonzero(
            np.random.default_rng(0).random(len(cloud.points), np.float32) < _POINTS / len(cloud.points)
        )
        cloud = Cloud(cloud.points[some], cloud.colours[some], cloud.confidence[some])
    points, sure, colours = cloud.points.astype(np.float64), cloud.confidence, cloud.colours
    poses = poses[(np.abs(poses) < _LARGEST).all((1, 2))].astype(np.float64)  # NaN is not smaller

    # the scene's middle and its size become 0 and 1, so that its unit has no say in what follows
    surer = _surer(points, sure)
    middle = (
        np.median(surer, axis=0) if len(surer) else np.median(poses[:, :3, 3], axis=0) if len(poses) else np.zeros(3)
    )
    reach = [
        float(np.median(np.linalg.norm(places - middle, axis=1))) for places in (surer, poses[:, :3, 3]) if len(places)
    ]
    unit = next((size for size in reach if size > 0), 1.0)
    poses[:, :3, 3] = (poses[:, :3, 3] - middle) / unit
    poses = poses[np.abs(poses[:, :3, 3]).max(axis=1, initial=0) < _OUTLYING]
    points -= middle
    points /= unit
    inside = np.flatnonzero(np.abs(points).max(axis=1, initial=0) < _OUTLYING)
    shown, sure, colours = points[inside].astype(np.float32), sure[inside], colours[inside]

    eye = _viewpoint(_surer(shown, sure), poses, (width * _FINE, height * _FINE))
    picture = Image.fromarray(_splatted(eye, shown, colours, poses))
    _draw_cameras(picture, eye, poses)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    if not len(shown):
        ImageDraw.Draw(picture).text((width / 2, height / 2), "no points", DIM, ImageFont.load_default(24), anchor="mm")
    return picture


def _surer(points: NDArray[_Float], sure: NDArray[np.float32]) -> NDArray[_Float]:
    """The surer half of the points, or a sample of them."""
    step = max(1, len(points) // _FRAMING)
    points, sure = points[::step], sure[::step]
    return points[sure >= np.median(sure)] if len(points) else points


def _viewpoint(points: NDArray[np.float32], poses: NDArray[np.float64], size: tuple[int, int]) -> _Eye:
    """The viewpoint, for a scene around the origin."""
    centres, views = poses[:, :3, 3], np.concatenate([poses[:, :3, 2], [[0.0, 0.0, 1.0]]])
    away = np.linalg.norm(centres, axis=1)
    typical = float(np.median(away)) if len(poses) else 1.0
    middle = np.median(centres, axis=0) / max(typical, 0.2) if len(poses) else np.zeros(3)
    # of cameras all around the scene, the median is in its middle and the lines of sight cancel: then it is seen as the
    # first one does
    ahead = next(
        _unit(line) for line in (-middle, views[:-1].sum(0) / len(views), *views) if np.linalg.norm(line) > _ONE_SIDED
    )
    up = -poses[:, :3, 1].sum(0) if len(poses) else np.array([0.0, -1.0, 0.0])
    up -= ahead * (ahead @ up)
    if np.linalg.norm(up) < 1e-3:  # no common up: any that is not the line of sight
        up = np.eye(3)[np.abs(ahead).argmin()]
        up = up - ahead * (ahead @ up)
    up = _unit(up)
    forward = _unit(ahead - _ABOVE * up - _ASIDE * np.cross(ahead, up))
    down = _unit(forward * (forward @ up) - up)
    turn = np.stack([np.cross(down, forward), down, forward])
    focal = _LENS * size[1]

    framed = points @ turn.T if len(points) else np.zeros((1, 3))
    low, high = np.percentile(framed, [5, 95], axis=0)
    framed = np.clip(framed, low - _BEYOND * (high - low), high + _BEYOND * (high - low))
    place = _framing(framed, focal, size)
    if len(poses):
        close = centres[away <= _ASTRAY * max(typical, 1)]
        whole = _framing(np.concatenate([framed, close @ turn.T]), focal, size)
        place = whole if whole[2] >= _FARTHEST * place[2] else place
    return _Eye(turn, place @ turn, focal, size)


def _framing(points: NDArray[np.floating], focal: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """The nearest place before points `[n,3]`, for an eye that looks along z, that has them all in the picture:
    `[3]`."""
    room = np.array(size) * _FILLED / focal
    # in the picture is |x - place x| <= room * (z - place z): the least place x that the points allow, and the
    # greatest, for place z = 0
    least, greatest = (points[:, :2] - room * points[:, 2:]).max(0), (points[:, :2] + room * points[:, 2:]).min(0)
    distance = max(float(((least - greatest) / (2 * room)).max()), 0.1 - float(points[:, 2].min()), 0.1)
    return np.array([*(least + greatest) / 2, -distance])


def _splatted(
    eye: _Eye, points: NDArray[np.float32], colours: NDArray[np.uint8], poses: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The points as discs, nearer ones before farther ones: uint8 RGB `[h,w,3]`."""
    width, height = eye.size
    pad = int(2 * _RADIUS) + 1  # around the picture, so that no disc needs to be cut
    x, y, z = eye.seen(points).T
    near = _NEAREST * float(np.linalg.norm(eye.place))
    margin = _RADIUS + 1
    shown = np.flatnonzero((z > near) & (x > -margin) & (x < width + margin) & (y > -margin) & (y < height + margin))
    shown = shown[np.argsort(-z[shown])]  # far to near: where discs meet, the last one stays
    depth = z[shown].astype(np.float32)
    radius = np.clip(_COVER / 2 * eye.focal * _spacing(points[shown], depth, len(points), poses) / depth, 0.5, _RADIUS)
    place = (np.floor(y[shown]).astype(np.int64) + pad) * (width + 2 * pad) + np.floor(x[shown]).astype(np.int64) + pad

    front = np.full((height + 2 * pad) * (width + 2 * pad), -1, np.int32)
    steps = np.arange(-int(_RADIUS), int(_RADIUS) + 1)
    for dy, dx in ((dy, dx) for dy in steps for dx in steps if dx * dx + dy * dy <= _RADIUS**2):
        part = np.flatnonzero(radius**2 >= dx * dx + dy * dy).astype(np.int32)
        if part.size:
            layer = np.full_like(front, -1)
            layer[place[part] + (dy * (width + 2 * pad) + dx)] = part
            np.maximum(front, layer, out=front)
    front = front.reshape(height + 2 * pad, width + 2 * pad)[pad:-pad, pad:-pad]

    closed = extreme(np.minimum, extreme(np.minimum, extreme(np.maximum, extreme(np.maximum, front))))
    front = np.where(
        front < 0, closed, front
    )  # gaps of up to four fine pixels, as between the rows of a floor, are filled
    hit = front >= 0
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = BACKGROUND
    distances = np.full((height, width), np.inf, np.float32)
    distances[hit] = depth[front[hit]]
    picture[hit] = (colours[shown][front[hit]] * _relief(distances)[hit][:, None] + 0.5).astype(np.uint8)
    return picture


def _spacing(
    points: NDArray[np.float32], depth: NDArray[np.float32], count: int, poses: NDArray[np.float64]
) -> NDArray[np.float32]:
    """About how far apart neighbouring points are, float32 `[n]`: rays of a pixel grid, of some 60 degrees a side, part
    with their length."""
    centres = poses[:: -(-len(poses) // 8), :3, 3].astype(np.float32) if len(poses) else np.zeros((0, 3), np.float32)
    lengths = [np.einsum("ij,ij->i", points - centre, points - centre) for centre in centres]
    nearest = np.sqrt(np.minimum.reduce(lengths)) if lengths else depth
    return np.asarray(nearest / np.sqrt(max(count / max(len(poses), 1), 1)), np.float32)


def _relief(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness `[h,w]`, up to 1: lower where the surroundings are nearer, which outlines what stands before something
    else."""
    known = np.log(np.where(np.isfinite(depth), depth, depth.max(initial=1, where=np.isfinite(depth))))
    nearer, reach = np.zeros_like(known), 2 * _FINE
    wide = np.pad(known, reach, mode="edge")
    height, width = known.shape
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        beside = wide[reach * (1 + dy) : reach * (1 + dy) + height, reach * (1 + dx) : reach * (1 + dx) + width]
        nearer += np.maximum(known - beside, 0)
    return np.maximum(np.exp(-_RELIEF / 4 * nearer), _DARKEST).astype(np.float32)


def _draw_cameras(picture: Image.Image, eye: _Eye, poses: NDArray[np.float64]) -> None:
    """Each camera as a pyramid from its place towards what it sees, with a mark on the upper side."""
    if not len(poses):
        return
    draw, limit = ImageDraw.Draw(picture), 10 * max(eye.size)
    length = 0.045 * float(np.median(np.linalg.norm(poses[:, :3, 3] - eye.place, axis=1)))
    outline = np.array(
        [
            [0, 0, 0],
            [-0.6, -0.45, 1],
            [0.6, -0.45, 1],
            [0.6, 0.45, 1],
            [-0.6, 0.45, 1],
            [-0.25, -0.55, 1],
            [0.25, -0.55, 1],
            [0, -0.8, 1],
        ]
    )
    edges = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1), (5, 6), (6, 7), (7, 5))
    near = _NEAREST * float(np.linalg.norm(eye.place))
    for pose in poses:
        corners = eye.seen(length * outline @ pose[:3, :3].T + pose[:3, 3])
        if (corners[:, 2] > near).all() and np.abs(corners[:, :2]).max() < limit:
            for start, end in edges:
                draw.line([*corners[start, :2].tolist(), *corners[end, :2].tolist()], CAMERA, _FINE + 1)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)
