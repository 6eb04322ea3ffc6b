"""The row kernels in Triton's interpreter against PyTorch in float64; what their plans take; their machine code."""

import importlib
import re
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from page4d.network.rope import Rope, rotate
from page4d_plugins.compile import compiler
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launch_plan import Ref
from page4d_plugins.modes import HEAD_DIM, Dtype
from page4d_plugins.parameters import ParameterBlock
from page4d_plugins.row_launch import (
    MOST_CHANNELS,
    RowKernel,
    gelu_launch,
    heads_launch,
    takes_gelu,
    takes_heads,
    takes_tokens,
    tokens_launch,
)
from tests.support.examples import examples
from tests.support.kernel_cases import double, near

BOTH = st.sampled_from([torch.float16, torch.bfloat16])
FENCE = 64  # numbers behind every tensor, which hold NaN
SETTINGS = examples(25)
TOKENS = (RowKernel.ADD, RowKernel.NORM, RowKernel.ADD_NORM)


@pytest.fixture(scope="module")
def launched(attention):
    """A function that launches a plan in the interpreter: tensors by the launch's names, results written into them."""
    source = importlib.import_module("page4d_plugins.row_kernel")

    def launch(kernel, launch, tensors):
        values = {
            name: tensors.get(value.tensor) if isinstance(value, Ref) else value
            for name, value in launch.values.items()
        }
        getattr(source, launch.kernel.partition("_")[0])[launch.grid](**values, **kernel.constants)

    return launch


def fenced(tensor):
    """The same numbers, NaN behind them: what reads too far shows."""
    memory = torch.full((tensor.numel() + FENCE,), float("nan"), dtype=tensor.dtype)
    memory[: tensor.numel()] = tensor.flatten()
    return memory[: tensor.numel()].view(tensor.shape)


def drawn(generator, *shape, dtype=torch.float32, scale=1.0, shift=0.0):
    return fenced((torch.randn(*shape, generator=generator) * scale + shift).to(dtype))


def blank(x):
    return fenced(torch.full_like(x, float("nan")))


def fence_of(tensor):
    return torch.as_strided(tensor, (FENCE,), (1,), tensor.storage_offset() + tensor.numel())


@pytest.mark.parametrize("kernel", TOKENS, ids=lambda kernel: kernel.value)
@SETTINGS
@given(st.integers(1, 5), st.integers(1, 64), BOTH, st.booleans(), st.integers(0, 1 << 30))
def test_tokens(launched, kernel, rows, sixteenths, dtype, over, seed):
    """Sum and norm, over p where asked; rows far from zero, as residual streams have channels that are."""
    generator = torch.Generator().manual_seed(seed)
    channels = 16 * sixteenths
    x, p = drawn(generator, rows, channels, dtype=dtype, shift=3.0), drawn(generator, rows, channels, dtype=dtype)
    bias, gamma = (drawn(generator, channels, dtype=dtype) for _ in range(2))
    weight, shift = (drawn(generator, channels) for _ in range(2))
    total = double(x)[0] if kernel is RowKernel.NORM else x.double() + gamma.double() * (p.double() + bias.double())
    normed = F.layer_norm(total, (channels,), *double(weight, shift), eps=1e-6)
    tensors = {
        "x": x,
        "p": p,
        "bias": bias,
        "gamma": gamma,
        "weight": weight,
        "shift": shift,
        "sum": p if over else blank(x),
        "out": blank(x),
    }
    launched(kernel, tokens_launch(kernel, rows, channels, 1e-6), tensors)
    if kernel is not RowKernel.NORM:
        near(tensors["sum"], total)
    if kernel is not RowKernel.ADD and channels > 16:  # of few channels the norm enlarges what the sum lost
        near(tensors["out"], normed)
    assert all(fence_of(tensors[name]).isnan().all() for name in ("sum", "out"))


@SETTINGS
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), BOTH, st.booleans(), st.integers(0, 1 << 30))
def test_heads(launched, sequences, period, heads, dtype, over, seed):
    generator = torch.Generator().manual_seed(seed)
    x, bias = (
        drawn(generator, sequences * period, heads, HEAD_DIM, dtype=dtype),
        drawn(generator, heads, HEAD_DIM, dtype=dtype),
    )
    weight, shift, cos, sin = (
        drawn(generator, HEAD_DIM),
        drawn(generator, HEAD_DIM),
        drawn(generator, period, HEAD_DIM),
        drawn(generator, period, HEAD_DIM),
    )
    normed = F.layer_norm(x.double() + bias.double(), (HEAD_DIM,), *double(weight, shift), eps=1e-5)
    expected = rotate(normed[None], Rope(*(table.double()[:, None] for table in (cos, sin))))[0]
    tensors = {
        "x": x,
        "bias": bias,
        "weight": weight,
        "shift": shift,
        "cos": cos,
        "sin": sin,
        "out": x if over else blank(x),
    }
    launched(RowKernel.HEADS, heads_launch(sequences * period, heads, period, 1e-5), tensors)
    near(tensors["out"], expected)
    assert fence_of(tensors["out"]).isnan().all()


