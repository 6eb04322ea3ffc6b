"""`page4d bench peers`: the engines beside other ways to run the same network on a CPU.

Each runs in turn with the first contestant in a process of their own, so its memory is given back before the next.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import functools
import importlib.metadata
import math
import multiprocessing
import pathlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool

import msgspec

from page4d.accuracy import compare
from page4d.errors import OutOfMemoryError, Page4DError, UsageError
from page4d.layout import Layout
from page4d.model import Page4D
from page4d.system.cpu import cpu_features, cpu_name
from page4d.system.progress import SILENT, Progress
from page4d_engines import console
from page4d_export.bench.cells import extremes, versions_line
from page4d_export.bench.contestant import Contestant, Course
from page4d_export.bench.contestants import contestants
from page4d_export.exporter import versions
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_plugins.bench.timing import WHOLE, Sample, Timings, interleave, spread

_PRODUCT_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_SLOW = 5  # times the first contestant's pass: one that takes longer has its first pass counted and no further one
# seconds between two passes: threads of the one before wait for work by spinning for a while, on the next one's cores
_REST = 0.2


class PeerRow(msgspec.Struct, frozen=True):
    """One contestant. What did not run has a reason in `missing`, and no figures."""

    name: str
    ours: bool
    precision: str | None = None
    """The type that it computed in, which may be another one than was asked for."""
    seconds: float | None = None
    """Median of the counted rounds, from frames to the kept layer in host memory."""
    speedup: float | None = None
    """Median, round by round, of the first contestant's time over this one's: above 1 this one is faster."""
    spread: tuple[float, float] | None = None
    """Smallest and largest of those ratios."""
    relative_l2: float | None = None
    """Error of the kept layer against the first contestant's; None where it has entries that are not finite, and of the
    first itself."""
    note: str = ""
    missing: str | None = None


class PeersBenchmark(msgspec.Struct, frozen=True):
    """A comparison, and what it ran on."""

    layout: Layout
    preset: str
    kept_layer: int
    """The layer whose tokens are compared."""
    threads: int
    rounds: int
    date: str
    """Of the measuring, as 2026-01-31."""
    processor: str
    rows: list[PeerRow]
    versions: dict[str, str]

    @property
    def title(self) -> str:
        """Model, layout, threads and rounds, in a line."""
        return f"{self.short_title}, {self.threads} threads, medians of {self.rounds}"

    @property
    def short_title(self) -> str:
        """Model and layout."""
        return f"{self.preset} {self.layout}"


def read_peers(path: pathlib.Path) -> PeersBenchmark:
    """What `page4d bench peers --json` wrote.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=PeersBenchmark)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError("no results of page4d bench peers --json", got=f"{path}: {error}") from None


def compare_peers(
    plan: ExportPlan,
    preset: str,
    rounds: int,
    threads: int,
    progress: Progress,
    run: Sequence[Contestant] | None = None,
    scratch: pathlib.Path | None = None,
) -> PeersBenchmark:
    """Prepare all contestants, then run them in turn; the first round is not counted, and its results are compared.

    A contestant that takes over five times as long as the first, as bfloat16 does on CPUs without it, runs once.

    Args:
        plan: float32.
        preset: its name.
        rounds: that are counted.
        threads: of every contestant; PyTorch's are set by the caller.
        progress: called as the work goes on.
        run: the contestants; the others are compared with the first. None takes all.
        scratch: a folder for files, which stay there; None takes one that is gone afterwards.

    Raises:
        Page4DError, RuntimeError: from the first contestant. What stops another one is the reason in its row.
    """
    field = {side.name: side for side in (contestants() if run is None else run)}
    reference = next(iter(field.values()))
    missing: dict[str, str] = {}
    errors: dict[str, float | None] = {}
    steps = rounds + 2

    def failed(name: str, error: Exception) -> None:
        if name == reference.name:
            raise error
        missing[name] = _reason(error)

    def prepare(contestant: Contestant) -> Sample:
        contestant.prepare(course)
        return {}

    def compared(contestant: Contestant) -> Sample:
        sample = _run(contestant)
        if contestant is not reference:
            accuracy = compare(contestant.layer, reference.layer)
            errors[contestant.name] = None if accuracy.nans else accuracy.relative_l2
        return sample

    def in_turn(
        act: Callable[[Contestant], Sample], names: Iterable[str], rounds: int, progress: Progress
    ) -> Timings[str]:
        sides = {name: functools.partial(act, field[name]) for name in names}
        return interleave(sides, rounds, warm_up=False, failed=failed, progress=progress)

    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the contestants
        progress.note("seeding weights", 0.0)
        course = _course(plan, threads, pathlib.Path(temporary) if scratch is None else scratch)
        ready = in_turn(prepare, field, 1, progress.part(0, 1 / steps, label="preparing, ")).samples
        first = in_turn(compared, ready, 1, progress.part(1 / steps, 2 / steps))
        slow = {name for name in first.samples if first.median(name) > _SLOW * first.median(reference.name)}
        fast = [name for name in first.samples if name not in slow]
        counted = in_turn(_run, fast, rounds, progress.part(2 / steps, 1))
    rows = []
    for name, contestant in field.items():
        timings = first if name in slow else counted
        note = "one pass, since it is so slow" if name in slow else ""
        if name in missing:
            rows.append(PeerRow(name, contestant.ours, missing=missing[name]))
        else:
            rows.append(_row(contestant, timings, reference.name, errors.get(name), note))
    return PeersBenchmark(
        layout=plan.layout,
        preset=preset,
        kept_layer=course.kept,
        threads=threads,
        rounds=rounds,
        date=datetime.date.today().isoformat(),
        processor=_cpu(),
        rows=rows,
        versions=_versions(),
    )


