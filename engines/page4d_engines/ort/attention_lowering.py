"""The two attention ops as ONNX functions for ONNX Runtime on a CPU: its tiled attention, in linear memory.

ONNX Runtime's `MultiHeadAttention` goes tile by tile if it has no bias and no mask. So biases become extra channels: a
query has 1/scale there, a key its bias. What cannot be written so (ragged keys, a prior per pair) is a loop over small
parts.

Names: Z sequences, A heads, n queries, m keys, D channels; `_wide` tensors are `[Z,n,A,D]`. A comment behind a line is
the shape of its result.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from page4d.ops import BiasedRows

_LOGITS_BYTES = 16 << 20  # of one part of the epipolar loop, which holds three such tensors

Readers = list[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Per group of queries its keys' numbers and their segments' numbers."""


@dataclass(frozen=True)
class Lowered:
    """A function body in ONNX text form, and constants that it takes as inputs after the node's own."""

    inputs: tuple[str, ...]
    body: str
    constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention node."""

    Z: int
    A: int
    n: int
    m: int
    D: int
    multiple: int = 1
    """The channels of heads with extra channels are a multiple of this."""

    @property
    def scale(self) -> float:
        """Of the logits."""
        return float(self.D**-0.5)


def biased(shape: Shape, has_bias: bool, rows: BiasedRows | None = None) -> Lowered:
    """`BiasedAttention` without epipolar prior; with `rows` a query's extra channel scales the bias that it sees."""
    if rows is not None:
        gains = np.zeros((1, shape.n, shape.A, 1), np.float32)
        gains[:, np.arange(shape.n) % rows.period < rows.leading] = rows.gain / shape.scale
        body = _wide("q") + _wide("k") + _bias_columns(shape)
        body += f"""
    gains_shape = Constant <value_ints = [{shape.Z}, {shape.n}, {shape.A}, 1]> ()
    gains_all = Expand (gains, gains_shape)  # [Z,n,A,1]
    q_more = Concat <axis = -1> (q_wide, gains_all)  # [Z,n,A,D+1]
    k_more = Concat <axis = -1> (k_wide, bias_columns)  # [Z,m,A,D+1]"""
        return Lowered(
            ("q", "k", "v", "key_bias"), body + _attend(shape, "q_more", "k_more", shape.D + 1), {"gains": gains}
        )
    if not has_bias:
        return Lowered(("q", "k", "v"), _wide("q") + _wide("k") + _attend(shape, "q_wide", "k_wide", shape.D))
    body = _wide("q") + _wide("k") + _ones(1, shape) + _bias_columns(shape)
    body += "\n    k_more = Concat <axis = -1> (k_wide, bias_columns)"
    return Lowered(("q", "k", "v", "key_bias"), body + _attend(shape, "q_more", "k_more", shape.D + 1))


def segmented(
    shape: Shape, seg_ptr: NDArray[np.int32], seg: NDArray[np.int32], segment_bias: NDArray[np.float32] | None
) -> Lowered:
    """`SegmentAttention`: folded whole where every group reads every key once, else a loop over the groups."""
    readers = _readers(seg_ptr, seg)
    if all(len(keys) == shape.m and np.array_equal(np.sort(keys), np.arange(shape.m)) for keys, _ in readers):
        if segment_bias is None:
            whole = biased(shape, has_bias=True)
            return Lowered((*whole.inputs, "seg_ptr", "seg"), whole.body)
        return _folded_groups(shape, readers, segment_bias)
    return _looped_groups(shape, readers, segment_bias)


def _readers(seg_ptr: NDArray[np.int32], seg: NDArray[np.int32]) -> Readers:
    none = np.empty(0, np.int64)
    readers = []
    for first, past in itertools.pairwise(seg_ptr):
        keys = [np.arange(start, start + length, dtype=np.int64) for start, length in seg[first:past]]
        owners = [np.full(length, number, np.int64) for number, (_, length) in enumerate(seg[first:past], first)]
        readers.append((np.concatenate([none, *keys]), np.concatenate([none, *owners])))
    return readers


