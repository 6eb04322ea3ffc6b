"""Tiles of one kernel on one GPU: each compiled, checked and timed, beside the one that is used."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import msgspec
import torch

from page4d.errors import AccuracyError
from page4d.system.progress import SILENT, Progress
from page4d_plugins.bench.call import IMAGE, Call, Form, form_call, layout_for
from page4d_plugins.bench.clock import Clock, Sampler, clock_for
from page4d_plugins.bench.compare import describe, input_sets, versions, wrong
from page4d_plugins.bench.reference import Reference
from page4d_plugins.bench.sides import Attempt, reason_of
from page4d_plugins.bench.timing import interleave, spread
from page4d_plugins.kernel_pack import TileSize
from page4d_plugins.modes import CHIPS, FALLBACK, Dtype, Mode, Tile, chip_for

HEADS = 16
TILES = tuple(
    Tile(*cut) for cut in itertools.product((64, 128, 256), (32, 64, 128), (4, 8), (1, 2, 3, 4), (False, True))
)
FORM_OF = {
    Mode.DENSE: Form.DENSE,
    Mode.BIASED: Form.BIASED,
    Mode.ROWS: Form.ROWS,
    Mode.EPIPOLAR: Form.EPIPOLAR,
    Mode.SEGMENTS: Form.DILATED,
    Mode.SEGMENTS_BIASED: Form.ALIBI,
    Mode.PARTIAL: Form.MEMORY,
    Mode.PARTIAL_BIASED: Form.MEMORY_BIASED,
}
"""The use that a mode's tiles are tried on."""


class Trial(msgspec.Struct, frozen=True):
    """One tile."""

    tile: TileSize
    milliseconds: float | None
    """Median; None where it was not timed."""
    spread: tuple[float, float] | None
    tflops: float | None
    error: float | None
    """Largest relative L2 error of a sampled row."""
    reason: str | None
    """Why it was not timed."""
    wrong: bool
    """Whether it ran and computed something else."""


class Sweep(msgspec.Struct, frozen=True):
    """Tiles of one mode, the fastest first, then those that were not timed."""

    device: str
    capability: str
    versions: dict[str, str]
    mode: str
    dtype: str
    keys: int
    heads: int
    rounds: int
    seconds: float
    trials: list[Trial]
    table: TileSize
    """The tile of `modes.CHIPS` for this mode and GPU architecture."""

    @property
    def best(self) -> Trial | None:
        """The fastest."""
        return self.trials[0] if self.trials and self.trials[0].milliseconds is not None else None

    @property
    def listed(self) -> Trial | None:
        """The table's tile, as it was tried."""
        return next((trial for trial in self.trials if trial.tile == self.table), None)

    def require(self) -> None:
        """Raise an AccuracyError where a tile computes something else, or none could be timed."""
        mistakes = [f"{tile_text(trial.tile)}: {trial.reason}" for trial in self.trials if trial.wrong]
        if mistakes or self.best is None:
            raise AccuracyError(
                "tiles of the attention kernel fail",
                got="; ".join(mistakes) or "none ran",
                allowed="the same result from every tile",
            )


class Job(NamedTuple):
    """The call that every tile is tried on."""

    mode: Mode
    keys: int
    dtype: Dtype
    image: int
    device: str

    def call(self, seed: int = 0) -> Call:
        """Random inputs."""
        return form_call(FORM_OF[self.mode], layout_for(self.keys, self.image), self.dtype, 1, HEADS, self.device, seed)


