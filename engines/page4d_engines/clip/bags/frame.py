"""`BagFrame`: one message of images."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from PIL import Image

from page4d_engines.clip.bags.bag import Bag, Place
from page4d_engines.clip.bags.picture import picture_of
from page4d_engines.clip.frame import Header, NumberedFrame
from page4d_engines.clip.levels import Channel


@dataclass(frozen=True)
class BagFrame(NumberedFrame):
    """An image of a topic.

    Attributes:
        bag: that it was recorded in.
        topic: that it was published on.
        number: of its topic's images, by their stamps.
        stamp: of its header, in nanoseconds.
        place: where in the bag it is.
        size: width and height.
    """

    bag: Bag
    topic: str
    number: int
    stamp: int
    place: Place
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.stem} of {self.topic}"

    @property
    def file(self) -> pathlib.Path:
        """The bag: a file or a folder."""
        return self.bag.path

    def header(self, what: str) -> Header:
        """Width and height, as read when the bag was opened."""
        return Header(self.size)

    def image(self, what: str, over_white: bool = False) -> Image.Image:
        """The image as RGB; errors call it `what`. Images of bags have no transparency to lay over white.

        Raises:
            UsageError: it cannot be read or decoded.
        """
        return picture_of(self.bag.message(self.topic, self.place, what), what)

    def channel(self, what: str) -> Channel:
        """The image as a single channel; errors call it `what`.

        Raises:
            UsageError: it cannot be read or decoded.
        """
        return Channel.of(self.image(what))
