"""The contact sheet: every frame of a window with a second picture of it, labels, and a colour bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from page4d.errors import UsageError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Companion = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
"""Takes a frame as it is shown, uint8 `[h,w,3]`, and its t and v; returns its second picture, of the same size."""

MAX_WIDTH = 1600
"""Of a sheet, in pixels; it is narrower where the frames are small, and never narrower than its legend."""

BACKGROUND, TEXT, DIM = (22, 24, 29), (236, 238, 242), (160, 166, 176)
# a frame and its companion stand closer together than two cameras, to be seen as one
_MARGIN, _GAP, _ROW_GAP, _PAIR_GAP = 16, 10, 22, 3
_CELL = 200  # narrower than this, a person in a wide shot cannot be recognised: fewer timesteps are shown instead
_VIEW = 290  # views of one timestep are all shown: in more rows rather than smaller than this
_LARGE, _SMALL = 24, 20  # legible when a page shows the sheet at two thirds of its size
_HEADING = _SMALL + 10
_LABEL = 200
_BAR_WIDTH, _BAR_HEIGHT = 220, 20
_LEGEND_HEIGHT = 72


@dataclass(frozen=True)
class Legend:
    """What a sheet shows.

    Attributes:
        companion: what the second picture of a frame is, in a few words.
        bar: its colours from left to right, uint8 `[n,3]`.
        low: the text at the bar's left end.
        high: the text at its right end, which says what the colours mean.
    """

    companion: str
    bar: NDArray[np.uint8]
    low: str
    high: str

    @property
    def width(self) -> int:
        """In pixels, as drawn."""
        font = ImageFont.load_default(_SMALL)
        lines = (self.title(beside=False), self.low + self.high)
        return int(max(font.getlength(lines[0]), font.getlength(lines[1]) + _BAR_WIDTH + 16)) + 1

    def title(self, beside: bool) -> str:
        """The line that says which picture is which."""
        return f"left: frame, right: {self.companion}" if beside else f"above: frame, below: {self.companion}"

    def draw(self, sheet: Image.Image, beside: bool) -> None:
        """Into the sheet's upper left corner."""
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_SMALL)
        steps = np.linspace(0, len(self.bar) - 1, _BAR_WIDTH).round().astype(int)
        y, x = _MARGIN + _SMALL + 12, _MARGIN + int(font.getlength(self.low)) + 8
        draw.text((_MARGIN, _MARGIN), self.title(beside), TEXT, font)
        draw.text((_MARGIN, y), self.low, DIM, font)
        sheet.paste(Image.fromarray(np.repeat(self.bar[None, steps], _BAR_HEIGHT, axis=0)), (x, y + 3))
        draw.text((x + _BAR_WIDTH + 8, y), self.high, DIM, font)


def paired_sheet(
    images: NDArray[np.uint8], companion: Companion, legend: Legend, cameras: Sequence[str], times: Sequence[str]
) -> Image.Image:
    """One picture of a window, with labels and a colour bar: a row per camera, a column per timestep.

    The companion stands below its frame, or beside it where there are one or two columns. Where the timesteps do not
    all fit at a size that can be read, evenly spaced ones are shown, with the first and the last. Several views of a
    single timestep stand in as many columns as can be read, row by row, each under its own name; the timestep's is left
    out.

    Args:
        images: uint8 RGB `[T,V,H,W,3]`, no axis empty.
        companion: makes the second picture.
        legend: says what it shows.
        cameras: V names.
        times: T names.

    Raises:
        UsageError: a number of names does not fit the images.
    """
    T, V, H, W = images.shape[:4]
    if len(cameras) != V or len(times) != T:
        raise UsageError(
            "a contact sheet needs a name for every camera and every time",
            got=f"{len(cameras)} and {len(times)}",
            allowed=f"{V} and {T}",
        )
    wrapped = T == 1 and V > 1
    font, small = ImageFont.load_default(_LARGE), ImageFont.load_default(_SMALL)
    label = 0 if wrapped else min(int(max(font.getlength(_printable(name)) for name in cameras)) + 2 * _GAP, _LABEL)

    room = max(MAX_WIDTH, legend.width + 2 * _MARGIN) - 2 * _MARGIN - label
    fitting = max(1, room // ((_VIEW if wrapped else _CELL) + _GAP))
    rows = -(-V // fitting) if wrapped else V
    columns = -(-V // rows) if wrapped else min(T, fitting)
    shown = [0] if wrapped else np.linspace(0, T - 1, columns).round().astype(int).tolist()
    beside = columns <= 2
    across = 2 if beside else 1
    width = (room // columns - _GAP - (across - 1) * _PAIR_GAP) // across
    width = max(1, min(width, max(W, _CELL)))  # not enlarged, except for frames as small as those of tests
    height = max(1, round(width * H / W))
    pair = (2 * width + _PAIR_GAP, height) if beside else (width, 2 * height + _PAIR_GAP)
    left, top = _MARGIN + label, _MARGIN + _LEGEND_HEIGHT + _HEADING
    row = max(pair[1], _LARGE) + _ROW_GAP + (_HEADING if wrapped else 0)

    sheet_width = max(left + columns * (pair[0] + _GAP) - _GAP, _MARGIN + legend.width) + _MARGIN
    sheet = Image.new("RGB", (sheet_width, top + (rows - 1) * row + max(pair[1], _LARGE) + _MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    legend.draw(sheet, beside)
    for index, (v, t) in enumerate((v, t) for v in range(V) for t in shown):
        x, y = left + index % columns * (pair[0] + _GAP), top + index // columns * row
        if wrapped or v == 0:
            name, colour = (cameras[v], TEXT) if wrapped else (times[t], DIM)
            draw.text((x, y - _SMALL - 6), _fitted(name, small, pair[0]), colour, small)
        frame = Image.fromarray(images[t, v]).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(frame, (x, y))
        second = Image.fromarray(companion(np.asarray(frame), t, v))
        sheet.paste(second, (x + width + _PAIR_GAP, y) if beside else (x, y + height + _PAIR_GAP))
    for v, name in enumerate(() if wrapped else cameras):
        draw.text((_MARGIN, top + v * row - 4), _fitted(name, font, label - _GAP), TEXT, font)
    return sheet


def _printable(name: str) -> str:
    """A name as one line that Pillow can draw: line breaks and undecodable bytes of a file name are question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _fitted(name: str, font: Font, room: int) -> str:
    """As much of a name as fits, its end shown: cameras and frames differ in their last letters."""
    name = _printable(name)
    if font.getlength(name) <= room:
        return name
    while name and font.getlength("..." + name) > room:
        name = name[1:]
    return "..." + name
