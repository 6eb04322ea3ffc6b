"""Depth images: as 16-bit PNG, in colour, and as a contact sheet."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.errors import UsageError
from page4d.files import write_atomically
from page4d_engines.results.contact_sheet import Legend, paired_sheet
from page4d_engines.results.overlay import colour_map

NO_VALUE = (112, 112, 112)
"""Colour of pixels without a depth: grey, which the map has nowhere."""

_FULL, _USED = 65535, 60000  # the few farthest depths have room above what the scale is chosen for
_NEAR, _FAR = 1, 98  # percentiles: a few points in front of everything would leave one colour for the rest


def depth_scale(depth: NDArray[np.floating]) -> float:
    """The depth of one step of `write_depth`; 1.0 where there is no depth.

    99.9 % of the depths (any shape; of one window) lie below 60000 steps.
    """
    known = _known(depth)
    scale = float(np.percentile(known, 99.9)) / _USED if known.size else 1.0
    return scale if scale > 0 else 1.0


def write_depth(path: pathlib.Path, depth: NDArray[np.floating], scale: float) -> None:
    """Write a 16-bit grey PNG, whole or not at all: depth = value * scale, up to half a step.

    Args:
        path: of the file.
        depth: `[H,W]`. Depths that are not finite or not positive become 0, which stands for no value; the others are
            clipped to 1..65535 steps.
        scale: depth per step, as `depth_scale` gives it.

    Raises:
        UsageError: the shape is another, or the scale is not positive and finite.
    """
    if depth.ndim != 2 or depth.size == 0:
        raise UsageError("a depth image cannot be used", got=list(depth.shape), allowed="[H,W]")
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError("the scale of a depth image cannot be used", got=scale, allowed="a positive number")
    known = _has_value(depth)
    with np.errstate(over="ignore"):
        steps = np.clip(np.rint(np.where(known, depth, 0).astype(np.float64) / scale), 1, _FULL)
    content = io.BytesIO()
    # a fast level: zlib's best takes longer than a small model and saves little on depth
    Image.fromarray(np.where(known, steps, 0).astype(np.uint16)).save(content, "PNG", compress_level=1)
    write_atomically(path, content.getvalue())


def colour_depth(depth: NDArray[np.floating], near: float, far: float) -> NDArray[np.uint8]:
    """Depth as colour, linear in 1/depth as disparity is: near is bright, far is dark, no depth is `NO_VALUE`.

    Args:
        depth: `[H,W]`.
        near: the depth, and all before it, that has the map's last colour.
        far: the depth, and all behind it, that has the map's first colour.

    Returns:
        uint8 RGB `[H,W,3]`.

    Raises:
        UsageError: not 0 < near <= far < infinity.
    """
    if not 0 < near <= far < math.inf:
        raise UsageError(
            "the range of a coloured depth image cannot be used", got=f"{near:g} to {far:g}", allowed="0 < near <= far"
        )
    known = _has_value(depth)
    clipped = np.where(known, depth, near).astype(np.float64).clip(near, far)
    # (1/depth - 1/far) / (1/near - 1/far), without a reciprocal that could overflow
    level = near / clipped * ((far - clipped) / (far - near)) if far > near else np.ones_like(clipped)
    colours = np.rint(colour_map(256)).astype(np.uint8)[np.rint(level * 255).astype(np.intp)]
    colours[~known] = NO_VALUE
    return colours


def depth_sheet(
    images: NDArray[np.uint8],
    depth: NDArray[np.floating],
    cameras: Sequence[str],
    times: Sequence[str],
    unit: str = "the clip's own unit",
) -> Image.Image:
    """One picture of a window: each frame with its depth, all in the same colours, as `paired_sheet` lays them out.

    Args:
        images: uint8 RGB `[T,V,H,W,3]`.
        depth: `[T,V,H,W]`.
        cameras: V names.
        times: T names.
        unit: what depth is in, in words.

    Raises:
        UsageError: a shape or a number of names does not fit the others.
    """
    if images.ndim != 5 or images.shape[4] != 3 or images.shape[:4] != depth.shape or 0 in images.shape:
        shapes = f"{list(images.shape)} and {list(depth.shape)}"
        raise UsageError(
            "images and depth of a sheet do not go together", got=shapes, allowed="[T,V,H,W,3] and [T,V,H,W]"
        )
    known = _known(depth)
    near, far = np.percentile(known, [_NEAR, _FAR]).tolist() if known.size else (1.0, 1.0)

    def coloured(frame: NDArray[np.uint8], t: int, v: int) -> NDArray[np.uint8]:
        whole = Image.fromarray(colour_depth(depth[t, v], near, far))
        return np.asarray(whole.resize(frame.shape[1::-1], Image.Resampling.LANCZOS))

    # the bar runs from near to far as the eye reads it
    bar = colour_map(256)[::-1].astype(np.uint8)
    legend = Legend("depth", bar, f"{near:.3g}", f"{far:.3g}  depth, in {unit}; even steps of 1/depth")
    if not known.size:
        legend = Legend("depth", np.full((1, 3), NO_VALUE, np.uint8), "", "no depth in any image")
    return paired_sheet(images, coloured, legend, cameras, times)


def _has_value(depth: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(depth) & (depth > 0))


def _known(depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """The depths that are values, in one row."""
    return depth[_has_value(depth)].astype(np.float64)
