"""`TextModel`: cameras.txt, images.txt and points3D.txt, with all digits of every number."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from page4d_engines.results.formats.colmap.records import ColmapCamera, ColmapImage, ColmapPoints
from page4d_engines.results.formats.colmap.tracks import Seen


class TextModel:
    """The files of a model."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Of an existing folder."""
        self.files = [folder / f"{kind}.txt" for kind in ("cameras", "images", "points3D")]

    def write_cameras(self, cameras: Sequence[ColmapCamera]) -> None:
        """All of them."""
        lines = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"]
        lines += [
            _line((camera.number, "PINHOLE", camera.width, camera.height, *map(repr, camera.parameters)))
            for camera in cameras
        ]
        self.files[0].write_text("\n".join(lines) + "\n")

    def write_images(self, images: Sequence[ColmapImage], seen: Sequence[Seen]) -> None:
        """All of them, each with what it sees."""
        with self.files[1].open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("# two lines per image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME; X Y POINT3D_ID ..\n")
            for image, some in zip(images, seen, strict=True):
                file.write(_line((image.number, *map(repr, image.numbers), image.camera, image.name)) + "\n")
                places, points = some.places.tolist(), (some.points + 1).tolist()
                triples = (f"{x!r} {y!r} {point}" for (x, y), point in zip(places, points, strict=True))
                file.write(_line(triples) + "\n")

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
