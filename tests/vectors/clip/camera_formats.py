"""Images as cameras give them, at the engines' size: `page4d_engines.clip.pixels`, then `page4d_engines.clip.fit`."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
from PIL import Image

from page4d_engines.clip.pixels.formats import PixelFormat

# (source, engine, mode) of sizes (width, height): nothing scaled, one axis, both; more than a vector and more than a
# strip of rows; with and without pixels left over
FITS = [
    ((56, 42), (56, 42), "stretch"),
    ((56, 64), (56, 42), "stretch"),
    ((38, 42), (56, 42), "stretch"),
    ((102, 70), (56, 42), "crop"),
    ((130, 34), (56, 42), "pad"),
    ((112, 84), (56, 42), "published-da3"),
    ((100, 76), (56, 42), "published-da3"),
]
ODD = [((37, 23), (56, 42), "crop"), ((3, 3), (14, 14), "stretch"), ((99, 51), (56, 42), "pad")]
"""Sizes that Bayer patterns have."""


def raw(pixels, width, height, seed):
    """uint8 `[rows, bytes of a row]`: byte x of row y is ((y row + x + 1000003 seed) 2654435761 mod 2^32) / 2^24."""
    row = width * pixels.channels
    y, x = np.ogrid[: pixels.rows(height), :row]
    return ((((y * row + x + 1000003 * seed) * 2654435761) % 2**32) >> 24).astype(np.uint8)


def camera_formats(fitting):
    """Cases of every format; `fitting` gives the `Fit` of a source, an engine and a mode."""
    cases = []
    formats = [kind for kind in PixelFormat if kind.channels < 3 and kind is not PixelFormat.MONO8]
    for seed, (kind, (source, engine, mode)) in enumerate(itertools.product(formats, FITS + ODD)):
        if kind.size_needed(*source):
            continue
        rgb = kind.rgb(raw(kind, *source, seed).ravel(), *source)
        fitted = fitting(source, engine, mode).image(Image.fromarray(rgb))
        case = {"format": kind.value, "source": source, "engine": engine, "mode": mode, "seed": seed}
        cases.append({**case, "rgb": zlib.crc32(rgb.tobytes()), "crc32": zlib.crc32(fitted.tobytes())})
    return cases
