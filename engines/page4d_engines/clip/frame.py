"""`Frame`: one image of a camera, its mask, or its keypoint map, wherever it is stored."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from page4d_engines.clip.levels import Channel


@dataclass(frozen=True)
class Header:
    """What a file says of an image before it is decoded.

    Attributes:
        size: width and height in pixels, upright.
        deep: whether it has 16 bits per channel.
        transparent: whether it has an alpha channel or transparent colours.
        damaged_exif: whether it has EXIF data of which nothing can be made.
    """

    size: tuple[int, int]
    deep: bool = False
    transparent: bool = False
    damaged_exif: bool = False


class Frame(Protocol):
    """An `ImageFile`, a `VideoFrame` or a `BagFrame`."""

    @property
    def name(self) -> str:
        """As errors call it."""

    @property
    def stem(self) -> str:
        """What the names of a timestep's frames, masks and keypoint maps have in common."""

    @property
    def file(self) -> pathlib.Path:
        """The file that holds it; of a bag perhaps a folder."""

    @property
    def is_whole_file(self) -> bool:
        """Whether the file holds nothing else, so that other programs can read the frame there."""

    def header(self, what: str) -> Header:
        """What is known before it is decoded; errors call it `what`."""

    def image(self, what: str, over_white: bool = False) -> Image.Image:
        """The image as RGB, upright; transparency is ignored, or the image laid over white."""

    def channel(self, what: str) -> Channel:
        """The image as a single channel, upright."""


class NumberedFrame:
    """What frames of a recording, a video or a bag's topic, have in common: they have numbers, and no file each.

    Attributes:
        number: of the frame, from 0 on.
    """

    number: int

    @property
    def is_whole_file(self) -> bool:
        """As `Frame.is_whole_file`: a recording holds many."""
        return False

    @property
    def stem(self) -> str:
        """What the names of a timestep's frames, masks and keypoint maps have in common: 6 digits, from 000000 on."""
        return f"{self.number:06d}"


Files = tuple[tuple[Frame, ...], ...]
"""`[V][timesteps]`."""
