"""The attention kernels on a GPU, through Triton, from the pack's machine code and from its PTX, against float64."""

import os
import random

import pytest
import torch

from page4d.layout import Layout
from page4d.ops import BiasedRows
from page4d_plugins import driver, launcher
from page4d_plugins.bench.call import Call, Form, centres, form_call, layout_for, random_call
from page4d_plugins.bench.reference import Reference
from page4d_plugins.bench.sides import ByPack, by_triton
from page4d_plugins.bench.sweep import FORM_OF
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.modes import Dtype, Keys, Mode
from page4d_plugins.row_launch import RowKernel

triton = pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
    pytest.mark.skipif(bool(triton.knobs.runtime.interpret), reason="Triton's interpreter is on (TRITON_INTERPRET)"),
]
dtypes = pytest.mark.parametrize("dtype", Dtype, ids=lambda dtype: dtype.value)
modes = pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
forms = pytest.mark.parametrize("form", Form, ids=lambda form: form.value.replace(" ", "-"))


def by_ptx(call):
    """As on a GPU that the pack has no machine code for: the driver compiles, with the fallback's tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "capability_of", lambda device: 81)
        return ByPack(call)


PATHS = {"triton": by_triton, "pack": ByPack, "ptx": by_ptx}
paths = pytest.mark.parametrize("path", PATHS)


def poisoned(run, call):
    """What it gives where nothing of the output was right before."""
    if isinstance(run, ByPack):
        run.poison()
    else:  # the next tensor of this size is likely to get this one's memory
        torch.full_like(call.tensors["q"], float("nan"), memory_format=torch.contiguous_format)
    return run().clone()


def hold(call, out, frame=64, count=64, tolerance=None):
    reference = Reference(call, frame, count)
    error = reference.error(out)
    assert reference.accepts(error) if tolerance is None else error <= tolerance, (
        f"a row's relative error is {error:.1e}"
    )


def small(mode, dtype, seed):
    """A call of random sizes, tails of tiles everywhere; some biases and all of one sequence's at -inf."""
    rng = random.Random(f"{mode} {seed}")
    Z, A = rng.randint(1, 3), rng.randint(1, 3)
    n, m = rng.randint(1, 300), rng.randint(1, 300)
    if mode.partial:
        n, m = rng.randint(1, 64), rng.randint(1024, 6000)
        mode = Mode.DENSE if mode is Mode.PARTIAL else Mode.BIASED
    if mode is Mode.EPIPOLAR:
        layout = Layout(1, rng.randint(1, 4), 14 * rng.randint(1, 9), 14 * rng.randint(1, 9))
        return random_call(
            mode,
            dtype,
            (Z, A, layout.view_tokens, layout.view_tokens),
            "cuda",
            seed,
            centres=centres(layout),
            views=layout.V,
        )
    if mode is Mode.ROWS:
        rows = BiasedRows(rng.randint(1, 40), 0, -1.5)
        rows = rows._replace(leading=rng.randint(0, rows.period))
        return random_call(mode, dtype, (Z, A, rows.period * rng.randint(1, 9), m), "cuda", seed, rows=rows)
    lists = None
    if mode.keys is Keys.SEGMENTS:
        pointers, ranges, groups = [0], [], rng.randint(1, 5)
        for _ in range(groups):
            for _ in range(rng.choice((0, 1, 2, 5))):
                start = rng.randrange(m)
                ranges.append((start, rng.randint(0, m - start)))
            pointers.append(len(ranges))
        ranges.append((0, m))  # of no group: the list must not be empty
        n = groups * rng.randint(1, 150)
        lists = torch.tensor(pointers, dtype=torch.int32), torch.tensor(ranges, dtype=torch.int32)
    call = random_call(mode, dtype, (Z, A, n, m), "cuda", seed, segments=lists)
    if mode.has_bias and seed % 2:
        bias = call.tensors["key_bias"]
        bias[:, rng.randrange(m) :: 3] = float("-inf")
        bias[0] = float("-inf")
    if mode is Mode.SEGMENTS_BIASED:
        call.tensors["segment_bias"][:, ::3] = float("-inf")
    return call