@SETTINGS
@given(st.integers(1, 4), st.integers(1, 150), BOTH, st.booleans(), st.integers(0, 1 << 30))
def test_gelu(launched, rows, sixteenths, dtype, over, seed):
    generator = torch.Generator().manual_seed(seed)
    x, bias = (
        drawn(generator, rows, 16 * sixteenths, dtype=dtype, scale=2.0),
        drawn(generator, 16 * sixteenths, dtype=dtype),
    )
    expected = F.gelu(x.double() + bias.double())
    tensors = {"x": x, "bias": bias, "out": x if over else blank(x)}
    launched(RowKernel.GELU, gelu_launch(rows, 16 * sixteenths), tensors)
    near(tensors["out"], expected)
    assert fence_of(tensors["out"]).isnan().all()


def test_what_the_kernels_take():
    """Rows that load as vectors, tokens that one block holds, numbers of blocks that a grid has."""
    assert takes_tokens(1, MOST_CHANNELS) and takes_tokens((1 << 31) - 1, 16)
    assert (
        not takes_tokens(1, MOST_CHANNELS + 16)
        and not takes_tokens(1, 24)
        and not takes_tokens(1 << 31, 16)
        and not takes_tokens(0, 16)
    )
    assert takes_heads(522, 6, HEAD_DIM, 261)
    assert (
        not takes_heads(522, 6, 32, 261)
        and not takes_heads(523, 6, HEAD_DIM, 261)
        and not takes_heads(1 << 28, 8, HEAD_DIM, 1)
    )
    assert takes_gelu(1, 16) and takes_gelu(1 << 29, 3072) and not takes_gelu(1 << 29, 4096) and not takes_gelu(1, 8)


LAUNCHES = {kernel: tokens_launch(kernel, 87, 384, 1e-6) for kernel in TOKENS}
LAUNCHES |= {RowKernel.HEADS: heads_launch(87, 6, 29, 1e-5), RowKernel.GELU: gelu_launch(87, 1536)}
USED = {  # the tensors that a kernel reads or writes
    RowKernel.ADD: "x p bias gamma sum",
    RowKernel.NORM: "x weight shift out",
    RowKernel.ADD_NORM: "x p bias gamma weight shift sum out",
    RowKernel.HEADS: "x bias weight shift cos sin out",
    RowKernel.GELU: "x bias out",
}


@pytest.mark.parametrize("kernel", RowKernel, ids=lambda kernel: kernel.value)
def test_launches_are_laid_out_as_the_machine_code_reads_them(kernel):
    """Every parameter at its size, for every GPU architecture; a launch has all values that are asked of it."""
    launch = LAUNCHES[kernel]
    addresses = {name: (i + 1) << 40 for i, name in enumerate(USED[kernel].split())}
    entries = [other.entry for other in shipped().kernels.values() if other.entry.kernel == kernel.value]
    assert len(entries) == 20
    for entry in entries:
        block = ParameterBlock(entry.parameters, launch.values)
        block.point(addresses, lambda descriptor, address: b"")
        seen = set()
        for i, parameter in enumerate(entry.parameters):
            value = launch.values.get(parameter.name)
            if isinstance(value, Ref):
                seen.add(value.tensor)
                value = addresses[value.tensor]
            raw = block.bytes_of(i)
            assert len(raw) == parameter.size
            assert (
                struct.unpack("<f", raw)[0] == np.float32(value)
                if parameter.floating
                else int.from_bytes(raw, "little") == (value or 0)
            ), parameter
        assert seen == set(addresses), entry.path


@pytest.mark.parametrize(
    "chip", ["sm_80", "sm_90", *(pytest.param(chip, marks=pytest.mark.slow) for chip in ("sm_89", "sm_100", "sm_120"))]
)
@pytest.mark.parametrize("kernel", RowKernel, ids=lambda kernel: kernel.value)
def test_machine_code_moves_sixteen_bytes_at_a_time(kernel, chip):
    """Every load and store of a tensor: these kernels do nothing but move numbers."""
    for dtype in Dtype:
        code = compiler.disassemble(
            "nvdisasm", "-c", cubin=shipped().kernels[f"{chip}/{kernel.value}_{dtype.value}.cubin"].code
        )
        moves = set(re.findall(r"\b((?:LDG|STG|LDL|STL)[\w.]*)", code))
        assert moves and all(re.search(r"\.(128|256)", move) for move in moves), moves
