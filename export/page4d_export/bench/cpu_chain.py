"""The engines' chain on a processor against the reference model in eager PyTorch, in turn, in one process."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from rich.table import Table

from page4d.layout import Layout
from page4d.manifest import PREDICTIONS, StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d_engines import Pipeline, console
from page4d_export.bench.roofline import Roofline, bytes_of
from page4d_export.export_plan import Plan
from page4d_export.exporter import versions, write_unverified
from page4d_export.verify import Frames


class Row(msgspec.Struct, frozen=True):
    """Medians of one part of the network, in seconds."""

    part: str
    gflop: float
    pytorch: float
    engines: float
    gbyte: float
    """That the part moves at least: weights, inputs and outputs, once a call."""
    share: float
    """What the engines reach of this machine's roofline: a large matrix product's rate, a large copy's."""
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


def compare_chain(
    plan: Plan, preset: str, rounds: int, threads: int, progress: Callable[[str, float], None]
) -> Benchmark:
    """Export the plan, float32 or int8, then run both sides in turn; the first round is not counted. PyTorch's side is
    float32."""
    progress("exporting", 0.0)
    model = Page4D(plan.config)
    inputs = Frames.rendered(plan.layout).values
    images = inputs["images"]
    mask_ext = inputs["mask_ext"] if plan.config.takes_mask else None
    clock = _Clock(model)
    taken: list[tuple[dict[str, float], dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_unverified(model, plan, folder)
        pipeline = Pipeline.load(folder, "onnxruntime", threads)
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}", number / (rounds + 1))
            clock.seconds.clear()
            with torch.inference_mode():
                started = time.perf_counter()
                model(torch.from_numpy(images), None if mask_ext is None else torch.from_numpy(mask_ext))
                theirs = {**clock.seconds, "whole": time.perf_counter() - started}
            started = time.perf_counter()
            timing = pipeline.run(images, mask_ext=mask_ext).timing
            ours: dict[str, float] = defaultdict(float, whole=time.perf_counter() - started)
            for entry in pipeline.manifest.stages:
                ours[entry.kind] += timing.seconds[entry.name]
            if number:
                taken.append((theirs, ours))
    flop: dict[str, float] = defaultdict(float)
    entries: dict[str, list[StageEntry]] = defaultdict(list)
    for entry in plan.stages():
        flop[entry.kind] += entry.flop * entry.calls
        entries[entry.kind].append(entry)
    flop["whole"] = sum(flop.values())
    entries["whole"] = list(plan.stages())
    roofline = Roofline.measured(plan.precision, "cpu")
    return Benchmark(
        layout=plan.layout,
        preset=preset,
        precision=plan.precision,
        threads=threads,
        rounds=rounds,
        rows=[_row(part, count, entries[part], roofline, taken) for part, count in flop.items()],
        product_gflops=roofline.flop / 1e9,
        copy_gbytes=roofline.bytes / 1e9,
        versions=versions(),
    )


def _row(
    part: str,
    flop: float,
    entries: list[StageEntry],
    roofline: Roofline,
    taken: list[tuple[dict[str, float], dict[str, float]]],
) -> Row:
    ratios = [theirs[part] / ours[part] for theirs, ours in taken]
    engines = statistics.median(ours[part] for _, ours in taken)
    return Row(
        part,
        flop / 1e9,
        statistics.median(theirs[part] for theirs, _ in taken),
        engines,
        sum(map(bytes_of, entries)) / 1e9,
        roofline.share(entries, engines),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
    )


class _Clock:
    """Seconds that the model's parts take, by stage kind."""

    def __init__(self, model: Any) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        parts = [(kind, getattr(model, kind)) for kind in ("encoder", "mask_head", *PREDICTIONS)]
        for layer in model.layers:
            parts += [(kind, getattr(layer, kind)) for kind in ("view_sa", "time_sa", "global_sa")]
        for kind, module in parts:
            if module is None:
                continue
            module.register_forward_pre_hook(lambda *_: self._begin())
            module.register_forward_hook(lambda *_, kind=kind: self._end(kind))

    def _begin(self) -> None:
        self._started = time.perf_counter()

    def _end(self, kind: str) -> None:
        self.seconds[kind] += time.perf_counter() - self._started


def print_chain(result: Benchmark) -> None:
    """A row for every part, on stdout."""
    title = f"{result.preset} {result.layout} {result.precision}, {result.threads} threads"
    title += f", medians of {result.rounds}"
    table = Table(
        title=title,
        title_justify="left",
    )
    for column in (
        "part",
        "GFLOP",
        "PyTorch s",
        "engines s",
        "engines GFLOP/s",
        "GB",
        "of the roofline",
        "times as fast",
        "from .. to",
    ):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in result.rows:
        low, high = row.spread
        table.add_row(
            row.part,
            f"{row.gflop:.1f}",
            f"{row.pytorch:.3f}",
            f"{row.engines:.3f}",
            f"{row.gflop / row.engines:.0f}",
            f"{row.gbyte:.2f}",
            f"{row.share:.0%}",
            f"{row.ratio:.2f}",
            f"{low:.2f} .. {high:.2f}",
        )
    console.table_console().print(table)
    console.table_console().print(", ".join(f"{name} {version}" for name, version in result.versions.items()))
