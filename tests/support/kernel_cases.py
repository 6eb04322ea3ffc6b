"""What the tests of the kernel share: Triton's interpreter, tensors to run it on, and how near the result must be."""

import contextlib
import importlib
import sys

import numpy as np
import pytest
import torch

TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Of the relative L2 error: of a whole result, and five times that of any one row."""
_FENCE = 40  # rows behind every tensor that hold NaN


_DECORATED = ("attention_kernel", "row_kernel", "pixel_kernel", "attention", "camera_images")
_empty = torch.empty


def _unwritten(*sizes, **options):
    """New memory as no result has it: NaN, or of bytes 165."""
    memory = _empty(*sizes, **options)
    return memory.fill_(float("nan") if memory.is_floating_point() else 165)


@contextlib.contextmanager
def interpreting():
    """page4d_plugins.attention on Triton's interpreter; new memory holds NaN, so that what is not written shows.

    Triton decides when a function is decorated, and for its own library when it is imported. So the kernels are
    decorated anew, the library's functions wrapped, and all is put back: other files of this process compile the same
    kernels.
    """
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    import page4d_plugins.pixels

    modules = sys.modules
    before = [
        (place, name, place.pop(name, None))
        for package in (page4d_plugins, page4d_plugins.pixels)
        for module in _DECORATED
        for place, name in ((modules, f"{package.__name__}.{module}"), (vars(package), module))
    ]
    library = (tl, tl.core, tl.math, tl.standard, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    # divide: log2(0) of a part without keys
    with pytest.MonkeyPatch.context() as patch, _put_back(library), np.errstate(divide="ignore"):
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(torch, "empty", _unwritten)
        for part in (tl, tl.standard):
            for name, function in list(vars(part).items()):
                if isinstance(function, triton.JITFunction):
                    setattr(part, name, InterpretedFunction(function.fn))
        yield importlib.import_module("page4d_plugins.attention")
    InterpretedFunction.rewritten_fn.clear()  # they use names that the interpreter had left in the library
    for place, name, module in before:
        place.pop(name, None)
        if module is not None:
            place[name] = module


@contextlib.contextmanager
def _put_back(owners):
    """Put back what the interpreter replaces in Triton's library, in nested calls for good."""
    before = [dict(vars(owner)) for owner in owners]
    yield
    for owner, names in zip(owners, before, strict=True):
        for name, value in list(vars(owner).items()):
            if name not in names:
                delattr(owner, name)
            elif value is not names[name]:
                setattr(owner, name, names[name])


def draw(Z, A, n, m, D, dtype=torch.float16, seed=0):
    """q, k, v and a key bias in -4 .. 4; behind the rows of each head lie rows of NaN."""
    generator = torch.Generator().manual_seed(seed)

    def fenced(rows):
        memory = torch.full((Z, A, rows + _FENCE, D), float("nan"), dtype=dtype)
        memory[:, :, :rows] = torch.randn(Z, A, rows, D, generator=generator)
        return memory[:, :, :rows]

    return fenced(n), fenced(m), fenced(m), (torch.rand(Z, m, generator=generator) * 8 - 4).to(dtype)


def named(q, k, v, key_bias=None):
    """A call's tensors by name."""
    return {"q": q, "k": k, "v": v} | ({} if key_bias is None else {"key_bias": key_bias})


def double(*tensors):
    """In float64."""
    return [tensor.double() for tensor in tensors]


def near(out, expected):
    """Finite, and as near to float64 as the dtype allows, as a whole and row by row; rows of zeros are zeros."""
    assert out.shape == expected.shape
    assert out.isfinite().all()
    tolerance = TOLERANCE[out.dtype]
    error, size = (out.double() - expected).norm(dim=-1), expected.norm(dim=-1)
    assert error.norm() <= tolerance * size.norm()
    assert (error <= 5 * tolerance * size).all()
