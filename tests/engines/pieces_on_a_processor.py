"""The attention kernels' part of a stage in pieces, computed by the reference."""

import torch

from page4d.attention import EpipolarPrior, biased_attention, segment_attention
from page4d_plugins.modes import Mode


def attended(step, values):
    """The call in float32, tensors read and written by the strides that the launcher would have."""
    shape = step.shape

    def seen(name, strides, rows):
        flat = torch.from_numpy(values[name].copy()).flatten()
        sizes = (shape.Z, shape.A, rows, shape.D)
        return flat.view(sizes) if strides is None else flat.as_strided(sizes, (*strides, 1))

    q, k, v = (seen(step.inputs[name], getattr(shape, name), rows).float() for name, rows in (("q", shape.n), ("k", shape.m), ("v", shape.m)))
    rest = {name: torch.from_numpy(values[tensor].copy()) for name, tensor in step.inputs.items() if name not in "qkv"}
    bias = rest["key_bias"].float() if "key_bias" in rest else None
    if shape.mode in (Mode.SEGMENTS, Mode.SEGMENTS_BIASED):
        more = rest["segment_bias"].float() if "segment_bias" in rest else None
        made = segment_attention(q, k, v, bias, rest["seg_ptr"], rest["seg"], more)
    else:
        prior = EpipolarPrior(rest["fundamental"], rest["centres"], shape.band, shape.penalty) if "centres" in rest else None
        made = biased_attention(q, k, v, bias, prior, shape.rows)
    out = torch.empty(shape.Z * shape.A * shape.n * shape.D, dtype=torch.float16)
    target = out.view(made.shape) if shape.out is None else out.as_strided(made.shape, (*shape.out, 1))
    target.copy_(made)
    return out.numpy()
