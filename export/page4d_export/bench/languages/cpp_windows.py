"""Windows of one engine folder in C++ and in Python on a CPU, in turn: their time, and the memory of each process.

Each side is a process that runs a window for every line that it reads. So both are timed on the same machine at the
same time, and neither's memory counts for the other.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys

import msgspec

from page4d.errors import MissingBackendError, Page4DError
from page4d.system.progress import Progress
from page4d_engines import console
from page4d_export.bench.cells import extremes
from page4d_plugins.bench.timing import WHOLE, Timings, interleave, spread

CPP, PYTHON = "C++", "Python"
_CPU = "CPU"
_PYTHON_SIDE = """
import pathlib, resource, sys, time
import numpy as np
from page4d.system.memory import peak_memory
from page4d_engines import Pipeline
folder, threads = sys.argv[1:]
def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.perf_counter(), usage.ru_utime + usage.ru_stime])
def say(start):
    print(*(seconds() - start), peak_memory(), flush=True)
start = seconds()
pipeline = Pipeline.load(folder, "onnxruntime", int(threads))
layout = pipeline.manifest.layout
images = (np.arange(np.prod(layout.images_shape)) % 251).astype(np.uint8).reshape(layout.images_shape)
keypoints = np.zeros(layout.patch_map_shape, np.float32) if pipeline.manifest.reads("keypoints") else None
pipeline.run(images, keypoints=keypoints)
say(start)
for _ in sys.stdin:
    start = seconds()
    pipeline.run(images, keypoints=keypoints)
    say(start)
"""


class Side(msgspec.Struct, frozen=True):
    """One language's process."""

    language: str
    load: float
    """Seconds until the first window was done, hashes of the folder included."""
    seconds: float
    """Median of a window."""
    cpu_seconds: float
    """Median of the CPU time of a window, of all threads."""
    peak_bytes: int
    """The most memory that the process held, mapped files included."""


class Comparison(msgspec.Struct, frozen=True):
    """Both languages on one engine folder."""

    engines: str
    threads: int
    rounds: int
    sides: list[Side]
    ratio: float
    """Median of C++'s time over Python's, round by round: below 1 C++ is faster."""
    spread: tuple[float, float]
    """Smallest and largest of those ratios."""
    cpu_ratio: float
    """Of the CPU time, likewise: other programs on the machine change it less."""


class _Worker:
    """A process that runs a window a line."""

    def __init__(self, command: list[str], language: str) -> None:
        self._language = language
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise MissingBackendError(
                f"the program that times windows in {language} does not start",
                got=f"{command[0]}: {error.strerror}",
                hint="cmake --build build --target page4d_time_windows, then --program build/tests/time_windows",
            ) from None
        self.load, _, _ = self._read()
        self.peak = 0

    def sample(self) -> dict[str, float]:
        """Seconds of one window."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, cpu_seconds, peak = self._read()
        self.peak = int(peak)
        return {WHOLE: seconds, _CPU: cpu_seconds}

    def _read(self) -> tuple[float, float, float]:
        """Wall seconds, CPU seconds and peak memory in bytes of what was done."""
        assert self._process.stdout is not None and self._process.stderr is not None
        words = self._process.stdout.readline().split()
        if len(words) != 3:
            message = self._process.stderr.read().strip() or "it ended without a word"
            raise Page4DError(f"the windows in {self._language} failed", got=message)
        seconds, cpu_seconds, peak = map(float, words)
        return seconds, cpu_seconds, peak

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare_languages(
    engines: pathlib.Path, program: pathlib.Path, rounds: int, threads: int, progress: Progress
) -> Comparison:
    """Run windows in both languages in turn; the first of each is not counted.

    Args:
        engines: the folder, with graphs for a CPU.
        program: `time_windows` of a build of `engines/cpp`.
        rounds: that are counted.
        threads: of each side.
        progress: told of each window.

    Raises:
        MissingBackendError: the program does not start.
        Page4DError: a side failed.
    """
    commands = {
        CPP: [str(program), str(engines), _library(), str(threads)],
        PYTHON: [sys.executable, "-c", _PYTHON_SIDE, str(engines), str(threads)],
    }
    workers: dict[str, _Worker] = {}
    try:
        for language, command in commands.items():
            progress.note(f"loading in {language}", 0.0)
            workers[language] = _Worker(command, language)
        timings = interleave({name: worker.sample for name, worker in workers.items()}, rounds, progress=progress)
    finally:
        for worker in workers.values():
            worker.close()
    ratios = timings.ratios(CPP, PYTHON)
    return Comparison(
        engines=engines.name,
        threads=threads,
        rounds=rounds,
        sides=[_side(language, worker, timings) for language, worker in workers.items()],
        ratio=statistics.median(ratios),
        spread=spread(ratios),
        cpu_ratio=statistics.median(timings.ratios(CPP, PYTHON, _CPU)),
    )


def _side(language: str, worker: _Worker, timings: Timings[str]) -> Side:
    return Side(
        language=language,
        load=worker.load,
        seconds=timings.median(language),
        cpu_seconds=timings.median(language, _CPU),
        peak_bytes=worker.peak,
    )


def _library() -> str:
    """ONNX Runtime's library in Python's package: both sides then compute with the same one."""
    import onnxruntime

    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    files = sorted(folder.glob("libonnxruntime.so.*"))
    if not files:
        raise MissingBackendError("the package onnxruntime has no library for C++", got=folder)
    return str(files[0])


def print_languages(result: Comparison) -> None:
    """A row for each language, on stdout."""
    title = f"{result.engines}, {result.threads} threads, medians of {result.rounds} windows"
    table = console.table(title, ["language"], ["load s", "window s", "CPU s", "peak MB"])
    for side in result.sides:
        table.add_row(
            side.language,
            f"{side.load:.2f}",
            f"{side.seconds:.3f}",
            f"{side.cpu_seconds:.3f}",
            f"{side.peak_bytes / 1e6:.0f}",
        )
    out = console.table_console()
    out.print(table)
    out.print(
        f"C++ takes {result.ratio:.3f} of Python's time ({extremes(result.spread)}), {result.cpu_ratio:.3f} of its CPU "
        "time"
    )
