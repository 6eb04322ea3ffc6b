"""`Summary`: what one run did, as `summary.json` has it and `report.html` shows it."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable
from typing import Any

import msgspec

from page4d.errors import UsageError
from page4d.files import OutputKind, write_atomically
from page4d.system.plain_text import json_document
from page4d_engines.results.made_by import MadeBy
from page4d_engines.results.scene.prediction_summary import PredictionSummary
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.world_summary import AlignmentSummary, MetricSummary

SUMMARY, REPORT = "summary.json", "report.html"


class WindowSummary(msgspec.Struct, frozen=True):
    """One window of T timesteps: what came out of it."""

    name: str
    first_frame: str
    last_frame: str
    file: str
    """The `.safetensors` file, relative to the output folder, with `/`."""
    seconds: float
    """From the first stage's start to the last one's end."""
    mask_mean: dict[str, float | None]
    """By camera: mean probability that a patch is dynamic; None where the mask holds a value that is not a number.
    Empty without a mask; without a camera that has no image."""
    overlays: list[str] = []
    """PNG files, relative to the output folder, with `/`."""
    predictions: PredictionSummary | None = None
    """Point cloud, cameras and depth, where the engines give them."""
    absent: dict[str, list[str]] = {}
    """By camera: the timesteps of which it has no image; empty where all have."""
    world: Similarity.Numbers | None = None
    """What takes the window's own world to the one that it shares with other windows; None: they are the same."""


class Summary(msgspec.Struct, frozen=True):
    """One run: with what, what came out, where the time went. Seconds are seconds on the clock, sizes are bytes."""

    page4d: str
    """Version of the runtime."""
    engines: str
    """The engine folder, as it was given."""
    frames: str
    """The folder of frames, as it was given."""
    model: dict[str, Any]
    """What the model is, in plain values."""
    weights: str
    """Where the weights come from, as text; it has the word `seeded` where they were never trained."""
    layout: dict[str, int]
    precision: str
    backend: str
    cameras: list[str]
    """In the order of the views."""
    windows: list[WindowSummary]
    stage_seconds: dict[str, float]
    """By stage name, in the order of the chain: summed over the calls of all windows."""
    stage_flop: dict[str, int]
    """By stage name: summed over the calls of all windows, as the seconds are; multiply and add counted as two."""
    decode_seconds: float
    """Reading and resizing frames; may run while the stages do."""
    write_seconds: float
    """Writing results, overlays and formats; may run while the stages do."""
    wall_seconds: float
    """The whole run, startup included."""
    startup_seconds: float
    """Until the first window could begin: checking and loading the engines."""
    buffer_bytes: int
    """Tokens, scratch and outputs, allocated once; without the weights."""
    peak_rss_bytes: int
    """The most host memory that the process held."""
    windows_with_holes: int = 0
    """In which cameras have no image of some timestep."""
    warnings: list[str] = []
    photos: list[str] = []
    """What was done to the frames to bring them to the engines' size, in sentences."""
    licence: str = ""
    """Of the weights, in words; empty where none were loaded, or the engines do not say."""
    made_by: MadeBy | None = None
    """What the results depend on; None in a summary that does not say."""
    frame_files: str = ""
    """SHA-256 over the frames' names and sizes, in bytes and in pixels; empty in a summary that does not say."""
    formats: list[str] = []
    """Files of the formats that were written of all windows together, relative to the output folder, with `/`."""
    alignment: AlignmentSummary | None = None
    """How the windows came into one world; None: each has its own."""
    metric: MetricSummary | None = None
    """How lengths came to be metres; None: they are in the engines' unit."""

    @property
    def seeded(self) -> bool:
        """Whether the weights were never trained: the mask then means nothing beyond the external mask."""
        return "seeded" in self.weights.lower()

    @property
    def has_mask(self) -> bool:
        """Whether the engines give a mask."""
        return any(window.mask_mean for window in self.windows)

    @property
    def has_predictions(self) -> bool:
        """Whether the engines have heads: they give depth, points or cameras."""
        return any(window.predictions for window in self.windows)

    @property
    def points(self) -> int | None:
        """Points of all clouds; None without a cloud."""
        clouds = [window.predictions for window in self.windows if window.predictions and window.predictions.cloud]
        return sum(predictions.points for predictions in clouds) if clouds else None

    @property
    def format_files(self) -> list[str]:
        """Of the formats beyond `points.ply`, relative to the output folder."""
        predictions = [window.predictions for window in self.windows if window.predictions]
        return [*self.formats, *(path for of_window in predictions for path in of_window.formats)]

    @property
    def files(self) -> list[str]:
        """Of the results, relative to the output folder, with `/`; without report and summary."""
        paths: list[str | None] = [*self.format_files]
        for window in self.windows:
            paths += [window.file, *window.overlays]
            if window.predictions is not None:
                paths += [window.predictions.cloud, window.predictions.cameras, *window.predictions.depth]
        return [path for path in paths if path is not None]

    @property
    def mask_mean(self) -> float | None:
        """Mean over all windows and cameras; None where there is none, or one of them is not a number."""
        return mean_of(value for window in self.windows for value in window.mask_mean.values())


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean; None of no values, or where one is None or not finite."""
    known = list(values)
    numbers = [value for value in known if value is not None and math.isfinite(value)]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(known) else None


def write_summary(path: pathlib.Path, summary: Summary) -> None:
    """Write `summary.json`, whole or not at all; undecodable bytes of file names are escaped, NaN becomes null."""
    write_atomically(path, json_document(summary))


def read_summary(path: pathlib.Path) -> Summary:
    """Read what `write_summary` wrote.

    Raises:
        UsageError: there is no such file, or it is not a summary.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except OSError as error:
        raise UsageError(
            f"the summary cannot be read: {error.strerror}", got=path, allowed="the output folder of page4d-run"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the summary is damaged: {error}", got=path, hint="page4d-run again") from None


class _WindowFiles(msgspec.Struct, frozen=True):
    file: str
    overlays: list[str] = []
    predictions: dict[str, Any] | None = None


class _Listing(msgspec.Struct, frozen=True):
    """The fields that the summaries of all versions have."""

    page4d: str
    engines: str
    frames: str
    windows: list[_WindowFiles]
    formats: list[str] = []


def finished(folder: pathlib.Path, made_by: MadeBy) -> Summary | None:
    """The summary of a run that a folder holds whole; None where there is none, or one made by something else."""
    try:
        summary = read_summary(folder / SUMMARY)
    except UsageError:
        return None
    is_whole = all((folder / path).is_file() for path in _listed(folder) or ())
    return summary if summary.made_by == made_by and is_whole else None


def _listed(folder: pathlib.Path) -> list[str] | None:
    """The files of a run's output; None where summary.json is not this project's."""
    try:
        listing = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=_Listing)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    paths: list[Any] = [REPORT, *listing.formats]
    for window in listing.windows:
        files = window.predictions or {}
        paths += [
            window.file,
            *window.overlays,
            *(files.get(name) for name in ("cloud", "cameras")),
            *(files.get("depth") or ()),
            *(files.get("formats") or ()),
        ]
    return [path for path in paths if isinstance(path, str)]


RUN_OUTPUT = OutputKind("the output of a run", SUMMARY, _listed)
