"""`Frame`: one image of a camera, its mask, or its keypoint map, wherever it is stored."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from page4d_engines.clip.levels import Channel


@dataclass(frozen=True)
class Header:
    """What is known of an image without decoding it.

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
    """An `ImageFile` or a `VideoFrame`."""

    @property
    def name(self) -> str:
        """As errors call it."""

    @property
    def stem(self) -> str:
        """What frames, masks and keypoint maps of one time have in common."""

    @property
    def file(self) -> pathlib.Path:
        """On disk."""

    def header(self, what: str) -> Header:
        """What is known without decoding; `what` it is in an error."""

    def image(self, what: str) -> Image.Image:
        """The image as RGB, upright, its transparency passed over."""

    def channel(self, what: str) -> Channel:
        """The image as a single channel, upright."""


Files = tuple[tuple[Frame, ...], ...]  # [V][times]
