"""One attention op with a key bias: ONNX Runtime's lowering against PyTorch, speed and memory, each in a process of its
own."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
from typing import Any

import msgspec
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
    sides = [
        Side(name=side, seconds=seconds, gflops=flop / seconds / 1e9, added_bytes=peak)
        for side, peak in peaks.items()
        for seconds in [timings.median(side)]
    ]
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
    import time

    import numpy as np

    rng = np.random.default_rng(0)
    shape = (1, HEADS, keys, HEAD_DIM)
    q, k, v = (rng.standard_normal(shape, np.float32) for _ in range(3))
    bias, out = rng.standard_normal((1, keys), np.float32), np.zeros(shape, np.float32)
    if side == "PyTorch":
        import torch

        from page4d.network.attention import biased_attention

        torch.set_num_threads(threads)
        tensors = tuple(torch.from_numpy(array) for array in (q, k, v, bias))

        def call() -> object:
            return biased_attention(tensors[0], tensors[1], tensors[2], tensors[3])
    else:
        import pathlib
        import tempfile

        import onnx
        from onnx import TensorProto, helper

        from page4d_engines.ort.cpu_engine import OrtEngine
        from page4d_engines.ort.thread_pool import ThreadPool

        values: dict[str, NDArray[Any]] = {"q": q, "k": k, "v": v, "key_bias": bias}
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in values.items()]
        node = helper.make_node(BIASED_ATTENTION, list(values), ["out"], domain=DOMAIN)
        graph = helper.make_graph(
            [node], "attention", infos, [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)], ir_version=10
        )
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
