"""One attention op with a key bias in the engines and in PyTorch: speed and memory, each run in a new process."""

from __future__ import annotations

import functools
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.ops import BIASED_ATTENTION, DOMAIN
from page4d.system.memory import peak_memory, reset_peak_memory, resident_memory
from page4d_engines import console
from page4d_plugins.bench.timing import WHOLE, Sample, interleave

HEADS, HEAD_DIM = 16, 64


class Side(msgspec.Struct, frozen=True):
    """One implementation."""

    name: str
    seconds: float
    gflops: float
    added_bytes: int
    """Most memory that the process held above what it held with inputs and outputs in place."""


class AttentionBenchmark(msgspec.Struct, frozen=True):
    """`BiasedAttention` with one sequence, 16 heads of 64 channels, as many queries as keys."""

    keys: int
    threads: int
    rounds: int
    sides: list[Side]


def compare_attention(keys: int, rounds: int, threads: int) -> AttentionBenchmark:
    """Run both sides in turn, a fresh process each time, since only that tells their memory apart."""
    peaks: dict[str, int] = {"PyTorch": 0, "engines": 0}

    def run(side: str) -> Sample:
        command = [sys.executable, "-m", "page4d_export.bench.attention", side, str(keys), str(threads)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, added = msgspec.json.decode(printed, type=tuple[float, int])
        peaks[side] = max(peaks[side], added)
        return {WHOLE: seconds}

    timings = interleave({side: functools.partial(run, side) for side in peaks}, rounds, warm_up=False)
    flop = 4 * keys * keys * HEADS * HEAD_DIM
    sides = []
    for name, peak in peaks.items():
        seconds = timings.median(name)
        sides.append(Side(name, seconds, gflops=flop / seconds / 1e9, added_bytes=peak))
    return AttentionBenchmark(keys, threads, rounds, sides)


def print_attention(result: AttentionBenchmark) -> None:
    """Print a table on stdout."""
    title = (
        f"attention with a key bias, {HEADS} heads x {HEAD_DIM}, {result.keys} keys, {result.threads} threads,"
        f" medians of {result.rounds}"
    )
    table = console.table(title, [""], ["s", "GFLOP/s", "memory added"])
    for side in result.sides:
        table.add_row(side.name, f"{side.seconds:.3f}", f"{side.gflops:.0f}", f"{side.added_bytes / 1e9:.2f} GB")
    console.table_console().print(table)


def _measure(side: str, keys: int, threads: int) -> tuple[float, int]:
    rng = np.random.default_rng(0)
    shape = (1, HEADS, keys, HEAD_DIM)
    q, k, v = (rng.standard_normal(shape, np.float32) for _ in range(3))
    bias, out = rng.standard_normal((1, keys), np.float32), np.zeros(shape, np.float32)
    call: Callable[[], object]
    if side == "PyTorch":
        import torch

        from page4d.network.attention import biased_attention

        torch.set_num_threads(threads)
        tensor = torch.from_numpy
        call = functools.partial(biased_attention, tensor(q), tensor(k), tensor(v), tensor(bias))
    else:
        import onnx
        from onnx import TensorProto, helper

        from page4d_engines.ort.cpu_engine import OrtEngine
        from page4d_engines.ort.thread_pool import ThreadPool

        values: dict[str, NDArray[Any]] = {"q": q, "k": k, "v": v, "key_bias": bias}
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in values.items()]
        node = helper.make_node(BIASED_ATTENTION, list(values), ["out"], domain=DOMAIN)
        results = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
        graph = helper.make_graph([node], "attention", infos, results)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "attention.onnx"
            onnx.save(model, path)
            call = OrtEngine(path, ThreadPool.of(threads)).bind(values, {"out": out})
    before = resident_memory()
    reset_peak_memory()
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]), peak_memory() - before


if __name__ == "__main__":
    print(msgspec.json.encode(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))).decode())
