"""The GPU benchmark's results for people: whole tables, and a short one of several results' files."""

from __future__ import annotations

import pathlib
import sys

import msgspec

from page4d_engines import console
from page4d_export.bench.cells import extremes
from page4d_export.bench.gpu_chain import GpuChainBenchmark, print_gpu_chain
from page4d_plugins.bench.gpu_benchmark import HOPPER_EXP2, GpuBenchmark, Timed
from page4d_plugins.bench.sides import OURS
from page4d_plugins.bench.sweep import Sweep, Trial, tile_text

_SHOWN = 12  # tiles of a sweep


def print_benchmark(result: GpuBenchmark) -> None:
    """All sides on stdout, then those that are missing."""
    shape = result.layout
    title = (
        f"{result.device}, {result.keys} tokens (T={shape['T']} V={shape['V']}, {shape['N']} a frame), {result.heads}"
        f" heads x 64, {result.dtype}"
    )
    columns = ["ms", "from .. to", "TFLOP/s", "product", "exp2", "SDPA", "from .. to", "error"]
    table = console.table(f"{title}, medians of {result.rounds}", ["Z", "attention", ""], columns)
    last: tuple[int, str] | None = None
    for side in result.timed:
        if last != (side.sequences, side.form) and last is not None:
            table.add_section()
        last = (side.sequences, side.form)
        table.add_row(
            str(side.sequences),
            side.form,
            side.name + ("" if side.timed == "graph" else f" ({side.timed})"),
            f"{side.milliseconds:.3f}",
            extremes(side.spread, 3),
            f"{side.tflops:.3g}",
            _share(side.of_product),
            "" if side.of_exp2 is None else " / ".join(_share(share) for share in side.of_exp2),
            "" if side.of_sdpa is None else f"{side.of_sdpa:.2f}",
            "" if side.of_sdpa_spread is None else extremes(side.of_sdpa_spread),
            f"{side.error:.1e}",
        )
    out = console.table_console()
    out.print(table)
    if result.product_tflops is not None:
        out.print(
            f"product: share of the rate of a large matrix product in the same run, {result.product_tflops:.0f} TFLOP/s"
        )
    if result.exp2_tflops is not None:
        low, high = HOPPER_EXP2
        out.print(
            f"exp2: shares of {low:.0f} TFLOP/s, no exponential beside the matrix units, and {high:.0f}, all of them;"
            " arithmetic, at 1.755 GHz"
        )
    baselines = {
        f"{side.baseline} (Z={side.sequences}, {side.form})" for side in result.timed if side.baseline == side.name
    }
    out.print(
        "SDPA: rate over that of the fastest of PyTorch's backends without bias:"
        f" {', '.join(sorted(baselines)) or 'none ran'}"
    )
    missing: dict[tuple[str, str], list[str]] = {}
    for absent in result.absent:
        missing.setdefault((absent.name, absent.reason), []).append(f"Z={absent.sequences} {absent.form}")
    for (name, reason), where in missing.items():
        out.print(f"missing: {name}: {reason} ({', '.join(where)})", markup=False)


def print_sweep(result: Sweep) -> None:
    """The fastest tiles on stdout, the best against the table's, then what failed."""
    title = (
        f"{result.device}, attention_{result.mode} {result.dtype}, {result.keys} tokens, {result.heads} heads x 64,"
        f" medians of {result.rounds}"
    )
    table = console.table(title, ["tile"], ["ms", "from .. to", "TFLOP/s", "error"])
    timed = [trial for trial in result.trials if trial.milliseconds is not None]
    for trial in timed[:_SHOWN]:
        assert trial.spread is not None
        mark = " (table)" if trial.tile == result.table else ""
        cells = f"{trial.milliseconds:.3f}", extremes(trial.spread, 3), f"{trial.tflops:.3g}", f"{trial.error:.1e}"
        table.add_row(tile_text(trial.tile) + mark, *cells)
    out = console.table_console()
    out.print(table)
    out.print(verdict(result), markup=False)
    out.print(f"{len(timed)} tiles timed in {result.seconds:.0f} s")
    for trial in result.trials:
        if trial.reason is not None:
            out.print(f"{'WRONG' if trial.wrong else 'missing'}: {tile_text(trial.tile)}: {trial.reason}", markup=False)


def verdict(result: Sweep) -> str:
    """The best tile against the table's."""
    best, listed = result.best, result.listed
    if best is None:
        return "no tile could be timed"
    if listed is None or listed.milliseconds is None:
        return f"best: {_trial(best)}; the table's failed: {listed.reason if listed else 'not tried'}"
    if best.tile == listed.tile:
        return f"best: {_trial(best)}, which the table has"
    assert best.milliseconds is not None
    return (
        f"best: {_trial(best)}; the table has {_trial(listed)}: the best is"
        f" {listed.milliseconds / best.milliseconds:.2f} times as fast"
    )


def print_summary(files: list[pathlib.Path]) -> None:
    """Print a few lines of each result: this project's sides, and the fastest other one; files without a result."""
    out = console.table_console()
    table = console.table(None, ["file", "Z", "attention", ""], ["ms", "TFLOP/s", "of SDPA", "of product"])
    notes = []
    for file in files:
        try:
            content = file.read_bytes()
            if b'"sides"' in content:
                print_gpu_chain(msgspec.json.decode(content, type=GpuChainBenchmark))
                continue
            if b'"trials"' in content:
                notes.append(f"{file.stem}: {verdict(msgspec.json.decode(content, type=Sweep))}")
                continue
            result = msgspec.json.decode(content, type=GpuBenchmark)
        except (OSError, msgspec.DecodeError) as error:
            notes.append(f"{file.stem}: no result ({error})")
            continue
        for side in _short(result):
            ratio = "" if side.of_sdpa is None else f"{side.of_sdpa:.2f}"
            table.add_row(
                file.stem,
                str(side.sequences),
                side.form,
                side.name,
                f"{side.milliseconds:.3f}",
                f"{side.tflops:.3g}",
                ratio,
                _share(side.of_product),
            )
        notes += [
            f"{file.stem}: FAILED Z={side.sequences}, {side.form}, {side.name}: {side.reason}"
            for side in result.failures
        ]
    out.print(table)
    for note in notes:
        out.print(note, markup=False)


def _short(result: GpuBenchmark) -> list[Timed]:
    kept = []
    for key in dict.fromkeys((side.sequences, side.form) for side in result.timed):
        sides = [side for side in result.timed if (side.sequences, side.form) == key]
        others = sorted((side for side in sides if side.name not in OURS), key=lambda side: side.milliseconds)
        kept += [side for side in sides if side.name in OURS] + others[:1]
    return kept


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _trial(trial: Trial) -> str:
    return f"{tile_text(trial.tile)}, {trial.milliseconds:.3f} ms, {trial.tflops:.3g} TFLOP/s"


if __name__ == "__main__":
    print_summary([pathlib.Path(name) for name in sys.argv[1:]])
