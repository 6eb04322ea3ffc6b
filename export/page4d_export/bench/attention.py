"""One attention op with a key bias: ONNX Runtime's lowering against PyTorch, speed and memory, each in a process of its
own."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from numpy.typing import NDArray

from page4d.ops import BIASED_ATTENTION, DOMAIN
from page4d_engines import console

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
    taken: dict[str, list[tuple[float, int]]] = {"PyTorch": [], "engines": []}
    for _ in range(rounds):
        for side, runs in taken.items():
            command = [sys.executable, "-m", "page4d_export.bench.attention", side, str(keys), str(threads)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, added = msgspec.json.decode(printed, type=tuple[float, int])
            runs.append((seconds, added))
    flop = 4 * keys * keys * HEADS * HEAD_DIM
    sides = []
    for side, runs in taken.items():
        median = statistics.median(seconds for seconds, _ in runs)
        sides.append(Side(side, median, flop / median / 1e9, max(added for _, added in runs)))
    return AttentionBenchmark(keys, threads, rounds, sides)


def print_attention(found: AttentionBenchmark) -> None:
    """As a table on stdout."""
    title = (
        f"attention with a key bias, {HEADS} heads x {HEAD_DIM}, {found.keys} keys, {found.threads} threads,"
        f" medians of {found.rounds}"
    )
    table = console.table(title, [""], ["s", "GFLOP/s", "memory added"])
    for side in found.sides:
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
        call: Callable[[], object] = lambda: biased_attention(tensors[0], tensors[1], tensors[2], tensors[3])
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
    before = _peak(reset=True)
    best = []
    for _ in range(4):
        started = time.perf_counter()
        call()
        best.append(time.perf_counter() - started)
    return statistics.median(best[1:]), _peak(reset=False) - before


def _peak(reset: bool) -> int:
    """Bytes: the process's memory now and, with `reset`, from here on its peak; without, the peak since."""
    if reset:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    key = "VmRSS" if reset else "VmHWM"
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


if __name__ == "__main__":
    print(msgspec.json.encode(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))).decode())
