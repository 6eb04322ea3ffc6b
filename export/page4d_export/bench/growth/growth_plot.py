"""The growth of time and memory over T and V as a picture: lines are the model, dots are measured."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from page4d_export.bench.plot_file import check_plot, save_plot

if TYPE_CHECKING:
    from page4d_export.bench.growth.growth_record import Cell, Growth, Point, Published

_INK, _PALE, _LINE = "#1f2937", "#6b7280", "#d1d5db"
_COLOURS = ("#f59e0b", "#ea580c", "#dc2626", "#be185d", "#7e22ce", "#1e3a8a")  # of V = 1 to 6: more views, darker
_SIZES = (8, 16, 24, 80)  # GiB of machines and GPUs that a user may have
_TICKS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_WIDTH, _HEIGHT, _DPI = 8.6, 4.1, 200  # inches, dots each: 1720 pixels, two for each of a README's column
_LABEL_GAP = 0.047  # between labels at the lines' ends, as a share of the panel's height
_GIB = 2**30


def plot_growth(growth: Growth, path: pathlib.Path) -> None:
    """Write a PNG: seconds and GiB over T, a line for each V.

    Args:
        growth: the models' grid and the measured points.
        path: of the PNG; replaced where it exists.

    Raises:
        UsageError, MissingBackendError: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, facecolor="white")
    figure.set_layout_engine(
        ConstrainedLayoutEngine(w_pad=0.08, rect=(0, 0, 1, 0.87 if growth.published is None else 0.83))
    )
    time, memory = panels = figure.subplots(1, 2)
    _panel(time, growth, "seconds a window", lambda cell: cell.seconds, lambda point: point.seconds)
    _panel(memory, growth, "memory, GiB", lambda cell: cell.memory.total / _GIB, lambda point: point.bytes / _GIB)
    if growth.published is not None:
        _published(time, growth.published, growth.published.seconds)
        _published(memory, growth.published, [10**9 * size / _GIB for size in growth.published.gigabytes])
    _sizes(memory)
    for panel in panels:
        _end_labels(panel, growth)
    figure.text(0.015, 0.975, growth.title, ha="left", va="top", color=_INK, size=11.5, weight="bold")
    legend = _legend(growth)
    if growth.published is not None:
        legend += f"\ngrey: the authors' figures, {growth.published.of}"
    figure.text(0.015, 0.915, legend, ha="left", va="top", color=_PALE, size=8.5)
    save_plot(figure, path)


def _panel(
    axes: Any, growth: Growth, label: str, modelled: Callable[[Cell], float], measured: Callable[[Point], float]
) -> None:
    """One quantity over T on two logarithmic axes, where a power is a straight line."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    along, other = _axes(growth)
    for number in _lines(growth):
        cells = [cell for cell in growth.grid if getattr(cell, other) == number]
        points = [point for point in growth.points if getattr(point, other) == number]
        x, y = [getattr(cell, along) for cell in cells], [modelled(cell) for cell in cells]
        axes.plot(x, y, color=_colour(number), linewidth=1.4)
        x, y = [getattr(point, along) for point in points], [measured(point) for point in points]
        axes.scatter(x, y, s=30, color=_colour(number), edgecolors="white", linewidths=0.8, zorder=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    longest = max(getattr(cell, along) for cell in growth.grid)
    axes.set_xlim(0.9, longest * 1.32)  # room for the labels at the lines' ends
    for axis, locator in (
        (axes.xaxis, FixedLocator([tick for tick in _TICKS if tick <= longest])),
        (axes.yaxis, LogLocator(subs=(1, 2, 5))),
    ):
        axis.set_major_locator(locator)
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color="#eef0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("T, timesteps" if along == "T" else "V, views", color=_PALE, size=9)
    axes.set_title(label, loc="left", color=_INK, size=10)
    axes.tick_params(colors=_PALE, labelsize=8.5, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_LINE)


def _published(axes: Any, published: Published, values: Sequence[float]) -> None:
    """The authors' points, joined."""
    style = {"markersize": 4.5, "markerfacecolor": "white", "linewidth": 1.1, "linestyle": (0, (2, 2))}
    axes.plot(published.frames, values, color=_PALE, marker="o", zorder=3, **style)


def _sizes(axes: Any) -> None:
    """Horizontal lines at the memory that machines have: all that the curves reach, and the next larger one."""
    low, high = axes.get_ylim()
    shown = [size for size in _SIZES if size < high]
    shown += [size for size in _SIZES if size >= high][:1]
    for size in shown:
        if size > low:
            axes.axhline(size, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            offset = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(f"{size} GiB", (0, size), (4, 2), **offset, color=_INK, size=8)
    axes.set_ylim(low, max(high, 1.35 * shown[-1]))


def _end_labels(axes: Any, growth: Growth) -> None:
    """`V=1` at each line's end, pushed apart where lines end close to each other."""
    lines = dict(zip(_lines(growth), axes.get_lines(), strict=False))  # those of machines come after
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # keeps the lines of machines off the labels
    place = 0.0
    for number, line in sorted(lines.items(), key=lambda pair: float(pair[1].get_ydata()[-1])):
        x, y = float(line.get_xdata()[-1]), float(line.get_ydata()[-1])
        right, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        place = max(float(height), place + _LABEL_GAP)
        text = f"{_axes(growth)[1]}={number}"
        style = {"va": "center", "color": _colour(number), "size": 8.5, "weight": "bold", "bbox": paper}
        axes.text(right + 0.02, place, text, transform=axes.transAxes, **style)


def _legend(growth: Growth) -> str:
    text = f"lines: modelled, dots: measured; off by {growth.fit.deviation:.0%} at most there"
    if growth.fit.held_out_deviation is not None:
        text += (
            f"; {growth.fit.held_out} predicted from the smaller ones: {growth.fit.held_out_deviation:+.0%} of its"
            " seconds"
        )
    return text


def _axes(growth: Growth) -> tuple[str, str]:
    """The axis that lines run over, and the axis with a line for each value.

    Lines run over T, or over V where the model sees one timestep alone.
    """
    return ("T", "V") if any(cell.T > 1 for cell in growth.grid) else ("V", "T")


def _lines(growth: Growth) -> list[int]:
    return sorted({getattr(cell, _axes(growth)[1]) for cell in growth.grid})


def _colour(number: int) -> str:
    return _COLOURS[(number - 1) % len(_COLOURS)]
