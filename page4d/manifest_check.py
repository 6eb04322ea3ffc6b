"""Whether a manifest goes together in itself, so that no later step has to ask. `engines/cpp/src/manifest_check.cpp` mirrors this."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from page4d.errors import EngineError
from page4d.layout import Layout
from page4d.precision import DTYPE_BYTES, Precision

if TYPE_CHECKING:
    from page4d.manifest import Manifest, StageEntry, TensorSpec

_LARGEST_SIDE = 65535
_MOST_NUMBERS = 2**40  # of a tensor over all calls of its stage: far beyond any machine, far below an overflow
_DEEPEST = 8
_MOST_KEPT = 64
_LIBRARIES = ("tensorrt", "rtx")


def layout_of(sizes: Mapping[str, int]) -> Layout:
    """The layout of a manifest.

    Raises:
        EngineError: the sizes are no layout.
    """
    if not {"T", "V", "H", "W"} <= set(sizes) <= {"T", "V", "H", "W", "B"}:
        raise _inconsistent("its layout has other sizes", ", ".join(sorted(sizes)), "T, V, H, W, B")
    T, V, H, W, B = (sizes.get(name, 1) for name in "TVHWB")
    if not all(1 <= size <= _LARGEST_SIDE for size in (T, V, H, W, B)) or H % Layout.PATCH or W % Layout.PATCH:
        raise _inconsistent("its layout is none", f"T={T} V={V} H={H} W={W} B={B}", f"1 to {_LARGEST_SIDE}, H and W multiples of {Layout.PATCH}")
    return Layout(T, V, H, W, B)


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest whose parts do not go together.

    Raises:
        EngineError: naming the first part that does not go with the others.
    """
    layout_of(manifest.layout)
    for entry in manifest.stages:
        for spec in (*entry.inputs, *entry.outputs):
            if spec.dtype not in DTYPE_BYTES:
                raise _inconsistent("a tensor has an unknown type", spec.dtype, ", ".join(DTYPE_BYTES))
    if manifest.precision not in tuple(Precision):
        raise _inconsistent("its precision is unknown", manifest.precision, ", ".join(Precision))
    if manifest.encoder_images < 1:
        raise _inconsistent("the encoder takes no images", manifest.encoder_images, "1 or more")
    if not manifest.stages:
        raise _inconsistent("it has no stages", "none", "1 or more")
    seen: set[str] = set()
    for entry in manifest.stages:
        if not _is_name(entry.name) or entry.name in seen:
            raise _inconsistent("a stage has no name of its own", entry.name, "a name without / for each")
        seen.add(entry.name)
        if not 1 <= entry.calls <= _MOST_NUMBERS:
            raise _inconsistent(f"{entry.name} is never called", entry.calls, "1 or more calls")
        _check_names(entry.name, [spec.binding for spec in (*entry.inputs, *entry.outputs)])
        for spec in (*entry.inputs, *entry.outputs):
            _check_tensor(entry, spec)
    _check_values(manifest)
    _check_kept(manifest)
    plans = manifest.plans
    if plans is not None:
        if plans.library not in _LIBRARIES:
            raise _inconsistent("its plans are of an unknown library", plans.library, ", ".join(_LIBRARIES))
        lacking = [entry.name for entry in manifest.stages if entry.name not in plans.stages]
        if lacking:
            raise _inconsistent("stages have no plan", ", ".join(lacking), "a plan for every stage")


def _check_names(stage: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise _inconsistent(f"an input or output of {stage} has no name of its own", name, "a name for each")
        seen.add(name)


def _check_tensor(entry: StageEntry, spec: TensorSpec) -> None:
    total = entry.calls
    fits = 1 <= len(spec.shape) <= _DEEPEST
    for size in spec.shape:
        fits = fits and 1 <= size <= _MOST_NUMBERS
        total = min(total * size, _MOST_NUMBERS + 1) if fits else total
    if not fits or total > _MOST_NUMBERS:
        raise _inconsistent(f"{spec.name} of {entry.name} has a shape that no tensor has", list(spec.shape), f"1 to {_DEEPEST} sizes of 1 or more")


def _check_values(manifest: Manifest) -> None:
    """What the runtime itself fills or reads has the layout's sizes."""
    shape = manifest.shape
    wanted = {
        "images": (math.prod(shape.images_shape), "uint8"),
        "mask_ext": (math.prod(shape.patch_map_shape), "float32"),
        "keypoints": (math.prod(shape.patch_map_shape), "float32"),
        "fundamental": (math.prod(shape.fundamental_shape), "float32"),
        "mask": (math.prod(shape.mask_shape), "float32"),
        "camera": (math.prod(shape.pose_shape(12)), "float32"),
        "points": (math.prod(shape.images_shape), "float32"),
        "confidence": (math.prod(shape.pixel_map_shape), "float32"),
    }
    for entry in manifest.stages:
        for spec in (*entry.inputs, *entry.outputs):
            count, dtype = wanted.get(spec.name, (0, ""))
            if count and (spec.dtype != dtype or entry.calls * math.prod(spec.shape) != count):
                got = f"{entry.calls} x {spec.dtype} {list(spec.shape)}"
                raise _inconsistent(f"{spec.name} of {entry.name} is not of its layout", got, f"{count} x {dtype}")
    if not manifest.reads("images"):
        raise _inconsistent("no stage reads images", ", ".join(entry.name for entry in manifest.stages), "an encoder")


def _check_kept(manifest: Manifest) -> None:
    """Kept layers can be gathered from what stages make."""
    shape, width = manifest.shape, manifest.model.get("width")
    width = width if type(width) is int else 0
    if len(manifest.keep) > _MOST_KEPT:
        raise _inconsistent("it keeps too many layers", len(manifest.keep), f"up to {_MOST_KEPT}")
    seen: set[int] = set()
    for kept in manifest.keep:
        if not 0 <= kept.layer <= _LARGEST_SIDE or kept.layer in seen:
            raise _inconsistent("a layer is kept twice, or is none", kept.layer, "a number for each")
        seen.add(kept.layer)
        for name in kept.stages or ("",):
            entry = next((entry for entry in manifest.stages if entry.name == name), None)
            spec = None if entry is None else next((spec for spec in entry.outputs if spec.name == "tokens"), None)
            if entry is None or spec is None or entry.calls != 1 or spec.dtype != Precision(manifest.precision).tokens:
                raise _inconsistent(f"layer {kept.layer} is kept of a stage that makes no such tokens", name, "stages of one call with an output tokens")
            rows = math.prod(shape.layer_shape(1))
            streams = spec.shape[0]
            if len(spec.shape) < 3 or spec.shape[-1] != width or math.prod(spec.shape[1:-1]) != rows or not streams <= kept.streams <= 2:
                allowed = f"{kept.streams} x {rows} x {width}"
                raise _inconsistent(f"layer {kept.layer} cannot be gathered from {name}", list(spec.shape), allowed)


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name


def _inconsistent(what: str, got: object, allowed: str) -> EngineError:
    return EngineError(f"manifest.json does not go together: {what}", got=got, allowed=allowed, hint="page4d-export again")
