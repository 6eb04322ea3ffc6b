"""`report.html`: one run on one page, to look at and to pass on; needs no network and nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import pathlib
import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from PIL import Image

from page4d.files import write_atomically
from page4d_engines.overlay import CLEAR, FULL, colour_bar
from page4d_engines.summary import SUMMARY, Summary, WindowSummary, as_text, mean_of

REPORT = "report.html"
EMBEDDED_WINDOWS = 6
"""Contact sheets that the page holds, of the first windows that have one; a page of more is too large for a mail."""

SEEDED_NOTE = "weights are seeded, the mask is not meaningful beyond the external mask"

_KINDS = {"encoder": "Encoder", "mask_head": "Mask head", "view_sa": "View-SA", "time_sa": "Time-SA", "global_sa": "Global-SA"}
_JPEG_SIDE = 65000  # the format ends at 65535
_LINKS = 64  # per window; the rest is in the same folder


@dataclass
class _Group:
    """Stages of one kind, or one other thing that took time."""

    label: str
    seconds: float = 0.0
    flop: int = 0
    stages: list[str] = field(default_factory=list)


def write_report(folder: pathlib.Path, summary: Summary, sheets: Mapping[str, Image.Image] | None = None) -> pathlib.Path:
    """Write `report.html` into `folder`, whole or not at all.

    Args:
        folder: the output folder; links on the page are relative to it.
        summary: of the run.
        sheets: contact sheets by window name. The page holds the first `EMBEDDED_WINDOWS` of them; the overlays of every
            window are linked.

    Returns:
        The page's path.
    """
    path = folder / REPORT
    body = "\n".join(
        (
            _head(summary),
            _pictures(summary, sheets or {}),
            _cameras(summary),
            _times(summary),
            _facts(summary),
            _warnings(summary),
            _files(summary),
        )
    )
    title = html.escape(as_text(f"page4d: {_result(summary)}"))
    write_atomically(path, _PAGE.replace("TITLE", title, 1).replace("BODY", body, 1).encode("utf-8"))
    return path


# ---- the page, from top to bottom


def _head(summary: Summary) -> str:
    parts = [f"<h1>{_text(_result(summary))}</h1>", f'<p class="dim">{_text(summary.frames)} &middot; {_text(summary.backend)}, {_text(summary.precision)}</p>']
    if summary.seeded:
        parts.append(f'<p class="note" id="seeded"><strong>Not a trained model:</strong> {SEEDED_NOTE}.</p>')
    if summary.warnings:
        parts.append(f'<p class="note"><a href="#warnings">{_count(len(summary.warnings), "warning")}</a></p>')
    return "<header>" + "\n".join(parts) + "</header>"


def _result(summary: Summary) -> str:
    windows, cameras, times = len(summary.windows), len(summary.cameras), summary.layout.get("T", 1)
    what = f"{_count(windows, 'window')} of {_count(times, 'time')}, {_count(cameras, 'camera')}, {_count(windows * times * cameras, 'image')}"
    return f"{what}: mask mean {_probability(summary.mask_mean)}"


def _pictures(summary: Summary, sheets: Mapping[str, Image.Image]) -> str:
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colour_bar(16).tolist())
    parts = [
        "<h2>Frames and mask</h2>",
        f"<p>The mask is the probability that a patch shows something that moves. Up to {CLEAR} the frame is left as it is; "
        f"from there the colour hides more of it, up to {FULL}. Cyan, if any, is a value that is not a number.</p>",
        f'<p>0 <span class="legend" style="background:linear-gradient(to right, {colours})"></span> 1</p>',
    ]
    shown, linked = 0, []
    for window in summary.windows:
        sheet = sheets.get(window.name)
        if sheet is None or shown == EMBEDDED_WINDOWS:
            linked.append(f"<li>{_text(window.name)} {_overlays(window) or '(no overlays written)'}</li>")
            continue
        title = f"<strong>{_text(window.name)}</strong>"
        facts = f"{_span(window)} &middot; {_seconds(window.seconds)} &middot; mask mean {_probability(mean_of(window.mask_mean.values()))}"
        alt = f"Rows are cameras: {', '.join(summary.cameras)}. Columns are times. Each cell is a frame, and the frame with the mask over it."
        parts.append(
            f'<details class="window"{"" if shown else " open"}><summary>{title} <span class="dim">{facts}</span></summary><div class="scroll" tabindex="0">'
            f'<img src="data:image/jpeg;base64,{_jpeg(sheet)}" alt="{_text(alt)}"></div>{_overlays(window)}</details>'
        )
        shown += 1
    if linked:
        title = f"{_count(len(linked), 'window')} without a picture on this page"
        parts.append(f"<details{'' if shown else ' open'}><summary>{title}</summary><ul>{''.join(linked)}</ul></details>")
    return _section(parts)


def _cameras(summary: Summary) -> str:
    rows = []
    for camera in summary.cameras:
        values = [window.mask_mean.get(camera) for window in summary.windows]
        mean, numbers = mean_of(values), [value for value in values if value is not None]
        spread = f"{min(numbers):.3f} to {max(numbers):.3f}" if len(numbers) > 1 else ""
        bar = f'<td class="bar"><div class="track">{_bar(mean or 0.0)}</div></td>'
        rows.append(f'<tr><th scope="row">{_text(camera)}</th>{bar}<td class="n">{_probability(mean)}</td><td class="n wide">{spread}</td></tr>')
    head = '<tr><th>camera</th><th class="bar">0 to 1</th><th class="n">mean</th><th class="n wide">over windows</th></tr>'
    return _section(["<h2>Mask mean by camera</h2>", f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'])


def _times(summary: Summary) -> str:
    chain, other = _groups(summary)
    named = sum(group.seconds for group in (*chain, *other))
    rest = summary.wall_seconds - named
    if rest > 0.01 * summary.wall_seconds:
        other.append(_Group("Other", rest))
    longest = max(*(group.seconds for group in (*chain, *other)), 1e-9)
    total = max(named + max(rest, 0.0), 1e-9)
    rows = "".join(
        f'<tr><th scope="row">{_text(group.label)}{_many(group.stages)}</th>'
        f'<td class="bar">{_bar(group.seconds / longest, "" if group.stages else "other")}</td><td class="n">{_seconds(group.seconds)}</td>'
        f'<td class="n wide">{group.seconds / total:.0%}</td><td class="n">{_rate(group.flop, group.seconds)}</td></tr>'
        for group in (*chain, *other)
    )
    head = '<tr><th></th><th class="bar"></th><th class="n">time</th><th class="n wide">share</th><th class="n">GFLOP/s</th></tr>'
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
    return chain, [_Group("Decode", summary.decode_seconds), _Group("Write", summary.write_seconds), _Group("Startup", summary.startup_seconds)]


def _every_stage(summary: Summary) -> str:
    flop = summary.stage_flop
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="n">{_seconds(seconds)}</td><td class="n">{flop.get(name, 0) / 1e9:,.1f}</td>'
        f'<td class="n">{_rate(flop.get(name, 0), seconds)}</td></tr>'
        for name, seconds in summary.stage_seconds.items()
    )
    head = '<tr><th>stage</th><th class="n">time</th><th class="n">GFLOP</th><th class="n">GFLOP/s</th></tr>'
    table = f'<div class="scroll"><table class="small">{head}{rows}</table></div>'
    return f"<details><summary>Every stage, over all windows</summary>{table}</details>"


def _facts(summary: Summary) -> str:
    facts = {
        "Model": ", ".join(f"{key} {_plain(value)}" for key, value in summary.model.items()),
        "Weights": summary.weights + (f" ({SEEDED_NOTE})" if summary.seeded else ""),
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
    return _section(['<h2 id="warnings">Warnings</h2>', "<ul>" + "".join(f"<li>{_text(warning)}</li>" for warning in summary.warnings) + "</ul>"])


def _files(summary: Summary) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_link(window.file)}</th><td>{_span(window)}</td><td class="n wide">{_seconds(window.seconds)}</td>'
        f'<td class="n">{_probability(mean_of(window.mask_mean.values()))}</td><td class="n wide">{len(window.overlays) or ""}</td></tr>'
        for window in summary.windows
    )
    head = '<tr><th>result</th><th>frames</th><th class="n wide">time</th><th class="n">mask mean</th><th class="n wide">overlays</th></tr>'
    also = f'<p class="dim">Also {_link(SUMMARY)}: all of this page as data. Links lead to files beside this page.</p>'
    return _section(["<h2>Output files</h2>", f'<div class="scroll"><table>{head}{rows}</table></div>', also])


# ---- pieces


def _section(parts: Iterable[str]) -> str:
    return "<section>" + "\n".join(parts) + "</section>"


def _text(value: str) -> str:
    return html.escape(as_text(value))


def _link(path: str, shown: str | None = None) -> str:
    target = urllib.parse.quote(path, safe="/", errors="surrogateescape")  # a colon would make a scheme of a name
    return f'<a href="{html.escape(target)}">{_text(shown or path)}</a>'


def _overlays(window: WindowSummary) -> str:
    if not window.overlays:
        return ""
    links = [_link(path, posixpath.splitext(path)[0].partition("/")[2]) for path in window.overlays[:_LINKS]]
    more = len(window.overlays) - len(links)
    end = f" and {more} more in {_link(posixpath.dirname(window.overlays[-1]) + '/')}" if more else ""
    return f'<details class="links"><summary>{_count(len(window.overlays), "overlay")} at full size</summary>{" ".join(links)}{end}</details>'


def _span(window: WindowSummary) -> str:
    return _text(window.first_frame if window.first_frame == window.last_frame else f"{window.first_frame} to {window.last_frame}")


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
        return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{1000 * seconds:.{0 if seconds >= 0.0995 else 1}f} ms"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>TITLE</title>
<style>
:root {
  color-scheme: light dark; --back: #fff; --text: #1b1d22; --dim: #626874; --line: #dfe2e8; --bar: #3a6db5; --other: #9aa1ad;
  --note: #fff1cc; --edge: #c98a00; --link: #1f57a4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #121419; --text: #e6e8ec; --dim: #9aa1ad; --line: #2c3038; --bar: #6b9fe8; --other: #6d7480;
    --note: #38300f; --edge: #d9a520; --link: #8ab6f2;
  }
}
body {
  margin: 0 auto; max-width: 1100px; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; }
a { color: var(--link); }
.dim { color: var(--dim); font-weight: normal; }
.note { background: var(--note); border-left: 4px solid var(--edge); padding: .5rem .8rem; }
.legend { display: inline-block; width: 11rem; height: .8rem; margin: 0 .3rem; border-radius: 2px; vertical-align: -.05rem; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; font-weight: normal; }
tr:first-child > th:not([scope]) { color: var(--dim); font-size: .85rem; }
.n { text-align: right; white-space: nowrap; padding-right: .4rem; padding-left: .4rem; }
td.bar { width: 50%; vertical-align: middle; }
td.bar div { height: .8rem; min-width: 1px; background: var(--bar); border-radius: 2px; }
td.bar div.other { background: var(--other); }
td.bar div.track { background: var(--line); }
.facts th { color: var(--dim); white-space: nowrap; }
.small { font-size: .88rem; width: auto; }
details { margin: .6rem 0; }
details.window > div { margin-top: .4rem; }
summary { cursor: pointer; color: var(--link); }
li details { display: inline-block; vertical-align: top; margin: 0 0 0 .5rem; }
.links a { display: inline-block; margin-right: .6rem; }
@media (max-width: 640px) {
  .wide { display: none; }
  img { max-width: 820px; }
  td.bar { width: 34%; }
}
</style>
</head>
<body>
BODY
</body>
</html>
"""
