"""The attention kernel, in Triton: one body for all modes, and the two small kernels around it.

A program computes `BM` queries of one group, one head and one sequence, key tile by key tile, with the running maximum
and sum of softmax in float32; nothing of size n x m is stored. Logits are multiplied by log2(e), so that exponentials
are exp2.

Letters as in `page4d.attention`: q [Z,A,n,D], k v [Z,A,m,D]. Rows, keys and segments that do not exist are never read:
the last tile of a range loads through clamped pointers. Offsets of sequences, heads and tiles have 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(
    acc, top, total, q, K, V, KD, VD, BIAS, CENTRES, z, a, start, j, length, k_n, v_n, scale,
    leads, gain, l0, l1, l2, allowed, penalty,
    D: tl.constexpr, BN: tl.constexpr, BIASED: tl.constexpr, ROWS: tl.constexpr, EPIPOLAR: tl.constexpr,
    DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One tile of keys into the running sums: acc [BM,D], top (maximum) and total [BM], float32."""
    first = start + j
    column = tl.arange(0, BN)
    channel = tl.arange(0, D)
    if MASKED:
        column = tl.minimum(column, length - 1 - j)
    if DESCRIPTORS and not MASKED:
        k = tl.reshape(KD.load([z, a, first, 0]), BN, D)
    else:
        k = tl.load(K + first.to(tl.int64) * k_n + column[:, None] * k_n + channel[None, :])
    if UPCAST:
        s = tl.dot(q.to(tl.float32), tl.trans(k).to(tl.float32))
    else:
        s = tl.dot(q, tl.trans(k))
    if BIASED or EPIPOLAR:
        s = s * scale  # [BM,BN]
    if BIASED:
        bias = tl.load(BIAS + first + column)
        if ROWS:
            s = s + tl.where(leads[:, None], gain * bias[None, :], 0.0)
        else:
            s = s + bias[None, :]
    if EPIPOLAR:  # j counts from the view's first token
        centre = CENTRES + (j + column) * 3
        x = tl.load(centre)
        y = tl.load(centre + 1)
        w = tl.load(centre + 2)
        reach = l0[:, None] * x[None, :] + l1[:, None] * y[None, :] + l2[:, None] * w[None, :]
        s = tl.where(tl.abs(reach) > allowed[:, None], s - penalty, s)
    if MASKED:
        s = tl.where((j + tl.arange(0, BN) < length)[None, :], s, float("-inf"))
    if BIASED or EPIPOLAR:
        new = tl.maximum(top, tl.max(s, 1))
        base = tl.where(new == float("-inf"), 0.0, new)  # a row whose keys are all at -inf so far
        p = tl.math.exp2(s - base[:, None])
    else:  # nothing lies between scale and maximum: product and difference are one instruction
        new = tl.maximum(top, tl.max(s, 1) * scale)
        base = new
        p = tl.math.exp2(s * scale - base[:, None])
    alpha = tl.math.exp2(top - base)
    total = total * alpha + tl.sum(p, 1)
    acc = acc * alpha[:, None]
    if DESCRIPTORS and not MASKED:
        v = tl.reshape(VD.load([z, a, first, 0]), BN, D)
    else:
        v = tl.load(V + first.to(tl.int64) * v_n + column[:, None] * v_n + channel[None, :])
    if UPCAST:
        acc = tl.dot(p.to(v.dtype).to(tl.float32), v.to(tl.float32), acc)
    else:
        acc = tl.dot(p.to(v.dtype), v, acc)
    return acc, new, total