def of_mode(mode, dtype, seed=0, keys=5496, Z=2, A=2):
    """The use of a mode at a real size."""
    return form_call(FORM_OF[mode], layout_for(keys), dtype, Z, A, "cuda", seed)


@paths
@dtypes
@modes
def test_random_sizes_agree_with_float64(mode, dtype, path):
    for seed in range({"triton": 2, "ptx": 4, "pack": 12}[path]):  # Triton compiles anew for most sizes
        call = small(mode, dtype, seed)
        hold(call, poisoned(PATHS[path](call), call), count=400)


@forms
@dtypes
@pytest.mark.parametrize("keys", [5496, 32976, 131904])
def test_real_sizes_agree_with_float64_and_paths_with_each_other(form, dtype, keys):
    layout = layout_for(keys)
    call = form_call(form, layout, dtype, 2 if keys < 100_000 else 1, 2, "cuda", seed=3)
    reference = Reference(call, layout.N)
    results = {name: poisoned(path(call), call) for name, path in PATHS.items()}
    errors = {name: reference.error(out) for name, out in results.items()}
    assert all(reference.accepts(error) for error in errors.values()), errors
    assert torch.equal(results["triton"], results["pack"])


@pytest.mark.parametrize("D", [16, 32, 128])
@pytest.mark.parametrize("mode", [Mode.DENSE, Mode.BIASED, Mode.ROWS], ids=lambda mode: mode.value)
def test_other_head_dimensions(mode, D):
    call = random_call(
        mode, Dtype.FLOAT16, (2, 2, 390, 517), "cuda", D=D, rows=BiasedRows(39, 5, 2.0) if mode is Mode.ROWS else None
    )
    hold(call, by_triton(call)(), count=400)


def test_every_attention_kernel_of_the_pack_is_launched_here():
    launched = {
        launch.kernel for mode in Mode for launch in ByPack(of_mode(mode, Dtype.FLOAT16)).launcher.plan.launches
    }
    assert launched | {kernel.value for kernel in RowKernel} == {
        kernel.entry.kernel for kernel in shipped().kernels.values()
    }
    capability = driver.capability_of(driver.current_device())
    chips = {kernel.entry.chip for kernel in shipped().kernels.values()}
    used = {shipped().kernel(name, dtype, capability).entry.chip for name in launched for dtype in Dtype}
    assert used == {f"sm_{capability}" if f"sm_{capability}" in chips else "ptx"}


@paths
@dtypes
def test_keys_that_no_group_reads_may_hold_anything(dtype, path):
    rng = random.Random(5)
    read = [(start, rng.randint(1, 300)) for start in range(0, 8000, 500)]
    pointers = torch.arange(0, len(read) + 1, 4, dtype=torch.int32)  # 4 groups of 4 ranges
    call = random_call(
        Mode.SEGMENTS, dtype, (2, 2, 4 * 130, 8000), "cuda", segments=(pointers, torch.tensor(read, dtype=torch.int32))
    )
    unread = torch.ones(8000, dtype=torch.bool)
    for start, length in read:
        unread[start : start + length] = False
    for name in ("k", "v"):
        call.tensors[name][:, :, unread] = float("nan")
    call.tensors["key_bias"][:, unread] = float("nan")
    hold(call, poisoned(PATHS[path](call), call), count=600)


@paths
@modes
def test_what_lies_behind_the_keys_may_be_anything(mode, path):
    call = small(mode, Dtype.FLOAT16, 2)
    for name in ("q", "k", "v"):
        tensor = call.tensors[name]
        larger = torch.full(
            (*tensor.shape[:2], tensor.shape[2] + 300, tensor.shape[3]), float("nan"), device="cuda", dtype=tensor.dtype
        )
        larger[:, :, : tensor.shape[2]] = tensor
        call.tensors[name] = larger[:, :, : tensor.shape[2]]
    hold(call, poisoned(PATHS[path](call), call), count=400)


@paths
@dtypes
@modes
def test_packed_qkv(mode, dtype, path):
    """`[Z,n,3,A,D]` as a linear layer leaves it: heads lie closer together than rows."""
    call = of_mode(mode, dtype)
    q, k = call.tensors["q"], call.tensors["k"]
    for name, rows in (("q", q.shape[2]), ("k", k.shape[2]), ("v", k.shape[2])):
        qkv = torch.full((q.shape[0], rows, 3, q.shape[1], q.shape[3]), float("nan"), device="cuda", dtype=q.dtype)
        qkv[:, :, 1] = call.tensors[name].transpose(1, 2)
        call.tensors[name] = qkv[:, :, 1].transpose(1, 2)
    hold(call, poisoned(PATHS[path](call), call), frame=1374)


