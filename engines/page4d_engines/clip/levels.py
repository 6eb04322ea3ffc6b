"""`Channel`: a mask or a keypoint map; and `Levels`, which notices values that seem to mean something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_DARK = 128  # of 255: masks that never get there never say that anything rather moves than not
_FEW = 16  # different values that are neither black nor white, of labels; a soft or resized mask has more
_DEEP_DARK = 32  # of 255: 16-bit images that never get there hold fewer bits, 12 at most
_NAMED = 6


@dataclass(frozen=True)
class Channel:
    """A single-channel image.

    Attributes:
        values: uint8 `[H,W]`.
        peak: the largest value of a 16-bit image before it was scaled to 8; None for others.
        palette: whether the values come from colours of a palette.
        hidden: whether all is black, and the image differs in its transparency alone.
    """

    values: NDArray[np.uint8]
    peak: int | None = None
    palette: bool = False
    hidden: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> Channel:
        """Brightness, as a viewer on a black background shows it.

        Colours, those of a palette as well, become grey by the weights of ITU-R 601; what is transparent counts as
        black; 1, 2 and 4 bits are stretched to 0..255, and so are 16, to the nearest of 256 values.
        """
        if is_deep(image):
            deep = np.asarray(image)
            return cls(to_8_bits(deep), int(deep.max(initial=0)))
        palette = image.mode in ("P", "PA")
        if not has_alpha(image):
            return cls(np.asarray(image.convert("L")), palette=palette)
        grey, alpha = (np.asarray(part) for part in image.convert("RGBA").convert("LA").split())
        values = (grey.astype(np.uint16) * alpha + 127) // 255
        return cls(values.astype(np.uint8), palette=palette, hidden=not grey.any() and bool(np.ptp(alpha)))


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow holds an image as 16 (or 32) bits of grey; it would cut them off at 255."""
    return image.mode.startswith("I")


def to_8_bits(deep: NDArray[np.integer]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, to the nearest."""
    whole, rest = np.divmod(deep.astype(np.uint16, copy=False), np.uint16(257))
    return np.asarray(whole + (rest > 128), np.uint8)


def has_alpha(image: Image.Image) -> bool:
    """Whether an image says which of its parts are transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


@dataclass
class Levels:
    """What values the images of one kind have had so far.

    Attributes:
        kind: what the images are, in the plural.
    """

    kind: str
    _seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))
    _peak: int | None = None
    _palette: bool = False
    _hidden: bool = False

    def add(self, channel: Channel) -> None:
        """Another mask or keypoint map."""
        self._seen |= np.bincount(channel.values.ravel(), minlength=256) > 0
        if channel.peak is not None:
            self._peak = max(self._peak or 0, channel.peak)
        self._palette |= channel.palette
        self._hidden |= channel.hidden

    def add_image(self, image: Image.Image) -> None:
        """Another frame of 16 bits per channel, as 8-bit RGB."""
        self._seen[max(int(high) for _, high in image.getextrema())] = True  # type: ignore[misc]

    @property
    def dark_note(self) -> str | None:
        """Of 16-bit frames: a sentence if they are almost black."""
        brightest = self._brightest
        if brightest is None or brightest >= _DEEP_DARK:
            return None
        return (
            f"{self.kind} have 16 bits, and no value above 1/{256 // (brightest + 1)} of their range:"
            " if these are 10 or 12 bits, scale them to 16 first"
        )

    @property
    def notes(self) -> Iterator[str]:
        """Of masks or keypoint maps: sentences about values that look like labels."""
        brightest, values = self._brightest, np.flatnonzero(self._seen).tolist()
        between = [value for value in values if 0 < value < 255]
        colours = ", colours of a palette," if self._palette else ""
        if self._peak is not None and 0 < self._peak < 2**13:
            yield (
                f"the {self.kind} have 16 bits and no value above {self._peak} of 65535:"
                " they look like labels or 8-bit values; white is 65535 there"
            )
        elif brightest is not None and 0 < brightest < _DARK:
            what = f"only the values {_some(values)}{colours}" if len(values) <= _FEW else f"no value above {brightest}"
            yield f"the {self.kind} have {what} of 255: they look like labels; 255 is white, and 1 next to nothing"
        elif 0 < len(between) <= _FEW:
            what = f"only the values {_some(values)}{colours} of 255"
            yield (
                f"the {self.kind} have {what}:"
                " if these are labels, make what is meant 255; each counts as a share of 255"
            )
        if self._hidden:
            yield (
                f"some {self.kind} are black and differ in their transparency alone,"
                " which is taken for black, too: paint white what is meant"
            )

    @property
    def _brightest(self) -> int | None:
        values = np.flatnonzero(self._seen)
        return int(values[-1]) if values.size else None


def _some(values: list[int]) -> str:
    text = ", ".join(map(str, values[:_NAMED]))
    return f"{text}, ..." if len(values) > _NAMED else text