def _folded_groups(shape: Shape, readers: Readers, segment_bias: NDArray[np.float32]) -> Lowered:
    """One extra channel for the key bias, and one a group: whether a query is in it, what it adds to a key."""
    groups = len(readers)
    extra = groups + 1
    mine = np.zeros((1, shape.n, 1, extra), np.float32)
    mine[..., 0] = 1 / shape.scale
    mine[0, np.arange(shape.n), 0, 1 + np.arange(shape.n) // (shape.n // groups)] = 1 / shape.scale
    theirs = np.zeros((1, shape.m, shape.A, extra - 1), np.float32)
    for g, (keys, owners) in enumerate(readers):
        theirs[0, keys, :, g] = segment_bias[:, owners].T
    body = f"""{_wide("q")}{_wide("k")}
    mine_shape = Constant <value_ints = [{shape.Z}, {shape.n}, {shape.A}, {extra}]> ()
    mine_columns = Expand (mine, mine_shape)  # [Z,n,A,groups+1]
    q_more = Concat <axis = -1> (q_wide, mine_columns)  # [Z,n,A,D+groups+1]{_bias_columns(shape)}
    theirs_shape = Constant <value_ints = [{shape.Z}, {shape.m}, {shape.A}, {extra - 1}]> ()
    theirs_columns = Expand (theirs, theirs_shape)  # [Z,m,A,groups]
    k_more = Concat <axis = -1> (k_wide, bias_columns, theirs_columns)  # [Z,m,A,D+groups+1]"""
    inputs = ("q", "k", "v", "key_bias", "seg_ptr", "seg", "segment_bias")
    return Lowered(inputs, body + _attend(shape, "q_more", "k_more", shape.D + extra), {"mine": mine, "theirs": theirs})


def _looped_groups(shape: Shape, readers: Readers, segment_bias: NDArray[np.float32] | None) -> Lowered:
    """Group by group: gather its keys and values, attend. A group that reads nothing gives zeros."""
    groups = len(readers)
    longest = max(1, *(len(keys) for keys, _ in readers))
    table, added = np.zeros((groups, longest), np.int64), np.zeros((groups, longest, shape.A, 1), np.float32)
    for g, (keys, owners) in enumerate(readers):
        table[g, : len(keys)] = keys
        if segment_bias is not None:
            added[g, : len(keys), :, 0] = segment_bias[:, owners].T
    counts = np.array([[max(len(keys), 1)] for keys, _ in readers], np.int64)
    gain = np.array([float(len(keys) > 0) for keys, _ in readers], np.float32)
    constants: dict[str, NDArray[np.generic]] = {"table": table, "counts": counts, "gain": gain}
    more = 1 if segment_bias is None else 2  # the key bias, known before the loop, and the segments'
    rows, channels = shape.n // groups, shape.D + more
    per_group = ""
    if segment_bias is not None:
        constants["added"] = added
        per_group = """
        added_row = Gather <axis = 0> (added, g)  # [longest,A,1]
        added_mine = Slice (added_row, zero, count, zero)  # [count,A,1]
        added_shape = Concat <axis = 0> (z_count, count, heads_and_rest)  # Z, count, A, 1
        added_columns = Expand (added_mine, added_shape)  # [Z,count,A,1]
        k_four = Reshape (k_mine, k_four_shape)  # [Z,count,A,D+1]
        k_joined = Concat <axis = -1> (k_four, added_columns)  # [Z,count,A,D+2]
        k_ready = Reshape (k_joined, k_flat_shape)  # [Z,count,A*(D+2)]"""
    body = f"""{_wide("q")}{_wide("k")}{_ones(more, shape)}{_bias_columns(shape)}
    k_more = Concat <axis = -1> (k_wide, bias_columns)  # [Z,m,A,D+1]
    q_groups_shape = Constant <value_ints = [{shape.Z}, {groups}, {rows}, {shape.A * channels}]> ()
    q_groups = Reshape (q_more, q_groups_shape)  # [Z,groups,n/groups,A*(D+more)]
    k_flat = Constant <value_ints = [{shape.Z}, {shape.m}, {shape.A * (shape.D + 1)}]> ()
    k_rows = Reshape (k_more, k_flat)  # [Z,m,A*(D+1)]
    v_wide = Transpose <perm = [0, 2, 1, 3]> (v)  # [Z,m,A,D]
    v_flat = Constant <value_ints = [{shape.Z}, {shape.m}, {shape.A * shape.D}]> ()
    v_rows = Reshape (v_wide, v_flat)  # [Z,m,A*D]
    zero = Constant <value_ints = [0]> ()
    z_count = Constant <value_ints = [{shape.Z}]> ()
    heads_and_rest = Constant <value_ints = [{shape.A}, 1]> ()
    k_four_shape = Constant <value_ints = [{shape.Z}, -1, {shape.A}, {shape.D + 1}]> ()
    k_flat_shape = Constant <value_ints = [{shape.Z}, -1, {shape.A * channels}]> ()
    trips = Constant <value_int = {groups}> ()
    go = Constant <value = bool {{1}}> ()
    by_group = Loop <body = group (int64 g, bool go_in)  # [groups,Z,n/groups,A*D]
        => (bool go_out, float[{shape.Z},{rows},{shape.A * shape.D}] out_mine) {{
        go_out = Identity (go_in)
        q_mine = Gather <axis = 1> (q_groups, g)  # [Z,n/groups,A*(D+more)]
        table_row = Gather <axis = 0> (table, g)  # [longest]
        count = Gather <axis = 0> (counts, g)  # [1]
        index = Slice (table_row, zero, count, zero)  # [count]
        k_mine = Gather <axis = 1> (k_rows, index)  # [Z,count,A*(D+1)]
        v_mine = Gather <axis = 1> (v_rows, index)  # [Z,count,A*D]{per_group}
        attended = com.microsoft.MultiHeadAttention <num_heads = {shape.A}, scale = {shape.scale!r}>  # [Z,n/groups,A*D]
            (q_mine, {"k_ready" if per_group else "k_mine"}, v_mine)
        gain_mine = Gather <axis = 0> (gain, g)  # []
        out_mine = Mul (attended, gain_mine)  # [Z,n/groups,A*D]
    }}> (trips, go)
    in_order = Transpose <perm = [1, 0, 2, 3]> (by_group)  # [Z,groups,n/groups,A*D]
    out_shape = Constant <value_ints = [{shape.Z}, {shape.n}, {shape.A}, {shape.D}]> ()
    out_wide = Reshape (in_order, out_shape)  # [Z,n,A,D]
    out = Transpose <perm = [0, 2, 1, 3]> (out_wide)  # [Z,A,n,D]"""
    inputs = ("q", "k", "v", "key_bias", "seg_ptr", "seg") + (() if segment_bias is None else ("segment_bias",))
    return Lowered(inputs, body, constants)


def epipolar(shape: Shape, views: int, band: float, penalty: float) -> Lowered:
    """`BiasedAttention` with the epipolar prior: loops over sequences and parts of the queries, with rows of it."""
    rows = max(1, min(shape.n, _LOGITS_BYTES // (4 * shape.A * shape.m)))
    parts = -(-shape.n // rows)
    padding = parts * rows - shape.n
    tokens = shape.m // views
    body = f"""
    unit = Constant <value_float = {shape.scale!r}> ()
    q_scaled = Mul (q, unit)  # [Z,A,n,D]
{_pads("q_pads", 0, 0, padding, 0)}
    q_padded = Pad (q_scaled, q_pads)  # [Z,A,parts*rows,D]
    q_parts_shape = Constant <value_ints = [{shape.Z}, {shape.A}, {parts}, {rows}, {shape.D}]> ()
    q_parts = Reshape (q_padded, q_parts_shape)  # [Z,A,parts,rows,D]
    q_by_part = Transpose <perm = [0, 2, 1, 3, 4]> (q_parts)  # [Z,parts,A,rows,D]
    k_turned = Transpose <perm = [0, 1, 3, 2]> (k)  # [Z,A,D,m]
    centres_turned = Transpose <perm = [1, 0]> (centres)  # [3,tokens]
    lines_turned = MatMul (fundamental, centres_turned)  # [views,views,3,tokens]
    lines_by_view = Transpose <perm = [0, 3, 1, 2]> (lines_turned)  # [views,tokens,views,3]
    lines_shape = Constant <value_ints = [{shape.n}, {views}, 3]> ()
    lines = Reshape (lines_by_view, lines_shape)  # [n,views,3]
{_pads("lines_pads", padding, 0, 0)}
    lines_padded = Pad (lines, lines_pads)  # [parts*rows,views,3]
    line_parts_shape = Constant <value_ints = [{parts}, {rows * views}, 3]> ()
    line_parts = Reshape (lines_padded, line_parts_shape)  # [parts,rows*views,3]
    band = Constant <value_float = {band!r}> ()
    penalty = Constant <value_float = {-penalty!r}> ()
    none = Constant <value_float = 0.0> ()
    zero = Constant <value_ints = [0]> ()
    two = Constant <value_ints = [2]> ()
    last = Constant <value_ints = [1]> ()
    prior_shape = Constant <value_ints = [{rows}, {views * tokens}]> ()
    z_trips = Constant <value_int = {shape.Z}> ()
    p_trips = Constant <value_int = {parts}> ()
    go = Constant <value = bool {{1}}> ()
    by_sequence = Loop <body = sequence (int64 z, bool z_in)  # [Z,parts,A,rows,D]
        => (bool z_out, float[{parts},{shape.A},{rows},{shape.D}] sequence_out) {{
        z_out = Identity (z_in)
        q_mine = Gather <axis = 0> (q_by_part, z)  # [parts,A,rows,D]
        k_mine = Gather <axis = 0> (k_turned, z)  # [A,D,m]
        v_mine = Gather <axis = 0> (v, z)  # [A,m,D]
        bias_mine = Gather <axis = 0> (key_bias, z)  # [m]
        sequence_out = Loop <body = part (int64 p, bool p_in)  # [parts,A,rows,D]
            => (bool p_out, float[{shape.A},{rows},{shape.D}] part_out) {{
            p_out = Identity (p_in)
            q_part = Gather <axis = 0> (q_mine, p)  # [A,rows,D]
            line = Gather <axis = 0> (line_parts, p)  # [rows*views,3]
            signed = MatMul (line, centres_turned)  # [rows*views,tokens]
            reach = Abs (signed)  # [rows*views,tokens]
            direction = Slice (line, zero, two, last)  # [rows*views,2]
            norm = ReduceL2 <keepdims = 1> (direction, last)  # [rows*views,1]
            allowed = Mul (norm, band)  # [rows*views,1]
            far = Greater (reach, allowed)  # [rows*views,tokens]
            prior_rows = Where (far, penalty, none)  # [rows*views,tokens]
            prior = Reshape (prior_rows, prior_shape)  # [rows,m]
            bias = Add (prior, bias_mine)  # [rows,m]
            products = MatMul (q_part, k_mine)  # [A,rows,m]
            logits = Add (products, bias)  # [A,rows,m]
            weights = Softmax <axis = -1> (logits)  # [A,rows,m]
            part_out = MatMul (weights, v_mine)  # [A,rows,D]
        }}> (p_trips, go)
    }}> (z_trips, go)
    joined = Transpose <perm = [0, 2, 1, 3, 4]> (by_sequence)  # [Z,A,parts,rows,D]
    rows_shape = Constant <value_ints = [{shape.Z}, {shape.A}, {parts * rows}, {shape.D}]> ()
    padded = Reshape (joined, rows_shape)  # [Z,A,parts*rows,D]
    start = Constant <value_ints = [0]> ()
    stop = Constant <value_ints = [{shape.n}]> ()
    axis = Constant <value_ints = [2]> ()
    out = Slice (padded, start, stop, axis)  # [Z,A,n,D]"""
    return Lowered(("q", "k", "v", "key_bias", "fundamental", "centres"), body)


# ---- parts of bodies


def _pads(name: str, *after: int) -> str:
    """How much `Pad` adds after each axis, as a tensor.

    ONNX Runtime before 1.25 takes no list of integers for it inside a function.
    """
    pads = ", ".join(map(str, (*(0 for _ in after), *after)))
    return f"    {name} = Constant <value = int64[{2 * len(after)}] {{{pads}}}> ()"


def _wide(name: str) -> str:
    """`[Z,A,n,D]` -> `[Z,n,A,D]`: the reverse of the graph's transpose before the node: ONNX Runtime cancels both."""
    return f"\n    {name}_wide = Transpose <perm = [0, 2, 1, 3]> ({name})  # [Z,n,A,D]"


def _ones(extra: int, shape: Shape) -> str:
    return f"""
{_pads("ones_pads", 0, 0, 0, extra)}
    ones_value = Constant <value_float = {1 / shape.scale!r}> ()
    q_more = Pad (q_wide, ones_pads, ones_value)  # [Z,n,A,D+extra]"""


def _bias_columns(shape: Shape) -> str:
    # a product with ones, since Expand copies element by element
    return f"""
    bias_last = Constant <value_ints = [2]> ()
    bias_column = Unsqueeze (key_bias, bias_last)  # [Z,m,1]
    heads_wide = Constant <value_floats = [{", ".join(["1.0"] * shape.A)}]> ()
    heads_row = Constant <value_ints = [1, {shape.A}]> ()
    heads_ones = Reshape (heads_wide, heads_row)  # [1,A]
    bias_heads = MatMul (bias_column, heads_ones)  # [Z,m,A]
    bias_end = Constant <value_ints = [3]> ()
    bias_columns = Unsqueeze (bias_heads, bias_end)  # [Z,m,A,1]"""


def _attend(shape: Shape, q: str, k: str, channels: int) -> str:
    more = -channels % shape.multiple
    if more:
        widened = _attend(shape, "q_even", "k_even", channels + more)
        return f"""
{_pads("even_pads", 0, 0, 0, more)}
    q_even = Pad ({q}, even_pads)  # [Z,n,A,channels+more]
    k_even = Pad ({k}, even_pads)  # [Z,m,A,channels+more]{widened}"""
    return f"""
    q_flat = Constant <value_ints = [{shape.Z}, {shape.n}, {shape.A * channels}]> ()
    q_rows = Reshape ({q}, q_flat)  # [Z,n,A*channels]
    k_flat = Constant <value_ints = [{shape.Z}, {shape.m}, {shape.A * channels}]> ()
    k_rows = Reshape ({k}, k_flat)  # [Z,m,A*channels]
    v_wide = Transpose <perm = [0, 2, 1, 3]> (v)  # [Z,m,A,D]
    v_flat = Constant <value_ints = [{shape.Z}, {shape.m}, {shape.A * shape.D}]> ()
    v_rows = Reshape (v_wide, v_flat)  # [Z,m,A*D]
    attended = com.microsoft.MultiHeadAttention <num_heads = {shape.A}, scale = {shape.scale!r}>  # [Z,n,A*D]
        (q_rows, k_rows, v_rows)
    out_shape = Constant <value_ints = [{shape.Z}, {shape.n}, {shape.A}, {shape.D}]> ()
    out_wide = Reshape (attended, out_shape)  # [Z,n,A,D]
    out = Transpose <perm = [0, 2, 1, 3]> (out_wide)  # [Z,A,n,D]"""
