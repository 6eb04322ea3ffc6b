"""`AbsentFrame`: in place of the frame that a camera does not have of a timestep."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from page4d_engines.clip.frame import Files, Frame, Header
from page4d_engines.clip.levels import Channel
from page4d_engines.clip.names import listed


@dataclass(frozen=True)
class AbsentFrame:
    """A `Frame` that shows nothing: black, of the size of another frame of its camera.

    Attributes:
        stem: name of the timestep.
        neighbour: a frame that the camera has.
    """

    stem: str
    neighbour: Frame

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.stem} (absent)"

    @property
    def file(self) -> pathlib.Path:
        """The file of the neighbour: it belongs to the same camera."""
        return self.neighbour.file

    @property
    def is_whole_file(self) -> bool:
        """There is no file of it."""
        return False

    def header(self, what: str) -> Header:
        """The size of the neighbour, and nothing else of it."""
        return Header(self.neighbour.header(what).size)

    def image(self, what: str, over_white: bool = False) -> Image.Image:
        """Black."""
        return Image.new("RGB", self.header(what).size)

    def channel(self, what: str) -> Channel:
        """Zeros."""
        return Channel(np.zeros(self.header(what).size[::-1], np.uint8))


def filled(columns: Sequence[Sequence[Frame | None]], names: Sequence[Sequence[str]]) -> Files:
    """Frames by camera and timestep, `[V][timesteps]`, with an `AbsentFrame` where there is None.

    Args:
        columns: `[V][timesteps]`, at least one frame of each camera.
        names: of the timesteps in each camera, for absent frames.
    """
    files = []
    for column, stems in zip(columns, names, strict=True):
        neighbour = next(frame for frame in column if frame is not None)
        frames: list[Frame] = []
        for frame, stem in zip(column, stems, strict=True):
            neighbour = frame or neighbour
            frames.append(frame or AbsentFrame(stem, neighbour))
        files.append(tuple(frames))
    return tuple(files)


def absence_notes(names: Sequence[str], files: Files) -> Iterator[str]:
    """A sentence for each camera that lacks frames."""
    for name, column in zip(names, files, strict=True):
        absent = [frame.stem for frame in column if isinstance(frame, AbsentFrame)]
        if absent:
            yield f"camera {name} has no image at {len(absent)} of {len(column)} times: {listed(absent)}"
