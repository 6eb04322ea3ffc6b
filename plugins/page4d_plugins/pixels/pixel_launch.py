"""From a camera's image to the launches that bring it to the engines' size, as `launch_plan` for attention.

No torch, Triton or GPU.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from page4d.errors import UsageError
from page4d_plugins.launch_plan import Launch, Ref, Value
from page4d_plugins.pixels.resize_weights import axis

_BLOCK = 512  # pixels, or bytes of a row, of a block
_LIMIT = 1 << 31
_ALIGNED = 256  # bytes, of parts of the workspace


class PixelKernel(enum.Enum):
    """The kernels of cameras' images. The value is the name in the pack."""

    CHANNELS = "pixels_channels"
    """RGB of pixels that have their channels in some order, or one."""
    SEMIPLANAR = "pixels_semiplanar"
    """RGB of NV12 and NV21."""
    PACKED = "pixels_packed"
    """RGB of YUYV and UYVY."""
    BAYER = "pixels_bayer"
    """RGB of Bayer patterns."""
    ACROSS = "across"
    """The resize of rows."""
    DOWN = "down"
    """The resize of columns, and what lies around them."""

    @property
    def constants(self) -> dict[str, int | bool]:
        """Compile-time constants, by name."""
        layouts = (PixelKernel.CHANNELS, PixelKernel.SEMIPLANAR, PixelKernel.PACKED, PixelKernel.BAYER)
        return {"LAYOUT": layouts.index(self), "BLOCK": _BLOCK} if self in layouts else {"BLOCK": _BLOCK}

    @property
    def unused(self) -> set[str]:
        """Parameters that the kernel has for others of its function."""
        used = _USED.get(self)
        return set() if used is None else {name for names in _USED.values() for name in names} - set(used)


_USED = {
    PixelKernel.CHANNELS: ("step", "red", "green", "blue"),
    PixelKernel.SEMIPLANAR: ("CHROMA", "chroma_pitch", "u_at", "v_at"),
    PixelKernel.PACKED: ("y_at", "u_at", "v_at"),
    PixelKernel.BAYER: ("red_row", "red_column"),
}

FORMATS: dict[str, tuple[PixelKernel, dict[str, int]]] = {
    "rgb8": (PixelKernel.CHANNELS, {"step": 3, "red": 0, "green": 1, "blue": 2}),
    "bgr8": (PixelKernel.CHANNELS, {"step": 3, "red": 2, "green": 1, "blue": 0}),
    "rgba8": (PixelKernel.CHANNELS, {"step": 4, "red": 0, "green": 1, "blue": 2}),
    "bgra8": (PixelKernel.CHANNELS, {"step": 4, "red": 2, "green": 1, "blue": 0}),
    "mono8": (PixelKernel.CHANNELS, {"step": 1, "red": 0, "green": 0, "blue": 0}),
    "nv12": (PixelKernel.SEMIPLANAR, {"u_at": 0, "v_at": 1}),
    "nv21": (PixelKernel.SEMIPLANAR, {"u_at": 1, "v_at": 0}),
    "yuyv": (PixelKernel.PACKED, {"y_at": 0, "u_at": 1, "v_at": 3}),
    "uyvy": (PixelKernel.PACKED, {"y_at": 1, "u_at": 0, "v_at": 2}),
    "bayer_rggb8": (PixelKernel.BAYER, {"red_row": 0, "red_column": 0}),
    "bayer_bggr8": (PixelKernel.BAYER, {"red_row": 1, "red_column": 1}),
    "bayer_gbrg8": (PixelKernel.BAYER, {"red_row": 1, "red_column": 0}),
    "bayer_grbg8": (PixelKernel.BAYER, {"red_row": 0, "red_column": 1}),
}
"""By name, which is that of ROS: the kernel and where it finds what."""


class Picture(NamedTuple):
    """A camera's image.

    Attributes:
        pixels: a name of `FORMATS`.
        width, height: in pixels; such as the format has.
        pitch: bytes from one row to the next.
        chroma_pitch: the same of the second plane, of NV12 and NV21.
    """

    pixels: str
    width: int
    height: int
    pitch: int
    chroma_pitch: int = 0


