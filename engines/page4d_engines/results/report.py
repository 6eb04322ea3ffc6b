"""`report.html`: one run on one page, to look at and to pass on; needs no network and nothing beside it.

The page is the template `report.html.j2`; this file makes its values.
"""

from __future__ import annotations

import base64
import functools
import io
import pathlib
import posixpath
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jinja2
from PIL import Image

from page4d.files import write_atomically
from page4d.system.plain_text import as_text, counted
from page4d_engines.results.overlay import CLEAR, FULL, colour_bar
from page4d_engines.results.summary import REPORT, SUMMARY, Summary, mean_of

EMBEDDED_WINDOWS = 6
"""Contact sheets that the page holds, of the first windows that have one; a page of more is too large for a mail."""

SEEDED_NOTE = "weights are seeded, the mask is not meaningful beyond the external mask"
SEEDED_PREDICTIONS = "weights are seeded, points, depth and cameras are noise"
SEEDED_BOTH = "weights are seeded, the mask, points, depth and cameras are noise"

_KINDS = {
    "encoder": "Encoder",
    "mask_head": "Mask head",
    "view_sa": "View-SA",
    "time_sa": "Time-SA",
    "global_sa": "Global-SA",
    "points": "Points",
    "confidence": "Confidence",
    "camera": "Camera",
    "depth": "Depth",
    "camera_encoder": "Camera encoder",
    "metric": "Metric scale",
}
_JPEG_SIDE = 65000  # the format ends at 65535
_LINKS = 64  # per window; the rest is in the same folder


class Picture(NamedTuple):
    """A picture of a window, and a caption: for the line below it, and for readers who cannot see it."""

    image: Image.Image
    caption: str


@dataclass
class _Part:
    """Stages of one kind, or one other thing that took time."""

    label: str
    seconds: float = 0.0
    flop: int = 0
    stages: int = 0


@dataclass(frozen=True)
class _Times:
    """Where the time went: stages by kind, and what else took time."""

    parts: list[_Part]
    computed: float
    """Seconds that the engines took."""
    rate: str
    longest: float
    total: float
    overlap: bool
    """Whether parts went on at the same time."""

    @classmethod
    def of(cls, summary: Summary) -> _Times:
        kinds = {kind: _Part(label) for kind, label in _KINDS.items()}
        for name, seconds in summary.stage_seconds.items():
            kind = name.partition(".")[0]
            part = kinds.setdefault(kind, _Part(kind))
            part.seconds += seconds
            part.flop += summary.stage_flop.get(name, 0)
            part.stages += 1
        chain = [part for part in kinds.values() if part.stages]
        computed, flop = sum(part.seconds for part in chain), sum(part.flop for part in chain)
        parts = [
            *chain,
            _Part("Decode", summary.decode_seconds),
            _Part("Write", summary.write_seconds),
            _Part("Startup", summary.startup_seconds),
        ]
        named, whole = sum(part.seconds for part in parts), summary.wall_seconds
        if whole - named > 0.01 * whole:
            parts.append(_Part("Other", whole - named))
        return cls(
            parts=parts,
            computed=computed,
            rate=_rate(flop, computed),
            longest=max(1e-9, *(part.seconds for part in parts)),
            total=max(named, whole, 1e-9),
            overlap=named - whole > 0.01 * whole,
        )


def seeded_note(summary: Summary) -> str:
    """What seeded weights mean for the results of a run."""
    if not summary.has_predictions:
        return SEEDED_NOTE
    return SEEDED_BOTH if summary.has_mask else SEEDED_PREDICTIONS


def write_report(
    folder: pathlib.Path, summary: Summary, sheets: Mapping[str, Sequence[Picture]] | None = None
) -> pathlib.Path:
    """Write `report.html`, whole or not at all.

    Args:
        folder: the output folder; links on the page are relative to it.
        summary: of the run.
        sheets: pictures by window name. The page holds those of the first `EMBEDDED_WINDOWS`; the files of every window
            are linked.

    Returns:
        The page's path.
    """
    sheets = sheets or {}
    shown = [window for window in summary.windows if sheets.get(window.name)][:EMBEDDED_WINDOWS]
    names = {window.name for window in shown}
    page = template("report.html.j2").render(
        summary=summary,
        result=_result(summary),
        seeded_note=seeded_note(summary),
        sheets=sheets,
        shown=shown,
        linked=[window for window in summary.windows if window.name not in names],
        masks=_masks(summary),
        mask_colours=", ".join(f"rgb({r} {g} {b})" for r, g, b in colour_bar(16).tolist()),
        clear=CLEAR,
        full=FULL,
        rig_window=next((window for window in summary.windows if window.predictions and window.predictions.rig), None),
        times=_Times.of(summary),
        facts=_facts(summary),
        most_links=_LINKS,
        summary_file=SUMMARY,
    )
    path = folder / REPORT
    write_atomically(path, as_text(page).encode())
    return path


