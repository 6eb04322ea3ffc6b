"""The two attention ops as OpenVINO's own: its CPU kernel goes row by row, in memory linear in the keys.

The kernel takes a bias per key, or per query and key. A bias on some queries only becomes two attentions, segments
become one attention a group, and the epipolar prior a loop over parts of the queries, each with its rows of the prior.

Names: Z sequences, A heads, n queries, m keys, D channels. A comment behind a line is the shape of its result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.ops import BIASED_ATTENTION, DOMAIN, SEGMENT_ATTENTION
from page4d_engines.openvino.library import library

_PRIOR_BYTES = 16 << 20  # of the rows of the epipolar prior that exist at a time
_LOWEST = {"f16": -65000.0}  # a bias below it is -inf, by OpenVINO's names of types
_LOWEST_WIDE = -1e38  # of the others

Value = Any  # an output of one of OpenVINO's nodes: the package has no types


def extensions() -> list[Any]:
    """For `Core.add_extension`: nodes of the two ops become OpenVINO's."""
    from openvino.frontend.onnx import ConversionExtension  # after library(), which imports the package

    handlers: dict[str, Callable[[Any], list[Value]]] = {
        BIASED_ATTENTION: _biased_node,
        SEGMENT_ATTENTION: _segment_node,
    }
    return [ConversionExtension(name, DOMAIN, handler) for name, handler in handlers.items()]


def _biased_node(context: Any) -> list[Value]:
    inputs = [context.get_input(number) for number in range(context.get_input_size())]
    if len(inputs) == 3:
        return [_attend(*inputs)]
    period = context.get_attribute("row_period", 0)
    if period:
        return [_leading_rows(inputs, period, context.get_attribute("row_leading"), context.get_attribute("row_gain"))]
    if len(inputs) == 4:
        return [_with_key_bias(*inputs)]
    band, penalty = context.get_attribute("epipolar_band"), context.get_attribute("epipolar_penalty")
    return [_epipolar(inputs, band, penalty)]


def _segment_node(context: Any) -> list[Value]:
    q, k, v, key_bias, *constants = (context.get_input(number) for number in range(context.get_input_size()))
    seg_ptr, seg = (constant.get_node().get_data() for constant in constants[:2])
    segment_bias = constants[2].get_node().get_data(dtype=np.float32) if len(constants) == 3 else None
    return [_segments(q, k, v, key_bias, seg_ptr, seg, segment_bias)]


