"""From the shapes of one attention to its kernel launches: grids, parameters, workspace. No torch, no Triton, no GPU.

Every launcher (Triton's own, the driver through cuda-core, the C++ plugin) follows the same plan and passes parameters
by name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from page4d.errors import UsageError
from page4d.ops import BiasedRows
from page4d_plugins.modes import HEAD_DIM, Dtype, Keys, Mode, Tile

LOG2E = 1.0 / math.log(2.0)
_PREPARE_BLOCK = 1024
_GRID_LIMIT = 65535  # blocks along the grid's second and third axes
_ENOUGH_BLOCKS = 264  # two for each of the 132 multiprocessors of the largest Hopper
_LEAST_KEYS = 512  # of a part: fewer are not worth a merge
_MOST_PARTS = 64
_ALIGNED = 16  # elements: what strides are multiples of, so that rows load as vectors


class Strides(NamedTuple):
    """Elements from one sequence, head and row to the next; channels are contiguous."""

    z: int
    a: int
    n: int


class Shape(NamedTuple):
    """One call: q `[Z,A,n,D]`, k v `[Z,A,m,D]`, and the parameters of its mode."""

    mode: Mode
    dtype: Dtype
    Z: int
    A: int
    n: int
    m: int
    D: int = HEAD_DIM
    groups: int = 1
    """Query groups, where keys are in segments; views, where there are epipolar lines."""
    segments: int = 0
    rows: BiasedRows | None = None
    band: float = 0.0
    """Pixels."""
    penalty: float = 0.0
    q: Strides | None = None
    """Strides; None where a tensor is contiguous."""
    k: Strides | None = None
    v: Strides | None = None
    out: Strides | None = None


class Ref(NamedTuple):
    """A parameter that is an address: of a tensor, or `offset` bytes into the workspace."""

    tensor: str
    offset: int = 0


class Descriptor(NamedTuple):
    """A parameter that is a tensor map over a `[Z,A,m,D]` tensor, box `[1,1,keys,D]`."""

    tensor: str
    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    keys: int


Value = int | float | Ref | Descriptor | None


class Launch(NamedTuple):
    """One kernel: its name in the pack without the type, its grid, its parameters by name."""

    kernel: str
    grid: tuple[int, int, int]
    values: dict[str, Value]


class Plan(NamedTuple):
    """The launches of one call, in order, and the bytes of workspace for its intermediate results."""

    launches: tuple[Launch, ...]
    workspace: int
    mode: Mode
    """Of the attention kernel: the call's mode, or its mode of parts."""


