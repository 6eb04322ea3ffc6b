"""The plan and the manifest as tables."""

from __future__ import annotations

import math
import shlex
from typing import Any

from rich.markup import escape

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.manifest import Accuracy, Flavor, Manifest, StageEntry
from page4d.published import TRAITS
from page4d_engines import console
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_export.plan.export_plan import ExportPlan

TENSOR_LIMIT = 2**31  # elements; TensorRT refuses tensors of this many


def plan_document(plan: ExportPlan) -> dict[str, Any]:
    """The plan as one document: manifest, buffers and totals. Sizes in bytes, work in FLOP.

    With sparse attention the totals have `exact_flop`: the work if every key were read.
    """
    manifest = plan.manifest("not loaded")
    buffers = BufferPlan.make(manifest)
    return {
        "manifest": manifest,
        "buffers": buffers.sizes,
        "total": {
            "weight_bytes": sum(entry.weight_bytes for entry in manifest.stages),
            "buffer_bytes": buffers.total,
            "flop": sum(entry.flop * entry.calls for entry in manifest.stages),
            "largest_tensor": max(entry.largest for entry in manifest.stages),
            "near_limit": [entry.name for entry in manifest.stages if entry.largest > TENSOR_LIMIT // 2],
            **({"exact_flop": plan.exact.flop} if plan.config.is_sparse else {}),
        },
    }


def print_plan(plan: ExportPlan) -> None:
    """Stages with shapes, weights, FLOP and largest tensors; buffers; totals. On stdout."""
    manifest = plan.manifest("not loaded")
    out = console.table_console()
    table = console.table(_title(manifest), ["stage", "in", "out"], ["calls", "weights", "FLOP", "largest tensor"])
    for name, entry in _folded(manifest.stages):
        near = "  [bold red]near 2^31[/]" if entry.largest > TENSOR_LIMIT // 2 else ""
        near = "  [bold red]TensorRT refuses it[/]" if entry.largest >= TENSOR_LIMIT else near
        table.add_row(
            name,
            ", ".join(f"{spec.name} {_shape(spec.shape)}" for spec in entry.inputs),
            ", ".join(f"{spec.name} {_shape(spec.shape)}" for spec in entry.outputs),
            str(entry.calls),
            _bytes(entry.weight_bytes),
            _flop(entry.flop * entry.calls),
            f"{entry.largest / TENSOR_LIMIT:.0%} of 2^31{near}",
        )
    out.print(table)
    buffers = BufferPlan.make(manifest)
    for name, size in buffers.sizes.items():
        out.print(f"buffer {name:<14} {_bytes(size):>10}")
    total = plan_document(plan)["total"]
    out.print(
        f"weights {_bytes(total['weight_bytes'])}, buffers {_bytes(total['buffer_bytes'])}, {_flop(total['flop'])} a"
        f" window, largest tensor {total['largest_tensor'] / TENSOR_LIMIT:.0%} of 2^31 elements"
    )
    if plan.config.is_sparse:
        out.print(_sparse(plan.config.sparse_attention, plan.config.sparse_layers or (), plan.flop, plan.exact.flop))


def print_checkpoint(checkpoint: Checkpoint) -> None:
    """Print a checkpoint's model, size, structure and licence, on stdout."""
    facts = checkpoint.document()
    head = facts["mask_head"]
    source = shlex.quote(str(checkpoint.path)) if checkpoint.downloaded is None else checkpoint.origin
    clip = "--T 8 --V 1" if TRAITS[checkpoint.published].sees_time else "--T 1 --V 4"
    licences = [str(licence) for licence in checkpoint.licences]
    if len(licences) > 1:
        licences.append(
            "these files have tensors of the same names and shapes: the tensors do not tell which one it is"
        )
    rows = {
        "model": checkpoint.described,
        "size": (
            f"{_bytes(facts['bytes'])}, {facts['tensors']} tensors, {facts['parameters'] / 1e6:,.0f} million"
            f" parameters, {', '.join(facts['dtypes'])}"
        ),
        "parameters": ", ".join(f"{part} {_parameters(count)}" for part, count in facts["parameters_of"].items()),
        "encoder": f"{facts['encoder_blocks']} blocks, width {facts['width']}",
        "layers": f"{facts['layers']} of two blocks each" if facts["layers"] else "none: images do not see each other",
        "special tokens": _special_tokens(facts),
        "mask head": f"generation {head}" if head else "none",
        "heads": ", ".join(facts["predictions"]) or "none",
        "licence": "\n".join(licences),
        "beside weights": _some(facts["beside"]) or "nothing",
        "as published": f"page4d-export {source} {clip}",
    }
    if facts["camera_encoder"]:
        rows["heads"] += "; with --known-cameras: camera encoder"
    if facts["unused_parts"]:
        rows["heads"] += f"; left unused: {', '.join(facts['unused_parts'])}"
    if len(facts["files"]) > 1:
        rows["files"] = _some(facts["files"])
    rows |= {
        f"note {number}" if len(facts["notes"]) > 1 else "note": note for number, note in enumerate(facts["notes"], 1)
    }
    table = console.table(escape(str(checkpoint.path)), [], [], show_header=False)
    for name, text in rows.items():
        table.add_row(name, escape(text))
    console.table_console().print(table)


def _special_tokens(facts: dict[str, Any]) -> str:
    if not facts["layers"]:
        return "none"
    return f"camera and {facts['registers']} registers" if facts["registers"] else "camera"


def _some(names: list[str], most: int = 12) -> str:
    """The first of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def print_accuracy(manifest: Manifest, detailed: bool = False) -> None:
    """Print what was measured against the reference.

    Args:
        manifest: of the engines.
        detailed: every stage, on stdout; otherwise the worst of each kind, on stderr.
    """
    out = console.table_console(stderr=not detailed)
    table = console.table(_title(manifest), ["stage"], ["relative L2", "max abs", "cosine", "NaN"])
    for name, accuracy in _rows(manifest, detailed):
        table.add_row(
            name, f"{accuracy.relative_l2:.1e}", f"{accuracy.max_abs:.1e}", f"{accuracy.cosine:.7f}", str(accuracy.nans)
        )
    out.print(table)
    checked = manifest.verification
    if checked is not None:
        smaller = f" at a smaller layout, {checked.layout}: the whole takes too long here"
        at = "" if checked.layout == manifest.layout else smaller
        out.print(f"verified on {checked.frames}{at}; tolerance {checked.tolerance:.0e}")
        tied = [entry for entry in manifest.stages if entry.ties > checked.tolerance]
        for entry in tied:
            out.print(
                f"{entry.name}: landmarks whose confidences differ by rounding alone may change its tokens by"
                f" {entry.ties:.1e}, which is no error"
            )
        price = checked.sparse
        if price is not None:
            worst = max(price.chain, key=lambda name: price.chain[name].relative_l2)
            out.print(_sparse(price.one_in, price.layers, price.flop, price.exact_flop))
            out.print(
                f"error against the exact model up to {price.chain[worst].relative_l2:.1e} ({worst}), on these frames;"
                f" tolerance {price.tolerance:g}"
            )


def print_plans(manifest: Manifest, stderr: bool = True) -> None:
    """Print the TensorRT plans, a row for each kind of stage; nothing where there are none."""
    plans = manifest.plans
    if plans is None:
        return
    name = "TensorRT-RTX" if plans.library is Flavor.RTX else "TensorRT"
    title = f"plans: {name} {plans.version}, for {plans.runs_on}"
    table = console.table(title, ["stages"], ["plans", "attentions as plugin", "fused", "build s"])
    for kind in dict.fromkeys(entry.kind for entry in manifest.stages):
        built = [plans.stages[entry.name] for entry in manifest.stages if entry.kind == kind]
        cells = (len(built), sum(plan.plugins for plan in built), sum(plan.fused for plan in built))
        table.add_row(kind, *map(str, cells), f"{sum(plan.seconds for plan in built):.1f}")
    console.table_console(stderr=stderr).print(table)


def print_origin(manifest: Manifest) -> None:
    """Print where the weights are from, and their licence, on stdout."""
    out = console.table_console()
    out.print(f"weights: {escape(manifest.weights)}")
    if manifest.licence:
        out.print(f"licence: {escape(manifest.licence)}")


def _rows(manifest: Manifest, detailed: bool) -> list[tuple[str, Accuracy]]:
    """Names and figures: of every stage, or of the worst of each kind; then of the whole chain."""
    rows: list[tuple[str, Accuracy]] = []
    worst: dict[str, tuple[str, Accuracy]] = {}
    for entry in manifest.stages:
        for accuracy in entry.accuracy.values():
            rows.append((entry.name, accuracy))
            if entry.kind not in worst or accuracy.relative_l2 > worst[entry.kind][1].relative_l2:
                worst[entry.kind] = entry.name, accuracy
    if not detailed:
        rows = [
            (name if name == kind else f"{name}, worst {kind}", accuracy) for kind, (name, accuracy) in worst.items()
        ]
    chain = manifest.verification.chain if manifest.verification is not None else {}
    rows += [(f"whole chain: {name}", accuracy) for name, accuracy in chain.items()]
    price = None if manifest.verification is None else manifest.verification.sparse
    against_exact = {} if price is None else price.chain
    return rows + [(f"against the exact model: {name}", accuracy) for name, accuracy in against_exact.items()]


def _sparse(one_in: int, layers: tuple[int, ...], flop: int, exact_flop: int) -> str:
    """Sparse attention in words."""
    where = f"{len(layers)} layer{'s' if len(layers) > 1 else ''}, {_ranges(layers)}"
    return (
        f"sparse attention: one in {one_in} patches of other images, in {where}; {_flop(flop)} a window instead of"
        f" {_flop(exact_flop)}: {1 - flop / exact_flop:.0%} saved"
    )


def _ranges(layers: tuple[int, ...]) -> str:
    """Ascending numbers as `0, 4-7`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _folded(stages: tuple[StageEntry, ...]) -> list[tuple[str, StageEntry]]:
    """Stages of one kind with the same shapes in one row: `view_sa.1-15`."""
    rows: dict[object, list[StageEntry]] = {}
    for entry in stages:
        key = entry.name if entry.layer is None else (entry.kind, entry.inputs, entry.flop)
        rows.setdefault(key, []).append(entry)
    return [(_row_name(row), row[0]) for row in rows.values()]


def _row_name(row: list[StageEntry]) -> str:
    first, last = row[0], row[-1]
    return first.name if len(row) == 1 else f"{first.kind}.{first.layer}-{last.layer} ({len(row)} times)"


def _title(manifest: Manifest) -> str:
    model = manifest.model
    streams = f"{model['streams']} stream{'s' if model['streams'] > 1 else ''}"
    kind = f"{model['published']} as published" if model.get("published") else streams
    size = f"width {model['width']}, encoder {model['encoder_depth']} + {model['depth']} layers, {kind}"
    ranges = " with static ranges" * manifest.static_ranges
    return f"{manifest.layout}, {manifest.precision}{ranges}, {size}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _parameters(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _flop(count: float) -> str:
    power = min(4, int(math.log10(max(count, 1)) // 3))
    return f"{count / 1000**power:.1f} {('', 'K', 'M', 'G', 'T')[power]}FLOP"
