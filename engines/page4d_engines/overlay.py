"""Pictures of the mask: laid over one frame, and a contact sheet of a whole window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from page4d.errors import UsageError

ANCHORS: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (0.00, (24, 22, 84)),  # indigo
    (0.25, (92, 28, 136)),  # violet
    (0.50, (178, 44, 118)),  # crimson
    (0.75, (240, 112, 60)),  # orange
    (1.00, (255, 222, 74)),  # yellow
)
"""The colour map: probability and sRGB colour, straight lines between. Lightness rises all the way: the order shows also where hues are not told apart."""

OPACITY, CLEAR, FULL = 0.8, 0.4, 0.8
"""How much of the frame the colour hides: none up to a probability of CLEAR, so that what is static stays as it was taken, OPACITY from FULL on."""

NOT_A_NUMBER = (0, 255, 255)
"""Colour of patches without a value: a broken engine must not look like a static scene, so it is none of the map's."""

_BACKGROUND, _TEXT, _DIM = (22, 24, 29), (236, 238, 242), (160, 166, 176)
_MARGIN, _GAP, _ROW_GAP, _PAIR_GAP = 16, 10, 22, 3  # a frame and its overlay closer than two cameras, to be seen as one
_CELL = 200  # narrower than this, a person in a wide shot can no longer be made out: fewer times are shown instead
_LARGE, _SMALL = 24, 20  # legible when a page shows the sheet at two thirds of its size
_LABEL = 200
_BAR_WIDTH, _BAR_HEIGHT = 220, 20
_LEGEND_WIDTH, _LEGEND_HEIGHT = 560, 72