@triton.jit
def attention(
    Q, K, V, KD, VD, OUT, LSE, BIAS, SEG_PTR, SEG, SEGMENT_BIAS, FUNDAMENTAL, CENTRES,
    scale, gain, band, penalty,
    q_z, q_a, q_g, k_z, k_a, v_z, v_a, out_z, out_a, out_g, bias_z,
    q_n, k_n, v_n, out_n, heads, rows, keys, chunk, segments, views, period, leading,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr, KEYS: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, SEGMENT_BIASED: tl.constexpr, PARTIAL: tl.constexpr, DESCRIPTORS: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(rows/BM), groups, Z*A).

    Q K V OUT: pointers with strides in elements: `_z` sequence, `_a` head, `_g` query group, `_n` row; channels lie
        side by side.
    KD, VD: descriptors of K and V as `[Z,A,m,D]`, box `[1,1,BN,D]`; used for whole tiles where DESCRIPTORS.
    LSE: float32 `[Z*A,groups,rows]`, log2 of the sum of exponentials; written where PARTIAL.
    BIAS: float32 `[Z,m]` times log2(e), stride bias_z.
    SEG_PTR `[groups+1]`, SEG `[segments,2]`, int32; SEGMENT_BIAS `[A,segments]`, Q's type.
    FUNDAMENTAL `[V,V,3,3]`, CENTRES `[N,3]`, float32; groups are the query's views, each of `rows` = N tokens.
    scale: log2(e)/sqrt(D). gain: of the biased rows. band: pixels. penalty: times log2(e).
    chunk: keys of a group where KEYS is RANGE.
    """
    g = tl.program_id(1)
    za = tl.program_id(2)
    z = za // heads
    a = za % heads
    channel = tl.arange(0, D)
    block = tl.program_id(0) * BM
    row = block + tl.arange(0, BM)
    read = tl.minimum(row, rows - 1)
    Q += z.to(tl.int64) * q_z + a.to(tl.int64) * q_a + g.to(tl.int64) * q_g + block.to(tl.int64) * q_n
    K += z.to(tl.int64) * k_z + a.to(tl.int64) * k_a
    V += z.to(tl.int64) * v_z + a.to(tl.int64) * v_a
    OUT += z.to(tl.int64) * out_z + a.to(tl.int64) * out_a + g.to(tl.int64) * out_g + block.to(tl.int64) * out_n
    if BIASED:
        BIAS += z.to(tl.int64) * bias_z
    q = tl.load(Q + (read - block)[:, None] * q_n + channel[None, :])
    acc = tl.zeros([BM, D], tl.float32)
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    leads = read % period < leading if ROWS else 0
    EPIPOLAR: tl.constexpr = KEYS == 2
    l0 = tl.zeros([BM], tl.float32)
    l1 = l0
    l2 = l0
    allowed = l0
    begin = 0
    end = 1
    if KEYS == 1:
        begin = tl.load(SEG_PTR + g)
        end = tl.load(SEG_PTR + g + 1)
    if EPIPOLAR:
        end = views
        x = tl.load(CENTRES + read * 3)
        y = tl.load(CENTRES + read * 3 + 1)
        w = tl.load(CENTRES + read * 3 + 2)
    for p in range(begin, end):
        if KEYS == 1:
            start = tl.load(SEG + 2 * p)
            length = tl.load(SEG + 2 * p + 1)
        elif EPIPOLAR:
            start = p * rows
            length = rows
            f = FUNDAMENTAL + (g * views + p) * 9
            l0 = tl.load(f) * x + tl.load(f + 1) * y + tl.load(f + 2) * w
            l1 = tl.load(f + 3) * x + tl.load(f + 4) * y + tl.load(f + 5) * w
            l2 = tl.load(f + 6) * x + tl.load(f + 7) * y + tl.load(f + 8) * w
            allowed = band * tl.sqrt(l0 * l0 + l1 * l1)
        else:
            start = g * chunk
            length = tl.minimum(chunk, keys - start)
        if SEGMENT_BIASED:
            # all logits of a segment have it: the maximum is taken without it, which costs nothing per key
            extra = tl.load(SEGMENT_BIAS + a * segments + p).to(tl.float32) * 1.4426950408889634
            length = tl.where(extra == float("-inf"), 0, length)
            extra = tl.where(extra == float("-inf"), 0.0, extra)
            top -= extra
        whole = length // BN * BN
        for j in tl.range(0, whole, BN, num_stages=STAGES):
            acc, top, total = _tile(
                acc, top, total, q, K, V, KD, VD, BIAS, CENTRES, z, a, start, j, length, k_n, v_n, scale,
                leads, gain, l0, l1, l2, allowed, penalty, D, BN, BIASED, ROWS, EPIPOLAR, DESCRIPTORS, False, UPCAST,
            )  # fmt: skip
        if whole < length:
            acc, top, total = _tile(
                acc, top, total, q, K, V, KD, VD, BIAS, CENTRES, z, a, start, whole, length, k_n, v_n, scale,
                leads, gain, l0, l1, l2, allowed, penalty, D, BN, BIASED, ROWS, EPIPOLAR, DESCRIPTORS, True, UPCAST,
            )  # fmt: skip
        if SEGMENT_BIASED:
            top += extra
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]  # no keys, or none above -inf: zeros
    exists = row < rows
    tl.store(
        OUT + (row - block)[:, None] * out_n + channel[None, :], acc.to(OUT.dtype.element_ty), mask=exists[:, None]
    )
    if PARTIAL:
        groups = tl.num_programs(1)
        tl.store(LSE + (za.to(tl.int64) * groups + g) * rows + row, top + tl.math.log2(total), mask=exists)


@triton.jit
def prepare(BIAS, OUT, count, BLOCK: tl.constexpr):
    """Grid (ceil(count/BLOCK)): OUT float32 = BIAS times log2(e), once a call instead of once a tile."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(OUT + i, tl.load(BIAS + i, mask=i < count, other=0.0).to(tl.float32) * 1.4426950408889634, mask=i < count)


@triton.jit
def merge(PART, LSE, OUT, out_z, out_a, out_n, heads, rows, parts, D: tl.constexpr, PARTS: tl.constexpr):
    """Grid (rows, Z*A): OUT = the mean of the parts, weighted by their sums.

    PART: float32 `[Z*A,parts,rows,D]`. LSE: float32 `[Z*A,parts,rows]`.
    """
    row = tl.program_id(0)
    za = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, PARTS)
    channel = tl.arange(0, D)
    at = (za * parts + part) * rows + row
    lse = tl.load(LSE + at, mask=part < parts, other=float("-inf"))
    top = tl.max(lse, 0)
    weight = tl.math.exp2(lse - tl.where(top == float("-inf"), 0.0, top))
    x = tl.load(PART + at[:, None] * D + channel[None, :], mask=(part < parts)[:, None], other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(x * weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    OUT += za // heads * out_z + za % heads * out_a + row.to(tl.int64) * out_n
    tl.store(OUT + channel, out.to(OUT.dtype.element_ty))
