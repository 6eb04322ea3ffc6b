"""`Still`: a frame that is an image file, turned as its EXIF orientation says."""

from __future__ import annotations

import pathlib
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from page4d.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_TURN = Image.Transpose
# by value of the EXIF orientation; from 5 on width and height change places
_ORIENTATIONS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
# what Pillow raises for files that are no image, cut off, or damaged
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Still:
    """An image file."""

    path: pathlib.Path

    @property
    def name(self) -> str:
        """As errors call it."""
        return self.path.name

    @property
    def file(self) -> pathlib.Path:
        """On disk."""
        return self.path

    @property
    def stem(self) -> str:
        """What frames, masks and keypoint maps of one time have in common."""
        return self.path.stem

    def size(self, what: str) -> tuple[int, int]:
        """Width and height, turned, from the header alone; `what` it is in an error.

        Raises:
            UsageError: the file is no image that can be read.
        """
        try:
            with Image.open(self.path, formats=_FORMATS) as image:
                width, height = image.size
                return (height, width) if _orientation(image) >= 5 else (width, height)
        except _DAMAGED as error:
            raise self._unreadable(what, error) from None

    def load(self, what: str, mode: str) -> Image.Image:
        """The image, turned, as `RGB` or `L`; `what` it is in an error.

        Raises:
            UsageError: the file cannot be decoded.
        """
        try:
            with Image.open(self.path, formats=_FORMATS) as opened:
                turn = _ORIENTATIONS.get(_orientation(opened))
                image: Image.Image = opened if turn is None else opened.transpose(turn)
                if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255 instead of scaling
                    image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
                return image.convert(mode)
        except _DAMAGED as error:
            raise self._unreadable(what, error) from None

    def _unreadable(self, what: str, error: BaseException) -> UsageError:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).replace(str(self.path), self.name) or type(error).__name__
        return UsageError(f"{what} cannot be read: {reason}", got=self.path, allowed="a whole PNG or JPEG image")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation as the header has it, 1 to 8; `image.getexif()` would decode all of a PNG to find it."""
    exif = Image.Exif()
    if block := image.info.get("exif"):
        exif.load(block)
    value = exif.get(0x0112, 1)
    return value if value in _ORIENTATIONS else 1
