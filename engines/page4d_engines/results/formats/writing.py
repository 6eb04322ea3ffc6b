"""What writers of formats are told beside the scene, and what they answer."""

from __future__ import annotations

import dataclasses
import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class FormatOptions:
    """What is asked of formats beside their points.

    Attributes:
        shared_camera: whether photos of one folder and one size share a camera in a COLMAP model.
        place: where the files will lie when all is written: they name photos relative to it. None: where they are.
    """

    shared_camera: bool = False
    place: pathlib.Path | None = None

    def inside(self, name: str) -> FormatOptions:
        """Of a folder in the folder."""
        return self if self.place is None else dataclasses.replace(self, place=self.place / name)


DEFAULTS = FormatOptions()


@dataclass(frozen=True)
class Written:
    """Files of a scene, and what is not in them.

    Attributes:
        files: that were written.
        warnings: sentences.
    """

    files: list[pathlib.Path]
    warnings: tuple[str, ...] = ()
