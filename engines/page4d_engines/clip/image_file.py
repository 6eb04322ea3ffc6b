"""`ImageFile`: a frame that is an image file, turned as its EXIF orientation says."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile as PillowFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from page4d.errors import MissingBackendError, OutOfMemoryError, UsageError
from page4d_engines.clip.frame import Header
from page4d_engines.clip.levels import Channel, has_alpha, is_deep, to_8_bits
from page4d_engines.clip.names import readable

SUFFIXES = (".png", ".jpg", ".jpeg")
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
"""Read where pillow-heif is installed."""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
_OTHERS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
}
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112  # what its block begins with, a tag
_INTEGERS = {3: "H", 4: "I"}  # EXIF types
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
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
"""What Pillow raises for files that are no image, cut off, or damaged."""
# of Pillow's warnings about metadata none concerns the picture, and where warnings are errors they would end the
# reading half-way
_SILENT = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@dataclass(frozen=True)
class ImageFile:
    """An image file: PNG, JPEG, or HEIC, whatever its name says."""

    path: pathlib.Path

    @property
    def name(self) -> str:
        """As errors call it."""
        return readable(self.path.name)

    @property
    def file(self) -> pathlib.Path:
        """The file that holds it."""
        return self.path

    @property
    def is_whole_file(self) -> bool:
        """An image file is the frame."""
        return True

    @property
    def stem(self) -> str:
        """What the names of a timestep's frames, masks and keypoint maps have in common."""
        return readable(self.path.stem)

    def header(self, what: str) -> Header:
        """What the file says before it is decoded; errors call the image `what`.

        Raises:
            UsageError: the file is no image that can be read.
            MissingBackendError: it is in HEIC, and pillow-heif is not installed.
        """
        try:
            with _opened(self.path) as image:
                (width, height), (orientation, damaged) = image.size, _orientation(image)
                size = (height, width) if orientation >= 5 else (width, height)
                return Header(size, deep=_is_deep(image), transparent=has_alpha(image), damaged_exif=damaged)
        except DAMAGED as error:
            raise self._unreadable(what, error) from None

    def image(self, what: str, over_white: bool = False) -> Image.Image:
        """The image as RGB, turned upright; errors call it `what`.

        16 bits become 8, 65535 becomes 255. While it is decoded it takes 4 bytes a pixel, 8 where it is turned or not
        RGB, 16 where it is laid over white; a progressive JPEG 3 to 6 more.

        Args:
            what: a name for errors.
            over_white: whether an image with transparent parts is laid over white; otherwise their own colours show.

        Raises:
            UsageError: the file cannot be decoded.
            OutOfMemoryError: it is too large for the memory that is left.
        """
        image = self._upright(what)
        if is_deep(image):
            return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
        if over_white and has_alpha(image):
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            return white.convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")

    def channel(self, what: str) -> Channel:
        """The image as a single channel, turned upright; errors call it `what`.

        Raises:
            UsageError: the file cannot be decoded.
            OutOfMemoryError: it is too large for the memory that is left.
        """
        return Channel.of(self._upright(what))

    def steps(self, what: str) -> NDArray[np.uint16]:
        """A 16-bit grey image as it is stored, turned upright: uint16 `[height, width]`; errors call it `what`.

        Raises:
            UsageError: the file cannot be decoded, or is another kind of image.
            OutOfMemoryError: it is too large for the memory that is left.
        """
        image = self._upright(what)
        if image.mode not in ("I;16", "I;16B", "I"):  # what Pillow's versions call it
            raise UsageError(f"{what} is no 16-bit grey image", got=f"mode {image.mode}", allowed="a 16-bit grey PNG")
        return np.asarray(image).astype(np.uint16)

    def _upright(self, what: str) -> Image.Image:
        try:
            with _opened(self.path) as opened:
                turn = _ORIENTATIONS.get(_orientation(opened)[0])
                opened.load()
                return opened if turn is None else opened.transpose(turn)
        except MemoryError:
            raise OutOfMemoryError(
                f"{what} is too large for the memory that is left", got=self.path, hint="make the image smaller"
            ) from None
        except DAMAGED as error:
            raise self._unreadable(what, error) from None

    def _unreadable(self, what: str, error: BaseException) -> UsageError:
        reason = str(error).replace(str(self.path), self.name) or type(error).__name__
        reason = "no such file" if isinstance(error, FileNotFoundError) else reason
        return UsageError(
            f"{what} cannot be read: {reason}", got=readable(self.path), allowed="a whole PNG or JPEG image"
        )


def _opened(path: pathlib.Path) -> PillowFile:
    """The file with its header read.

    Its format's class reads it, for `Image.open` has a limit of its own to an image's size.
    """
    if not warnings.filters or warnings.filters[0] != _SILENT:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a FIFO would be waited for, a device may never end
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(path)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(path)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return _heic_class(path)(path)
    kind = "WebP" if start[8:12] == b"WEBP" else "AVIF" if start[4:12] == b"ftypavif" else None
    kind = kind or next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), None)
    raise OSError(
        f"cannot identify image file '{readable(path.name)}'"
        if kind is None
        else f"it is a {kind} image, whatever its name says"
    )


def _heic_class(path: pathlib.Path) -> Any:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        what = "HEIC images are decoded by pillow-heif, which is not installed"
        raise MissingBackendError(what, got=readable(path), hint='pip install "page4d[heic]"') from None
    return HeifImageFile


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True


def _is_deep(image: PillowFile) -> bool:
    return is_deep(image) or any("16" in str(tile[3]) for tile in image.tile if tile[0] == "zip")


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """The EXIF orientation as the header has it, 1 to 8, and whether EXIF data is there that cannot be read.

    By a reader of our own: Pillow's gives up at the first entry that is damaged (before 12.1), and would decode all of
    a PNG to find it.
    """
    block = bytes(image.info.get("exif") or b"")
    while block.startswith(_EXIF):
        block = block[len(_EXIF) :]
    if not block:
        return 1, False
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    try:
        if order is None:
            raise ValueError("no TIFF header")
        (begin,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, begin)
        for entry in range(begin + 2, begin + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == _ORIENTATION and kind in _INTEGERS:
                (value,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", block, entry + 8)
                return (value if value in _ORIENTATIONS else 1), False
    except (ValueError, struct.error):
        return 1, True
    return 1, False
