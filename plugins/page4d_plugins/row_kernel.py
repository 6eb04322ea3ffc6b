"""The row kernels, in Triton: elementwise operations and norms of a transformer block, each in one pass over memory.

They compute in float32. Rows are tokens or heads, channels are contiguous. Offsets of rows have 64 bits. An output may
have the address of an input, SUM that of P and OUT that of X: a thread reads what it overwrites before any other could.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tokens(
    X, P, BIAS, GAMMA, WEIGHT, SHIFT, SUM, OUT, channels, epsilon,
    ADD: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (rows). SUM = X + GAMMA (P + BIAS) where ADD, OUT = LayerNorm of it (of X without ADD) where NORM.

    X P SUM OUT: `[rows,channels]`. BIAS GAMMA: `[channels]`. WEIGHT SHIFT: float32 `[channels]`.
    channels: at most BLOCK.
    """
    row = tl.program_id(0).to(tl.int64) * channels
    channel = tl.arange(0, BLOCK)
    inside = channel < channels
    x = tl.load(X + row + channel, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        p = tl.load(P + row + channel, mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(BIAS + channel, mask=inside, other=0.0).to(tl.float32)
        gamma = tl.load(GAMMA + channel, mask=inside, other=0.0).to(tl.float32)
        x = x + gamma * (p + bias)
    if NORM:
        mean = tl.sum(x, 0) / channels
        centred = tl.where(inside, x - mean, 0.0)
        scale = tl.math.rsqrt(tl.sum(centred * centred, 0) / channels + epsilon)
        weight = tl.load(WEIGHT + channel, mask=inside, other=0.0)
        shift = tl.load(SHIFT + channel, mask=inside, other=0.0)
        tl.store(OUT + row + channel, (centred * scale * weight + shift).to(OUT.dtype.element_ty), mask=inside)
    if ADD:
        tl.store(SUM + row + channel, x.to(SUM.dtype.element_ty), mask=inside)


@triton.jit
def heads(X, BIAS, WEIGHT, SHIFT, COS, SIN, OUT, rows, count, period, epsilon, D: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (ceil(rows/BLOCK)). OUT = rotary embedding of the LayerNorm of X + BIAS, head by head.

    X OUT: `[rows,D]`, rows are tokens by heads. BIAS: `[count,D]`. WEIGHT SHIFT: float32 `[D]`. COS SIN: float32
        `[period,D]`, by the token's position among `period`.
    A channel of the first or third quarter turns with the channel D/4 behind it.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    read = tl.minimum(row, rows - 1)
    pair = tl.arange(0, D // 2)
    first = pair % (D // 4) + pair // (D // 4) * (D // 2)
    second = first + D // 4
    at = read.to(tl.int64)[:, None] * D
    bias = BIAS + (read % count)[:, None] * D
    x = tl.load(X + at + first[None, :]).to(tl.float32) + tl.load(bias + first[None, :]).to(tl.float32)
    y = tl.load(X + at + second[None, :]).to(tl.float32) + tl.load(bias + second[None, :]).to(tl.float32)
    mean = (tl.sum(x, 1) + tl.sum(y, 1)) / D
    x = x - mean[:, None]
    y = y - mean[:, None]
    scale = tl.math.rsqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / D + epsilon)
    x = x * scale[:, None] * tl.load(WEIGHT + first)[None, :] + tl.load(SHIFT + first)[None, :]
    y = y * scale[:, None] * tl.load(WEIGHT + second)[None, :] + tl.load(SHIFT + second)[None, :]
    place = (read // count % period)[:, None] * D
    turned_x = x * tl.load(COS + place + first[None, :]) + y * tl.load(SIN + place + first[None, :])
    turned_y = y * tl.load(COS + place + second[None, :]) + x * tl.load(SIN + place + second[None, :])
    exists = (row < rows)[:, None]
    tl.store(OUT + at + first[None, :], turned_x.to(OUT.dtype.element_ty), mask=exists)
    tl.store(OUT + at + second[None, :], turned_y.to(OUT.dtype.element_ty), mask=exists)


@triton.jit
def gelu(X, BIAS, OUT, channels, blocks, BLOCK: tl.constexpr):
    """Grid (rows * blocks), blocks = ceil(channels/BLOCK). OUT = the exact GELU of X + BIAS.

    X OUT: `[rows,channels]`. BIAS: `[channels]`.
    """
    row = (tl.program_id(0) // blocks).to(tl.int64) * channels
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    x = tl.load(X + row + channel, mask=inside, other=0.0).to(tl.float32) + tl.load(
        BIAS + channel, mask=inside, other=0.0
    ).to(tl.float32)
    half = 0.5 * x
    tl.store(
        OUT + row + channel, (half + half * tl.math.erf(x * 0.7071067811865476)).to(OUT.dtype.element_ty), mask=inside
    )