def parts_of(shape: Shape, tile: Tile) -> int:
    """The number of parts that the keys are split into: 1 unless few queries would leave most of a GPU idle."""
    blocks = -(-shape.n // tile.queries) * shape.Z * shape.A
    if shape.mode.of_parts is None or blocks * 2 > _ENOUGH_BLOCKS:
        return 1
    most = max(1, min(-(-_ENOUGH_BLOCKS // blocks), shape.m // _LEAST_KEYS, _MOST_PARTS))
    return -(-shape.m // _chunk(shape.m, most, tile))


def make_plan(shape: Shape, tile: Tile, part_tile: Tile) -> Plan:
    """The launches of one call.

    Args:
        shape: of the call.
        tile: of its mode's kernel.
        part_tile: of the kernel for one part of the keys.

    Raises:
        UsageError: sizes that the kernels cannot take.
    """
    _check(shape, max(tile.queries, tile.keys, part_tile.queries, part_tile.keys))
    parts = parts_of(shape, part_tile)
    mode = shape.mode.of_parts
    return _whole_plan(shape, tile) if parts == 1 or mode is None else _split_plan(shape, mode, part_tile, parts)


def _whole_plan(shape: Shape, tile: Tile) -> Plan:
    """Every block of queries goes over all of its keys."""
    q, _, _, out = _strides(shape)
    rows = shape.n // shape.groups
    workspace = _Workspace()
    prepare, values = _inputs(shape, shape.mode, tile, rows, workspace)
    values |= {"OUT": Ref("out"), "LSE": None, "chunk": shape.m, "q_g": rows * q.n}
    values |= {"out_z": out.z, "out_a": out.a, "out_g": rows * out.n, "out_n": out.n}
    grid = (-(-rows // tile.queries), shape.groups, shape.Z * shape.A)
    attention = Launch(f"attention_{shape.mode.value}", grid, values)
    return Plan((*prepare, attention), workspace.size, shape.mode)


def _split_plan(shape: Shape, mode: Mode, tile: Tile, parts: int) -> Plan:
    """Blocks of the same queries go over a part of the keys each, and their results are merged."""
    *_, out = _strides(shape)
    workspace = _Workspace()
    prepare, values = _inputs(shape, mode, tile, shape.n, workspace)
    part_rows = parts * shape.Z * shape.A * shape.n
    part = Ref("workspace", workspace.take(4 * part_rows * shape.D))
    lse = Ref("workspace", workspace.take(4 * part_rows))
    one_part = shape.n * shape.D
    values |= {"OUT": part, "LSE": lse, "chunk": _chunk(shape.m, parts, tile), "q_g": 0}
    values |= {"out_z": shape.A * parts * one_part, "out_a": parts * one_part, "out_g": one_part, "out_n": shape.D}
    grid = (-(-shape.n // tile.queries), parts, shape.Z * shape.A)
    attention = Launch(f"attention_{mode.value}", grid, values)
    merged: dict[str, Value] = {"PART": part, "LSE": lse, "OUT": Ref("out")}
    merged |= {"out_z": out.z, "out_a": out.a, "out_n": out.n, "heads": shape.A, "rows": shape.n, "parts": parts}
    merge = Launch("merge", (shape.n, shape.Z * shape.A, 1), merged)
    return Plan((*prepare, attention, merge), workspace.size, mode)


def _inputs(
    shape: Shape, mode: Mode, tile: Tile, rows: int, workspace: _Workspace
) -> tuple[list[Launch], dict[str, Value]]:
    """The launch that puts the bias into the workspace, where there is one; and what the attention kernel reads.

    The latter are its parameters by name, without those of its output; a group has `rows` queries.
    """
    q, k, v, _ = _strides(shape)
    count = shape.Z * shape.m
    bias = Ref("workspace", workspace.take(4 * count)) if mode.has_bias else None
    prepare = Launch(
        "prepare", (-(-count // _PREPARE_BLOCK), 1, 1), {"BIAS": Ref("key_bias"), "OUT": bias, "count": count}
    )
    biased_rows = shape.rows or BiasedRows(period=1, leading=1, gain=1.0)
    in_segments, in_views = mode.keys is Keys.SEGMENTS, mode.keys is Keys.VIEWS
    values: dict[str, Value] = {
        "Q": Ref("q"),
        "K": Ref("k"),
        "V": Ref("v"),
        "KD": _descriptor("k", shape, k, tile),
        "VD": _descriptor("v", shape, v, tile),
        "BIAS": bias,
        "SEG_PTR": Ref("seg_ptr") if in_segments else None,
        "SEG": Ref("seg") if in_segments else None,
        "SEGMENT_BIAS": Ref("segment_bias") if mode is Mode.SEGMENTS_BIASED else None,
        "FUNDAMENTAL": Ref("fundamental") if in_views else None,
        "CENTRES": Ref("centres") if in_views else None,
        "scale": LOG2E / math.sqrt(shape.D),
        "gain": biased_rows.gain,
        "band": shape.band,
        "penalty": shape.penalty * LOG2E,
        "heads": shape.A,
        "rows": rows,
        "keys": shape.m,
        "segments": shape.segments,
        "views": shape.groups,
        "period": biased_rows.period,
        "leading": biased_rows.leading,
        "bias_z": shape.m,
    }
    values |= {"q_z": q.z, "q_a": q.a, "q_n": q.n}
    values |= {"k_z": k.z, "k_a": k.a, "k_n": k.n}
    values |= {"v_z": v.z, "v_a": v.a, "v_n": v.n}
    return [prepare] if mode.has_bias else [], values


def require_in_pack(shape: Shape) -> None:
    """Refuse a head dimension that the pack has no kernels for; plans are made for all that could be built.

    Raises:
        UsageError: another head dimension.
    """
    if shape.D != HEAD_DIM:
        raise UsageError("no attention kernel in the pack for this head dimension", got=shape.D, allowed=HEAD_DIM)


def constants(kernel: str, tile: Tile, D: int = HEAD_DIM, upcast: bool = False) -> dict[str, int | bool]:
    """Compile-time constants of a kernel (`attention_<mode>`, `prepare` or `merge`), by name."""
    if kernel == "prepare":
        return {"BLOCK": _PREPARE_BLOCK}
    if kernel == "merge":
        return {"D": D, "PARTS": _MOST_PARTS}
    mode = Mode(kernel.removeprefix("attention_"))
    return {
        "D": D,
        "BM": tile.queries,
        "BN": tile.keys,
        "STAGES": tile.stages,
        "KEYS": int(mode.keys),
        "BIASED": mode.has_bias,
        "ROWS": mode is Mode.ROWS,
        "SEGMENT_BIASED": mode is Mode.SEGMENTS_BIASED,
        "PARTIAL": mode.partial,
        "DESCRIPTORS": tile.descriptors,
        "UPCAST": upcast,
    }


def _check(shape: Shape, longest: int) -> None:
    if min(shape.Z, shape.A, shape.n, shape.m) < 1:
        raise UsageError(
            "attention over an empty tensor",
            got=f"Z={shape.Z} A={shape.A} n={shape.n} m={shape.m}",
            allowed="all at least 1",
        )
    if max(shape.n, shape.Z * shape.m, shape.A * shape.segments) >= 1 << 31:
        got = f"Z={shape.Z} A={shape.A} n={shape.n} m={shape.m}"
        raise UsageError(
            "attention over a tensor with too long an axis", got=got, allowed="n, Z*m and A*segments below 2^31"
        )
    if shape.D & (shape.D - 1) or not 16 <= shape.D <= 128:
        raise UsageError(
            "no attention kernel for this head dimension", got=str(shape.D), allowed="a power of two, 16 .. 128"
        )
    if shape.groups < 1 or shape.n % shape.groups:
        raise UsageError(
            "queries cannot be cut into equal groups",
            got=f"{shape.n} queries, {shape.groups} groups",
            allowed="a divisor of the queries",
        )
    if shape.mode.keys is Keys.VIEWS and shape.n != shape.m:
        raise UsageError(
            "the epipolar prior wants as many keys as queries",
            got=f"{shape.n} queries, {shape.m} keys",
            allowed="n = m = V*N",
        )
    if shape.rows is not None and (
        shape.rows.period < 1 or shape.n % shape.rows.period or not 0 <= shape.rows.leading <= shape.rows.period
    ):
        raise UsageError(
            "biased rows do not fit the queries",
            got=f"{shape.n} queries, {shape.rows}",
            allowed="queries a multiple of period, leading <= period",
        )
    if max(shape.groups, shape.Z * shape.A) > _GRID_LIMIT:
        raise UsageError(
            "too many heads or query groups",
            got=f"Z*A={shape.Z * shape.A}, groups={shape.groups}",
            allowed=f"at most {_GRID_LIMIT} each",
        )
    for strides in (shape.q, shape.k, shape.v, shape.out):
        if strides is None:
            continue
        if any(stride % _ALIGNED for stride in strides):
            raise UsageError(
                "strides that the kernels cannot load as vectors",
                got=str(tuple(strides)),
                allowed=f"multiples of {_ALIGNED} elements",
            )
        most = ((1 << 31) - shape.D) // (longest - 1)
        if strides.n > most:
            raise UsageError(
                "rows too far apart: offsets within a tile have 32 bits", got=strides.n, allowed=f"{most} elements"
            )


def _strides(shape: Shape) -> tuple[Strides, Strides, Strides, Strides]:
    """Of q, k, v and the output."""
    queries, keys = (Strides(shape.A * rows * shape.D, rows * shape.D, shape.D) for rows in (shape.n, shape.m))
    return shape.q or queries, shape.k or keys, shape.v or keys, shape.out or queries


def _chunk(keys: int, parts: int, tile: Tile) -> int:
    """Keys of a part: whole tiles, the last part may have fewer."""
    return -(-keys // (parts * tile.keys)) * tile.keys


def _descriptor(tensor: str, shape: Shape, strides: Strides, tile: Tile) -> Descriptor | None:
    if not tile.descriptors:
        return None
    return Descriptor(tensor, (shape.Z, shape.A, shape.m, shape.D), (*strides, 1), tile.keys)


class _Workspace:
    """Offsets in one block of memory, all multiples of 256 bytes."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, size: int) -> int:
        at = self.size
        self.size += -(-size // 256) * 256
        return at