def overlay(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The mask, made smooth, over a frame: the surer that something moves, the more of the frame the colour hides.

    Args:
        image: uint8 RGB `[H,W,3]`.
        mask: float32 `[h,w]`, probability that a patch is dynamic; clipped to 0..1, and patches that are not a number are
            painted in `NOT_A_NUMBER`. It covers the whole image, whatever `h` and `w` are.

    Returns:
        uint8 RGB `[H,W,3]`, a new array; where the mask is 0, the image as it was.

    Raises:
        UsageError: a shape or a dtype is another.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError("the image of an overlay cannot be used", got=f"{image.dtype} {list(image.shape)}", allowed="uint8 [H,W,3]")
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError("the mask of an overlay cannot be used", got=list(mask.shape), allowed="[h,w]")
    size = (image.shape[1], image.shape[0])
    broken = np.isnan(mask)
    known = np.where(broken, 0, mask).clip(0, 1).astype(np.float32)
    smooth = np.asarray(Image.fromarray(known).resize(size, Image.Resampling.BILINEAR))
    level = (smooth * 255 + 0.5).astype(np.uint8)
    blended = image + _SHARES[level][..., None] * (_COLOURS[level] - image)
    if broken.any():
        blended[np.asarray(Image.fromarray(broken.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0] = NOT_A_NUMBER
    return (blended + 0.5).astype(np.uint8)


def contact_sheet(images: NDArray[np.uint8], masks: NDArray[np.float32], cameras: Sequence[str], times: Sequence[str], max_width: int = 1600) -> Image.Image:
    """One picture of a window: a row per camera, a column per time, each frame with its overlay; labels and a colour bar.

    The overlay stands below its frame, or beside it where there are one or two columns. Where the times do not all fit at a
    size that can be read, evenly spaced ones are shown, the first and the last among them.

    Args:
        images: uint8 RGB `[T,V,H,W,3]`.
        masks: float32 `[T,V,h,w]`, probability that a patch is dynamic.
        cameras: V names.
        times: T names.
        max_width: in pixels; a sheet is narrower where the frames are small, and never narrower than its legend.

    Raises:
        UsageError: a shape or a number of names does not fit the others.
    """
    if images.ndim != 5 or images.shape[4] != 3 or masks.ndim != 4 or images.shape[:2] != masks.shape[:2] or 0 in images.shape:
        shapes = f"{list(images.shape)} and {list(masks.shape)}"
        raise UsageError("images and masks of a contact sheet do not go together", got=shapes, allowed="[T,V,H,W,3] and [T,V,h,w]")
    T, V, H, W = images.shape[:4]
    if len(cameras) != V or len(times) != T:
        raise UsageError("a contact sheet needs a name for every camera and every time", got=f"{len(cameras)} and {len(times)}", allowed=f"{V} and {T}")
    font, small = ImageFont.load_default(_LARGE), ImageFont.load_default(_SMALL)
    label = min(int(max(font.getlength(_printable(name)) for name in cameras)) + 2 * _GAP, _LABEL)

    room = max(max_width, _LEGEND_WIDTH + 2 * _MARGIN) - 2 * _MARGIN - label
    columns = min(T, max(1, room // (_CELL + _GAP)))
    beside = columns <= 2
    across = 2 if beside else 1
    width = (room // columns - _GAP - (across - 1) * _PAIR_GAP) // across
    width = max(1, min(width, max(W, _CELL)))  # not enlarged, but for frames as small as tests have them
    height = max(1, round(width * H / W))
    pair = (2 * width + _PAIR_GAP, height) if beside else (width, 2 * height + _PAIR_GAP)
    left, top = _MARGIN + label, _MARGIN + _LEGEND_HEIGHT + _SMALL + 10  # the legend, then the names of the times

    sheet_width = max(left + columns * (pair[0] + _GAP) - _GAP, _MARGIN + _LEGEND_WIDTH) + _MARGIN
    row = max(pair[1], _LARGE) + _ROW_GAP
    sheet = Image.new("RGB", (sheet_width, top + V * row - _ROW_GAP + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _legend(sheet, draw, small, "left: frame, right: mask over it" if beside else "above: frame, below: mask over it")
    for column, t in enumerate(np.linspace(0, T - 1, columns).round().astype(int).tolist()):
        x = left + column * (pair[0] + _GAP)
        draw.text((x, top - _SMALL - 6), _fitted(times[t], small, pair[0]), _DIM, small)
        for v in range(V):
            y = top + v * row
            frame = Image.fromarray(images[t, v]).resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(frame, (x, y))
            masked = Image.fromarray(overlay(np.asarray(frame), masks[t, v]))
            sheet.paste(masked, (x + width + _PAIR_GAP, y) if beside else (x, y + height + _PAIR_GAP))
    for v, name in enumerate(cameras):
        draw.text((_MARGIN, top + v * row - 4), _fitted(name, font, label - _GAP), _TEXT, font)
    return sheet


def colour_bar(steps: int) -> NDArray[np.uint8]:
    """The colours of 0..1 as they look over a mid-grey frame, uint8 `[steps,3]`: at 0, it is grey."""
    return overlay(np.full((1, steps, 3), 128, np.uint8), np.linspace(0, 1, steps, dtype=np.float32)[None]).reshape(steps, 3)


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> None:
    bar = np.repeat(colour_bar(_BAR_WIDTH)[None], _BAR_HEIGHT, axis=0)
    x, y = _MARGIN + 20, _MARGIN + _SMALL + 12
    draw.text((_MARGIN, _MARGIN), text, _TEXT, font)
    draw.text((_MARGIN, y), "0", _DIM, font)
    sheet.paste(Image.fromarray(bar), (x, y + 3))
    draw.text((x + _BAR_WIDTH + 8, y), "1  probability of being dynamic", _DIM, font)


def _printable(name: str) -> str:
    """A name as one line that Pillow can draw: line breaks and undecodable bytes of a file name are question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """As much of a name as fits, its end shown: cameras and frames differ in their last letters."""
    name = _printable(name)
    if font.getlength(name) <= room:
        return name
    while name and font.getlength("..." + name) > room:
        name = name[1:]
    return "..." + name


def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacity `[256]` and colour `[256,3]` by probability * 255."""
    probability = np.linspace(0, 1, 256)
    positions = [position for position, _ in ANCHORS]
    channels = [np.interp(probability, positions, [colour[c] for _, colour in ANCHORS]) for c in range(3)]
    rise = ((probability - CLEAR) / (FULL - CLEAR)).clip(0, 1)
    return (OPACITY * rise**2 * (3 - 2 * rise)).astype(np.float32), np.stack(channels, axis=1).astype(np.float32)


_SHARES, _COLOURS = _tables()
