"""Float64 on a few rows of a call: what every side of the benchmark, and every test on a GPU, is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from page4d_plugins.bench.call import Call
from page4d_plugins.modes import Dtype, Mode

TOLERANCE = {Dtype.FLOAT16: 1e-3, Dtype.BFLOAT16: 8e-3}
"""Relative L2 error of a row that passes. Rounding of exponentials and result gives a third of it; one key too many or
too few in a row of thousands gives more."""
_ELEMENTS = 2**27  # of float64 at a time: 1 GB


class Reference:
    """Sampled rows of one call in float64."""

    def __init__(self, call: Call, frame: int, count: int = 64) -> None:
        """Compute.

        Args:
            call: the call.
            frame: tokens of a frame: the first of each are special.
            count: rows at most; the first, the last and special ones are among them.
        """
        q = call.tensors["q"]
        self.rows = sampled(q.shape[2], frame, count).to(q.device)
        self.values = attention(call, self.rows)
        self.dtype = call.dtype

    def error(self, out: Tensor) -> float:
        """The largest relative L2 error of a row of `[Z,A,n,D]`; infinite where one is NaN."""
        rows = out[:, :, self.rows].double()
        size = self.values.norm(dim=-1).clamp_min(1e-30)  # rows of zeros must be zeros
        worst = float(((rows - self.values).norm(dim=-1) / size).max())
        return math.inf if math.isnan(worst) else worst

    def accepts(self, error: float) -> bool:
        """Whether an error is within the tolerance."""
        return error <= TOLERANCE[self.dtype]


def sampled(n: int, frame: int, count: int) -> Tensor:
    """Indices of up to `count` of n rows, int64 `[r]`, ascending.

    All rows, or the special tokens of three frames, the last row and random ones.
    """
    if n <= count:
        return torch.arange(n)
    starts = (0, frame, (n - 1) // frame * frame)
    chosen = {start + i for start in starts for i in range(5) if start + i < n} | {n - 1}
    for row in torch.randint(n, (4 * count,), generator=torch.Generator().manual_seed(n)).tolist():
        if len(chosen) < count:
            chosen.add(row)
    return torch.tensor(sorted(chosen))


def attention(call: Call, rows: Tensor) -> Tensor:
    """Attention's output for some rows, float64 `[Z,A,rows,D]`; keys that its group does not read are not touched."""
    q, k, v = (call.tensors[name] for name in "qkv")
    Z, A, n, D = q.shape
    group = rows // (n // call.groups)
    ranges = call.ranges()
    out = torch.zeros(Z, A, len(rows), D, dtype=torch.float64, device=q.device)
    for g in group.unique().tolist():
        places = (group == g).nonzero()[:, 0]
        keys_read = [torch.arange(start, start + length, device=q.device) for start, length in ranges[g]]
        index = torch.cat(keys_read or [torch.arange(0, device=q.device)])
        if not len(index):
            continue
        whole = len(index) == k.shape[2] and call.groups == 1
        heads = max(1, _ELEMENTS // (len(index) * (len(places) + 2 * D)))
        for z in range(Z):
            bias = _bias(call, z, g, rows[places], index)  # [A or 1, rows or 1, keys]
            for a in range(0, A, heads):
                some = slice(a, a + heads)
                keys, values = (tensor[z, some] if whole else tensor[z, some][:, index] for tensor in (k, v))
                logits = q[z, some][:, rows[places]].double() @ keys.double().transpose(1, 2) / math.sqrt(D)
                logits += bias[some] if len(bias) > 1 else bias
                dead = logits.amax(-1, keepdim=True) == -math.inf
                out[z, some, places] = torch.where(dead, 0.0, logits.softmax(-1)) @ values.double()
    return out


def _bias(call: Call, z: int, group: int, rows: Tensor, index: Tensor) -> Tensor:
    """Everything that is added to the logits of some rows of one group, `[A or 1, rows or 1, keys]`."""
    tensors = call.tensors
    bias = torch.zeros(1, 1, len(index), dtype=torch.float64, device=rows.device)
    if "key_bias" in tensors:
        bias = tensors["key_bias"][z, index].double()[None, None]
    if call.rows is not None:
        leads = (rows % call.rows.period < call.rows.leading)[None, :, None]
        bias = torch.where(leads, call.rows.gain * bias, 0.0)
    if call.mode is Mode.EPIPOLAR:
        centres = tensors["centres"].double()
        lines = tensors["fundamental"][group].double() @ centres[rows % len(centres)].T  # [V,3,rows]
        reach = (lines.transpose(1, 2) @ centres.T).abs()  # [V,rows,N]
        allowed = call.band * lines[:, :2].norm(dim=1)[..., None]
        bias = bias - call.penalty * (reach > allowed).double().transpose(0, 1).flatten(1)[None]
    if call.mode is Mode.SEGMENTS_BIASED:
        begin, end = tensors["seg_ptr"][group : group + 2].tolist()
        lengths = tensors["seg"][begin:end, 1].long()
        bias = bias + tensors["segment_bias"][:, begin:end].double().repeat_interleave(lengths, dim=1)[:, None]
    return bias