class Place(NamedTuple):
    """Where a camera's image lies in the engines' image, as `page4d_engines.clip.fit.Fit` has it.

    Attributes:
        size: width and height of the engines' images.
        box: left, top, right, bottom of the part of the source that is used.
        target: left, top, width, height of the rectangle that it fills.
        ground: brightness outside of the rectangle.
        scaled_height: rows that the whole source becomes before those above and below the rectangle's are cut off;
            None: the box alone is scaled.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    ground: int = 0
    scaled_height: int | None = None


class PixelPlan(NamedTuple):
    """The launches of an image, in order.

    Their addresses by name: `source`, and of NV12 and NV21 `chroma`; `workspace`, 256-aligned; the names of `tables`;
    `target`, uint8 `[H,W,3]`.

    Attributes:
        launches: in order.
        workspace: bytes.
        tables: int32, to be copied to the GPU once.
    """

    launches: tuple[Launch, ...]
    workspace: int
    tables: dict[str, npt.NDArray[np.int32]]


def pixel_plan(picture: Picture, place: Place) -> PixelPlan:
    """How an image comes to the engines' size.

    Raises:
        UsageError: a format that is not known, an image that is too large for the kernels' 32-bit offsets.
    """
    if picture.pixels not in FORMATS:
        raise UsageError("a format of pixels is not known", got=picture.pixels, allowed=", ".join(FORMATS))
    (width, height), (left, top, columns, rows) = (picture.width, picture.height), place.target
    if max(width * height, 3 * columns * height, 3 * place.size[0] * place.size[1]) + _BLOCK >= _LIMIT:
        raise UsageError("an image is too large for the kernels", got=f"{width}x{height}", allowed="2^31 pixels")
    x = axis(width, place.box[0], place.box[2], columns, 0, columns)
    if place.scaled_height is None:
        y = axis(height, place.box[1], place.box[3], rows, 0, rows)
    else:
        cut = (place.scaled_height - rows) // 2
        y = axis(height, 0, height, place.scaled_height, cut, cut + rows)
    begin = int(y.first[0])
    kept = y.stop - begin
    tables = {"x_first": x.first, "x_weights": x.weights, "y_first": y.first - begin, "y_weights": y.weights}
    rgb, between = Ref("workspace"), Ref("workspace", _aligned(3 * width * height))
    kernel, where = FORMATS[picture.pixels]
    convert: dict[str, Value] = dict.fromkeys(kernel.unused)
    convert |= {"SOURCE": Ref("source"), "RGB": rgb, "width": width, "height": height, "pitch": picture.pitch, **where}
    if kernel is PixelKernel.SEMIPLANAR:
        convert |= {"CHROMA": Ref("chroma"), "chroma_pitch": picture.chroma_pitch}
    across: dict[str, Value] = {"RGB": rgb, "FIRST": Ref("x_first"), "WEIGHTS": Ref("x_weights"), "OUT": between}
    across |= {"most": x.weights.shape[1], "source": width, "skipped": begin, "width": columns}
    down: dict[str, Value] = {"RGB": between, "FIRST": Ref("y_first"), "WEIGHTS": Ref("y_weights")}
    down |= {"TARGET": Ref("target"), "most": y.weights.shape[1], "source": kept, "left": left, "top": top}
    down |= {"width": columns, "height": rows, "columns": place.size[0], "ground": place.ground}
    launches = (
        Launch(kernel.value, (_blocks(width * height), 1, 1), convert),
        _by_rows(PixelKernel.ACROSS, kept, 3 * columns, across),
        _by_rows(PixelKernel.DOWN, place.size[1], 3 * place.size[0], down),
    )
    return PixelPlan(launches, between.offset + _aligned(3 * columns * kept), tables)


def _by_rows(kernel: PixelKernel, rows: int, row_bytes: int, values: dict[str, Value]) -> Launch:
    blocks = _blocks(row_bytes)
    return Launch(kernel.value, (rows * blocks, 1, 1), values | {"blocks": blocks})


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
