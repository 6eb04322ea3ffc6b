"""From the sizes of one call of a row kernel to its launch, as `launch_plan` for attention: no torch, Triton or GPU."""

from __future__ import annotations

import enum

from page4d_plugins.launch_plan import Launch, Ref, Value
from page4d_plugins.modes import HEAD_DIM

MOST_CHANNELS = 1024
"""Of a token: one block of threads holds them all. Every model of this project has at most that."""
_HEADS = 32  # rows of a block
_GELU = 1024  # channels of a block
_ALIGNED = 16  # channels: what rows are multiples of, so that they load as vectors
_LIMIT = 1 << 31


class RowKernel(enum.Enum):
    """The row kernels. The value is the name in the pack."""

    ADD = "tokens_add"
    """x + gamma (p + bias), the end of a block's half."""
    NORM = "tokens_norm"
    """LayerNorm of x."""
    ADD_NORM = "tokens_add_norm"
    """Both: the sum, and the norm of it that the next half begins with."""
    HEADS = "heads"
    """LayerNorm and rotary embedding of every head of q or k, with the linear layer's bias."""
    GELU = "gelu"
    """GELU of p + bias."""

    @property
    def constants(self) -> dict[str, int | bool]:
        """Compile-time constants, by name."""
        if self is RowKernel.HEADS:
            return {"D": HEAD_DIM, "BLOCK": _HEADS}
        if self is RowKernel.GELU:
            return {"BLOCK": _GELU}
        return {"ADD": self is not RowKernel.NORM, "NORM": self is not RowKernel.ADD, "BLOCK": MOST_CHANNELS}


def takes_tokens(rows: int, channels: int) -> bool:
    """Whether the kernels over tokens `[rows,channels]` take them."""
    return channels <= MOST_CHANNELS and channels % _ALIGNED == 0 and 0 < rows < _LIMIT


def takes_heads(tokens: int, heads: int, channels: int, period: int) -> bool:
    """Whether HEADS takes `[tokens,heads,channels]` with tables of `period` tokens."""
    return channels == HEAD_DIM and 0 < tokens * heads < _LIMIT and period > 0 and tokens % period == 0


def takes_gelu(rows: int, channels: int) -> bool:
    """Whether GELU takes `[rows,channels]`."""
    return channels % _ALIGNED == 0 and 0 < rows * _blocks(channels) < _LIMIT


def tokens_launch(kernel: RowKernel, rows: int, channels: int, epsilon: float = 0.0) -> Launch:
    """Of ADD, NORM or ADD_NORM over `[rows,channels]`, which `takes_tokens` takes.

    Addresses by name: `x`, `p`, `bias`, `gamma`, `weight`, `shift`, `sum`, `out`, as far as the kernel uses them.
    """
    values = _addresses("x", "p", "bias", "gamma", "weight", "shift", "sum", "out")
    return Launch(kernel.value, (rows, 1, 1), values | {"channels": channels, "epsilon": epsilon})


def heads_launch(tokens: int, heads: int, period: int, epsilon: float) -> Launch:
    """Of HEADS over `[tokens,heads,D]`, which `takes_heads` takes.

    Addresses by name: `x`, `bias`, `weight`, `shift`, `cos`, `sin`, `out`.
    """
    values = _addresses("x", "bias", "weight", "shift", "cos", "sin", "out")
    values |= {"rows": tokens * heads, "count": heads, "period": period, "epsilon": epsilon}
    return Launch(RowKernel.HEADS.value, (-(-tokens * heads // _HEADS), 1, 1), values)


def gelu_launch(rows: int, channels: int) -> Launch:
    """Of GELU over `[rows,channels]`, which `takes_gelu` takes. Addresses by name: `x`, `bias`, `out`."""
    blocks = _blocks(channels)
    values = _addresses("x", "bias", "out") | {"channels": channels, "blocks": blocks}
    return Launch(RowKernel.GELU.value, (rows * blocks, 1, 1), values)


def _addresses(*names: str) -> dict[str, Value]:
    return {name.upper(): Ref(name) for name in names}


def _blocks(channels: int) -> int:
    return -(-channels // _GELU)
