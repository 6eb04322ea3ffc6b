"""The engines' chain on a CPU beside the reference model in eager PyTorch: in turn, in one process."""

from __future__ import annotations

import pathlib
import statistics
import tempfile

import msgspec

from page4d.errors import OutOfMemoryError
from page4d.layout import Layout
from page4d.manifest import StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d.system.memory import available_memory
from page4d.system.progress import Progress
from page4d_engines import Pipeline, console
from page4d_export.bench.cells import extremes, versions_line
from page4d_export.bench.chain_sides import Eager, Engines
from page4d_export.bench.growth.growth_model import memory_of
from page4d_export.bench.roofline import Roofline, by_kind, bytes_of, gflop_of
from page4d_export.exporter import versions, write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_plugins.bench.timing import WHOLE, Timings, interleave, spread

PYTORCH, ENGINES = "PyTorch", "engines"
_EAGER_TENSORS = 4  # of the largest size, which PyTorch holds at once


class Row(msgspec.Struct, frozen=True):
    """Medians of one part of the network, in seconds."""

    part: str
    gflop: float
    pytorch: float
    engines: float
    gbyte: float
    """Bytes that the part moves at least, in 10^9: weights, inputs and outputs, once a call."""
    share: float
    """The engines' share of this machine's roofline: the rates of a large matrix product and of a large copy."""
    ratio: float
    """Median of PyTorch's time over the engines', round by round: above 1 the engines are faster."""
    spread: tuple[float, float]
    """Smallest and largest of those ratios."""


class Benchmark(msgspec.Struct, frozen=True):
    """A comparison, and what it ran on."""

    layout: Layout
    preset: str
    precision: Precision
    threads: int
    rounds: int
    rows: list[Row]
    product_gflops: float
    copy_gbytes: float
    versions: dict[str, str]


def compare_chain(plan: ExportPlan, preset: str, rounds: int, threads: int, progress: Progress) -> Benchmark:
    """Export the plan, float32 or int8, then run it and PyTorch in float32 in turn; the first round is not counted.

    Raises:
        OutOfMemoryError: both do not fit this machine's memory side by side.
    """
    require_memory(plan)
    progress.note("exporting", 0.0)
    model = Page4D(plan.config)
    values = SampleClip.rendered(plan.layout).values
    eager = Eager(model, Precision.FLOAT32, "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_unverified(model, plan, folder)
        engines = Engines(Pipeline.load(folder, "onnxruntime", threads), values)
        sides = {PYTORCH: lambda: eager.sample(values), ENGINES: engines.sample}
        timings = interleave(sides, rounds, progress=progress)
    kinds = by_kind(plan)
    roofline = Roofline.measured(plan.precision, "cpu")
    return Benchmark(
        layout=plan.layout,
        preset=preset,
        precision=plan.precision,
        threads=threads,
        rounds=rounds,
        rows=[
            _row(part, entries, roofline, timings) for part, entries in {**kinds, WHOLE: list(plan.stages())}.items()
        ],
        product_gflops=roofline.flop / 1e9,
        copy_gbytes=roofline.bytes / 1e9,
        versions=versions(),
    )


def require_memory(plan: ExportPlan) -> None:
    """Refuse a plan whose engines do not fit into memory beside the model in PyTorch, before anything is made.

    Raises:
        OutOfMemoryError: as said.
    """
    exact = plan.in_precision(Precision.FLOAT32)
    # all images at once, where engines take some
    tensors = 4 * _EAGER_TENSORS * max(entry.calls * entry.largest for entry in exact.stages())
    needed = sum(entry.weight_bytes for entry in exact.stages()) + tensors + memory_of(exact).total
    if needed > (available := available_memory()):
        raise OutOfMemoryError(
            f"engines and PyTorch side by side do not fit this machine's memory at {plan.layout}",
            got=f"{needed / 1e9:.1f} GB",
            allowed=f"the {available / 1e9:.1f} GB that are free",
            hint="a smaller --preset, --T, --V, --height or --width",
        )


def _row(part: str, entries: list[StageEntry], roofline: Roofline, timings: Timings[str]) -> Row:
    ratios = timings.ratios(PYTORCH, ENGINES, part)
    engines = timings.median(ENGINES, part)
    return Row(
        part=part,
        gflop=gflop_of(entries),
        pytorch=timings.median(PYTORCH, part),
        engines=engines,
        gbyte=sum(map(bytes_of, entries)) / 1e9,
        share=roofline.share(entries, engines),
        ratio=statistics.median(ratios),
        spread=spread(ratios),
    )


def print_chain(result: Benchmark) -> None:
    """A row for every part, on stdout."""
    title = f"{result.preset} {result.layout} {result.precision}, {result.threads} threads"
    columns = ["GFLOP", "PyTorch s", "engines s", "engines GFLOP/s", "GB", "of the roofline", "times as fast"]
    table = console.table(f"{title}, medians of {result.rounds}", ["part"], [*columns, "from .. to"])
    for row in result.rows:
        table.add_row(
            row.part,
            f"{row.gflop:.1f}",
            f"{row.pytorch:.3f}",
            f"{row.engines:.3f}",
            f"{row.gflop / row.engines:.0f}",
            f"{row.gbyte:.2f}",
            f"{row.share:.0%}",
            f"{row.ratio:.2f}",
            extremes(row.spread),
        )
    out = console.table_console()
    out.print(table)
    out.print(versions_line(result.versions))
