"""The row kernels on a GPU, from the pack's machine code and from its PTX, against float64."""

import random

import pytest
import torch
import torch.nn.functional as F

from page4d.network.rope import Rope, rotate
from page4d_plugins import launcher
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.modes import HEAD_DIM, Dtype
from page4d_plugins.row_launch import RowKernel, gelu_launch, heads_launch, tokens_launch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]
TORCH = {Dtype.FLOAT16: torch.float16, Dtype.BFLOAT16: torch.bfloat16}
TOLERANCE = {Dtype.FLOAT16: 1e-3, Dtype.BFLOAT16: 1e-2}
REAL = 8 * 4 * 1374  # tokens of T=8 V=4 at 518x518
kernels = pytest.mark.parametrize("kernel", RowKernel, ids=lambda kernel: kernel.value)
dtypes = pytest.mark.parametrize("dtype", Dtype, ids=lambda dtype: dtype.value)
paths = pytest.mark.parametrize("path", ["pack", "ptx"])


def launch(launched, dtype, tensors, path):
    """As a chain does; the driver compiles where the pack has no machine code for the GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "ptx":
            patch.setattr(launcher, "capability_of", lambda device: 81)
        call = launcher.KernelLauncher([launched], dtype, torch.cuda.current_device(), shipped())
    call({name: tensor.data_ptr() for name, tensor in tensors.items()}, torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()


def case(kernel, dtype, rows, channels, heads, seed):
    """The launch, its tensors, and what it has to give in float64."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def drawn(*shape, narrow=True):
        return torch.randn(*shape, device="cuda", generator=generator).to(TORCH[dtype] if narrow else torch.float32)

    if kernel is RowKernel.HEADS:
        period = next(size for size in (1374, 7, 1) if rows % size == 0)
        x, bias = drawn(rows, heads, HEAD_DIM), drawn(heads, HEAD_DIM)
        weight, shift, cos, sin = (drawn(*size, HEAD_DIM, narrow=False) for size in ((), (), (period,), (period,)))
        normed = F.layer_norm(x.double() + bias.double(), (HEAD_DIM,), weight.double(), shift.double(), 1e-5)
        expected = rotate(normed[None], Rope(cos.double()[:, None], sin.double()[:, None]))[0]
        tensors = {
            "x": x,
            "bias": bias,
            "weight": weight,
            "shift": shift,
            "cos": cos,
            "sin": sin,
            "out": torch.full_like(x, float("nan")),
        }
        return heads_launch(rows, heads, period, 1e-5), tensors, {"out": expected}
    x, bias = drawn(rows, channels), drawn(channels)
    blank = torch.full_like(x, float("nan"))
    if kernel is RowKernel.GELU:
        return (
            gelu_launch(rows, channels),
            {"x": x, "bias": bias, "out": x},
            {"out": F.gelu(x.double() + bias.double())},
        )
    p, gamma, weight, shift = (
        drawn(rows, channels),
        drawn(channels),
        drawn(channels, narrow=False),
        drawn(channels, narrow=False),
    )
    total = x.double() if kernel is RowKernel.NORM else x.double() + gamma.double() * (p.double() + bias.double())
    expected = {} if kernel is RowKernel.NORM else {"sum": total}
    if kernel is not RowKernel.ADD:
        expected["out"] = F.layer_norm(total, (channels,), weight.double(), shift.double(), 1e-6)
    tensors = {"x": x, "p": p, "bias": bias, "gamma": gamma, "weight": weight, "shift": shift, "sum": p, "out": blank}
    return tokens_launch(kernel, rows, channels, 1e-6), tensors, expected


def hold(tensors, expected, dtype):
    for name, values in expected.items():
        error = (tensors[name].double() - values).norm(dim=-1)
        assert (
            error.norm() <= TOLERANCE[dtype] * values.norm()
            and (error <= 5 * TOLERANCE[dtype] * values.norm(dim=-1)).all()
        ), name


@paths
@dtypes
@kernels
def test_random_sizes_agree_with_float64(kernel, dtype, path):
    rng = random.Random(kernel.value)
    for seed in range(12):
        rows, channels, heads = rng.randint(1, 300), 16 * rng.randint(2, 64), rng.randint(1, 20)
        launched, tensors, expected = case(kernel, dtype, rows, channels, heads, seed)
        launch(launched, dtype, tensors, path)
        hold(tensors, expected, dtype)


@paths
@dtypes
@kernels
def test_real_sizes_agree_with_float64(kernel, dtype, path):
    launched, tensors, expected = case(kernel, dtype, REAL, 4096 if kernel is RowKernel.GELU else 1024, 16, 0)
    launch(launched, dtype, tensors, path)
    hold(tensors, expected, dtype)


@kernels
def test_results_beyond_2_31_elements(room, kernel):
    """The last rows of 2.2e9 numbers, written over what is read: offsets of rows have 64 bits."""
    channels, heads = (4096 if kernel is RowKernel.GELU else 1024), 16
    rows = 2_200_000_000 // channels
    launched, few, expected = case(kernel, Dtype.FLOAT16, 100, channels, heads, 1)
    large = torch.zeros(rows, channels, device="cuda", dtype=torch.float16)
    large[-100:] = few["x"].view(100, channels)
    tensors = few | {"x": large, "out": large}
    if kernel is RowKernel.HEADS:
        launched = heads_launch(rows, heads, 1, 1e-5)
    elif kernel is RowKernel.GELU:
        launched = gelu_launch(rows, channels)
    else:
        other = torch.zeros_like(large)
        other[-100:] = few["p"]
        tensors |= {"p": other, "sum": other, "out": large}
        launched = tokens_launch(kernel, rows, channels, 1e-6)
    launch(launched, Dtype.FLOAT16, tensors, "pack")
    hold({name: tensors[name][-100:].view(values.shape) for name, values in expected.items()}, expected, Dtype.FLOAT16)
