"""The two ops on tensors of a GPU, through Triton's own compiler and launcher; on a CPU in its interpreter.

Names, signatures and meaning are those of `page4d.attention`; dtypes are float16 or bfloat16, head dimensions powers of
two.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from page4d.errors import UsageError
from page4d.network.attention import EpipolarPrior
from page4d.ops import BIASED_ATTENTION, SEGMENT_ATTENTION, BiasedRows
from page4d_plugins import attention_kernel
from page4d_plugins.launch_plan import Descriptor, Ref, Shape, Strides, constants, make_plan
from page4d_plugins.modes import CHIPS, Chip, Dtype, Keys, Mode, Tile, chip_for
from page4d_plugins.node import groups_and_segments

_ALIGNMENT = 16  # bytes: what tensor maps take, and what the kernels of the pack are compiled for
_INTERPRETED = Chip(Tile(64, 64, 4, 1), Tile(64, 64, 4, 1), Tile(32, 64, 4, 1))


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
        q: `[Z,A,n,D]`, float16 or bfloat16; any strides whose channels lie side by side, a packed qkv for one.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]`, added to the logits of all heads and, without `rows`, of all queries; any floating type.
        epipolar: prior of View-SA, n = m = V*N, added on top.
        rows: the queries that `key_bias` is for; not with `epipolar`.

    Returns:
        `[Z,A,n,D]`, q's dtype, contiguous. A query none of whose keys is above -inf gives zeros.

    Raises:
        UsageError: a type, device, shape or stride that the kernels do not take.
    """
    if rows is not None and (key_bias is None or epipolar is not None):
        raise UsageError(
            "rows say which queries a key bias is for",
            got="no key bias" if key_bias is None else "an epipolar prior",
            allowed="a key bias alone",
        )
    tensors = {"q": q, "k": k, "v": v}
    if epipolar is not None and key_bias is None:
        key_bias = torch.zeros(k.shape[0], k.shape[2], dtype=q.dtype, device=q.device)
    if key_bias is not None:
        tensors["key_bias"] = key_bias
    if epipolar is not None:
        tensors |= {
            "fundamental": epipolar.fundamental.float().contiguous(),
            "centres": epipolar.centres.float().contiguous(),
        }
        return _run(tensors, Mode.EPIPOLAR, band=epipolar.band, penalty=epipolar.penalty)
    if rows is not None:
        return _run(tensors, Mode.ROWS, rows=rows)
    return _run(tensors, Mode.DENSE if key_bias is None else Mode.BIASED)


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
        q: `[Z,A,n,D]`, float16 or bfloat16; query group g is rows `g*n/groups ... (g+1)*n/groups`.
        k, v: `[Z,A,m,D]`.
        key_bias: `[Z,m]` or None, added to the logits of all queries and heads; any floating type.
        seg_ptr: int32 `[groups+1]`; group g reads the segments `seg_ptr[g] ... seg_ptr[g+1]`.
        seg: int32 `[s,2]`, (start, length) of a range of keys.
        segment_bias: `[A,s]` or None, added to the logits on a segment's keys, by head.

    Returns:
        `[Z,A,n,D]`, q's dtype, contiguous. A group without keys gives zeros.

    Raises:
        UsageError: a type, device, shape or stride that the kernels do not take. Ranges are not checked: they lie on
            the GPU.
    """
    if seg_ptr.dtype != torch.int32 or seg.dtype != torch.int32:
        raise UsageError(
            "key segments are int32",
            got=f"seg_ptr {seg_ptr.dtype}, seg {seg.dtype}",
            allowed="torch.int32",
            hint=".to(torch.int32)",
        )
    if key_bias is None:
        key_bias = torch.zeros(k.shape[0], k.shape[2], dtype=q.dtype, device=q.device)
    tensors = {"q": q, "k": k, "v": v, "key_bias": key_bias, "seg_ptr": seg_ptr.contiguous(), "seg": seg.contiguous()}
    mode = Mode.SEGMENTS
    if segment_bias is not None:
        tensors["segment_bias"], mode = segment_bias.to(q.dtype).contiguous(), Mode.SEGMENTS_BIASED
    return _run(tensors, mode)


def _run(
    tensors: dict[str, Tensor], mode: Mode, rows: BiasedRows | None = None, band: float = 0.0, penalty: float = 0.0
) -> Tensor:
    interpreted, device = triton.knobs.runtime.interpret, tensors["q"].device
    if not interpreted and device.type != "cuda":
        raise UsageError(
            "the attention kernels run on a GPU",
            got=f"tensors on {device}",
            allowed="cuda",
            hint="page4d.attention, or TRITON_INTERPRET=1",
        )
    chip = _INTERPRETED if interpreted else CHIPS[_chip(device.index)]
    return run(tensors, mode, chip.of(mode), chip.part, rows, band, penalty)


def run(
    tensors: dict[str, Tensor],
    mode: Mode,
    tile: Tile,
    part_tile: Tile,
    rows: BiasedRows | None = None,
    band: float = 0.0,
    penalty: float = 0.0,
) -> Tensor:
    """One call with these tiles: `tensors` are the op's inputs by name, the rest as in `Shape`."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    groups, segments = _check(tensors, mode)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    Z, A, n, D = q.shape
    shape = Shape(
        mode=mode,
        dtype=Dtype.named(str(q.dtype).removeprefix("torch.")),
        Z=Z,
        A=A,
        n=n,
        m=k.shape[2],
        D=D,
        groups=groups,
        segments=segments,
        rows=rows,
        band=band,
        penalty=penalty,
        q=_strides(q),
        k=_strides(k),
        v=_strides(v),
    )
    plan = make_plan(shape, tile, part_tile)
    workspace = torch.empty(plan.workspace // 4, dtype=torch.float32, device=q.device)
    if "key_bias" in tensors:
        tensors = tensors | {"key_bias": tensors["key_bias"].contiguous()}
    tile = part_tile if plan.mode.partial else tile
    tensors = tensors | {"out": out}
    upcast = bool(triton.knobs.runtime.interpret) and q.dtype == torch.bfloat16
    for launch in plan.launches:
        values = {name: _value(value, tensors, workspace) for name, value in launch.values.items()}
        fixed = constants(launch.kernel, tile, shape.D, upcast)
        function = getattr(attention_kernel, launch.kernel.partition("_")[0])
        options = {"num_warps": tile.warps, "num_stages": tile.stages} if launch.kernel.startswith("attention") else {}
        function[launch.grid](**values, **fixed, **options)
    return out


def _strides(x: Tensor) -> Strides:
    return Strides(x.stride(0), x.stride(1), x.stride(2))


def _value(value: object, tensors: dict[str, Tensor], workspace: Tensor) -> object:
    if isinstance(value, Ref):
        return workspace[value.offset // 4 :] if value.tensor == "workspace" else tensors[value.tensor]
    if isinstance(value, Descriptor):
        return TensorDescriptor(
            tensors[value.tensor], list(value.shape), list(value.strides), [1, 1, value.keys, value.shape[3]]
        )
    return value


def _check(tensors: dict[str, Tensor], mode: Mode) -> tuple[int, int]:
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    if any(tensor.device != q.device for tensor in tensors.values()):
        devices = ", ".join(f"{name} {tensor.device}" for name, tensor in tensors.items())
        raise UsageError("attention over tensors of several devices", got=devices, allowed="one")
    if not (q.dtype == k.dtype == v.dtype):
        raise UsageError(
            "q, k and v differ in type",
            got=f"{q.dtype}, {k.dtype}, {v.dtype}",
            allowed="float16 or bfloat16 for all three",
        )
    op = SEGMENT_ATTENTION if mode.keys is Keys.SEGMENTS else BIASED_ATTENTION
    groups, segments = groups_and_segments(op, mode, {name: list(tensor.shape) for name, tensor in tensors.items()})
    if any(tensor.stride(3) != 1 for tensor in (q, k, v)):
        raise UsageError(
            "channels of q, k and v must lie side by side",
            got="another last stride than 1",
            allowed="1",
            hint=".contiguous()",
        )
    offsets = {name: tensors[name].data_ptr() % _ALIGNMENT for name in "qkv"}
    if any(offsets.values()):
        got = ", ".join(f"{name} {offset} bytes beyond one" for name, offset in offsets.items() if offset)
        raise UsageError(f"q, k and v must start at a multiple of {_ALIGNMENT} bytes", got=got, hint=".clone()")
    return groups, segments


@cache
def _chip(device: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return chip_for(10 * major + minor)
