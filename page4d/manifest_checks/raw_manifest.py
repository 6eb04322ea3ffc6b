"""Whether a manifest's names of options and its sizes are known.

They are checked before they become enums and a `Layout`, so that the error says what is allowed.
`engines/cpp/src/manifest/manifest_check.cpp` mirrors this.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import msgspec

from page4d.layout import Layout
from page4d.manifest import Flavor, PointsFrame
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
    if raw.points_frame is not None:
        _require_known("its points_frame is unknown", raw.points_frame, PointsFrame)
    if raw.plans is not None:
        _require_known("its plans are of an unknown library", raw.plans.library, Flavor)


def layout_of(sizes: Mapping[str, int]) -> Layout:
    """The layout of a manifest.

    Raises:
        EngineError: the sizes are no layout.
    """
    if not {"T", "V", "H", "W"} <= set(sizes) <= {"T", "V", "H", "W", "B"}:
        raise inconsistent("its layout has other sizes", ", ".join(sorted(sizes)), "T, V, H, W, B")
    T, V, H, W, B = (sizes.get(name, 1) for name in "TVHWB")
    got = f"T={T} V={V} H={H} W={W} B={B}"
    if not all(1 <= size <= Layout.LARGEST for size in (T, V, H, W, B)) or H % Layout.PATCH or W % Layout.PATCH:
        allowed = f"1 to {Layout.LARGEST}, H and W multiples of {Layout.PATCH}"
        raise inconsistent("its layout is none", got, allowed)
    if math.prod((T, V, H, W, B, 3)) > MOST_NUMBERS:
        raise inconsistent("its layout is none", got, f"images of up to {MOST_NUMBERS} bytes")
    return Layout(T, V, H, W, B)


def _require_known(what: str, value: str, options: type[enum.Enum]) -> None:
    known = [str(option) for option in options]
    if value not in known:
        raise inconsistent(what, value, ", ".join(known))
