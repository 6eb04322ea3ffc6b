"""`page4d bench --peers`: the engines beside other ways to run the same network on a processor, in turn, in one
process."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import pathlib
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence

import msgspec

from page4d.accuracy import compare
from page4d.errors import Page4DError
from page4d.layout import Layout
from page4d.model import Page4D
from page4d_engines.console import table_console
from page4d_export.bench.contestants import Contestant, Course, contestants
from page4d_export.export_plan import Plan
from page4d_export.exporter import versions
from page4d_export.verify import Frames

_SLOW = 5  # times the first contestant's pass: one that takes longer has its first pass counted and no further one
# seconds between two passes: threads of the one before wait for work by spinning for a while, on the next one's cores
_REST = 0.2


class PeerRow(msgspec.Struct, frozen=True):
    """One contestant. What did not run has words in `missing` and no figures."""

    name: str
    ours: bool
    precision: str | None = None
    """What it really computed in."""
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
    processor: str
    rows: list[PeerRow]
    versions: dict[str, str]

    @property
    def title(self) -> str:
        """What was run, in a line."""
        return f"{self.preset} {self.layout}, {self.threads} threads, medians of {self.rounds}"


def compare_peers(
    plan: Plan,
    preset: str,
    rounds: int,
    threads: int,
    progress: Callable[[str, float], None],
    run: Sequence[Contestant] | None = None,
) -> PeersBenchmark:
    """Make all contestants ready, then run them in turn; the first round is not counted, its results are what is
    compared.

    A contestant that takes over five times as long as the first has that one pass alone: bfloat16 does on processors
        without it.

    Args:
        plan: float32.
        preset: its name.
        rounds: that are counted.
        threads: of every contestant; PyTorch's are set by the caller.
        progress: called as the work goes on.
        run: the contestants, the one that the others are held against in front; None takes all.

    Raises:
        Page4DError, RuntimeError: from the first contestant. What stops another one becomes its row's words.
    """
    field = contestants() if run is None else list(run)
    missing: dict[str, str] = {}
    seconds: dict[str, list[float]] = {one.name: [] for one in field}
    tried: dict[str, float] = {}  # seconds of the round that is not counted
    slow: set[str] = set()
    errors: dict[str, float | None] = {}
    steps = len(field) * (rounds + 2)
    done = 0

    def attempt(one: Contestant, what: str, act: Callable[[], None]) -> None:
        nonlocal done
        progress(f"{what}: {one.name}", done / steps)
        done += 1
        if one.name in missing or one.name in slow:
            return
        try:
            act()
        except Exception as error:  # whatever other people's compilers and runtimes raise
            if one is field[0]:
                raise
            missing[one.name] = _reason(error)

    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about their own insides
        progress("seeding weights", 0.0)
        values = Frames.rendered(plan.layout).values
        course = Course(
            Page4D(plan.config),
            plan,
            values["images"],
            values["mask_ext"] if plan.config.takes_mask else None,
            threads,
            pathlib.Path(temporary),
        )
        for one in field:
            attempt(one, "preparing", functools.partial(one.prepare, course))
        for number in range(rounds + 1):
            for one in field:

                def turn(one: Contestant = one, number: int = number) -> None:
                    time.sleep(_REST)
                    taken = one.run()
                    if number:
                        seconds[one.name].append(taken)
                        return
                    tried[one.name] = taken
                    if taken > _SLOW * tried[field[0].name]:
                        slow.add(one.name)
                    if one is not field[0]:
                        found = compare(one.layer, field[0].layer)
                        errors[one.name] = None if found.nans else found.relative_l2

                attempt(one, f"round {number} of {rounds}", turn)
    first = field[0].name
    rows = []
    for one in field:
        once = one.name in slow
        mine, theirs = ([tried[one.name]], [tried[first]]) if once else (seconds[one.name], seconds[first])
        rows.append(
            _row(
                one,
                mine,
                theirs,
                errors.get(one.name),
                missing.get(one.name),
                "one pass, since it is so slow" if once else "",
            )
        )
    return PeersBenchmark(plan.layout, preset, course.kept, threads, rounds, _processor(), rows, _versions())


def print_peers(found: PeersBenchmark) -> None:
    """A line per contestant, on stdout."""
    from rich.table import Table

    console = table_console()
    table = Table(title=f"{found.title}; {found.processor}", title_justify="left")
    for column in ("", "computes in", "seconds", "times as fast", "from .. to", "relative L2"):
        table.add_column(column, justify="left" if column in ("", "computes in") else "right")
    for row in found.rows:
        if row.seconds is None or row.speedup is None or row.spread is None:
            continue
        error = "" if row is found.rows[0] else "not finite" if row.relative_l2 is None else f"{row.relative_l2:.1e}"
        cells = (
            row.precision,
            f"{row.seconds:.3f}",
            f"{row.speedup:.2f}",
            f"{row.spread[0]:.2f} .. {row.spread[1]:.2f}",
            error,
        )
        table.add_row(row.name, *cells, style="bold" if row.ours else "")
    console.print(table)
    console.print(f"times as fast as {found.rows[0].name}; error of layer {found.kept_layer} against it")
    for row in found.rows:
        if row.missing is not None:
            console.print(f"missing: {row.name}: {row.missing}", markup=False)
        elif row.note:
            console.print(f"{row.name}: {row.note}", markup=False)
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()))


def _row(
    one: Contestant, times: list[float], first: list[float], error: float | None, missing: str | None, note: str
) -> PeerRow:
    if missing is not None or one.runner is None:
        return PeerRow(one.name, one.ours, missing=missing)
    ratios = [theirs / mine for theirs, mine in zip(first, times, strict=True)]
    speedup, spread = statistics.median(ratios), (min(ratios), max(ratios))
    assert all(math.isfinite(ratio) for ratio in ratios)
    return PeerRow(
        one.name,
        one.ours,
        one.runner.precision,
        statistics.median(times),
        speedup,
        spread,
        error,
        "; ".join(filter(None, (one.runner.note, note))),
    )


def _reason(error: Exception) -> str:
    """Why something did not run, in a line."""
    if isinstance(error, Page4DError):
        return error.what if error.hint is None else f"{error.what}; try: {error.hint}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _processor() -> str:
    """Its name, and the instructions that decide about products in 16 and 8 bits."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    has = set(facts.get("flags", "").split())
    known = [
        flag
        for flag in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
        if flag in has
    ]
    return f"{facts.get('model name', platform.machine())} ({', '.join(known) or 'no AVX2'})"


def _versions() -> dict[str, str]:
    try:
        return {**versions(), "openvino": importlib.metadata.version("openvino")}
    except importlib.metadata.PackageNotFoundError:
        return versions()
