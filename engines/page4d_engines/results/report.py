"""`report.html`: one run on one page, to look at and to pass on; needs no network and nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import pathlib
import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from page4d.files import write_atomically
from page4d.system.plain_text import as_text
from page4d_engines.results.overlay import CLEAR, FULL, colour_bar
from page4d_engines.results.report_page import PAGE
from page4d_engines.results.summary import REPORT, SUMMARY, Summary, WindowSummary, mean_of

EMBEDDED_WINDOWS = 6
"""Contact sheets that the page holds, of the first windows that have one; a page of more is too large for a mail."""

SEEDED_NOTE = "weights are seeded, the mask is not meaningful beyond the external mask"
SEEDED_PREDICTIONS = "weights are seeded, points, depth and cameras are noise"

_KINDS = {
    "encoder": "Encoder",
    "mask_head": "Mask head",
    "view_sa": "View-SA",
    "time_sa": "Time-SA",
    "global_sa": "Global-SA",
    "points": "Points",
    "confidence": "Confidence",
    "camera": "Camera",
}
_JPEG_SIDE = 65000  # the format ends at 65535
_LINKS = 64  # per window; the rest is in the same folder


@dataclass
class _Group:
    """Stages of one kind, or one other thing that took time."""

    label: str
    seconds: float = 0.0
    flop: int = 0
    stages: list[str] = field(default_factory=list)


class Picture(NamedTuple):
    """A picture of a window, and what it shows: in a line under it, or for who cannot see it."""

    image: Image.Image
    caption: str


def seeded_note(summary: Summary) -> str:
    """What seeded weights mean for the results of a run."""
    return SEEDED_NOTE if summary.has_mask or not summary.has_predictions else SEEDED_PREDICTIONS


def write_report(
    folder: pathlib.Path, summary: Summary, sheets: Mapping[str, Sequence[Picture]] | None = None
) -> pathlib.Path:
    """Write `report.html` into `folder`, whole or not at all.

    Args:
        folder: the output folder; links on the page are relative to it.
        summary: of the run.
        sheets: pictures by window name. The page holds those of the first `EMBEDDED_WINDOWS`; the files of every window
            are linked.

    Returns:
        The page's path.
    """
    path = folder / REPORT
    body = "\n".join(
        (
            _head(summary),
            _pictures(summary, sheets or {}),
            _masks(summary),
            _rig(summary),
            _times(summary),
            _facts(summary),
            _warnings(summary),
            _files(summary),
        )
    )
    title = html.escape(as_text(f"page4d: {_result(summary)}"))
    write_atomically(path, PAGE.replace("TITLE", title, 1).replace("BODY", body, 1).encode("utf-8"))
    return path


# ---- the page, from top to bottom


def _head(summary: Summary) -> str:
    parts = [
        f"<h1>{_text(_result(summary))}</h1>",
        f'<p class="dim">{_text(summary.frames)} &middot; {_text(summary.backend)}, {_text(summary.precision)}</p>',
    ]
    if summary.seeded:
        parts.append(f'<p class="note" id="seeded"><strong>Not a trained model:</strong> {seeded_note(summary)}.</p>')
    if summary.warnings:
        parts.append(f'<p class="note"><a href="#warnings">{_count(len(summary.warnings), "warning")}</a></p>')
    return "<header>" + "\n".join(parts) + "</header>"


def _result(summary: Summary) -> str:
    windows, cameras, times = len(summary.windows), len(summary.cameras), summary.layout.get("T", 1)
    what = (
        f"{_count(windows, 'window')} of {_count(times, 'time')}, {_count(cameras, 'camera')},"
        f" {_count(windows * times * cameras, 'image')}"
    )
    if summary.has_mask:
        return f"{what}: mask mean {_probability(summary.mask_mean)}"
    if summary.has_predictions and times == 1:
        what = (
            f"{_count(windows * cameras, 'photo')} of {_count(windows, 'time')}"
            if windows > 1
            else _count(cameras, "photo")
        )
    points = sum(window.predictions.points for window in summary.windows if window.predictions is not None)
    return f"{what}: {points:,} points" if summary.has_predictions else what


def _pictures(summary: Summary, sheets: Mapping[str, Sequence[Picture]]) -> str:
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colour_bar(16).tolist())
    parts = ["<h2>Pictures</h2>"]
    if summary.has_mask:
        parts = [
            "<h2>Frames and mask</h2>",
            (
                f"<p>The mask is the probability that a patch shows something that moves. Up to {CLEAR} the frame is"
                f" left as it is; from there the colour hides more of it, up to {FULL}. Cyan, if any, is a value that"
                " is not a number.</p>"
            ),
            f'<p>0 <span class="legend" style="background:linear-gradient(to right, {colours})"></span> 1</p>',
        ]
    elif summary.has_predictions:
        parts = ["<h2>Points and depth</h2>"]
    shown, linked = 0, []
    for window in summary.windows:
        pictures = sheets.get(window.name)
        if not pictures or shown == EMBEDDED_WINDOWS:
            linked.append(f"<li>{_text(window.name)} {_overlays(window) or '(no pictures written)'}</li>")
            continue
        facts = f"{_span(window)} &middot; {_seconds(window.seconds)}"
        if window.mask_mean:
            facts += f" &middot; mask mean {_probability(mean_of(window.mask_mean.values()))}"
        if window.predictions is not None:
            facts += f" &middot; {_text(f'{window.predictions.points:,}')} points"
        images = "".join(
            f'<figure><div class="scroll" tabindex="0"><img src="data:image/jpeg;base64,{_jpeg(picture.image)}"'
            f' alt="{_text(picture.caption)}"></div><figcaption>{_text(picture.caption)}</figcaption></figure>'
            for picture in pictures
        )
        title = f'<strong>{_text(window.name)}</strong> <span class="dim">{facts}</span>'
        parts.append(
            "<details"
            f' class="window"{"" if shown else " open"}><summary>{title}</summary>{images}{_overlays(window)}</details>'
        )
        shown += 1
    if linked:
        title = f"{_count(len(linked), 'window')} without a picture on this page"
        parts.append(
            f"<details{'' if shown else ' open'}><summary>{title}</summary><ul>{''.join(linked)}</ul></details>"
        )
    return _section(parts)


def _masks(summary: Summary) -> str:
    if not summary.has_mask:
        return ""
    rows = []
    for camera in summary.cameras:
        values = [window.mask_mean.get(camera) for window in summary.windows]
        mean, numbers = mean_of(values), [value for value in values if value is not None]
        spread = f"{min(numbers):.3f} to {max(numbers):.3f}" if len(numbers) > 1 else ""
        bar = f'<td class="bar"><div class="track">{_bar(mean or 0.0)}</div></td>'
        rows.append(
            f'<tr><th scope="row">{_text(camera)}</th>{bar}<td class="n">{_probability(mean)}</td><td class="n'
            f' wide">{spread}</td></tr>'
        )
    head = (
        '<tr><th>camera</th><th class="bar">0 to 1</th><th class="n">mean</th><th class="n wide">over windows</th></tr>'
    )
    return _section(["<h2>Mask mean by camera</h2>", f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'])


def _rig(summary: Summary) -> str:
    """The cameras that were found, of the first window that has some."""
    window = next((window for window in summary.windows if window.predictions is not None), None)
    if window is None or window.predictions is None:
        return ""
    number = lambda value: "none" if value is None else f"{value:.3f}"
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="n">{", ".join(map(number, camera.position))}</td>'
        f'<td class="n">{", ".join(f"{focal:.1f}" for focal in camera.focal)}'
        f'{"" if camera.fitted else " (a guess)"}</td><td class="n wide">{number(camera.residual)}</td></tr>'
        for name, camera in window.predictions.rig.items()
    )
    head = (
        '<tr><th>camera</th><th class="n">position</th><th class="n">focal lengths</th><th class="n'
        ' wide">residual</th></tr>'
    )
    note = (
        "Positions are in the scene&rsquo;s own unit: the network knows no metres. Focal lengths and the residual of"
        " their fit are pixels of the photo."
    )
    more = f" Of {_text(window.name)}; every window has its own file." if len(summary.windows) > 1 else ""
    return _section(
        ["<h2>Cameras</h2>", f"<p>{note}{more}</p>", f'<div class="scroll"><table>{head}{rows}</table></div>']
    )


def _times(summary: Summary) -> str:
    chain, other = _groups(summary)
    named = sum(group.seconds for group in (*chain, *other))
    rest = summary.wall_seconds - named
    if rest > 0.01 * summary.wall_seconds:
        other.append(_Group("Other", rest))
    longest = max(*(group.seconds for group in (*chain, *other)), 1e-9)
    total = max(named + max(rest, 0.0), 1e-9)
    rows = "".join(
        f'<tr><th scope="row">{_text(group.label)}{_many(group.stages)}</th><td'
        f' class="bar">{_bar(group.seconds / longest, "" if group.stages else "other")}</td><td'
        f' class="n">{_seconds(group.seconds)}</td><td class="n wide">{group.seconds / total:.0%}</td><td'
        f' class="n">{_rate(group.flop, group.seconds)}</td></tr>'
        for group in (*chain, *other)
    )
    head = (
        '<tr><th></th><th class="bar"></th><th class="n">time</th><th class="n wide">share</th><th'
        ' class="n">GFLOP/s</th></tr>'
    )
    seconds, flop = sum(group.seconds for group in chain), sum(group.flop for group in chain)
    line = f"{_seconds(summary.wall_seconds)} in all; the engines computed for {_seconds(seconds)}"
    line += f", at {_rate(flop, seconds)} GFLOP/s." if flop and seconds else "."
    if rest < -0.01 * summary.wall_seconds:
        line += " Reading and writing went on meanwhile, so that the parts are more than the whole."
    parts = ["<h2>Where the time went</h2>", f"<p>{line}</p>", f'<div class="scroll"><table>{head}{rows}</table></div>']
    if summary.stage_seconds:
        parts.append(_every_stage(summary))
    return _section(parts)


def _groups(summary: Summary) -> tuple[list[_Group], list[_Group]]:
    """The stages by kind, and what else took time."""
    groups: dict[str, _Group] = {}
    for name, seconds in summary.stage_seconds.items():
        kind = name.partition(".")[0]
        group = groups.setdefault(kind, _Group(_KINDS.get(kind, kind)))
        group.seconds += seconds
        group.flop += summary.stage_flop.get(name, 0)
        group.stages.append(name)
    chain = [groups.pop(kind) for kind in _KINDS if kind in groups] + list(groups.values())
    return chain, [
        _Group("Decode", summary.decode_seconds),
        _Group("Write", summary.write_seconds),
        _Group("Startup", summary.startup_seconds),
    ]


def _every_stage(summary: Summary) -> str:
    flop = summary.stage_flop
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="n">{_seconds(seconds)}</td><td'
        f' class="n">{flop.get(name, 0) / 1e9:,.1f}</td><td class="n">{_rate(flop.get(name, 0), seconds)}</td></tr>'
        for name, seconds in summary.stage_seconds.items()
    )
    head = '<tr><th>stage</th><th class="n">time</th><th class="n">GFLOP</th><th class="n">GFLOP/s</th></tr>'
    table = f'<div class="scroll"><table class="small">{head}{rows}</table></div>'
    return f"<details><summary>Every stage, over all windows</summary>{table}</details>"


def _facts(summary: Summary) -> str:
    facts = {
        "Model": ", ".join(f"{key} {_plain(value)}" for key, value in summary.model.items()),
        "Weights": summary.weights + (f" ({seeded_note(summary)})" if summary.seeded else ""),
        "Layout": ", ".join(f"{key} {value}" for key, value in summary.layout.items()),
        "Precision": summary.precision,
        "Backend": summary.backend,
        "Engines": summary.engines,
        "Frames": summary.frames,
        "Cameras": ", ".join(summary.cameras),
        "Buffers": f"{_bytes(summary.buffer_bytes)}, allocated once; without the weights",
        "Peak host memory": _bytes(summary.peak_rss_bytes),
        "page4d": summary.page4d,
    }
    rows = "".join(f'<tr><th scope="row">{key}</th><td>{_text(value)}</td></tr>' for key, value in facts.items())
    return _section(["<h2>Facts</h2>", f'<table class="facts">{rows}</table>'])


def _warnings(summary: Summary) -> str:
    if not summary.warnings:
        return ""
    return _section(
        [
            '<h2 id="warnings">Warnings</h2>',
            "<ul>" + "".join(f"<li>{_text(warning)}</li>" for warning in summary.warnings) + "</ul>",
        ]
    )


def _files(summary: Summary) -> str:
    masks, predictions = summary.has_mask, summary.has_predictions
    rows = ""
    for window in summary.windows:
        found = window.predictions
        rows += (
            f'<tr><th scope="row">{_link(window.file)}</th><td>{_span(window)}</td><td class="n'
            f' wide">{_seconds(window.seconds)}</td>'
        )
        if masks:
            rows += (
                f'<td class="n">{_probability(mean_of(window.mask_mean.values()))}</td><td class="n'
                f' wide">{len(window.overlays) or ""}</td>'
            )
        if predictions:
            links = "" if found is None else f"<td>{_link(found.cloud)}</td><td>{_link(found.cameras)}</td>"
            rows += links or "<td></td><td></td>"
        rows += "</tr>"
    head = '<tr><th>result</th><th>frames</th><th class="n wide">time</th>'
    head += '<th class="n">mask mean</th><th class="n wide">overlays</th>' if masks else ""
    head += "<th>point cloud</th><th>cameras</th>" if predictions else ""
    also = f'<p class="dim">Also {_link(SUMMARY)}: all of this page as data. Links lead to files beside this page.</p>'
    return _section(["<h2>Output files</h2>", f'<div class="scroll"><table>{head}</tr>{rows}</table></div>', also])


# ---- pieces


def _section(parts: Iterable[str]) -> str:
    return "<section>" + "\n".join(parts) + "</section>"


def _text(value: str) -> str:
    return html.escape(as_text(value))


def _link(path: str, shown: str | None = None) -> str:
    target = urllib.parse.quote(path, safe="/", errors="surrogateescape")  # a colon would make a scheme of a name
    return f'<a href="{html.escape(target)}">{_text(shown or path)}</a>'


def _overlays(window: WindowSummary) -> str:
    depth = [] if window.predictions is None else window.predictions.depth
    return _images(window.overlays, "overlay", "at full size") + _images(depth, "depth image", "of 16 bits")


def _images(paths: Sequence[str], noun: str, what: str) -> str:
    """Links to pictures of a window, folded."""
    if not paths:
        return ""
    links = [_link(path, posixpath.splitext(path)[0].partition("/")[2]) for path in paths[:_LINKS]]
    more = len(paths) - len(links)
    end = f" and {more} more in {_link(posixpath.dirname(paths[-1]) + '/')}" if more else ""
    return (
        f'<details class="links"><summary>{_count(len(paths), noun)} {what}</summary>{" ".join(links)}{end}</details>'
    )


def _span(window: WindowSummary) -> str:
    return _text(
        window.first_frame
        if window.first_frame == window.last_frame
        else f"{window.first_frame} to {window.last_frame}"
    )


def _bar(share: float, kind: str = "") -> str:
    return f'<div class="{kind}" style="width:{100 * min(max(share, 0.0), 1.0):.2f}%"></div>'


def _many(stages: list[str]) -> str:
    return f' <span class="dim">&times;{len(stages)}</span>' if len(stages) > 1 else ""


def _jpeg(sheet: Image.Image) -> str:
    if max(sheet.size) > _JPEG_SIDE:
        sheet = sheet.copy()
        sheet.thumbnail((_JPEG_SIDE, _JPEG_SIDE))
    buffer = io.BytesIO()
    sheet.convert("RGB").save(buffer, "JPEG", quality=85, subsampling=0)  # halved colour blurs the mask's edges
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _probability(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def _rate(flop: int, seconds: float) -> str:
    return f"{flop / seconds / 1e9:,.{0 if flop / seconds >= 1e12 else 1}f}" if flop and seconds else ""


def _seconds(seconds: float) -> str:
    if seconds >= 100:
        minutes = round(seconds) // 60
        return (
            f"{minutes // 60} h {minutes % 60:02d} min"
            if minutes >= 60
            else f"{minutes} min {round(seconds) % 60:02d} s"
        )
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{1000 * seconds:.{0 if seconds >= 0.0995 else 1}f} ms"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
