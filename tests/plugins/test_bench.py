"""The GPU benchmark without a GPU: its reference, its bookkeeping and its arithmetic.

The kernels run in Triton's interpreter, in a process of their own.
"""

import contextlib
import functools
import gc
import itertools
import json
import math
import os
import subprocess
import sys
import weakref
from types import SimpleNamespace

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from page4d.errors import AccuracyError, UsageError
from page4d.layout import Layout
from page4d.network import attention as definition
from page4d.network.attention import EpipolarPrior
from page4d_export.bench import gpu_tables as tables
from page4d_plugins.bench import clock as clocks
from page4d_plugins.bench import compare as bench
from page4d_plugins.bench import sweep as sweeps
from page4d_plugins.bench.call import Form, form_call, layout_for
from page4d_plugins.bench.gpu_benchmark import GpuBenchmark
from page4d_plugins.bench.reference import Reference, sampled
from page4d_plugins.bench.sides import OURS, Attempt
from page4d_plugins.bench.timing import WHOLE, interleave
from page4d_plugins.modes import Dtype, Keys, Tile

SCRIPT = """
import msgspec, sys
from page4d_plugins.bench import compare as bench
from page4d_plugins.bench import sweep as sweeps
from page4d_plugins.bench.call import Form
from page4d_plugins.modes import Dtype, Mode, Tile
small = {"image": 14, "device": "cpu"}
sweeps.HEADS = 1
peers = ("SDPA flash", "SDPA cuDNN", "flash-attn")
forms = (Form.DENSE, Form.BIASED, Form.ROWS, Form.LANDMARK, Form.MEMORY)
comparison = bench.compare(24, 1, peers=peers, sequences=(1,), product=32, forms=forms, heads=1, **small)
forms = (Form.DILATED, Form.EPIPOLAR)
segments = bench.compare(12, 1, peers=(), sequences=(2,), product=32, forms=forms, heads=1, **small)
tiles = [Tile(64, 32, 4, 1), Tile(48, 32, 4, 1)]
sweep = sweeps.sweep(Mode.BIASED, 12, 1, tiles=tiles, workers=0, **small)
late = sweeps.sweep(Mode.BIASED, 12, 1, tiles=tiles, workers=0, seconds=0.0, **small)
sys.stdout.buffer.write(msgspec.json.encode((comparison, segments, sweep, late)))
"""


