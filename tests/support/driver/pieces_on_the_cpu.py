"""The kernels' part of a stage in pieces, computed by PyTorch in float32."""

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as F

from page4d.network.attention import EpipolarPrior, biased_attention, segment_attention
from page4d_plugins.modes import HEAD_DIM, Mode
from page4d_plugins.row_launch import RowKernel


def attended(step, values):
    """The call in float32, tensors read and written by the strides that the launcher would have."""
    shape = step.shape

    def seen(name, strides, rows):
        flat = torch.from_numpy(values[name].copy()).flatten()
        sizes = (shape.Z, shape.A, rows, shape.D)
        return flat.view(sizes) if strides is None else flat.as_strided(sizes, (*strides, 1))

    q, k, v = (
        seen(step.inputs[name], getattr(shape, name), rows).float()
        for name, rows in (("q", shape.n), ("k", shape.m), ("v", shape.m))
    )
    rest = {name: torch.from_numpy(values[tensor].copy()) for name, tensor in step.inputs.items() if name not in "qkv"}
    bias = rest["key_bias"].float() if "key_bias" in rest else None
    if shape.mode in (Mode.SEGMENTS, Mode.SEGMENTS_BIASED):
        more = rest["segment_bias"].float() if "segment_bias" in rest else None
        result = segment_attention(q, k, v, bias, rest["seg_ptr"], rest["seg"], more)
    else:
        prior = (
            EpipolarPrior(rest["fundamental"], rest["centres"], shape.band, shape.penalty)
            if "centres" in rest
            else None
        )
        result = biased_attention(q, k, v, bias, prior, shape.rows)
    out = torch.empty(shape.Z * shape.A * shape.n * shape.D, dtype=torch.float16)
    target = out.view(result.shape) if shape.out is None else out.as_strided(result.shape, (*shape.out, 1))
    target.copy_(result)
    return out.numpy()


def joined(step, values):
    """The results of a row call by the launch's names, in the order of memory."""
    tensors = {
        name: torch.from_numpy(values[tensor].astype(np.float32)).flatten() for name, tensor in step.inputs.items()
    }
    sizes = step.launch.values
    if step.kernel is RowKernel.HEADS:
        results = {"out": _heads(tensors, sizes["count"], sizes["period"], sizes["epsilon"])}
    elif step.kernel is RowKernel.GELU:
        results = {"out": F.gelu(tensors["x"].unflatten(0, (-1, sizes["channels"])) + tensors["bias"])}
    else:
        x, results = tensors["x"].unflatten(0, (-1, sizes["channels"])), {}
        if "p" in tensors:
            x = results["sum"] = x + tensors["gamma"] * (tensors["p"].view_as(x) + tensors["bias"])
        if "weight" in tensors:
            results["out"] = F.layer_norm(x, x.shape[1:], tensors["weight"], tensors["shift"], sizes["epsilon"])
    narrow = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[step.dtype.value]
    return {step.outputs[name]: tensor.flatten().numpy().astype(narrow) for name, tensor in results.items()}


def _heads(tensors, count, period, epsilon):
    x = tensors["x"].view(-1, count, HEAD_DIM) + tensors["bias"].view(count, HEAD_DIM)
    x = F.layer_norm(x, (HEAD_DIM,), tensors["weight"], tensors["shift"], epsilon)
    cos, sin = (tensors[name].view(period, 1, HEAD_DIM) for name in ("cos", "sin"))
    swapped = x.unflatten(-1, (4, HEAD_DIM // 4))[..., [1, 0, 3, 2], :].flatten(-2)
    x, swapped = (part.unflatten(0, (-1, period)) for part in (x, swapped))
    return x * cos + swapped * sin
