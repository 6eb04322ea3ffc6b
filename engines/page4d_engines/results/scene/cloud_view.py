"""The report's picture of a cloud: a pinhole projection from behind, above and beside the first camera."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from page4d.errors import UsageError
from page4d_engines.results.contact_sheet import BACKGROUND, DIM
from page4d_engines.results.scene.cloud import Cloud

WIDTH, HEIGHT = 1200, 675
CAMERA = (96, 214, 255)
"""Colour of the cameras' wireframes."""

_POINTS = 1_000_000  # more do not show in a picture of this size, and take longer
_FOCAL = 1.15 * HEIGHT  # pixels
FOV = 2 * math.atan(HEIGHT / 2 / _FOCAL)
"""Vertical field of view of the picture, in radians."""
_AHEAD = (-0.38, 0.42, 1.0)  # line of sight in the first camera's frame: x right, y down, z forward
_ROOM = 0.46 * np.array([WIDTH, HEIGHT]) / _FOCAL  # how far from the axis framed points may lie, per distance
_LARGEST = 1e38  # of single precision, which the points have: a pose beyond it sees none of them
_FRUSTUM = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1], [0, -0.8, 1]])
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1), (1, 5), (5, 2))


def render_view(cloud: Cloud, poses: NDArray[np.float64]) -> Image.Image:
    """The points, each 2x2 pixels, the nearer before the farther; the cameras as frames with a roof on the upper side.

    The viewpoint is as near as shows the points between the 5th and the 95th percentile, and the cameras unless they
    stand far outside. Of more than a million points evenly spaced ones are drawn.

    Args:
        cloud: the points; there may be none.
        poses: float64 `[n,4,4]`, camera to world (x right, y down, z forward); those that are not finite are left out.

    Returns:
        An RGB image, `WIDTH` x `HEIGHT`.

    Raises:
        UsageError: the poses' shape is another.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise UsageError("the poses of a view cannot be used", got=list(poses.shape), allowed="[n,4,4]")
    poses = poses[(np.abs(poses) < _LARGEST).all((1, 2))]  # NaN is not smaller
    step = -(-len(cloud.points) // _POINTS) or 1
    points, colours = cloud.points[::step].astype(np.float64), cloud.colours[::step]
    turn, place, distance = viewpoint(points, poses)
    seen, centres = points @ turn.T, poses[:, :3, 3] @ turn.T
    picture = Image.fromarray(_drawn(seen - place, colours))
    _draw_cameras(ImageDraw.Draw(picture), poses[:, :3, :3].transpose(0, 2, 1) @ turn.T, centres - place, distance)
    if not len(points):
        middle, font = (WIDTH / 2, HEIGHT / 2), ImageFont.load_default(24)
        ImageDraw.Draw(picture).text(middle, "no points", DIM, font, anchor="mm")
    return picture


def viewpoint(
    points: NDArray[np.float64], poses: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Where a picture of points and cameras is taken from.

    Args:
        points: `[n,3]`.
        poses: `[m,4,4]`, camera to world; the first one says where behind and above is.

    Returns:
        The rotation `[3,3]` from the world to the viewpoint's axes (x right, y down, z forward), the viewpoint's place
        `[3]` along its own axes, and its distance from the middle of what it shows.
    """
    turn = _turn(poses[0, :3, :3] if len(poses) else np.eye(3))
    return turn, *_framing(points @ turn.T, poses[:, :3, 3] @ turn.T)


def _turn(camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[3,3]` from the world to the viewpoint's axes, given the first camera's rotation to the world."""
    forward = np.array(_AHEAD) / np.linalg.norm(_AHEAD)
    down = np.array([0.0, 1.0, 0.0]) - forward * forward[1]
    down /= np.linalg.norm(down)
    axes: NDArray[np.float64] = np.stack([np.cross(down, forward), down, forward]) @ camera.T
    return axes


def _framing(points: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The viewpoint's place `[3]`, along its own axes, and its distance from what it shows.

    In the picture is |x - place x| <= room * (z - place z), and so for y. The points allow a least and a greatest
    place x at place z = 0; both grow apart as the viewpoint steps back.
    """
    framed = points if len(points) else centres if len(centres) else np.zeros((1, 3))
    low, high = np.percentile(framed, [5, 95], axis=0)
    size = max(float((high - low).max()), 1e-6 * float(np.abs([low, high]).max()), 1e-30)
    near_centres = centres[(np.abs(centres - (low + high) / 2) <= 2 * size).all(1)]
    framed = np.concatenate([framed.clip(low - 0.1 * size, high + 0.1 * size), near_centres])
    least = (framed[:, :2] - _ROOM * framed[:, 2:]).max(0)
    greatest = (framed[:, :2] + _ROOM * framed[:, 2:]).min(0)
    back = max(float(((least - greatest) / (2 * _ROOM)).max()), 0.1 * size - float(framed[:, 2].min()))
    return np.array([*(least + greatest) / 2, -back]), back + float(np.median(framed[:, 2]))


def _projected(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels `[..,2]` of points `[..,3]` that lie before the viewpoint."""
    pixels: NDArray[np.float64] = _FOCAL * points[..., :2] / points[..., 2:] + [WIDTH / 2, HEIGHT / 2]
    return pixels


def _drawn(points: NDArray[np.float64], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture `[HEIGHT,WIDTH,3]`, drawn from far to near: what is nearer is written over what is farther."""
    order = np.argsort(-points[:, 2], kind="stable")
    order = order[points[order, 2] > 0]
    x, y = np.floor(_projected(points[order]).clip(-2, 2 * WIDTH)).astype(np.int64).T
    inside = (x >= 0) & (x < WIDTH - 1) & (y >= 0) & (y < HEIGHT - 1)
    first = y[inside] * WIDTH + x[inside]
    picture = np.full((HEIGHT * WIDTH, 3), BACKGROUND, np.uint8)
    picture[(first[:, None] + [0, 1, WIDTH, WIDTH + 1]).ravel()] = np.repeat(colours[order[inside]], 4, axis=0)
    return picture.reshape(HEIGHT, WIDTH, 3)


def _draw_cameras(draw: Any, turns: NDArray[np.float64], centres: NDArray[np.float64], distance: float) -> None:
    """Each camera as a pyramid from its place towards what it sees.

    Args:
        draw: Pillow's, of the picture.
        turns: `[n,3,3]`, from row vectors of each camera's frame to the viewpoint's.
        centres: `[n,3]`, before the viewpoint.
        distance: of what is shown; the pyramids are a share of it.
    """
    for turn, centre in zip(turns, centres, strict=True):
        corners = 0.04 * distance * _FRUSTUM @ turn + centre
        if (corners[:, 2] > 0.05 * distance).all():
            pixels = _projected(corners)
            if np.abs(pixels).max() < 10 * WIDTH:
                for start, end in _EDGES:
                    draw.line([*pixels[start].tolist(), *pixels[end].tolist()], CAMERA, 2)
