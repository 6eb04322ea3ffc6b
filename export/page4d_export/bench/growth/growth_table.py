"""What `page4d bench growth` measures and models, as a table."""

from __future__ import annotations

from rich.console import Console

from page4d_engines import console
from page4d_export.bench.cells import versions_line
from page4d_export.bench.growth.growth_record import Cell, Fit, Growth, Published

_GIB = 2**30


def print_growth(growth: Growth) -> None:
    """As a table on stdout: a row for each T, a column for each V, seconds and GiB; what was measured is marked."""
    views = sorted({cell.V for cell in growth.grid})
    table = console.table(None, [], ["T", *(f"V={view}" for view in views)])
    cells = {(cell.T, cell.V): cell for cell in growth.grid}
    measured = {(point.T, point.V) for point in growth.points}
    for T in sorted({cell.T for cell in growth.grid}):
        table.add_row(
            str(T), *(_cell(cells[T, view], (T, view) in measured) if (T, view) in cells else "" for view in views)
        )
    out = console.table_console()
    out.print(f"{growth.title}: seconds a window / GiB by the model, a star where it was measured")
    out.print(table)
    points = console.table(None, [], ["measured", "s", "modelled s", "GiB", "modelled GiB"])
    for point in growth.points:
        cell = cells[point.T, point.V]
        seconds = f"{point.seconds:.3g}", f"{cell.seconds:.3g}"
        sizes = f"{point.bytes / _GIB:.3f}", f"{cell.memory.total / _GIB:.3f}"
        points.add_row(f"T={point.T} V={point.V}", *seconds, *sizes)
    out.print(points)
    for line in _fit_lines(growth.fit):
        out.print(line)
    if growth.published is not None:
        _print_published(out, growth, growth.published)
    out.print(f"stopped: {growth.stopped}")
    out.print(versions_line(growth.versions))


def _print_published(out: Console, growth: Growth, published: Published) -> None:
    """Modelled figures beside the authors'; "of 1" is the time divided by that side's time of one frame."""
    cells = {cell.T * cell.V: cell for cell in growth.grid}
    first, seconds_of_one = cells[1], published.seconds[0]
    table = console.table(None, [], ["frames", "s", "of 1", "GiB", "authors' s", "of 1", "GB"])
    for frames, seconds, gigabytes in zip(published.frames, published.seconds, published.gigabytes, strict=True):
        cell = cells[frames]
        ours = f"{cell.seconds:.3g}", f"{cell.seconds / first.seconds:.1f}", f"{cell.memory.total / _GIB:.2f}"
        table.add_row(str(frames), *ours, f"{seconds:g}", f"{seconds / seconds_of_one:.1f}", f"{gigabytes:g}")
    out.print(f"modelled, beside the authors' figures ({published.of})")
    out.print(table)


def _cell(cell: Cell, measured: bool) -> str:
    mark = "*" if measured else " "
    gib = cell.memory.total / _GIB
    size = f"{gib:.2f}" if gib < 10 else f"{gib:.1f}"
    return f"{cell.seconds:.3g} / {size}{mark}"


def _fit_lines(fit: Fit) -> list[str]:
    linears, attention = (
        f"{1 / seconds:.0f} GFLOP/s" if seconds else "free" for seconds in (fit.rates.linears, fit.rates.attention)
    )
    low, high = fit.memory_deviation
    lines = [
        (
            f"time: linears {linears}, attention {attention},"
            f" {fit.rates.call * 1e3:.2g} ms a call; off by {fit.deviation:.0%} at most where measured"
        ),
        f"memory: modelled is {low:+.0%} to {high:+.0%} of what was measured",
    ]
    if fit.held_out_deviation is not None:
        lines.insert(1, f"beyond: {fit.held_out} from the smaller points alone is off by {fit.held_out_deviation:+.0%}")
    return lines
