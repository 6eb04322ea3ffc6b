"""Pictures of the mask: laid over one frame, and a contact sheet of a whole window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.results.contact_sheet import Legend, paired_sheet

ANCHORS: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (0.00, (24, 22, 84)),  # indigo
    (0.25, (92, 28, 136)),  # violet
    (0.50, (178, 44, 118)),  # crimson
    (0.75, (240, 112, 60)),  # orange
    (1.00, (255, 222, 74)),  # yellow
)
"""The colour map: probability and sRGB colour, straight lines between. Lightness rises all the way: the order shows
also where hues are not told apart."""

OPACITY, CLEAR, FULL = 0.8, 0.4, 0.8
"""How much of the frame the colour hides: none up to a probability of CLEAR, so that what is static stays as it was
taken, OPACITY from FULL on."""

NOT_A_NUMBER = (0, 255, 255)
"""Colour of patches without a value: a broken engine must not look like a static scene, so it is none of the map's."""


def overlay(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The mask, made smooth, over a frame: the surer that something moves, the more of the frame the colour hides.

    Args:
        image: uint8 RGB `[H,W,3]`.
        mask: float32 `[h,w]`, probability that a patch is dynamic; clipped to 0..1, and patches that are not a number
            are painted in `NOT_A_NUMBER`. It covers the whole image, whatever `h` and `w` are.

    Returns:
        uint8 RGB `[H,W,3]`, a new array; where the mask is 0, the image as it was.

    Raises:
        UsageError: a shape or a dtype is another.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError(
            "the image of an overlay cannot be used", got=f"{image.dtype} {list(image.shape)}", allowed="uint8 [H,W,3]"
        )
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError("the mask of an overlay cannot be used", got=list(mask.shape), allowed="[h,w]")
    size = (image.shape[1], image.shape[0])
    broken = np.isnan(mask)
    known = np.where(broken, 0, mask).clip(0, 1).astype(np.float32)
    smooth = np.asarray(Image.fromarray(known).resize(size, Image.Resampling.BILINEAR))
    level = (smooth * 255 + 0.5).astype(np.uint8)
    blended = image + _SHARES[level][..., None] * (_COLOURS[level] - image)
    if broken.any():
        wide = np.asarray(Image.fromarray(broken.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
        blended[wide > 0] = NOT_A_NUMBER
    return (blended + 0.5).astype(np.uint8)


def contact_sheet(
    images: NDArray[np.uint8], masks: NDArray[np.float32], cameras: Sequence[str], times: Sequence[str]
) -> Image.Image:
    """One picture of a window: each frame with its overlay, as `paired_sheet` lays them out.

    Args:
        images: uint8 RGB `[T,V,H,W,3]`.
        masks: float32 `[T,V,h,w]`, probability that a patch is dynamic.
        cameras: V names.
        times: T names.

    Raises:
        UsageError: a shape or a number of names does not fit the others.
    """
    if (
        images.ndim != 5
        or images.shape[4] != 3
        or masks.ndim != 4
        or images.shape[:2] != masks.shape[:2]
        or 0 in images.shape
    ):
        shapes = f"{list(images.shape)} and {list(masks.shape)}"
        raise UsageError(
            "images and masks of a contact sheet do not go together", got=shapes, allowed="[T,V,H,W,3] and [T,V,h,w]"
        )
    legend = Legend("mask over it", colour_bar(256), "0", "1  probability of being dynamic")
    return paired_sheet(images, lambda frame, t, v: overlay(frame, masks[t, v]), legend, cameras, times)


def colour_bar(steps: int) -> NDArray[np.uint8]:
    """The colours of 0..1 as they look over a mid-grey frame, uint8 `[steps,3]`: at 0, it is grey."""
    return overlay(np.full((1, steps, 3), 128, np.uint8), np.linspace(0, 1, steps, dtype=np.float32)[None])[0]


def colour_map(steps: int) -> NDArray[np.float32]:
    """The map's colours at `steps` evenly spaced places from 0 to 1, float32 `[steps,3]`, 0..255."""
    positions, colours = zip(*ANCHORS, strict=True)
    places = np.linspace(0, 1, steps)
    channels = [np.interp(places, positions, channel) for channel in zip(*colours, strict=True)]
    return np.stack(channels, axis=1).astype(np.float32)


def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacity `[256]` and colour `[256,3]` by probability * 255."""
    probability = np.linspace(0, 1, 256)
    rise = ((probability - CLEAR) / (FULL - CLEAR)).clip(0, 1)
    return (OPACITY * rise**2 * (3 - 2 * rise)).astype(np.float32), colour_map(256)


_SHARES, _COLOURS = _tables()
