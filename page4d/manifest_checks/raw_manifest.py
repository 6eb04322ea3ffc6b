"""Whether a manifest's names of options and its sizes are known.

They are checked before they become enums and a `Layout`, so that the error says what is allowed.
`engines/cpp/src/manifest_checks/manifest_check.cpp` mirrors this.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import msgspec

from page4d.layout import Layout
from page4d.manifest import Flavor, PointsFrame, PoseDirection, Unit
from page4d.manifest_checks.manifest_error import inconsistent
from page4d.ops import AttentionChoice
from page4d.precision import MOST_NUMBERS, Precision


class _RawPlans(msgspec.Struct, frozen=True):
    library: str


class _RawVerification(msgspec.Struct, frozen=True):
    layout: dict[str, int]


class RawManifest(msgspec.Struct, frozen=True):
    """The fields of a `Manifest` that hold one of a few strings, or sizes, as they stand in the file."""

    layout: dict[str, int]
    precision: str
    attention: str = str(AttentionChoice.AUTO)
    points_frame: str | None = None
    pose_direction: str | None = None
    unit: str | None = None
    plans: _RawPlans | None = None
    verification: _RawVerification | None = None


def check_raw(raw: RawManifest) -> None:
    """Refuse strings that name no option, and sizes that are no layout.

    Raises:
        EngineError: naming the first one.
    """
    layout_of(raw.layout)
    if raw.verification is not None:
        layout_of(raw.verification.layout)
    _require_known("its precision is unknown", raw.precision, Precision)
    _require_known("its attention is unknown", raw.attention, AttentionChoice)
    optional = (
        ("points_frame", raw.points_frame, PointsFrame),
        ("pose_direction", raw.pose_direction, PoseDirection),
        ("unit", raw.unit, Unit),
    )
    for name, value, options in optional:
        if value is not None:
            _require_known(f"its {name} is unknown", value, options)
    if raw.plans is not None:
        _require_known("its plans are of an unknown library", raw.plans.library, Flavor)


def layout_of(sizes: Mapping[str, int]) -> Layout:
    """The layout of a manifest.

    Raises:
        EngineError: the sizes are no layout.
    """
    if not {"T", "V", "H", "W"} <= set(sizes) <= {"T", "V", "H", "W", "B", "registers"}:
        raise inconsistent("its layout has other sizes", ", ".join(sorted(sizes)), "T, V, H, W, B, registers")
    T, V, H, W, B = (sizes.get(name, 1) for name in "TVHWB")
    got = f"T={T} V={V} H={H} W={W} B={B}"
    if not all(1 <= size <= Layout.LARGEST for size in (T, V, H, W, B)) or H % Layout.PATCH or W % Layout.PATCH:
        allowed = f"1 to {Layout.LARGEST}, H and W multiples of {Layout.PATCH}"
        raise inconsistent("its layout is none", got, allowed)
    if math.prod((T, V, H, W, B, 3)) > MOST_NUMBERS:
        raise inconsistent("its layout is none", got, f"images of up to {MOST_NUMBERS} bytes")
    registers = sizes.get("registers", Layout.REGISTERS)  # older manifests have none
    if registers not in (0, Layout.REGISTERS):
        raise inconsistent("its layout is none", f"registers={registers}", f"0 or {Layout.REGISTERS} registers")
    return Layout(T, V, H, W, B, registers)


def _require_known(what: str, value: str, options: type[enum.Enum]) -> None:
    known = [str(option) for option in options]
    if value not in known:
        raise inconsistent(what, value, ", ".join(known))
