"""Messages of images as pictures: `sensor_msgs/Image` of 8 bits, `sensor_msgs/CompressedImage` of JPEG or PNG."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile as PillowFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from page4d.errors import OutOfMemoryError, UsageError
from page4d_engines.clip.image_file import DAMAGED
from page4d_engines.clip.levels import is_deep
from page4d_engines.clip.pixels.formats import PixelFormat

_FORMATS = {pixels.value: pixels for pixels in PixelFormat}
_FORMATS |= {"yuv422_yuy2": PixelFormat.YUYV, "yuv422": PixelFormat.UYVY}  # older names
ENCODINGS = ", ".join(_FORMATS)
_DEEP = ("16", "32", "64")


def size_of(message: Any, what: str) -> tuple[int, int]:
    """Width and height of a message's image, which is checked as far as that needs no decoding; errors call it `what`.

    Raises:
        UsageError: an encoding that is not read, rows or data that are too short, no PNG or JPEG.
    """
    if hasattr(message, "format"):
        return _opened(message, what).size
    encoding, width, height = str(message.encoding), int(message.width), int(message.height)
    pixels = _format_of(encoding, what)
    row, rows = width * pixels.channels, pixels.rows(height)
    if not width or not height:
        raise UsageError(f"{what} has no pixels", got=f"{width}x{height}", allowed="an image")
    if needed := pixels.size_needed(width, height):
        raise UsageError(
            f"{what} has a size that its encoding has not", got=f"{encoding} {width}x{height}", allowed=needed
        )
    if message.step < row:
        raise UsageError(
            f"{what} has a step shorter than a row",
            got=f"{message.step} bytes, {encoding} {width}x{height}",
            allowed=f"at least {row} bytes",
        )
    if len(message.data) < message.step * rows:
        raise UsageError(
            f"{what} ends too early",
            got=f"{len(message.data)} bytes, {encoding} {width}x{height}",
            allowed=f"{rows} rows of {message.step} bytes",
        )
    return width, height


def picture_of(message: Any, what: str) -> Image.Image:
    """A message's image, RGB; alpha is left out, as cameras fill it with anything. Errors call it `what`.

    Raises:
        UsageError: as `size_of`, or data that cannot be decoded.
        OutOfMemoryError: the image is too large for the memory that is left.
    """
    width, height = size_of(message, what)
    if hasattr(message, "format"):
        opened = _opened(message, what)
        try:
            return opened.convert("RGB")
        except MemoryError:
            raise _too_large(width, height, what) from None
        except DAMAGED as error:
            raise UsageError(f"{what} cannot be decoded: {error}", allowed="a whole PNG or JPEG image") from None
    pixels = _format_of(str(message.encoding), what)
    try:
        return Image.fromarray(pixels.rgb(message.data, width, height, int(message.step)))
    except MemoryError:
        raise _too_large(width, height, what) from None


def is_raw(message: Any) -> bool:
    """Whether a message's image is a Bayer pattern, of which a recording may have the colours, too."""
    pixels = _FORMATS.get(str(getattr(message, "encoding", "")))
    return pixels is not None and pixels.is_bayer


def _format_of(encoding: str, what: str) -> PixelFormat:
    if encoding in _FORMATS:
        return _FORMATS[encoding]
    is_measured = any(bits in encoding for bits in _DEEP)
    raise UsageError(
        f"{what} is of more than 8 bits per channel: depth or raw data" if is_measured else f"{what} cannot be read",
        got=f"encoding {encoding!r}",
        allowed=ENCODINGS,
        hint=None if is_measured else "image_proc makes rgb8 of other encodings; then record its topic",
    )


def _too_large(width: int, height: int, what: str) -> OutOfMemoryError:
    return OutOfMemoryError(f"{what} is too large for the memory that is left", got=f"{width}x{height} pixels")


def _opened(message: Any, what: str) -> PillowFile:
    """A compressed image with its header read, by the class of its format: `Image.open` limits an image's size."""
    data = message.data.tobytes()
    kind: type[PillowFile] | None = None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = PngImageFile
    elif data.startswith(b"\xff\xd8\xff"):
        kind = JpegImageFile
    if kind is None:
        raise UsageError(
            f"{what} cannot be read", got=f"format {str(message.format)!r}", allowed="JPEG or PNG of 8 bits"
        )
    try:
        opened = kind(io.BytesIO(data))
    except DAMAGED as error:
        raise UsageError(f"{what} cannot be decoded: {error}", allowed="a whole PNG or JPEG image") from None
    if is_deep(opened) or any("16" in str(tile[3]) for tile in opened.tile if tile[0] == "zip"):
        raise UsageError(
            f"{what} is of more than 8 bits per channel: depth or raw data",
            got=f"format {str(message.format)!r}",
            allowed="JPEG or PNG of 8 bits",
        )
    return opened