@pytest.fixture(scope="module")
def results():
    """Comparisons and sweeps of a few tokens, in the interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, env=os.environ | {"TRITON_INTERPRET": "1"}, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    kinds = tuple[GpuBenchmark, GpuBenchmark, sweeps.Sweep, sweeps.Sweep]
    return msgspec.json.decode(done.stdout, type=kinds)


def test_every_side_is_timed_or_missing_with_a_reason(results):
    comparison, segments, *_ = results
    assert {(side.form, side.name) for side in comparison.timed if side.name in OURS} == {
        (form, "ours, Triton") for form in ("dense", "key bias", "rows", "landmark", "memory read")
    }
    assert {side.name for side in comparison.timed if side.form in ("dense", "landmark", "memory read")} == {
        "ours, Triton",
        "SDPA flash",
    }
    assert {side.form: side.name for side in segments.timed} == {"dilated": "ours, Triton", "epipolar": "ours, Triton"}
    missing = {(side.form, side.name): side.reason for side in comparison.absent}
    assert missing["dense", "flash-attn"] == "flash_attn is not installed"
    assert missing["dense", "SDPA cuDNN"].startswith("RuntimeError: ")
    assert missing["dense", "ours, pack"] == "UsageError: the pack's kernels take tensors of a GPU"
    assert {name for _, name in missing} == {"flash-attn", "SDPA cuDNN", "ours, pack"}
    assert {side.name for side in comparison.failures} == {"ours, pack"}
    with pytest.raises(AccuracyError, match="key bias, Z=1, ours, pack"):
        comparison.require()


def test_rates_and_ratios(results):
    comparison, segments, *_ = results
    for side in comparison.timed:
        queries, keys = {"landmark": (24, 4), "memory read": (32, 24)}.get(side.form, (24, 24))
        assert math.isclose(side.tflops, 4 * queries * keys * 64 / side.milliseconds / 1e9)
        assert side.baseline == "SDPA flash" and side.timed == "wall" and 0 < side.error < 1e-3
        assert side.of_sdpa_spread[0] <= side.of_sdpa <= side.of_sdpa_spread[1]
        assert math.isclose(side.of_product, side.tflops / comparison.product_tflops) and side.of_exp2 is None
    by = {(side.form, side.name): side for side in comparison.timed}
    ours, theirs = by["rows", "ours, Triton"], by["dense", "SDPA flash"]
    assert math.isclose(ours.of_sdpa, theirs.milliseconds / ours.milliseconds) and theirs.of_sdpa == 1.0
    dilated = next(side for side in segments.timed if side.form == "dilated")
    assert math.isclose(dilated.tflops, 2 * 4 * 12 * 12 * 64 / dilated.milliseconds / 1e9)  # both frames read both
    assert dilated.baseline is None and dilated.of_sdpa is None


def test_a_sweep_puts_the_fastest_first_and_names_what_failed(results, capsys):
    *_, sweep, late = results
    tiles = [(trial.tile.queries, trial.tile.keys) for trial in sweep.trials]
    assert len(tiles) == 3 and tiles[2] == (48, 32) and "power of 2" in sweep.trials[2].reason
    assert sweep.best is sweep.trials[0] and sweep.trials[0].milliseconds <= sweep.trials[1].milliseconds
    assert (sweep.table.queries, sweep.table.keys) in tiles[:2] and not any(trial.wrong for trial in sweep.trials)
    sweep.require()
    assert [trial.reason for trial in late.trials] == [None, *["not tried: out of time"] * 2]
    tables.print_sweep(sweep)
    printed = capsys.readouterr().out
    assert "best: " in printed and "missing: 48 x 32" in printed


def test_tables(results, capsys, tmp_path):
    comparison, segments, sweep, _ = results
    tables.print_benchmark(comparison)
    printed = capsys.readouterr().out
    assert "memory read" in printed and "missing: ours, pack: " in printed and "SDPA flash (Z=1, dense)" in printed
    for name, result in (("one", comparison), ("two", segments), ("three", sweep)):
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(result))
    (tmp_path / "four.json").write_text("")
    tables.print_summary([tmp_path / f"{name}.json" for name in ("one", "two", "three", "four", "five")])
    printed = capsys.readouterr().out
    assert "one: FAILED Z=1, dense, ours, pack" in printed and "three: best: " in printed
    assert "four: no result" in printed and "five: no result" in printed


def test_a_wrong_result_is_not_timed(monkeypatch):
    def dropping_a_key(call):
        call.tensors["k"][:, :, -1] = 0.0
        return lambda: definition.biased_attention(*(call.tensors[name] for name in "qkv"))

    monkeypatch.setitem(OURS, "ours, Triton", dropping_a_key)
    comparison = bench.compare(
        108, 1, heads=2, peers=("SDPA flash",), sequences=(1,), image=28, forms=(Form.DENSE,), device="cpu", product=32
    )
    reasons = {side.name: side.reason for side in comparison.failures}
    assert reasons["ours, Triton"].startswith("wrong result: a row's relative error is ") and not comparison.timed[1:]
    with pytest.raises(AccuracyError, match="wrong result"):
        comparison.require()


@pytest.mark.parametrize("form", Form)
def test_the_reference_is_the_definition(form):
    layout = Layout(3, 2, 28, 42)
    call = form_call(form, layout, Dtype.FLOAT16, 2, 3, "cpu", seed=1)
    values = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in call.tensors.items()}
    q, k, v, bias = values["q"], values["k"], values["v"], values.get("key_bias")
    if call.mode.keys is Keys.SEGMENTS:
        lists = values["seg_ptr"], values["seg"], values.get("segment_bias")
        expected = definition.segment_attention(q, k, v, bias, *lists)
    else:
        prior = call.epipolar and EpipolarPrior(values["fundamental"], values["centres"], call.band, call.penalty)
        expected = definition.biased_attention(q, k, v, bias, prior, call.rows)
    assert Reference(call, layout.N, 20).error(expected) < 1e-14
    expected[:, 1, 0, 3] += 0.1
    error = Reference(call, layout.N, 20).error(expected)
    assert error > 1e-2 and not Reference(call, layout.N, 20).accepts(error)
    expected[0, 0, -1, 0] = math.nan
    assert Reference(call, layout.N, 20).error(expected) == math.inf


def test_rows_without_keys_are_zeros():
    call = form_call(Form.BIASED, Layout(1, 1, 28, 28), Dtype.FLOAT16, 2, 1, "cpu")
    call.tensors["key_bias"][1] = -math.inf
    reference = Reference(call, 9)
    assert not reference.values[1].any() and reference.values[0].any()
    out = torch.zeros(2, 1, 9, 64)
    out[:, :, reference.rows] = reference.values.float()
    assert reference.error(out) < 1e-6
    assert reference.error(out + 1e-6) > 1.0


@pytest.mark.parametrize(("n", "frame"), [(5, 9), (64, 64), (5496, 1374), (32, 1374), (17_000_000, 64)])
def test_sampled_rows(n, frame):
    rows = sampled(n, frame, 64).tolist()
    assert rows == sorted(set(rows)) and len(rows) == min(n, 64)
    assert {0, n - 1, *(row for row in (1, frame, frame + 4) if row < n)} <= set(rows)


@pytest.mark.parametrize(("keys", "grid"), [(1374, (1, 1)), (5496, (2, 2)), (32976, (6, 4)), (131904, (24, 4))])
def test_the_clip_of_so_many_keys(keys, grid):
    layout = layout_for(keys)
    assert grid == (layout.T, layout.V) and layout.global_tokens == keys


def test_keys_that_are_no_clip_are_refused():
    with pytest.raises(UsageError, match="--keys 5496"):
        layout_for(5500)


def test_attempts_keep_the_first_line_and_let_an_interrupt_pass():
    with (attempt := Attempt()):
        raise ValueError("\nfirst\nsecond")
    assert attempt.reason == "ValueError: first"
    with pytest.raises(KeyboardInterrupt), Attempt():
        raise KeyboardInterrupt


def test_modes_of_a_sweep():
    assert len(set(sweeps.TILES)) == 144 and Tile(128, 128, 8, 2, True) in sweeps.TILES


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("attention", "--device", "cuda"), 5, "sees no GPU"),
        (("attention", "--device", "tpu"), 2, "not one of 'auto', 'cpu', 'cuda'"),
        (("attention", "--device", "cpu", "--bf16"), 2, "--device cuda"),
        (("chain", "--device", "cuda"), 5, "sees no GPU"),
        (("chain", "--backend", "tensorrt"), 2, "--device cuda"),
        (("chain", "--bf16"), 2, "no flag (float32) or --int8 (int8)"),
        (("chain", "--device", "cuda", "--bf16", "--fp8"), 2, "--bf16 (bfloat16) or --fp8 (fp8)"),
        (("chain", "--rounds", "0"), 2, "'--rounds'"),
        (("sweep", "biased"), 5, "sees no GPU"),
        (("sweep", "causal"), 2, "'dense', 'biased'"),
        (("everything",), 2, "No such command"),
    ],
)
def test_the_command_without_a_gpu(arguments, code, words):
    from page4d_export.commands.bench import app

    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == code and words in done.stderr, done.output


def test_sides_run_in_turn_and_the_first_round_is_not_counted():
    order, clock = [], itertools.count(1.0)

    def side(name):
        order.append(name)
        return {WHOLE: next(clock)}

    timings = interleave({name: functools.partial(side, name) for name in "ab"}, 3)
    assert "".join(order) == "abababab"
    assert timings.times("a") == [3.0, 5.0, 7.0] and timings.median("b") == 6.0
    assert timings.ratios("b", "a") == [4 / 3, 6 / 5, 8 / 7]


def test_a_side_that_fails_is_left_out_or_is_the_callers_error():
    runs = iter([1.0, 2.0])

    def breaks():
        return {WHOLE: next(runs)}

    failures = []
    timings = interleave(
        {"breaks": breaks, "lasts": lambda: {WHOLE: 1.0}}, 3, failed=lambda side, error: failures.append(side)
    )
    assert failures == ["breaks"] and list(timings.samples) == ["lasts"] and timings.times("lasts") == [1.0] * 3
    with pytest.raises(StopIteration):
        interleave({"breaks": breaks}, 1)


class FakeCuda:
    """What the clock uses of torch.cuda: a call takes a millisecond, a capture the time of nothing."""

    def __init__(self, captures):
        self.captures, self.now, self.recording = captures, 0.0, None

    def get_device_properties(self, device):
        return SimpleNamespace(L2_cache_size=50_000_000)

    def graph_pool_handle(self):
        return (0, 1)

    def synchronize(self):
        pass

    def call(self):
        if self.recording is None:
            self.now += 1.0
        elif self.captures:
            self.recording.append(self.call)
        else:
            raise RuntimeError("operation not permitted when stream is capturing")

    def Event(self, enable_timing):
        event = SimpleNamespace(synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def CUDAGraph(self):
        kept = []
        return SimpleNamespace(kept=kept, replay=lambda: [call() for call in kept])

    @contextlib.contextmanager
    def graph(self, graph, pool):
        assert pool == (0, 1)
        self.recording = graph.kept
        try:
            yield
        finally:
            self.recording = None


@pytest.mark.parametrize(("captures", "timed"), [(True, "graph"), (False, "stream")])
def test_a_call_is_timed_in_a_graph_where_it_can_be_captured(captures, timed, monkeypatch):
    fake = FakeCuda(captures)
    monkeypatch.setattr(clocks.torch, "cuda", fake)
    clock = clocks.CudaClock(0)
    uses = [0, 0, 0]

    def use(i):
        uses[i] += 1
        fake.call()

    sampler = clock.sampler([functools.partial(use, i) for i in range(3)])
    assert sampler.timed == timed and sampler.sample() == 1.0
    assert max(uses) - min(uses) <= (1 if captures else 5)  # the sets take turns: 4 calls a sample, over 3 sets
    before = fake.now
    sampler.sample()
    assert fake.now - before == 8.0  # 4 ms of calls, after as many that keep the stream busy


def test_what_a_graph_reads_lives_as_long_as_its_sampler(monkeypatch):
    """A graph has addresses: inputs that went while it is replayed would be an illegal access."""
    fake = FakeCuda(captures=True)
    monkeypatch.setattr(clocks.torch, "cuda", fake)

    class Inputs:
        def use(self):
            fake.call()

    inputs = Inputs()
    watched = weakref.ref(inputs)
    sampler = clocks.CudaClock(0).sampler([lambda kept=inputs: kept.use() and None])
    del inputs
    gc.collect()
    assert sampler.timed == "graph" and watched() is not None
    del sampler
    gc.collect()
    assert watched() is None


def test_inputs_exceed_the_cache_twice():
    clock = SimpleNamespace(cache=50_000_000)
    sets = [
        len(bench.input_sets(lambda seed, size=size: SimpleNamespace(size=size), clock))
        for size in (1, 34_000_000, 100_000_000, 10**9)
    ]
    assert sets == [12, 3, 1, 1]


def test_results_are_plain_json(results):
    document = json.loads(msgspec.json.encode(results[0]))
    assert document["keys"] == 24 and document["layout"] == {"T": 2, "V": 2, "N": 6} and document["dtype"] == "fp16"
