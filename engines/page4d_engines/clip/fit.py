"""`Fit`: how a source image of any size comes to the engine's H x W, and with it its masks and its camera."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera
from page4d.config import Published
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.companions import by
from page4d_engines.clip.da3.opencv_resize import resize
from page4d_engines.clip.da3.sizes import passes
from page4d_engines.options import FitMode as FitMode

TO_ANY_SIZE = (FitMode.STRETCH, FitMode.CROP, FitMode.PAD)
"""The modes that bring a photo of any size to an engine of any size."""

_AT_ONCE = 2**24  # pixels that are widened to float64 at a time
_TALLEST = 100  # times its width: VGGT's code scales a photo whole before it cuts rows, which has to fit into memory


class PhotoWay(enum.Enum):
    """Whose public code `FitMode.PUBLISHED` follows."""

    VGGT = "VGGT"
    DA3 = "Depth Anything 3"

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> PhotoWay | None:
        """The way of a manifest's model: VGGT's for VGGT and PAGE-4D; None for models that have none here."""
        published = model.get("published")
        if published in (Published.VGGT, Published.PAGE4D):
            return cls.VGGT
        return cls.DA3 if published in (Published.DA3, Published.DA3_MONO, Published.DA3_METRIC) else None


@dataclass(frozen=True)
class Fit:
    """A box of the source image, scaled to a rectangle of the engine's image; pixel edges lie at integers in both.

    Attributes:
        source_size: width and height of the source, in pixels.
        box: left, top, right, bottom of the part of the source that is used.
        target: left, top, width, height of the rectangle that it fills.
        layout: whose H x W the result has.
        ground: brightness of the image outside of the rectangle, 0 (black) or 255 (white). Masks are zero there.
        scaled: width and height that the whole source is scaled to before rows above and below the box are cut off, as
            VGGT's public code does; None: the box alone is scaled.
        passes: width and height that the whole source is scaled to, one after the other and with OpenCV's filters,
            before the middle is taken, as Depth Anything 3's public code does; none: Pillow's bicubic scales.
    """

    source_size: tuple[int, int]
    box: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    layout: Layout
    ground: int = 0
    scaled: tuple[int, int] | None = None
    passes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def choose(cls, source_size: tuple[int, int], layout: Layout, mode: FitMode | None) -> Fit:
        """The fit of an image of `source_size` (width, height) to the layout.

        Without a mode the image is stretched, which is for rounding only: scaled so that one side is the engine's, the
        other must come within half a patch of the engine's. `FitMode.PUBLISHED` stands for VGGT's way; an image that it
        scales to less than the engine's height gets white above and below, as the smaller ones among images of
        different sizes do. `Fits.choose` says where that is allowed.

        Raises:
            UsageError: a size below 1; another aspect ratio and no mode; a size that VGGT's public code does not scale
                to the engine's.
        """
        (width, height), (W, H) = source_size, (layout.W, layout.H)
        if width < 1 or height < 1:
            raise UsageError("an image has no pixels", got=f"{width}x{height}", allowed="1x1 or more")
        whole = (0.0, 0.0, float(width), float(height))
        if mode is None:
            if not keeps_aspect(source_size, layout):
                raise UsageError(
                    f"the frames' aspect ratio is not the engine's {W}x{H} (width x height)",
                    got=f"frames of {width}x{height}",
                    allowed=f"a size that scales to {W}x{H}, up to {Layout.PATCH / 2:g} pixels on one side",
                    hint=f"--fit {'|'.join(TO_ANY_SIZE)}",
                )
            mode = FitMode.STRETCH
        if mode in (FitMode.PUBLISHED, FitMode.PUBLISHED_PAD):
            return cls._published(source_size, layout, pad=mode is FitMode.PUBLISHED_PAD)
        if mode is FitMode.STRETCH:
            return cls(source_size, whole, (0, 0, W, H), layout)
        wider = width * H > height * W
        if mode is FitMode.CROP:
            used = (height * W / H, float(height)) if wider else (float(width), width * H / W)
            left, top = (width - used[0]) / 2, (height - used[1]) / 2
            return cls(source_size, (left, top, width - left, height - top), (0, 0, W, H), layout)
        inner = (W, max(1, round(height * W / width))) if wider else (max(1, round(width * H / height)), H)
        return cls(source_size, whole, ((W - inner[0]) // 2, (H - inner[1]) // 2, *inner), layout)

    @classmethod
    def _published(cls, source_size: tuple[int, int], layout: Layout, pad: bool) -> Fit:
        scaled = scaled_as_vggt(source_size, layout.W, pad)
        rows = min(scaled[1], layout.W)
        if rows > layout.H or (pad and layout.W != layout.H):
            height, mode = (layout.W, FitMode.PUBLISHED_PAD) if pad else (rows, FitMode.PUBLISHED)
            raise UsageError(
                f"VGGT's public code brings a photo to another size than the engine's {layout.W}x{layout.H}"
                " (width x height)",
                got=f"a photo of {source_size[0]}x{source_size[1]}, for --fit {mode}",
                allowed=f"an engine of {layout.W}x{height}",
                hint=f"page4d-export --height {height} --width {layout.W}, or --fit {'|'.join(TO_ANY_SIZE)}",
            )
        rows_cut = (scaled[1] - rows) // 2
        per_row = source_size[1] / scaled[1]
        return cls(
            source_size=source_size,
            box=(0.0, rows_cut * per_row, float(source_size[0]), (rows_cut + rows) * per_row),
            target=((layout.W - scaled[0]) // 2, (layout.H - rows) // 2, scaled[0], rows),
            layout=layout,
            ground=255,
            scaled=scaled,
        )

    @classmethod
    def as_da3(cls, source_size: tuple[int, int], layout: Layout, side: int) -> Fit:
        """The fit of an image as Depth Anything 3's public code makes it: the longer side scaled to `side` pixels, both
        rounded to patches, the middle taken; `side_for` chooses `side`, with which the result covers the engine's."""
        sizes = passes(source_size, side)
        width, height = sizes[-1]
        left, top = (width - layout.W) // 2, (height - layout.H) // 2
        per_column, per_row = source_size[0] / width, source_size[1] / height
        return cls(
            source_size=source_size,
            box=(left * per_column, top * per_row, (left + layout.W) * per_column, (top + layout.H) * per_row),
            target=(0, 0, layout.W, layout.H),
            layout=layout,
            passes=sizes,
        )

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the result per pixel of the source, along x and y."""
        left, top, right, bottom = self.box
        return self.target[2] / (right - left), self.target[3] / (bottom - top)

    @property
    def shift(self) -> tuple[float, float]:
        """Where the source's corner (0, 0) lies in the result, x and y: a point goes to `scale * point + shift`."""
        return self.target[0] - self.scale[0] * self.box[0], self.target[1] - self.scale[1] * self.box[1]

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Which pixels of the result `[H,W]` show something of the source: those of `target`."""
        left, top, width, height = self.target
        shown = np.zeros((self.layout.H, self.layout.W), np.bool_)
        shown[top : top + height, left : left + width] = True
        return shown

    def image(self, source: Image.Image) -> NDArray[np.uint8]:
        """An RGB image of the source size, scaled as the fit says: uint8 `[H,W,3]`.

        Raises:
            UsageError: the image is of another size.
        """
        self._check("image", source.size)
        if self.passes:
            return self._scaled_as_da3(source)
        left, top, width, height = self.target
        box_left, box_top, box_right, box_bottom = self.box
        scaled = self.scaled or (width, height)
        if self.scaled is not None:
            box_top, box_bottom = 0, source.height
        # an axis a call: from 13 on Pillow takes the height first of some images that shrink, those more than twice as
        # tall as wide, which changes colours by a few steps; before, and so when VGGT was published, always the width
        colours = source if source.mode == "RGB" else source.convert("RGB")
        across = colours.resize(
            (width, source.height), Image.Resampling.BICUBIC, box=(box_left, 0, box_right, source.height)
        )
        inner = np.asarray(across.resize(scaled, Image.Resampling.BICUBIC, box=(0, box_top, width, box_bottom)))
        cut = (scaled[1] - height) // 2
        result = np.full((self.layout.H, self.layout.W, 3), self.ground, np.uint8)
        result[top : top + height, left : left + width] = inner[cut : cut + height]
        return result

    def _scaled_as_da3(self, source: Image.Image) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.asarray(source if source.mode == "RGB" else source.convert("RGB"))
        for width, height in self.passes:
            pixels = resize(pixels, width, height)
        top, left = (pixels.shape[0] - self.layout.H) // 2, (pixels.shape[1] - self.layout.W) // 2
        return pixels[top : top + self.layout.H, left : left + self.layout.W]

    def patch_mean(self, source: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Mean of a single-channel image over each patch, 0..255 -> 0..1: float32 `[P,1]`.

        Exact: the source is taken as constant over each of its pixels, zero outside, and integrated over the patch's
        area in float64.

        Args:
            source: uint8 `[rows, columns]`, of the source size.

        Raises:
            UsageError: the image is of another size.
        """
        rows, columns = self._overlaps
        self._check("single-channel image", source.shape[::-1])
        mean: NDArray[np.float64] = _product(rows, source) @ columns.T / 255
        return mean.astype(np.float32).reshape(-1, 1)

    def camera(self, source: Camera) -> Camera:
        """The camera of the fitted image.

        Raises:
            UsageError: the camera is of another size.
        """
        self._check("camera", (source.width, source.height))
        return source.resized(*self.scale, *self.shift, self.layout.W, self.layout.H)

    def source_camera(self, camera: Camera) -> Camera:
        """The camera of the source image, given that of the fitted one: the inverse of `camera`.

        Raises:
            UsageError: the camera is of another size than the engine's.
        """
        if (camera.width, camera.height) != (self.layout.W, self.layout.H):
            got, allowed = f"{camera.width}x{camera.height}", f"{self.layout.W}x{self.layout.H}"
            raise UsageError("the camera has another size than the engine's images", got=got, allowed=allowed)
        (scale_x, scale_y), (shift_x, shift_y) = self.scale, self.shift
        return camera.resized(1 / scale_x, 1 / scale_y, -shift_x / scale_x, -shift_y / scale_y, *self.source_size)

    @cached_property
    def _overlaps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`_overlap` of the patches with the source's rows, `[h, rows]`, and with its columns, `[w, columns]`."""
        (width, height), (left, top, right, bottom) = self.source_size, self.box
        rows = _overlap(self.layout.h, height, self.scale[1], self.shift[1], top, bottom)
        return rows, _overlap(self.layout.w, width, self.scale[0], self.shift[0], left, right)

    def sentence(self, kind: str) -> str:
        """What is done to images of the source size; `kind` is what they are, in the plural."""
        if self.passes:
            return self._da3_sentence(kind)
        left, top, right, bottom = self.box
        size, engine, (width, height) = self.source_size, (self.layout.W, self.layout.H), self.target[2:]
        steps = []
        if self.scaled is None and self.box != (0, 0, *size):
            steps.append(f"cut to their middle {right - left:.0f}x{bottom - top:.0f}")
        scaled = self.scaled or (width, height)
        if scaled != size or steps:
            fills = self.scaled is None and not steps and (width, height) == engine
            alone = "; each axis by itself" if fills and not keeps_aspect(size, self.layout) else ""
            steps.append(f"scaled to {by(scaled)} (bicubic{alone})")
        if scaled[1] > height:
            steps.append(f"cut to the middle {height} rows")
        if (width, height) != engine:
            steps.append(f"padded with {'white' if self.ground else 'black'} to {by(engine)}")
        how = ", as VGGT's public code does" if self.scaled is not None and steps else ""
        joined = " and ".join(filter(None, [", ".join(steps[:-1]), *steps[-1:]]))
        return f"{by(size)} {kind} were {joined or 'taken as they are'}{how}"

    def _da3_sentence(self, kind: str) -> str:
        sizes = [self.source_size, *self.passes]
        scaled = [by(size) for before, size in itertools.pairwise(sizes) if size != before]
        steps = [f"scaled to {' and then to '.join(scaled)} (OpenCV's area or cubic filter)"] if scaled else []
        if sizes[-1] != (self.layout.W, self.layout.H):
            steps.append(f"cut to their middle {self.layout.W}x{self.layout.H}")
        how = f"{' and '.join(steps)}, as {PhotoWay.DA3.value}'s public code does" if steps else "taken as they are"
        return f"{by(self.source_size)} {kind} were {how}"

    def _check(self, what: str, size: tuple[int, ...]) -> None:
        if tuple(size) != self.source_size:
            raise UsageError(
                f"the {what} has another size than the frames",
                got="x".join(map(str, size)),
                allowed="x".join(map(str, self.source_size)),
            )


