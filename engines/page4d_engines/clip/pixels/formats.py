"""`PixelFormat`: how a camera's pixels lie in memory, and what they are as RGB."""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from page4d_engines.clip.pixels.bayer import LEAST, from_bayer
from page4d_engines.clip.pixels.yuv import from_packed, from_semiplanar

Bytes = npt.NDArray[np.uint8]


class PixelFormat(enum.Enum):
    """As the C++ runtime's `PixelFormat`. All have 8 bits per channel."""

    RGB8 = "rgb8"
    BGR8 = "bgr8"
    RGBA8 = "rgba8"
    BGRA8 = "bgra8"
    MONO8 = "mono8"
    NV12 = "nv12"
    NV21 = "nv21"
    YUYV = "yuyv"
    UYVY = "uyvy"
    BAYER_RGGB8 = "bayer_rggb8"
    BAYER_BGGR8 = "bayer_bggr8"
    BAYER_GBRG8 = "bayer_gbrg8"
    BAYER_GRBG8 = "bayer_grbg8"

    @property
    def channels(self) -> int:
        """Bytes of a pixel in the first plane."""
        if self in (PixelFormat.RGBA8, PixelFormat.BGRA8):
            return 4
        if self in (PixelFormat.RGB8, PixelFormat.BGR8):
            return 3
        return 2 if self in _PACKED else 1

    @property
    def is_bayer(self) -> bool:
        """Whether a pixel has one colour only."""
        return self in _RED

    def rows(self, height: int) -> int:
        """Rows of an image's bytes: of NV12 and NV21 those of the second plane lie behind those of the first."""
        return height + height // 2 if self in _SEMIPLANAR else height

    def size_needed(self, width: int, height: int) -> str | None:
        """What sizes the format has, in words, if this one is none of them."""
        if self in _SEMIPLANAR and (width % 2 or height % 2):
            return "an even width and height"
        if self in _PACKED and width % 2:
            return "an even width"
        if self in _RED and min(width, height) < LEAST:
            return f"at least {LEAST}x{LEAST}"
        return None

    def rgb(self, data: Bytes, width: int, height: int, pitch: int = 0) -> Bytes:
        """An image as RGB; alpha is left out.

        Args:
            data: its bytes, `[rows(height) * pitch]` or more.
            width: in pixels.
            height: in pixels; both are sizes that the format has.
            pitch: bytes from one row to the next; 0: no padding between rows.

        Returns:
            uint8, `[H,W,3]`; of orders of channels a view of `data`.
        """
        row, count = width * self.channels, self.rows(height)
        pitch = pitch or row
        rows = data[: count * pitch].reshape(count, pitch)[:, :row]
        if self in _SEMIPLANAR:
            return from_semiplanar(rows[:height], rows[height:], v_first=self is PixelFormat.NV21)
        if self in _PACKED:
            return from_packed(rows, luma_first=self is PixelFormat.YUYV)
        if self in _RED:
            return from_bayer(rows, *_RED[self])
        pixels = rows.reshape(height, width, self.channels)
        if self is PixelFormat.MONO8:
            return pixels.repeat(3, -1)
        return pixels[..., :3] if self in (PixelFormat.RGB8, PixelFormat.RGBA8) else pixels[..., 2::-1]


_SEMIPLANAR = (PixelFormat.NV12, PixelFormat.NV21)
_PACKED = (PixelFormat.YUYV, PixelFormat.UYVY)
_RED = {
    PixelFormat.BAYER_RGGB8: (0, 0),
    PixelFormat.BAYER_BGGR8: (1, 1),
    PixelFormat.BAYER_GBRG8: (1, 0),
    PixelFormat.BAYER_GRBG8: (0, 1),
}
"""Of Bayer patterns the row and the column of the first red pixel."""
