"""The two attention ops in ONNX: function bodies of standard operators, for any runtime that has no better.

A plugin or a lowering replaces the node; TensorRT otherwise fuses the body into its own attention kernel, for which it
must see `MatMul, Add, Softmax, MatMul` with the bias in q's type; its statistics are float32 inside. A function has a
fixed number of inputs, so all nodes of one op within a model have the same.
"""

from __future__ import annotations

import onnx
import onnx.parser

from page4d.ops import BIASED_ATTENTION, BIASED_INPUTS, DOMAIN, SEGMENT_ATTENTION, SEGMENT_INPUTS

_QUERIES = """
    scale_wide = Constant <value_float = {scale}> ()
    scale = CastLike (scale_wide, q)
    q_scaled = Mul (q, scale)
    k_turned = Transpose <perm = [0, 1, 3, 2]> (k)"""

_LOGITS = f"""{_QUERIES}
    products = MatMul (q_scaled, k_turned)"""

_KEY_BIAS = """
    heads_and_queries = Constant <value_ints = [1, 2]> ()
    key_bias_4d = Unsqueeze (key_bias, heads_and_queries)
    logits = Add (products, key_bias_4d)"""

# a key bias on the first queries of every period alone: two attentions, of which neither holds the bias by query
_ROWS = """
    by_period = Constant <value_ints = [0, 0, -1, {period}, {channels}]> ()
    q_periods = Reshape (q_scaled, by_period)
    rows_axis = Constant <value_ints = [3]> ()
    rows_start = Constant <value_ints = [0]> ()
    rows_split = Constant <value_ints = [{leading}]> ()
    rows_end = Constant <value_ints = [{period}]> ()
    flat = Constant <value_ints = [0, 0, -1, {channels}]> ()
    leading_periods = Slice (q_periods, rows_start, rows_split, rows_axis)
    leading_rows = Reshape (leading_periods, flat)
    leading_products = MatMul (leading_rows, k_turned)
    gain_wide = Constant <value_float = {gain}> ()
    gain = CastLike (gain_wide, key_bias)
    key_bias_gained = Mul (key_bias, gain)
    heads_and_queries = Constant <value_ints = [1, 2]> ()
    key_bias_4d = Unsqueeze (key_bias_gained, heads_and_queries)
    leading_logits = Add (leading_products, key_bias_4d)
    leading_weights = Softmax <axis = -1> (leading_logits)
    leading_out = MatMul (leading_weights, v)
    leading_shape = Constant <value_ints = [0, 0, -1, {leading}, {channels}]> ()
    leading_back = Reshape (leading_out, leading_shape)
    other_periods = Slice (q_periods, rows_split, rows_end, rows_axis)
    other_rows = Reshape (other_periods, flat)
    other_products = MatMul (other_rows, k_turned)
    other_weights = Softmax <axis = -1> (other_products)
    other_out = MatMul (other_weights, v)
    other_shape = Constant <value_ints = [0, 0, -1, {others}, {channels}]> ()
    other_back = Reshape (other_out, other_shape)
    joined = Concat <axis = 3> (leading_back, other_back)
    out = Reshape (joined, flat)"""

_SOFTMAX = """
    weights = Softmax <axis = -1> ({logits})
    out = MatMul (weights, v)"""

# [V,V,3,3] and [N,3] -> lines of all queries in all views, distances of all centres from them, all scaled by the line's
# norm
_EPIPOLAR = """
    centres_turned = Transpose <perm = [1, 0]> (centres)
    lines_turned = MatMul (fundamental, centres_turned)
    lines = Transpose <perm = [0, 1, 3, 2]> (lines_turned)
    signed = MatMul (lines, centres_turned)
    reach = Abs (signed)
    zero = Constant <value_ints = [0]> ()
    two = Constant <value_ints = [2]> ()
    last = Constant <value_ints = [3]> ()
    direction = Slice (lines, zero, two, last)
    norm = ReduceL2 <keepdims = 1> (direction, last)
    band = Constant <value_float = {band}> ()
    allowed = Mul (norm, band)
    far = Greater (reach, allowed)
    penalty = Constant <value_float = {penalty}> ()
    none = Constant <value_float = 0.0> ()
    by_view = Where (far, penalty, none)
    by_query = Transpose <perm = [0, 2, 1, 3]> (by_view)
    keys = Shape <start = 2, end = 3> (k)
    square = Concat <axis = 0> (keys, keys)
    prior_wide = Reshape (by_query, square)
    prior = CastLike (prior_wide, q)
    logits_prior = Add (logits, prior)"""