@paths
@modes
def test_a_launch_captured_in_a_graph_gives_the_same_bits(mode, path):
    """A capture refuses allocations by the driver and waiting for the GPU."""
    call = of_mode(mode, Dtype.FLOAT16)
    run = PATHS[path](call)
    expected = run().clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    for _ in range(3):
        out.fill_(float("nan"))
        graph.replay()
        assert torch.equal(out, expected)


@modes
def test_a_launch_from_the_pack_allocates_nothing(mode):
    run = ByPack(of_mode(mode, Dtype.BFLOAT16))

    def held():
        torch.cuda.synchronize()
        # free memory of the GPU is everybody's: only where no other test runs beside this one does it say anything
        free = 0 if "PYTEST_XDIST_WORKER" in os.environ else torch.cuda.mem_get_info()[0]
        return (
            torch.cuda.memory_allocated(),
            torch.cuda.memory_reserved(),
            torch.cuda.memory_stats()["allocation.all.allocated"],
            free,
        )

    run()
    before = held()
    for _ in range(10):
        run()
    assert held() == before


@paths
@dtypes
@modes
def test_repeated_runs_give_equal_bits(mode, dtype, path):
    call = of_mode(mode, dtype)
    run = PATHS[path](call)
    first = poisoned(run, call)
    assert all(torch.equal(poisoned(run, call), first) for _ in range(20))


@modes
def test_one_launcher_on_two_streams(mode):
    runs = [ByPack(of_mode(mode, Dtype.FLOAT16, seed)) for seed in (0, 1)]
    expected = [run().clone() for run in runs]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    for run in runs:
        run.poison()
    torch.cuda.synchronize()
    for _ in range(20):
        for run, stream in zip(runs, streams, strict=True):
            runs[0].launcher(run.addresses, stream.cuda_stream)
    torch.cuda.synchronize()
    assert all(torch.equal(run.out, out) for run, out in zip(runs, expected, strict=True))


@pytest.fixture
def packed(room):
    """q, k and v `[1,2,800000,64]` out of one qkv of 2.4e9 elements: the last heads of 16."""
    qkv = torch.randn(1, 800_000, 3, 16, 64, device="cuda", dtype=torch.float16)
    return [qkv[:, :, i, 14:].transpose(1, 2) for i in range(3)]


@paths
@pytest.mark.parametrize("n", [700, 8960])
def test_keys_beyond_2_31_elements(packed, n, path):
    q, k, v = packed
    call = Call(Mode.DENSE, {"q": q[:, :, -n:], "k": k, "v": v})
    run = PATHS[path](call)
    if isinstance(run, ByPack):
        assert run.launcher.plan.mode is (Mode.PARTIAL if n == 700 else Mode.DENSE)
    # of so many keys most weigh less than float16's normal numbers beside the largest, and lose bits: 1.2e-3 on an H100
    hold(call, poisoned(run, call), tolerance=2e-3)


@paths
def test_queries_and_segments_beyond_2_31_elements(packed, path):
    q, k, v = packed
    groups = 800
    seg = torch.tensor([((groups - 1 - g) * 1000, 1000) for g in range(groups)], dtype=torch.int32, device="cuda")
    bias = torch.randn(1, 800_000, device="cuda", dtype=torch.float16)
    call = Call(
        Mode.SEGMENTS,
        {
            "q": q,
            "k": k,
            "v": v,
            "key_bias": bias,
            "seg_ptr": torch.arange(groups + 1, dtype=torch.int32, device="cuda"),
            "seg": seg,
        },
    )
    hold(call, poisoned(PATHS[path](call), call))


@paths
def test_results_beyond_2_31_elements(room, path):
    call = random_call(Mode.DENSE, Dtype.FLOAT16, (1, 2, 17_000_000, 64), "cuda")
    hold(call, poisoned(PATHS[path](call), call))
