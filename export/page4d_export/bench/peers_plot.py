"""The comparison of `page4d bench peers` as a bar chart."""

from __future__ import annotations

import pathlib
import textwrap
from typing import Any

from page4d_export.bench.peers import PeerRow, PeersBenchmark
from page4d_export.bench.plot_file import save_plot

_OURS, _OTHER, _BASE, _INK, _PALE = "#c2410c", "#a8b3c2", "#7c8898", "#1f2937", "#6b7280"
_WIDTH, _DPI = 8.6, 200  # inches, dots each: 1720 pixels, two for each of a README's column


def plot_peers(result: PeersBenchmark, path: pathlib.Path) -> None:
    """Write a PNG: a bar per contestant, as long as it is times as fast as the first; the whisker spans the rounds.

    Args:
        result: the comparison.
        path: of the PNG; replaced where it exists.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ran = sorted((row for row in result.rows if row.speedup is not None), key=_speedup, reverse=True)
    missing = [row for row in result.rows if row.speedup is None]
    rows = [*ran, *missing]
    height = 1.35 + 0.42 * len(rows)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.12))
    axes: Any = figure.add_subplot()
    label = {"textcoords": "offset points", "va": "center"}
    longest = max(row.spread[1] for row in ran if row.spread is not None)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}  # keeps the line at 1 off the labels
    for place, row in enumerate(rows):
        if row.spread is None:
            text = textwrap.shorten(row.missing or "not run", 66, placeholder=" ..")
            axes.annotate(text, (0, place), (6, 0), **label, color=_PALE, style="italic", size=8.5)
            continue
        low, high = row.spread
        colour = _OURS if row.ours else _BASE if row is result.rows[0] else _OTHER
        axes.barh(place, _speedup(row), height=0.64, color=colour)
        if high > low:
            axes.plot([low, high], [place, place], color=_INK, linewidth=1.1, solid_capstyle="butt")
        style = {"weight": "bold" if row.ours else "normal", "size": 10.5, "color": _INK, "bbox": paper}
        ratio = axes.annotate(_ratio(row), (high, place), (6, 0), **label, **style)
        axes.annotate(_seconds(row), (1, 0.5), (7, 0), xycoords=ratio, **label, color=_PALE, size=8.5, bbox=paper)
    axes.plot([1.0, 1.0], [-0.55, len(ran) - 0.45], color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlim(0, 1.22 * longest)  # room for the labels
    axes.set_yticks(range(len(rows)), [label_of(row) for row in rows])
    for name, row in zip(axes.get_yticklabels(), rows, strict=True):
        name.set(color=_PALE if row.speedup is None else _INK, weight="bold" if row.ours else "normal", size=10)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_PALE, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")
    axes.set_xlabel(f"times as fast as {result.rows[0].name}; whisker: smallest to largest round", color=_PALE, size=9)
    figure.suptitle(f"{result.title}\n", x=0.015, ha="left", color=_INK, size=11.5, weight="bold")
    figure.text(0.015, 1 - 0.36 / height, result.processor, ha="left", va="top", color=_PALE, size=8.5)
    save_plot(figure, path)


def _speedup(row: PeerRow) -> float:
    assert row.speedup is not None
    return row.speedup


def _ratio(row: PeerRow) -> str:
    times = "\N{MULTIPLICATION SIGN}"
    return f"{_speedup(row):.2f}{times}" if _speedup(row) < 10 else f"{_speedup(row):.0f}{times}"


def _seconds(row: PeerRow) -> str:
    assert row.seconds is not None
    return f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{1e3 * row.seconds:.0f} ms"


def label_of(row: PeerRow) -> str:
    """A contestant's name, with the type that it computed in where the name says another one."""
    differs = row.note and row.precision is not None and row.precision not in row.name
    return f"{row.name}\n(ran in {row.precision})" if differs else row.name