def _attend(q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Attention as one operation; its scale is that of the channels.

    Args:
        q: `[Z,A,n,D]`.
        k, v: `[Z,A,m,D]`.
        bias: to every logit, of a shape that broadcasts to `[Z,A,n,m]`.
    """
    ops = library().opset13
    D = _shape(k)[3]
    # The scale as a vector on k keeps OpenVINO from merging the transpositions before and in the attention into one
    # (`[Z,m,A,D]` to `[Z,A,D,m]`), which takes 2 to 4 % of a block's time. It would move a scale of one number.
    scaled = ops.multiply(k, _constant(np.full((1, 1, 1, D), D**-0.5, np.float32), k))
    return ops.scaled_dot_product_attention(q, scaled, v, bias, _like(1.0, k)).output(0)  # [Z,A,n,D]


def _with_key_bias(q: Value, k: Value, v: Value, key_bias: Value) -> Value:
    """Attention with a bias `[Z,m]` per key."""
    return _attend_or_zero(q, k, v, _unsqueeze(key_bias, 1, 2))


def _attend_or_zero(q: Value, k: Value, v: Value, bias: Value, added: Value | None = None) -> Value:
    """Attention that gives zeros where no key is left, all with a bias of -inf: OpenVINO's gives NaN.

    Args:
        q: `[Z,A,n,D]`.
        k, v: `[Z,A,m,D]`.
        bias: of every key, `[Z,1 or A,1,m]`.
        added: a further, finite bias that broadcasts to `[Z,A,n,m]`.
    """
    ops = library().opset13
    largest = ops.reduce_max(bias, _integers(3), keep_dims=True)  # [Z,1 or A,1,1]
    has_keys = ops.greater(largest, _like(_LOWEST.get(bias.get_element_type().get_type_name(), _LOWEST_WIDE), bias))
    safe = ops.select(has_keys, bias, _like(0.0, bias)).output(0)
    whole = safe if added is None else ops.add(safe, added).output(0)
    gain = ops.convert(has_keys, q.get_element_type())
    return ops.multiply(_attend(q, k, v, whole), gain).output(0)  # [Z,A,n,D]


def _leading_rows(inputs: list[Value], period: int, leading: int, gain: float) -> Value:
    """Attention whose key bias, times `gain`, is seen by the first `leading` of every `period` queries alone."""
    ops = library().opset13
    q, k, v, key_bias = inputs
    Z, A, n, D = _shape(q)
    periods = ops.reshape(q, _integers(Z, A, n // period, period, D), False)
    parts = []
    for first, past in ((0, leading), (leading, period)):
        rows = _slice(periods, first, past, 3)
        flat = ops.reshape(rows, _integers(Z, A, -1, D), False).output(0)  # [Z,A,n/period*(past-first),D]
        if first:
            attended = _attend(flat, k, v)
        else:
            attended = _with_key_bias(flat, k, v, ops.multiply(key_bias, _like(gain, key_bias)).output(0))
        parts.append(ops.reshape(attended, _integers(Z, A, n // period, past - first, D), False))
    return ops.reshape(ops.concat(parts, 3), _integers(Z, A, n, D), False).output(0)


def _segments(
    q: Value,
    k: Value,
    v: Value,
    key_bias: Value,
    seg_ptr: NDArray[np.int32],
    seg: NDArray[np.int32],
    segment_bias: NDArray[np.float32] | None,
) -> Value:
    """Attention whose queries read the segments of their group; one operation where all groups read all keys alike.

    Args:
        q: `[Z,A,n,D]`, in groups of equal size.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]`.
        seg_ptr: where the segments of each group begin and end, `[groups+1]`.
        seg: first key and number of keys of each segment, `[segments,2]`.
        segment_bias: of each segment, `[A,segments]`, or None.
    """
    ops = library().opset13
    Z, A, n, D = _shape(q)
    m = _shape(k)[2]
    groups = len(seg_ptr) - 1
    rows = n // groups
    every = np.arange(m)
    bias = _unsqueeze(key_bias, 1, 2)  # [Z,1,1,m]
    parts: list[Value] = []
    readers = [_reader(seg, first, past) for first, past in itertools.pairwise(seg_ptr)]
    if segment_bias is None and all(np.array_equal(keys, every) for keys, _ in readers):
        return _attend_or_zero(q, k, v, bias)
    for number, (keys, owners) in enumerate(readers):
        mine = _slice(q, number * rows, (number + 1) * rows, 2)  # [Z,A,n/groups,D]
        if not len(keys):
            parts.append(_filled(q, (Z, A, rows, D)))
            continue
        k_mine, v_mine, bias_mine = k, v, bias
        if not np.array_equal(keys, every):
            k_mine, v_mine, bias_mine = _rows(k, keys, 2), _rows(v, keys, 2), _rows(bias, keys, 3)
        if segment_bias is not None:
            added = _constant(segment_bias[None, :, None, owners], bias)  # [1,A,1,keys]
            bias_mine = ops.add(bias_mine, added).output(0)  # [Z,A,1,keys]
        parts.append(_attend_or_zero(mine, k_mine, v_mine, bias_mine))
    return ops.concat(parts, 2).output(0)


def _reader(seg: NDArray[np.int32], first: int, past: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys of a group's segments in order, and the segment of each."""
    none = np.empty(0, np.int64)
    keys = np.concatenate([none, *(np.arange(start, start + length) for start, length in seg[first:past])])
    owners = np.repeat(np.arange(first, past), seg[first:past, 1])
    order = np.argsort(keys, kind="stable")
    return keys[order], owners[order]


def _epipolar(inputs: list[Value], band: float, penalty: float) -> Value:
    """Attention with a key bias, and a penalty where a key lies further than `band` from the query's epipolar line."""
    library_, ops = library(), library().opset13
    q, k, v, key_bias, fundamental, centres = inputs
    Z, A, n, D = _shape(q)
    m, views = _shape(k)[2], _shape(fundamental)[0]
    tokens = m // views
    rows = max(1, min(n, _PRIOR_BYTES // (4 * Z * m)))
    parts = -(-n // rows)
    lines = ops.matmul(fundamental, centres, False, True)  # [views,views,3,tokens]
    by_query = ops.reshape(ops.transpose(lines, _integers(0, 3, 1, 2)), _integers(n, views, 3), False)
    q_padded = _padded(q, 2, parts * rows - n)
    lines_padded = _padded(by_query.output(0), 0, parts * rows - n)

    q_part = ops.parameter([Z, A, rows, D], q.get_element_type())
    line = ops.parameter([rows, views, 3], fundamental.get_element_type())
    keys = [ops.parameter(_shape(value), value.get_element_type()) for value in (k, v, key_bias, centres)]
    k_all, v_all, bias_all, centres_all = (parameter.output(0) for parameter in keys)
    reach = ops.abs(ops.matmul(line, centres_all, False, True))  # [rows,views,tokens]
    direction = _slice(line.output(0), 0, 2, 2)
    norm = ops.sqrt(ops.reduce_sum(ops.multiply(direction, direction), _integers(2), keep_dims=True))
    far = ops.greater(reach, ops.multiply(norm, _like(band, fundamental)))
    prior = ops.select(far, _like(-penalty, q), _like(0.0, q))
    prior = ops.reshape(prior, _integers(1, 1, rows, views * tokens), False).output(0)
    attended = _attend_or_zero(q_part.output(0), k_all, v_all, _unsqueeze(bias_all, 1, 2), prior)
    result = ops.result(attended)

    loop = ops.tensor_iterator()
    loop.set_body(library_.Model([result], [q_part, line, *keys]))
    loop.set_sliced_input(q_part, q_padded, 0, rows, rows, -1, 2)
    loop.set_sliced_input(line, lines_padded, 0, rows, rows, -1, 0)
    for parameter, value in zip(keys, (k, v, key_bias, centres), strict=True):
        loop.set_invariant_input(parameter, value)
    joined = loop.get_concatenated_slices(result.output(0), 0, rows, rows, -1, 2)  # [Z,A,parts*rows,D]
    return joined if parts * rows == n else _slice(joined, 0, n, 2)


# ---- parts of graphs


def _shape(value: Value) -> tuple[int, ...]:
    return tuple(value.get_shape())


def _integers(*values: int) -> Any:
    return library().opset13.constant(np.array(values, np.int64))


def _like(number: float, value: Value) -> Any:
    """A number in the type of a tensor."""
    return library().opset13.constant(number, value.get_element_type())


def _constant(array: NDArray[np.float32], value: Value) -> Any:
    """An array in the type of a tensor."""
    ops = library().opset13
    return ops.convert(ops.constant(np.ascontiguousarray(array)), value.get_element_type())


def _filled(like: Value, shape: tuple[int, ...]) -> Value:
    """Zeros."""
    return library().opset13.broadcast(_like(0.0, like), _integers(*shape)).output(0)


def _unsqueeze(value: Value, *axes: int) -> Value:
    return library().opset13.unsqueeze(value, _integers(*axes)).output(0)


def _slice(value: Value, first: int, past: int, axis: int) -> Value:
    return library().opset13.slice(value, _integers(first), _integers(past), _integers(1), _integers(axis)).output(0)


def _rows(value: Value, numbers: NDArray[np.int64], axis: int) -> Value:
    """Some rows along an axis: a slice where they follow each other."""
    if np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
        return _slice(value, int(numbers[0]), int(numbers[0]) + len(numbers), axis)
    return library().opset13.gather(value, _integers(*numbers), _integers(axis)).output(0)


def _padded(value: Value, axis: int, more: int) -> Value:
    """A tensor with zeros after an axis."""
    if not more:
        return value
    ops, rank = library().opset13, len(_shape(value))
    ends = [more if number == axis else 0 for number in range(rank)]
    return ops.pad(value, _integers(*[0] * rank), _integers(*ends), "constant", _like(0.0, value)).output(0)