@functools.cache
def template(name: str) -> jinja2.Template:
    """A page of this folder, with the filters that its values are written with."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "coordinate": _coordinate,
        "count": counted,
        "focal": _focal,
        "folder": lambda path: posixpath.dirname(path) + "/",
        "href": _href,
        "inner_name": lambda path: posixpath.splitext(path)[0].partition("/")[2],
        "jpeg": _jpeg,
        "mean": mean_of,
        "percent": lambda share: f"{100 * min(max(share, 0.0), 1.0):.2f}",
        "probability": _probability,
        "rate": _rate,
        "seconds": _seconds,
        "share": lambda share: "none" if share is None else f"{share:.2%}",
    }
    return environment.get_template(name)


# ---- values of the page


def _result(summary: Summary) -> str:
    windows, cameras, times = len(summary.windows), len(summary.cameras), summary.layout.get("T", 1)
    images = counted(windows * times * cameras, "image")
    holes = f" ({summary.windows_with_holes} with absent images)" if summary.windows_with_holes else ""
    what = (
        f"{counted(windows, 'window')}{holes} of {counted(times, 'timestep')}, {counted(cameras, 'camera')}, {images}"
    )
    if times == 1 and summary.has_predictions and not summary.has_mask:
        what = counted(windows * cameras, "photo") + (f" of {counted(windows, 'timestep')}" if windows > 1 else "")
    results = [f"mask mean {_probability(summary.mask_mean)}"] if summary.has_mask else []
    results += [] if summary.points is None else [f"{summary.points:,} points"]
    return f"{what}: {', '.join(results)}" if results else what


def _masks(summary: Summary) -> list[tuple[str, float | None, str]]:
    """Each camera with the mean of its masks and their range over the windows."""
    rows = []
    for camera in summary.cameras:
        means = [window.mask_mean[camera] for window in summary.windows if camera in window.mask_mean]
        known = [mean for mean in means if mean is not None]
        rows.append((camera, mean_of(means), f"{min(known):.3f} to {max(known):.3f}" if len(known) > 1 else ""))
    return rows


def _cloud(summary: Summary) -> dict[str, str]:
    """What the clouds are made from, where there are any."""
    clouds = [window.predictions for window in summary.windows if window.predictions and window.predictions.cloud]
    sources = list(dict.fromkeys(cloud.cloud_source for cloud in clouds))
    first = "of the first window " if len(sources) > 1 else ""
    return {"Point cloud": first + sources[0]} if sources else {}


def _world(summary: Summary) -> dict[str, str]:
    """How the windows came into one world, and lengths to metres."""
    facts = {}
    if summary.alignment is not None:
        facts["Alignment"] = summary.alignment.in_words
        if summary.alignment.loop_in_words is not None:
            facts["Loop"] = summary.alignment.loop_in_words
    if summary.metric is not None:
        facts["Metres"] = summary.metric.in_words
    return facts


def _facts(summary: Summary) -> dict[str, str]:
    return {
        "Model": ", ".join(f"{key} {_plain(value)}" for key, value in summary.model.items()),
        "Weights": summary.weights + (f" ({seeded_note(summary)})" if summary.seeded else ""),
        **({"Licence of the weights": summary.licence} if summary.licence else {}),
        "Layout": ", ".join(f"{key} {value}" for key, value in summary.layout.items()),
        "Precision": summary.precision,
        "Backend": summary.backend,
        "Engines": summary.engines,
        "Frames": summary.frames,
        **({"Photos": "; ".join(summary.photos)} if summary.photos else {}),
        "Cameras": ", ".join(summary.cameras),
        **_cloud(summary),
        **_world(summary),
        "Buffers": f"{_bytes(summary.buffer_bytes)}, allocated once; without the weights",
        "Peak host memory": _bytes(summary.peak_rss_bytes),
        "page4d": summary.page4d,
    }


# ---- filters of the template


def _href(path: str) -> str:
    return urllib.parse.quote(path, safe="/", errors="surrogateescape")  # a colon would make a scheme of a name


def _jpeg(sheet: Image.Image) -> str:
    """In base64."""
    if max(sheet.size) > _JPEG_SIDE:
        sheet = sheet.copy()
        sheet.thumbnail((_JPEG_SIDE, _JPEG_SIDE))
    buffer = io.BytesIO()
    sheet.convert("RGB").save(buffer, "JPEG", quality=85, subsampling=0)  # halved colour blurs the mask's edges
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "none"
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _focal(focal: Sequence[float | None]) -> str:
    """fx, fy in pixels."""
    return ", ".join("none" if length is None else f"{length:.1f}" for length in focal)


def _coordinate(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _probability(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def _rate(flop: int, seconds: float) -> str:
    """In GFLOP/s; empty where there is none."""
    return f"{flop / seconds / 1e9:,.{0 if flop / seconds >= 1e12 else 1}f}" if flop and seconds else ""


def _seconds(seconds: float) -> str:
    if seconds >= 100:
        minutes = round(seconds) // 60
        if minutes >= 60:
            return f"{minutes // 60} h {minutes % 60:02d} min"
        return f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{1000 * seconds:.{0 if seconds >= 0.0995 else 1}f} ms"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
