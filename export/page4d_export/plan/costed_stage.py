"""A stage of a plan together with what a call of it costs."""

from __future__ import annotations

from collections.abc import Sequence

from page4d.manifest import StageEntry, TensorSpec
from page4d_export.plan.cost import Flop

Costed = tuple[StageEntry, Flop]
"""A stage, and the FLOP of a call by what they are of."""


def costed_stage(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weight_bytes: int,
    flop: Flop,
    largest: int,
    calls: int = 1,
) -> Costed:
    """A stage that is not written.

    Args:
        name: its kind, and behind a dot its layer if it has one.
        inputs, outputs: in the order of its engine.
        weight_bytes: of its file.
        flop: of a call.
        largest: elements of the largest tensor inside.
        calls: for one clip.
    """
    kind, _, layer = name.partition(".")
    entry = StageEntry(
        name=name,
        kind=kind,
        layer=int(layer) if layer else None,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        weight_bytes=weight_bytes,
        flop=flop.total,
        largest=largest,
        calls=calls,
    )
    return entry, flop