def keeps_aspect(size: tuple[int, int], layout: Layout) -> bool:
    """Whether an image of this width and height, scaled so that one side is the layout's, has the other within half a
    patch of the layout's."""
    # |height * W / width - H| <= PATCH / 2, or the same for the other side, in integers
    (width, height), (W, H) = size, (layout.W, layout.H)
    return 2 * abs(height * W - width * H) <= Layout.PATCH * max(width, height)


def scaled_as_vggt(size: tuple[int, int], target: int, pad: bool = False) -> tuple[int, int]:
    """Width and height that VGGT's public code scales a photo to, before it cuts rows off or adds white.

    Args:
        size: width and height of the photo.
        target: pixels of the new width; with `pad`, of the new longer side.
        pad: the public code's mode "pad" rather than "crop".

    Raises:
        UsageError: a side would have no pixels, or the photo is far taller than wide.
    """
    width, height = size
    if pad and height > width:
        scaled = (_to_patches(width, target / height), target)
    else:
        scaled = (target, _to_patches(height, target / width))
    if min(scaled) == 0 or scaled[1] > _TALLEST * target:
        raise UsageError(
            "VGGT's public code cannot scale a photo of this aspect ratio",
            got=f"{width}x{height}, which would become {scaled[0]}x{scaled[1]}",
            allowed=f"a patch of {Layout.PATCH} pixels on each side, and at most {_TALLEST} times as tall as wide",
            hint=f"--fit {'|'.join(TO_ANY_SIZE)}",
        )
    return scaled


def _to_patches(side: int, scale: float) -> int:
    # in the public code's order of operations; a half is rounded to even
    return round(side * scale / Layout.PATCH) * Layout.PATCH


def _product(rows: NDArray[np.float64], source: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`rows @ source` in float64, without a copy of a large source in it, eight times as large."""
    step = max(1, _AT_ONCE // source.shape[1])
    if len(source) <= step:
        return rows @ source.astype(np.float64)
    result = np.zeros((len(rows), source.shape[1]))
    for begin in range(0, len(source), step):
        result += rows[:, begin : begin + step] @ source[begin : begin + step].astype(np.float64)
    return result


def _overlap(patches: int, pixels: int, scale: float, shift: float, low: float, high: float) -> NDArray[np.float64]:
    """The share of each patch's side that lies on each source pixel between `low` and `high`: `[patches, pixels]`."""
    edges = np.clip((np.arange(patches + 1) * Layout.PATCH - shift) / scale, low, high)
    pixel = np.arange(pixels)
    shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(shared, 0) * scale / Layout.PATCH, np.float64)