def sweep(
    mode: Mode,
    keys: int,
    rounds: int,
    dtype: Dtype = Dtype.FLOAT16,
    *,
    tiles: Sequence[Tile] = TILES,
    seconds: float = 300.0,
    workers: int | None = None,
    image: int = IMAGE,
    device: str = "cuda",
    clock: Clock | None = None,
    progress: Progress = SILENT,
) -> Sweep:
    """Try every tile.

    Args:
        mode: of the kernel.
        keys: T*V*N of the clip, and queries but for the modes of parts, which have 32.
        rounds: counted ones, after one that is not.
        dtype: of q, k and v.
        tiles: what to try; the table's own is tried in any case, and first.
        seconds: after which no further tile is compiled or checked.
        workers: processes that compile side by side; 0 compiles here. By default one a CPU core, 12 at most.
        image: height and width in pixels: 1374 tokens a frame by default.
        device: as PyTorch names it.
        clock: measures times; the device's by default.
        progress: told of each step.

    Raises:
        UsageError: keys that are not whole frames.
    """
    started, clock = time.monotonic(), clock or clock_for(device)
    job = Job(mode, keys, dtype, image, device)
    table = CHIPS[_chip(device)].of(mode)
    tiles = [table, *(tile for tile in tiles if tile != table)]
    calls = input_sets(job.call, clock)
    reference = Reference(calls[0], layout_for(keys, image).N)
    workers = min(12, os.cpu_count() or 1, len(tiles)) if workers is None else workers
    progress.note(f"compiling {len(tiles)} tiles", 0.0)
    reasons = _compiled(job, tiles, workers, 0.6 * seconds) if workers else {}
    trials: list[Trial] = []
    ready: dict[Tile, tuple[float, Sampler]] = {}
    for i, tile in enumerate(tiles):
        progress.note(tile_text(tile), 0.6 + 0.3 * i / len(tiles))
        reason = reasons.get(tile)
        if reason is None and i and time.monotonic() - started > 0.9 * seconds:
            reason = "not tried: out of time"
        result = _checked(tile, calls, reference, clock) if reason is None else _failed(tile, None, reason, False)
        if isinstance(result, Trial):
            trials.append(result)
        else:
            ready[tile] = result

    def failed(tile: Tile, error: Exception) -> None:
        trials.append(_failed(tile, ready[tile][0], f"while timed: {reason_of(error)}", False))

    progress.note("timing", 0.9)
    timings = interleave({tile: sampler.run for tile, (_, sampler) in ready.items()}, rounds, failed=failed)
    timed = [_timed(tile, ready[tile][0], timings.times(tile), calls[0].flop) for tile in timings.samples]
    timed.sort(key=lambda trial: trial.milliseconds or 0.0)
    name, capability = describe(device)
    return Sweep(
        device=name,
        capability=capability,
        versions=versions(),
        mode=mode.value,
        dtype=dtype.value,
        keys=keys,
        heads=HEADS,
        rounds=rounds,
        seconds=time.monotonic() - started,
        trials=timed + trials,
        table=TileSize(*table),
    )


def run(call: Call, tile: Tile) -> torch.Tensor:
    """One call with this tile."""
    from page4d_plugins import attention

    return attention.run(call.tensors, call.mode, tile, tile, call.rows, call.band, call.penalty)


def tile_text(tile: Tile | TileSize) -> str:
    """A tile as text."""
    loads = "descriptors" if tile.descriptors else "pointers"
    return f"{tile.queries} x {tile.keys}, {tile.warps} warps, {tile.stages} stages, {loads}"


def _chip(device: str) -> int:
    if device != "cuda":
        return FALLBACK
    major, minor = torch.cuda.get_device_capability()
    return chip_for(10 * major + minor)


def _compiled(job: Job, tiles: Sequence[Tile], workers: int, seconds: float) -> dict[Tile, str]:
    """Compile tiles side by side into Triton's cache; the tiles that failed or were out of time, with the reason."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        pending: dict[Future[str | None], Tile] = {pool.submit(_compile, job, tile): tile for tile in tiles}
        wait(pending, seconds)
        for future in pending:
            future.cancel()
    reasons = {}
    for future, tile in pending.items():
        if future.cancelled():
            reasons[tile] = "not tried: out of time"
        elif error := future.exception():
            reasons[tile] = f"{type(error).__name__}: {error}"
        elif reason := future.result():
            reasons[tile] = reason
    return reasons


def _checked(tile: Tile, calls: Sequence[Call], reference: Reference, clock: Clock) -> tuple[float, Sampler] | Trial:
    """The error of a tile that is right, and its sampler; otherwise the trial that it failed."""
    error = None
    with (attempt := Attempt()):
        error = reference.error(run(calls[0], tile))
        if reference.accepts(error):
            return error, clock.sampler([partial(run, call, tile) for call in calls])
    is_wrong = attempt.reason is None
    return _failed(tile, error, attempt.reason or wrong(error or 0.0, reference.dtype), is_wrong)


def _compile(job: Job, tile: Tile) -> str | None:
    """Compile and run a tile in a process of its own: an illegal access ends that process's GPU context alone."""
    with (attempt := Attempt()):
        run(job.call(), tile)
        if job.device == "cuda":
            torch.cuda.synchronize()
    return attempt.reason


def _failed(tile: Tile, error: float | None, reason: str, is_wrong: bool) -> Trial:
    return Trial(
        tile=TileSize(*tile), milliseconds=None, spread=None, tflops=None, error=error, reason=reason, wrong=is_wrong
    )


def _timed(tile: Tile, error: float, times: list[float], flop: int) -> Trial:
    median = statistics.median(times)
    return Trial(
        tile=TileSize(*tile),
        milliseconds=median,
        spread=spread(times),
        tflops=flop / median / 1e9,
        error=error,
        reason=None,
        wrong=False,
    )
