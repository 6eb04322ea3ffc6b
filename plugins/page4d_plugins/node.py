"""An attention node of a graph as a call: its mode, its shape, and whether the kernels take it. No TensorRT, no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from page4d.errors import UsageError
from page4d.ops import BIASED_ATTENTION, BIASED_INPUTS, SEGMENT_ATTENTION, SEGMENT_INPUTS, BiasedRows
from page4d_plugins.launch_plan import Shape, make_plan, require_in_pack
from page4d_plugins.modes import CHIPS, Dtype, Mode

FIELDS: dict[str, dict[str, type[int] | type[float]]] = {
    BIASED_ATTENTION: {
        "epipolar_band": float,
        "epipolar_penalty": float,
        "row_period": int,
        "row_leading": int,
        "row_gain": float,
    },
    SEGMENT_ATTENTION: {},
}
"""Attributes of each op that a kernel reads."""
_EPIPOLAR = ("epipolar_band", "epipolar_penalty")
_ROWS = ("row_period", "row_leading", "row_gain")


class Node(NamedTuple):
    """One node: its op and the attributes that it has."""

    op: str
    fields: dict[str, float]

    @classmethod
    def of(cls, op: str, attributes: Mapping[str, float]) -> Node:
        """A node from an op's name and attributes; those that no kernel reads are left out.

        Raises:
            UsageError: half of an option.
        """
        fields = {name: kind(attributes[name]) for name, kind in FIELDS[op].items() if name in attributes}
        for option in (_EPIPOLAR, _ROWS):
            if 0 < sum(name in fields for name in option) < len(option):
                raise UsageError(
                    f"{op} with half of an option", got=", ".join(fields), allowed=f"all or none of {', '.join(option)}"
                )
        return cls(op, fields)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the op's inputs, all of them."""
        return BIASED_INPUTS if self.op == BIASED_ATTENTION else SEGMENT_INPUTS

    def mode(self, inputs: int) -> Mode:
        """The mode of a node with so many inputs.

        Raises:
            UsageError: no op has so many inputs with these attributes.
        """
        if self.op == SEGMENT_ATTENTION:
            modes = {6: Mode.SEGMENTS, 7: Mode.SEGMENTS_BIASED}
        elif "row_period" in self.fields:
            modes = {4: Mode.ROWS}
        elif "epipolar_band" in self.fields:
            modes = {6: Mode.EPIPOLAR}
        else:
            modes = {3: Mode.DENSE, 4: Mode.BIASED}
        if inputs not in modes:
            raise UsageError(f"{self.op} with a wrong number of inputs", got=inputs, allowed=", ".join(map(str, modes)))
        return modes[inputs]

    def accepts(self, position: int, types: Sequence[str]) -> bool:
        """Whether the kernels take the type of an input or output, given the types before it.

        Args:
            position: among inputs, then the output.
            types: of inputs, then the output, with the manifest's names of types.
        """
        name = self.inputs[position] if position < len(types) - 1 else "out"
        if name in ("seg_ptr", "seg"):
            return types[position] == "int32"
        if name in ("fundamental", "centres"):
            return types[position] == "float32"
        return types[position] in ("float16", "bfloat16") and types[position] == types[0]

    def shape(self, shapes: Sequence[Sequence[int]], dtype: Dtype) -> Shape:
        """The call, from the shapes of the node's inputs.

        Raises:
            UsageError: shapes that do not fit together, or that no kernel takes.
        """
        mode = self.mode(len(shapes))
        by_name = dict(zip(self.inputs, shapes, strict=False))
        groups, segments = groups_and_segments(self.op, mode, by_name)
        Z, A, n, D = by_name["q"]
        rows = None
        if mode is Mode.ROWS:
            rows = BiasedRows(int(self.fields["row_period"]), int(self.fields["row_leading"]), self.fields["row_gain"])
        return Shape(
            mode=mode,
            dtype=dtype,
            Z=Z,
            A=A,
            n=n,
            m=by_name["k"][2],
            D=D,
            groups=groups,
            segments=segments,
            rows=rows,
            band=self.fields.get("epipolar_band", 0.0),
            penalty=self.fields.get("epipolar_penalty", 0.0),
        )


def groups_and_segments(op: str, mode: Mode, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    """The number of query groups (or views) and of key segments of a call.

    Args:
        op: the op's name.
        mode: of the call.
        shapes: of the op's inputs, by name; they are checked.

    Raises:
        UsageError: shapes that do not fit together.
    """
    q, k = shapes["q"], shapes["k"]
    if len(q) != 4 or len(k) != 4:
        raise UsageError(
            "q and k of an attention have four axes", got=f"{list(q)}, {list(k)}", allowed="[Z,A,n,D], [Z,A,m,D]"
        )
    (Z, A, n, D), m = q, k[2]
    expected: dict[str, list[int]] = {"k": [Z, A, m, D], "v": [Z, A, m, D], "key_bias": [Z, m]}
    groups, segments = 1, _first(shapes.get("seg", ()))
    if mode is Mode.EPIPOLAR:
        groups = max(1, _first(shapes["fundamental"]))
        expected |= {"fundamental": [groups, groups, 3, 3], "centres": [n // groups, 3]}
    if op == SEGMENT_ATTENTION:
        groups = _first(shapes["seg_ptr"]) - 1
        expected |= {"seg_ptr": [groups + 1], "seg": [segments, 2], "segment_bias": [A, segments]}
    for name, shape in shapes.items():
        if list(shape) != expected.get(name, list(shape)):
            raise UsageError(
                f"{name} of {op} does not fit q {list(q)} and k {list(k)}", got=list(shape), allowed=expected[name]
            )
    return groups, segments


def _first(shape: Sequence[int]) -> int:
    return shape[0] if shape else 0


def most_workspace(shape: Shape) -> int:
    """Bytes of a call's workspace on the GPU architecture where it needs most: a build may not know which one runs it.

    Raises:
        UsageError: sizes that the pack's kernels do not take.
    """
    most = max(make_plan(shape, chip.of(shape.mode), chip.part).workspace for chip in CHIPS.values())
    require_in_pack(shape)
    return most
