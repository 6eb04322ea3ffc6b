"""Clips on disk, and what is refused of them."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from page4d.errors import UsageError

T, V, W, H = 7, 2, 48, 36
"""Of the rendered clip that the tests of clips share."""


def refusal(call, *parts, kind=UsageError):
    """The message of the error that `call` ends in, which must hold all parts."""
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert str(part) in str(caught.value), f"{part!r} not in:\n{caught.value}"
    return str(caught.value)


def images(folder, *names, size=(20, 16), value=60):
    """Write images of one colour, `p0.png` to `p2.png` where no names are given; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("p0.png", "p1.png", "p2.png"):
        Image.new("RGB", size, (value, 9, 9)).save(folder / name)
    return folder


def keypoints_for(folder):
    """Give a clip keypoint maps: its masks, inverted."""
    shutil.copytree(folder / "masks", folder / "keypoints")
    for file in (folder / "keypoints").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)


def write_png(path, width, height, bits, data, grey=False):
    """A PNG of any size and bits per channel, whatever its data are: Pillow writes neither all bits nor wrong sizes."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0 if grey else 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
