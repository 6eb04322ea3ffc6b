"""Whether the parts of a manifest go together, so that no later step has to ask.

`engines/cpp/src/manifest_checks/manifest_check.cpp` mirrors this.
"""

from __future__ import annotations

from collections.abc import Iterable

from page4d.manifest import Manifest, StageEntry, TensorSpec
from page4d.manifest_checks.manifest_chain import check_chain
from page4d.manifest_checks.manifest_error import inconsistent
from page4d.manifest_checks.manifest_files import check_files
from page4d.precision import DTYPE_BYTES, MOST_NUMBERS

_MOST_BYTES = 2**43
_MOST_FLOP = 2**60
_MOST_CALLS = 65536  # of the whole chain: a step and its views are kept for each
_DEEPEST = 8


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest whose parts do not go together.

    Raises:
        EngineError: naming the first part that does not go with the others.
    """
    for entry in manifest.stages:
        for spec in (*entry.inputs, *entry.outputs):
            if spec.dtype not in DTYPE_BYTES:
                raise inconsistent("a tensor has an unknown type", spec.dtype, ", ".join(DTYPE_BYTES))
    if manifest.encoder_images < 1:
        raise inconsistent("the encoder takes no images", manifest.encoder_images, "1 or more")
    if not manifest.stages:
        raise inconsistent("it has no stages", "none", "1 or more")
    seen: set[str] = set()
    for entry in manifest.stages:
        if not _is_name(entry.name) or entry.name in seen:
            raise inconsistent("a stage has no name of its own", entry.name, "a name without / for each")
        seen.add(entry.name)
        if not 1 <= entry.calls <= _MOST_CALLS:
            raise inconsistent(f"{entry.name} is never called", entry.calls, f"1 to {_MOST_CALLS} calls")
        _check_names(entry.name, [spec.binding for spec in (*entry.inputs, *entry.outputs)])
        for spec in (*entry.inputs, *entry.outputs):
            _check_tensor(entry, spec)
        _check_counts(entry)
    check_chain(manifest)
    _check_plans(manifest)
    check_files(manifest)


def _check_names(stage: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise inconsistent(f"an input or output of {stage} has no name of its own", name, "a name for each")
        seen.add(name)


def _check_tensor(entry: StageEntry, spec: TensorSpec) -> None:
    total = entry.calls
    fits = 1 <= len(spec.shape) <= _DEEPEST
    for size in spec.shape:
        fits = fits and 1 <= size <= MOST_NUMBERS
        total = min(total * size, MOST_NUMBERS + 1) if fits else total
    if not fits or total > MOST_NUMBERS:
        what = f"{spec.name} of {entry.name} has a shape that no tensor has"
        raise inconsistent(what, list(spec.shape), f"1 to {_DEEPEST} sizes of 1 or more")


def _check_counts(entry: StageEntry) -> None:
    limits = {
        "weight_bytes": (entry.weight_bytes, _MOST_BYTES),
        "flop": (entry.flop, _MOST_FLOP),
        "largest": (entry.largest, MOST_NUMBERS),
    }
    for name, (count, most) in limits.items():
        if not 0 <= count <= most:
            raise inconsistent(f"{name} of {entry.name} is no count", count, f"0 to {most}")


def _check_plans(manifest: Manifest) -> None:
    plans = manifest.plans
    if plans is None:
        return
    lacking = [entry.name for entry in manifest.stages if entry.name not in plans.stages]
    if lacking:
        raise inconsistent("stages have no plan", ", ".join(lacking), "a plan for every stage")
    names = {entry.name for entry in manifest.stages}
    foreign = sorted(name for name in plans.stages if name not in names)
    if foreign:
        raise inconsistent("there are plans of no stage", ", ".join(foreign), "a plan for every stage")


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name
