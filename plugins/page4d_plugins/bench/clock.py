"""Time of a call: by events on a GPU's stream, by the wall elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from page4d_plugins.bench.timing import WHOLE, Sample

_SAMPLE = 4.0  # milliseconds of a sample: far above the resolution of events, short enough for many rounds
_MOST_CALLS = 200
_LEAD = 20.0  # milliseconds from which on a sample is long enough to stand without a run before it

Calls = Sequence[Callable[[], object]]
"""The same call on one input set after the other."""


class Sampler(NamedTuple):
    """One side, ready to be timed."""

    sample: Callable[[], float]
    """Runs it; milliseconds of one call."""
    timed: str
    """`graph`: calls as one CUDA graph, launch overhead left out; `stream`: launched one by one; `wall`."""
    calls: Calls
    """Kept with their inputs: a graph knows no more of these than their addresses."""

    def run(self) -> Sample:
        """As a side of `interleave`."""
        return {WHOLE: self.sample()}


class Clock(Protocol):
    """Measures the time of calls."""

    cache: int
    """Bytes of cache that inputs must exceed to be read from memory each time; 0 where it does not matter."""

    def sampler(self, calls: Calls) -> Sampler:
        """Warm up; raises what the calls raise."""


class CudaClock:
    """Events around CUDA graphs of as many calls as make a sample, in turn over the input sets."""

    def __init__(self, device: int) -> None:
        self.cache = int(torch.cuda.get_device_properties(device).L2_cache_size)
        # one pool for all graphs: what a call returns is never read after a replay, so its memory may serve the next
        # side
        self._pool = torch.cuda.graph_pool_handle()

    def sampler(self, calls: Calls) -> Sampler:
        """Calls that cannot be captured are timed as launched, and said to be."""
        for _ in range(2):  # the first compiles, loads, chooses
            once = _elapsed(_all(calls)) / len(calls)
        repeats = max(len(calls), min(_MOST_CALLS, math.ceil(_SAMPLE / once)))
        run, timed = _all([calls[i % len(calls)] for i in range(repeats)]), "stream"
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                run()
        except Exception:  # whatever a foreign kernel does that a capture forbids
            torch.cuda.synchronize()
        else:
            run, timed = graph.replay, "graph"
        run()
        torch.cuda.synchronize()  # what goes wrong here is this side's, not the next one's
        lead = repeats * once < _LEAD
        return Sampler(lambda: _elapsed(run, lead) / repeats, timed, calls)


class WallClock:
    """For sides on a CPU: simulations in Triton's interpreter."""

    cache = 0

    def sampler(self, calls: Calls) -> Sampler:
        """Nothing is warmed up."""
        run = _all(calls)

        def sample() -> float:
            started = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - started) / len(calls)

        return Sampler(sample, "wall", calls)


def clock_for(device: str) -> Clock:
    """The clock of a device as PyTorch names it."""
    return CudaClock(torch.cuda.current_device()) if device == "cuda" else WallClock()


def _all(calls: Calls) -> Callable[[], object]:
    def run() -> None:
        for call in calls:
            call()  # what it returns is let go at once: the next call may have the memory

    return run


def _elapsed(run: Callable[[], object], lead: bool = False) -> float:
    """Milliseconds; with `lead`, of a second run: the stream is busy when the clock starts, and waits for no launch."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if lead:
        run()
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
