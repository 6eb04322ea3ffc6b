"""`TextModel`: cameras.txt, images.txt and points3D.txt, with all digits of every number."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.formats.colmap.records import ColmapCamera, ColmapImage, ColmapPoints


class TextModel:
    """The files of a model, written image by image: only one image's observations are in memory."""

    def __init__(self, folder: pathlib.Path, images: int) -> None:
        """Begin a model of so many images in an existing folder."""
        self.files = [folder / f"{kind}.txt" for kind in ("cameras", "images", "points3D")]
        self._images = self.files[1].open("wb")
        self._images.write(b"# two lines per image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME; X Y POINT3D_ID ..\n")
        self._images.write(b"# %d images\n" % images)

    def close(self) -> None:
        """End the images."""
        self._images.close()

    def write_cameras(self, cameras: Sequence[ColmapCamera]) -> None:
        """All of them."""
        lines = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"]
        lines += [
            _line((camera.number, "PINHOLE", camera.width, camera.height, *map(repr, camera.parameters)))
            for camera in cameras
        ]
        self.files[0].write_text("\n".join(lines) + "\n")

    def write_image(self, image: ColmapImage, seen: NDArray[np.float64], points: NDArray[np.int64]) -> None:
        """The next image, with where it sees points, `[n,2]` in pixels, and their numbers `[n]`."""
        pose = _line((image.number, *map(repr, image.numbers), image.camera, image.name))
        triples = zip(seen[:, 0].tolist(), seen[:, 1].tolist(), points.tolist(), strict=True)
        observations = " ".join(f"{x!r} {y!r} {point}" for x, y, point in triples)
        self._images.write(f"{pose}\n{observations}\n".encode("utf-8", "surrogateescape"))

    def write_points(self, points: ColmapPoints) -> None:
        """All of them."""
        ends = np.cumsum(points.lengths)
        with self.files[2].open("w") as file:
            file.write("# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX ..\n")
            for index, end in enumerate(ends.tolist()):
                track = slice(end - int(points.lengths[index]), end)
                pairs = zip(points.track_images[track].tolist(), points.track_places[track].tolist(), strict=True)
                place = map(repr, points.places[index].astype(np.float64).tolist())
                head = (index + 1, *place, *points.colours[index].tolist(), repr(float(points.errors[index])))
                file.write(_line((*head, *(number for pair in pairs for number in pair))) + "\n")


def _line(parts: Iterable[object]) -> str:
    return " ".join(map(str, parts))
