"""The two ops that carry all attention: their definition in PyTorch, and the node each becomes in ONNX.

Shapes: q `[Z,A,n,D]`, k v `[Z,A,m,D]`, key_bias `[Z,m]`; Z sequences (streams and clips folded in), A heads, D channels
of a head. Softmax over the keys of `q k / sqrt(D) + bias`. No [n,n] tensor is held, whatever the option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from page4d.ops import BIASED_ATTENTION, DOMAIN, PLUGIN_ATTRIBUTES, SEGMENT_ATTENTION, BiasedRows

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]


class EpipolarPrior(NamedTuple):
    """The penalty on keys off a query's epipolar line, in a form that needs no [n,n] tensor.

    A row of `centres` is a token's place `(x, y, 1)` in its view, in pixels, and (0, 0, 0) for special tokens: these
    then have no line, and lie on every line. `fundamental[a,b]` takes a centre of view a to its line in view b; 0 where
    there is none.
    """

    fundamental: Tensor  # [V,V,3,3]
    centres: Tensor  # [N,3]
    band: float  # pixels
    penalty: float

    def bias(self, view: int) -> Tensor:
        """Bias of the queries of one view on all keys, `[N,V*N]`."""
        lines = self.fundamental[view] @ self.centres.T  # [V,3,N queries]
        reach = lines.transpose(1, 2) @ self.centres.T  # [V,N queries,N keys]
        allowed = self.band * lines[:, :2].norm(dim=1)[..., None]  # [V,N queries,1]
        # strictly further than the band; no division, so that a missing line (0 > 0) never counts as far
        return -self.penalty * (reach.abs() > allowed).to(lines.dtype).transpose(0, 1).flatten(1)


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None = None,
    epipolar: EpipolarPrior | None = None,
    rows: BiasedRows | None = None,
) -> Tensor:
    """Attention with an optional bias per key.

    Args:
        q: `[Z,A,n,D]`.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]`, added to the logits of all heads and, without `rows`, of all queries; q's dtype.
        epipolar: prior of View-SA, n = m = V*N, added on top.
        rows: the queries that `key_bias` is for, n a multiple of their period; not with `epipolar`.

    Returns:
        `[Z,A,n,D]`, q's dtype.
    """
    assert rows is None or (key_bias is not None and epipolar is None)
    if torch.onnx.is_in_onnx_export():
        inputs: tuple[Tensor, ...] = (q, k, v) if key_bias is None else (q, k, v, key_bias)
        attributes: Attributes = {**PLUGIN_ATTRIBUTES}
        if rows is not None:
            attributes |= {"row_period": rows.period, "row_leading": rows.leading, "row_gain": rows.gain}
        if epipolar is not None:
            bias = torch.zeros(k.shape[0], k.shape[2], dtype=q.dtype) if key_bias is None else key_bias
            inputs = (q, k, v, bias, epipolar.fundamental, epipolar.centres)
            attributes |= {"epipolar_band": epipolar.band, "epipolar_penalty": epipolar.penalty}
        return _node(BIASED_ATTENTION, inputs, attributes, q)
    if rows is not None:
        assert key_bias is not None
        return rows_attention(q, k, v, key_bias, rows)
    if epipolar is None:
        return F.scaled_dot_product_attention(q, k, v, None if key_bias is None else key_bias[:, None, None])
    result = torch.empty_like(q)
    views = epipolar.fundamental.shape[0]
    size = q.shape[2] // views
    for view in range(views):
        rows_of_view = slice(view * size, (view + 1) * size)
        prior = epipolar.bias(view)
        for z in range(q.shape[0]):  # one sequence at a time: the sum of both biases is N x n, not Z x N x n
            bias = prior if key_bias is None else prior + key_bias[z].to(prior.dtype)
            queries = q[z, :, rows_of_view]
            result[z, :, rows_of_view] = F.scaled_dot_product_attention(queries, k[z], v[z], bias.to(q.dtype))
    return result


def rows_attention(
    q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor, rows: BiasedRows, common: Tensor | None = None
) -> Tensor:
    """Attention with a bias on the leading queries of each period, as two attentions.

    Args:
        q: `[Z,A,n,D]`, n a multiple of the rows' period.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]`, times the rows' gain the bias of the leading queries; q's dtype.
        rows: which queries these are.
        common: `[Z,m]`, a bias of all queries, on top; or None.

    Returns:
        `[Z,A,n,D]`, q's dtype.
    """
    first, rest = q.unflatten(2, (-1, rows.period)).tensor_split([rows.leading], dim=3)  # [Z,A,n/period,.,D]
    first_bias = rows.gain * key_bias if common is None else rows.gain * key_bias + common
    first_out = biased_attention(first.flatten(2, 3), k, v, first_bias).unflatten(2, first.shape[2:4])
    rest_out = biased_attention(rest.flatten(2, 3), k, v, common).unflatten(2, rest.shape[2:4])
    return torch.cat((first_out, rest_out), dim=3).flatten(2, 3)


def segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    seg_ptr: Tensor,
    seg: Tensor,
    segment_bias: Tensor | None = None,
) -> Tensor:
    """Attention in which every group of queries reads its own list of key ranges.

    Args:
        q: `[Z,A,n,D]`; query group g is rows `g*n/groups ... (g+1)*n/groups`.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]` or None, added to the logits of all queries and heads.
        seg_ptr: int32 `[groups+1]`; group g reads the segments `seg_ptr[g] ... seg_ptr[g+1]`.
        seg: int32 `[s,2]`, (start, length) of a range of keys.
        segment_bias: `[A,s]` or None, added to the logits on a segment's keys, by head.

    Returns:
        `[Z,A,n,D]`, q's dtype. A group without keys gives zeros.

    Raises:
        ValueError: n is not a multiple of the number of groups, or a range leaves the keys.
    """
    if torch.onnx.is_in_onnx_export():
        bias = torch.zeros(k.shape[0], k.shape[2], dtype=q.dtype) if key_bias is None else key_bias
        inputs = (q, k, v, bias, seg_ptr, seg) + (() if segment_bias is None else (segment_bias,))
        return _node(SEGMENT_ATTENTION, inputs, {**PLUGIN_ATTRIBUTES}, q)
    pointers, segments = seg_ptr.tolist(), seg.tolist()
    groups, keys = len(pointers) - 1, k.shape[2]
    if q.shape[2] % groups:
        raise ValueError(f"{q.shape[2]} queries cannot be cut into {groups} equal groups")
    if any(start < 0 or length < 0 or start + length > keys for start, length in segments):
        raise ValueError(f"a key segment leaves the {keys} keys")
    rows = q.shape[2] // groups
    outputs = []
    for g in range(groups):
        first, last = pointers[g], pointers[g + 1]
        ranges = [torch.arange(start, start + length) for start, length in segments[first:last]]
        index = torch.cat(ranges or [torch.arange(0)]).to(q.device)
        queries = q[:, :, g * rows : (g + 1) * rows]
        if not len(index):
            outputs.append(torch.zeros_like(queries))
            continue
        mask = None if key_bias is None else key_bias[:, None, None, index]  # [Z,1,1,m_g]
        if segment_bias is not None:
            lengths = seg[first:last, 1].to(q.device)
            by_key = segment_bias[:, first:last].repeat_interleave(lengths, dim=1, output_size=len(index))  # [A,m_g]
            by_head = by_key[None, :, None].to(q.dtype)  # [1,A,1,m_g]
            mask = by_head if mask is None else mask + by_head
        outputs.append(F.scaled_dot_product_attention(queries, k[:, :, index], v[:, :, index], mask))
    return torch.cat(outputs, dim=2)


def _node(name: str, inputs: tuple[Tensor, ...], attributes: Attributes, like: Tensor) -> Tensor:
    node: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", inputs, attrs=attributes, dtype=like.dtype, shape=like.shape, version=1
    )
    return node
