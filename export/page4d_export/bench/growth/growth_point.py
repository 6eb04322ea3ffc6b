"""One point of the growth: an engine folder, run in a process of its own, whose time and memory are measured."""

from __future__ import annotations

import importlib
import pathlib
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import msgspec

from page4d.errors import ExitCode, OutOfMemoryError, Page4DError
from page4d.system.memory import peak_memory
from page4d_engines import console
from page4d_export.bench.growth.growth_record import Point
from page4d_export.plan.export_plan import ExportPlan
from page4d_plugins.bench.timing import WHOLE, Sample, Timings

RUNS = 3
"""Runs of a point; the first is not counted: memory is touched for the first time in it."""


class PointRuns(msgspec.Struct, frozen=True):
    """The runs of a point, as its process prints them."""

    samples: list[dict[str, float]]
    """Seconds of each run by stage, and of the whole."""
    bytes: int


def measured_apart(folder: pathlib.Path, frames: pathlib.Path, plan: ExportPlan, threads: int) -> Point:
    """Run an engine folder in a fresh process.

    Raises:
        OutOfMemoryError: it does not fit this machine's memory.
        Page4DError: another failure, with the last line of what the process said.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), str(frames), str(threads)], capture_output=True, text=True
    )
    layout = plan.layout
    if done.returncode in (ExitCode.OUT_OF_MEMORY, -9):  # -9: the kernel ended it for its memory
        raise OutOfMemoryError(
            f"the engines of T={layout.T} V={layout.V} do not fit this machine's memory",
            hint="a smaller --preset, --height or --width",
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Page4DError(f"the run of T={layout.T} V={layout.V} failed", got=last)
    runs = msgspec.json.decode(done.stdout, type=PointRuns)
    timings = Timings({"": [_by_kind(plan, sample) for sample in runs.samples[1:]]})
    seconds = {kind: timings.median("", kind) for kind in timings.samples[""][0]}
    return Point(T=layout.T, V=layout.V, seconds=seconds.pop(WHOLE), kinds=seconds, bytes=runs.bytes)


def _by_kind(plan: ExportPlan, sample: Sample) -> Sample:
    kinds: dict[str, float] = defaultdict(float, {WHOLE: sample[WHOLE]})
    for entry in plan.stages():
        kinds[entry.kind] += sample[entry.name]
    return kinds


def run_point(folder: str, frames: str, threads: int) -> PointRuns:
    """Load and run an engine folder, and measure time and memory; in the process of a point."""
    from safetensors.numpy import load_file

    from page4d_engines import Pipeline
    from page4d_engines.engine_folder import EngineFolder
    from page4d_engines.options import Backend
    from page4d_engines.ort.thread_pool import ThreadPool

    importlib.import_module("page4d_engines.runtime.host_chain")  # and what it imports: libraries are not counted
    pool = ThreadPool.of(threads, shared=True)  # as the command does
    before = peak_memory()
    inputs: dict[str, Any] = load_file(frames)
    if "fundamental" in inputs:
        inputs["cameras"] = inputs.pop("fundamental")
    pipeline = Pipeline.of(EngineFolder.open(folder), Backend.ONNXRUNTIME, pool)
    samples = []
    for _ in range(RUNS):
        started = time.perf_counter()
        timing = pipeline.run(**inputs).timing
        samples.append({WHOLE: time.perf_counter() - started, **timing.seconds})
    return PointRuns(samples, peak_memory() - before)


def _main() -> None:
    console.write_json(run_point(sys.argv[1], sys.argv[2], int(sys.argv[3])))


if __name__ == "__main__":
    raise SystemExit(console.run(_main))
