"""The comparison of `page4d bench peers` as a bar chart."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

from page4d_export.bench.peers import PeerRow, PeersBenchmark
from page4d_export.bench.plot_file import save_plot

_OURS, _OTHER, _BASE, _INK, _PALE = "#c2410c", "#a8b3c2", "#7c8898", "#1f2937", "#6b7280"
_ROOM, _ROOM_BESIDE = 1.4, 2.6  # the axis's length per longest bar: labels stand behind it
_WIDTH, _DPI = 8.6, 200  # inches, dots each: 1720 pixels, two for each of a README's column
_FURTHER = 2.6  # inches for each panel after the second


def plot_peers(results: Sequence[PeersBenchmark], path: pathlib.Path) -> None:
    """Write a PNG: a bar per contestant, as long as it is times as fast as the first; the whisker spans the rounds.

    Args:
        results: the comparisons, a panel each; contestants are in the order of the first one's speeds.
        path: of the PNG; replaced where it exists.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = ordered(results)
    height = 1.35 + 0.42 * len(names) + 0.2 * (len(results) > 1)
    width = _WIDTH + _FURTHER * max(0, len(results) - 2)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.12))
    panels: Any = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, result in zip(panels, results, strict=True):
        _panel(axes, result, names, _ROOM if len(results) == 1 else _ROOM_BESIDE)
        if axes is not panels[0]:
            axes.set_yticklabels([])
        if len(results) > 1:
            axes.set_title(result.short_title, loc="left", color=_INK, size=10, weight="bold")
    first = results[0]
    figure.supxlabel(
        f"times as fast as {first.rows[0].name}; whisker: all rounds; beside it: time, error", color=_PALE, size=9
    )
    title = first.title if len(results) == 1 else f"Times as fast as {first.rows[0].name}, {first.threads} threads"
    below = "\n" if len(results) == 1 else "\n\n"  # keeps the processor's line off the panels and their titles
    figure.suptitle(title + below, x=0.015, ha="left", color=_INK, size=11.5, weight="bold")
    figure.text(
        0.015, 1 - 0.36 / height, f"{first.processor}, {first.date}", ha="left", va="top", color=_PALE, size=8.5
    )
    save_plot(figure, path)


def ordered(results: Sequence[PeersBenchmark]) -> list[str]:
    """The contestants' names: fastest first, in the first comparison that has it; those that ran nowhere last."""
    speeds: dict[str, float] = {}
    for result in results:
        for row in result.rows:
            if row.speedup is not None:
                speeds.setdefault(row.name, row.speedup)
    ran = sorted(speeds, key=lambda name: speeds[name], reverse=True)
    return [*ran, *dict.fromkeys(row.name for result in results for row in result.rows if row.name not in speeds)]


def _panel(axes: Any, result: PeersBenchmark, names: Sequence[str], room: float) -> None:
    """One comparison: for each contestant a bar, its ratio, seconds and error; the axis is `room` times the longest."""
    rows = {row.name: row for row in result.rows}
    label = {"textcoords": "offset points", "va": "center"}
    longest = max(row.spread[1] for row in result.rows if row.spread is not None)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}  # keeps the line at 1 off the labels
    for place, row in ((place, rows[name]) for place, name in enumerate(names) if name in rows):
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
        axes.annotate(_measured(row), (1, 0.5), (7, 0), xycoords=ratio, **label, color=_PALE, size=8.5, bbox=paper)
    axes.plot([1.0, 1.0], [-0.55, len(names) - 0.45], color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlim(0, room * longest)
    texts = [label_of(rows[name]) if name in rows else name for name in names]
    axes.set_yticks(range(len(names)), texts)
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        is_run = name in rows and rows[name].speedup is not None
        is_ours = name in rows and rows[name].ours
        text.set(color=_INK if is_run else _PALE, weight="bold" if is_ours else "normal", size=10)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_PALE, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")


def _speedup(row: PeerRow) -> float:
    assert row.speedup is not None
    return row.speedup


def _ratio(row: PeerRow) -> str:
    times = "\N{MULTIPLICATION SIGN}"
    return f"{_speedup(row):.2f}{times}" if _speedup(row) < 10 else f"{_speedup(row):.0f}{times}"


def _measured(row: PeerRow) -> str:
    """Seconds, and the error of the kept layer where there is one."""
    assert row.seconds is not None
    time = f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{1e3 * row.seconds:.0f} ms"
    if row.relative_l2 is None:
        return time
    if row.relative_l2 < 1e-4:
        return f"{time}, {row.relative_l2:.0e}"
    return f"{time}, {row.relative_l2:.1%}" if row.relative_l2 >= 1e-3 else f"{time}, {row.relative_l2:.2%}"


def label_of(row: PeerRow) -> str:
    """A contestant's name, with the type that it computed in where the name says another one."""
    differs = row.note and row.precision is not None and row.precision not in row.name
    return f"{row.name}\n(ran in {row.precision})" if differs else row.name
