"""`BinaryModel`: cameras.bin, images.bin and points3D.bin, little-endian."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.formats.colmap.records import ColmapCamera, ColmapImage, ColmapPoints
from page4d_engines.results.formats.colmap.tracks import Seen

_PINHOLE = 1  # of COLMAP's camera models
_AT_ONCE = 1 << 14  # points that are laid out at a time
_OBSERVATION = np.dtype([("place", "<f8", 2), ("point", "<u8")])  # packed, as the file has it
_POINT = np.dtype([("number", "<u8"), ("place", "<f8", 3), ("colour", "u1", 3), ("error", "<f8"), ("length", "<u8")])
_TRACK = np.dtype([("image", "<u4"), ("place", "<u4")])


class BinaryModel:
    """The files of a model."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Of an existing folder."""
        self.files = [folder / f"{kind}.bin" for kind in ("cameras", "images", "points3D")]

    def write_cameras(self, cameras: Sequence[ColmapCamera]) -> None:
        """All of them."""
        parts = [struct.pack("<Q", len(cameras))]
        for camera in cameras:
            parts.append(struct.pack("<IiQQ", camera.number, _PINHOLE, camera.width, camera.height))
            parts.append(struct.pack("<4d", *camera.parameters))
        self.files[0].write_bytes(b"".join(parts))

    def write_images(self, images: Sequence[ColmapImage], seen: Sequence[Seen]) -> None:
        """All of them, each with what it sees."""
        with self.files[1].open("wb") as file:
            file.write(struct.pack("<Q", len(images)))
            for image, some in zip(images, seen, strict=True):
                observations = np.empty(len(some.points), _OBSERVATION)
                observations["place"], observations["point"] = some.places, some.points + 1
                file.write(struct.pack("<I7dI", image.number, *image.numbers, image.camera))
                file.write(image.name.encode("utf-8", "surrogateescape") + b"\0")
                file.write(struct.pack("<Q", len(observations)) + observations.tobytes())

    def write_points(self, points: ColmapPoints) -> None:
        """All of them."""
        tracks = np.empty(len(points.track_images), _TRACK)
        tracks["image"], tracks["place"] = points.track_images, points.track_places
        ends = np.cumsum(points.lengths)
        with self.files[2].open("wb") as file:
            file.write(struct.pack("<Q", len(points.places)))
            for begin in range(0, len(points.places), _AT_ONCE):
                some = slice(begin, begin + _AT_ONCE)
                lengths = points.lengths[some]
                heads = np.empty(len(lengths), _POINT)
                heads["number"] = np.arange(begin, begin + len(lengths)) + 1
                heads["place"], heads["colour"] = points.places[some], points.colours[some]
                heads["error"], heads["length"] = points.errors[some], lengths
                first = int(ends[begin] - points.lengths[begin])
                file.write(_interleaved(heads, tracks[first : first + int(lengths.sum())], lengths))


def _interleaved(heads: NDArray[np.void], tracks: NDArray[np.void], lengths: NDArray[np.int64]) -> bytes:
    """Each head followed by its part of the tracks."""
    is_head = np.ones(len(heads) * _POINT.itemsize + len(tracks) * _TRACK.itemsize, np.bool_)
    # of the n-th track's bytes: those of all tracks before it, and of all heads up to its own
    place = np.arange(len(tracks)) * _TRACK.itemsize
    place += (np.repeat(np.arange(len(heads)), lengths) + 1) * _POINT.itemsize
    is_head[(place[:, None] + np.arange(_TRACK.itemsize)).ravel()] = False
    content = np.empty(is_head.size, np.uint8)
    content[is_head] = np.frombuffer(heads.tobytes(), np.uint8)
    content[~is_head] = np.frombuffer(tracks.tobytes(), np.uint8)
    return content.tobytes()