# CSR segments -> bias [A or 1,groups,1,m] of every group on every key: -1e4 (exp gives 0, fits 16 bits) where it reads
# none
_SEGMENTS = """
    axis_0 = Constant <value_ints = [0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    one_wide = Constant <value_int = 1> ()
    nought = Constant <value_int = 0> ()
    key_count = Shape <start = 2, end = 3> (k)
    segment_count = Shape <start = 0, end = 1> (seg)
    group_ends = Shape <start = 0, end = 1> (seg_ptr)
    group_count = Sub (group_ends, axis_1)
    key_scalar = Squeeze (key_count)
    key_numbers = Range (nought, key_scalar, one_wide)
    segment_scalar = Squeeze (segment_count)
    segment_numbers = Range (nought, segment_scalar, one_wide)
    seg_long = Cast <to = 7> (seg)
    starts = Slice (seg_long, axis_0, axis_1, axis_1)
    lengths = Slice (seg_long, axis_1, axis_2, axis_1)
    ends = Add (starts, lengths)
    from_start = GreaterOrEqual (key_numbers, starts)
    to_end = Less (key_numbers, ends)
    inside = And (from_start, to_end)
    inside_wide = Cast <to = 1> (inside)
    ptr_long = Cast <to = 7> (seg_ptr)
    first_flat = Slice (ptr_long, axis_0, group_count, axis_0)
    past_flat = Slice (ptr_long, axis_1, group_ends, axis_0)
    first = Unsqueeze (first_flat, axis_1)
    past = Unsqueeze (past_flat, axis_1)
    from_first = GreaterOrEqual (segment_numbers, first)
    to_past = Less (segment_numbers, past)
    owned = And (from_first, to_past)
    owned_wide = Cast <to = 1> (owned)
    reads = MatMul (owned_wide, inside_wide)
    half = Constant <value_float = 0.5> ()
    reads_any = Greater (reads, half)
    open = Constant <value_float = 0.0> ()
    shut = Constant <value_float = -10000.0> ()
    gate = Where (reads_any, open, shut)"""

_SEGMENT_BIAS = """
    bias_wide = Cast <to = 1> (segment_bias)
    bias_rows = Unsqueeze (bias_wide, axis_1)
    owned_bias = Mul (owned_wide, bias_rows)
    by_segment = MatMul (owned_bias, inside_wide)
    by_group = Add (by_segment, gate)"""

_GROUPED_SOFTMAX = """
    group_bias_wide = Unsqueeze ({by_group}, axis_2)
    group_bias = CastLike (group_bias_wide, q)
    z_and_heads = Shape <start = 0, end = 2> (q)
    rest = Constant <value_ints = [-1]> ()
    grouped_shape = Concat <axis = 0> (z_and_heads, group_count, rest, key_count)
    grouped = Reshape (logits, grouped_shape)
    grouped_logits = Add (grouped, group_bias)
    grouped_weights = Softmax <axis = -1> (grouped_logits)
    flat_shape = Concat <axis = 0> (z_and_heads, rest, key_count)
    weights = Reshape (grouped_weights, flat_shape)
    out = MatMul (weights, v)"""


def function_for(node: onnx.NodeProto, head_dim: int) -> onnx.FunctionProto:
    """The body that fits a node: its number of inputs and its attributes decide which."""
    scale = repr(float(head_dim**-0.5))
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == BIASED_ATTENTION:
        names = BIASED_INPUTS[: len(node.input)]
        body = _LOGITS.format(scale=scale)
        if "row_period" in attributes:
            period, leading = attributes["row_period"], attributes["row_leading"]
            sizes = {"period": period, "leading": leading, "others": period - leading, "channels": head_dim}
            body = _QUERIES.format(scale=scale) + _ROWS.format(gain=repr(float(attributes["row_gain"])), **sizes)
        elif len(names) == 3:
            body += _SOFTMAX.format(logits="products")
        elif len(names) == 4:
            body += _KEY_BIAS + _SOFTMAX.format(logits="logits")
        else:
            band, penalty = attributes["epipolar_band"], attributes["epipolar_penalty"]
            body += (
                _KEY_BIAS
                + _EPIPOLAR.format(band=repr(float(band)), penalty=repr(-float(penalty)))
                + _SOFTMAX.format(logits="logits_prior")
            )
    elif node.op_type == SEGMENT_ATTENTION:
        names = SEGMENT_INPUTS[: len(node.input)]
        body = _LOGITS.format(scale=scale) + _KEY_BIAS + _SEGMENTS
        body += _SEGMENT_BIAS if len(names) == 7 else ""
        body += _GROUPED_SOFTMAX.format(by_group="by_group" if len(names) == 7 else "gate_rows")
        if len(names) == 6:
            body = body.replace(
                "\n    group_bias_wide", "\n    gate_rows = Unsqueeze (gate, axis_0)\n    group_bias_wide"
            )
    else:
        raise ValueError(f"{node.op_type} is not one of the attention ops")
    function = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : 20]>\n{node.op_type} ({", ".join(names)}) => (out) {{{body}\n}}'
    )
    function.attribute.extend(sorted(attributes))
    return function