def compare_apart(
    plan: ExportPlan,
    preset: str,
    rounds: int,
    threads: int,
    progress: Progress = SILENT,
    without: Sequence[str] = (),
) -> PeersBenchmark:
    """As `compare_peers` of all contestants, each beside the first in a process of its own.

    A process that is killed, as for memory, is the reason in its contestant's row.

    Args:
        plan, preset, rounds, threads, progress: as of `compare_peers`.
        without: contestants whose names have one of these texts are left out.

    Raises:
        UsageError: a text that no name has, or that leaves no contestant.
    """
    first, *others = chosen_names(without)
    spawn = multiprocessing.get_context("spawn")
    pairs: list[PeersBenchmark] = []
    rows: list[PeerRow] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(others):
            progress.note(f"{name}, beside {first}", number / len(others))
            with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
                pair = pool.submit(_pair, plan, preset, rounds, threads, name, scratch)
                try:
                    pairs.append(pair.result())
                    rows.append(pairs[-1].rows[1])
                except BrokenProcessPool:
                    rows.append(PeerRow(name, _is_ours(name), missing="its process was killed, as for want of memory"))
    if not pairs:
        raise OutOfMemoryError("no contestant's process came to its end", hint="a smaller --T, --V, --height, --width")
    seconds = statistics.median(pair.rows[0].seconds or math.nan for pair in pairs)
    return msgspec.structs.replace(pairs[0], rows=[msgspec.structs.replace(pairs[0].rows[0], seconds=seconds), *rows])


def chosen_names(without: Sequence[str]) -> list[str]:
    """The contestants' names but for those with one of some texts; the first stays.

    Raises:
        UsageError: a text that no name has, or that leaves no other contestant.
    """
    first, *others = (contestant.name for contestant in contestants())
    left = [name for name in others if not any(text in name for text in without)]
    if not left or any(all(text not in name for name in others) for text in without):
        raise UsageError(
            "--without is a part of a contestant's name, and leaves some",
            got=", ".join(without),
            allowed=", ".join(others),
        )
    return [first, *left]


def _pair(plan: ExportPlan, preset: str, rounds: int, threads: int, name: str, scratch: str) -> PeersBenchmark:
    """The first contestant and another one, in this process."""
    import torch

    torch.set_num_threads(threads)
    first, *others = contestants()
    pair = [first, next(other for other in others if other.name == name)]
    return compare_peers(plan, preset, rounds, threads, SILENT, pair, pathlib.Path(scratch))


def _is_ours(name: str) -> bool:
    return next(contestant.ours for contestant in contestants() if contestant.name == name)


def _course(plan: ExportPlan, threads: int, scratch: pathlib.Path) -> Course:
    values = SampleClip.rendered(plan.layout).values
    return Course(
        model=Page4D(plan.config),
        plan=plan,
        images=values["images"],
        mask_ext=values["mask_ext"] if plan.config.takes_mask else None,
        threads=threads,
        scratch=scratch,
    )


def _run(contestant: Contestant) -> Sample:
    time.sleep(_REST)
    return {WHOLE: contestant.run()}


def _row(contestant: Contestant, timings: Timings[str], reference: str, error: float | None, note: str) -> PeerRow:
    ratios = timings.ratios(reference, contestant.name)
    assert contestant.runner is not None and all(map(math.isfinite, ratios))
    return PeerRow(
        name=contestant.name,
        ours=contestant.ours,
        precision=contestant.runner.precision,
        seconds=timings.median(contestant.name),
        speedup=statistics.median(ratios),
        spread=spread(ratios),
        relative_l2=error,
        note="; ".join(filter(None, (contestant.runner.note, note))),
    )


def print_peers(result: PeersBenchmark) -> None:
    """A line per contestant, on stdout."""
    out = console.table_console()
    columns = ["seconds", "times as fast", "from .. to", "relative L2"]
    table = console.table(f"{result.title}; {result.date}, {result.processor}", ["", "computes in"], columns)
    for row in result.rows:
        if row.seconds is None or row.speedup is None or row.spread is None:
            continue
        error = "" if row is result.rows[0] else "not finite" if row.relative_l2 is None else f"{row.relative_l2:.1e}"
        cells = (row.precision, f"{row.seconds:.3f}", f"{row.speedup:.2f}", extremes(row.spread), error)
        table.add_row(row.name, *cells, style="bold" if row.ours else "")
    out.print(table)
    out.print(f"times as fast as {result.rows[0].name}; error of layer {result.kept_layer} against it")
    for row in result.rows:
        if row.missing is not None:
            out.print(f"missing: {row.name}: {row.missing}", markup=False)
        elif row.note:
            out.print(f"{row.name}: {row.note}", markup=False)
    out.print(versions_line(result.versions))


def _reason(error: Exception) -> str:
    """The reason why a contestant did not run, in a line."""
    if isinstance(error, Page4DError):
        return error.what if error.hint is None else f"{error.what}; try: {error.hint}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _cpu() -> str:
    """The CPU's name, and its instructions for products in 16 and 8 bits."""
    features = [name for name in _PRODUCT_FEATURES if name in cpu_features()]
    return f"{cpu_name()} ({', '.join(features) or 'no AVX2'})"


def _versions() -> dict[str, str]:
    packages = versions()
    for name in ("openvino", "nncf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return packages
