"""The export, start to end: stages to ONNX, verified, and the manifest last."""

from __future__ import annotations

import datetime
import pathlib
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import msgspec
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d.files import refuse_foreign, save_tensors, sha256, staged
from page4d.layout import Layout
from page4d.manifest import CONSTANTS, PREDICTIONS, Accuracy, Golden, Manifest, StageEntry, Verification
from page4d.manifest_checks.manifest_file import ENGINE_FOLDER, write_manifest
from page4d.model import Page4D
from page4d.system.progress import SILENT, Progress
from page4d_engines.ort.cpu_graph import write_cpu_graphs
from page4d_engines.tensorrt.plans import PlanBuildRequest
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize.calibrate import Calibration, calibrate
from page4d_export.sample_clip import SampleClip
from page4d_export.sparse_price import price_of, stage_tolerance
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.verify import Verified, affordable_layout, verify

_GOLDEN_MARGIN = 4
# of the tolerance: layers are chosen by it where other frames are verified afterwards, on which errors differ a little
_CHOSEN_BY = 0.8
_QUICK = (60.0, 20.0)  # seconds of a calibration that is too long, and of one at a smaller layout


@dataclass(frozen=True)
class Gate:
    """The result of verification: the stages of a plan, which may have a smaller layout than the engines, on a clip."""

    plan: ExportPlan
    clip: SampleClip
    tolerance: float
    stages: dict[str, Verified]


def write_verified(
    model: Page4D,
    plan: ExportPlan,
    folder: pathlib.Path,
    clip_at: Callable[[Layout], SampleClip] = SampleClip.rendered,
    tolerance: float | None = None,
    progress: Progress = SILENT,
    plans: PlanBuildRequest | None = None,
    calibrated_at: Callable[[Layout], SampleClip] | None = None,
) -> Manifest:
    """Write an engine folder: whole, or not at all.

    Args:
        model: the reference, float32.
        plan: made from the model's config.
        folder: to be written; an engine folder there is replaced.
        clip_at: the frames to verify on, at the plan's layout or, where that is too large for this machine, a smaller
            one.
        tolerance: of the relative L2 of every stage's outputs; None takes the precision's own. With sparse attention:
            of the results against the exact model, and None is not allowed.
        progress: told of every stage.
        plans: builds TensorRT plans of the verified stages; None: ONNX alone.
        calibrated_at: as `clip_at`, other frames, on which activations are measured in 8 bits; None: the same.

    Raises:
        UsageError: `folder` holds something that is not an engine folder, or the model's weights were not loaded to the
            end; sparse attention without a tolerance.
        AccuracyError: a stage departs from the reference, a sparse model from the exact one, or a plan is not what was
            asked.
        EngineError, OutOfMemoryError: TensorRT builds no plan.
    """
    refuse_foreign(folder, ENGINE_FOLDER)
    if not model.complete:
        raise UsageError(
            "the model's weights are not complete", got=model.weights, hint="page4d.load, or page4d.load_weights again"
        )
    sparse_tolerance, tolerance = tolerance, stage_tolerance(plan, tolerance)
    layout = affordable_layout(plan)
    checked = plan if layout == plan.layout else plan.at(layout)
    clip = clip_at(layout)
    phases = 2 + (checked is not plan) + plan.precision.is_quantised + (plans is not None)
    parts = (progress.part(n / phases, (n + 1) / phases, len(plan.stages())) for n in range(phases))
    with staged(folder, ENGINE_FOLDER) as staging:
        calibration = Calibration()
        if plan.precision.is_quantised:
            measured, limit = clip, tolerance
            if calibrated_at is not None:
                measured, limit = calibrated_at(layout), _CHOSEN_BY * tolerance
            calibration = calibrate(model, checked, measured, limit, next(parts), staging)
        onnx = staging / "onnx"
        stages = _write_stages(model, plan, onnx, calibration, next(parts))
        with tempfile.TemporaryDirectory(dir=staging, prefix=".verify-") as temporary:
            if checked is not plan:
                onnx = pathlib.Path(temporary)
                _write_stages(model, checked, onnx, calibration, next(parts))
            figures = verify(model, checked, onnx, clip, tolerance, next(parts))
            gate = Gate(checked, clip, tolerance, {stage.stage: stage for stage in figures})
        _write_constants(model, plan, staging)
        manifest = _verified(_described(model, plan, stages), gate)
        if plan.config.is_sparse and sparse_tolerance is not None:
            manifest = _priced(manifest, plan, gate, sparse_tolerance)
        manifest = msgspec.structs.replace(manifest, golden=write_golden(staging, manifest, gate, clip_at))
        if plans is not None:
            built = plans.build(staging, manifest, staging, next(parts))
            manifest = msgspec.structs.replace(manifest, plans=built)
        manifest = msgspec.structs.replace(manifest, files=_hashes(staging))
        write_manifest(staging, manifest)
    return manifest


def write_unverified(model: Page4D, plan: ExportPlan, folder: pathlib.Path) -> Manifest:
    """Write an engine folder without figures into an existing folder: benchmarks compare the chain themselves.

    Activations are measured at a layout that takes seconds; their statistics serve other layouts.
    """
    calibration = Calibration()
    if plan.precision.is_quantised:
        layout = affordable_layout(plan, *_QUICK)
        calibration = calibrate(model, plan.at(layout), SampleClip.rendered(layout), plan.precision.tolerance)
    stages = _write_stages(model, plan, folder / "onnx", calibration)
    _write_constants(model, plan, folder)
    manifest = msgspec.structs.replace(_described(model, plan, stages), files=_hashes(folder))
    write_manifest(folder, manifest)
    return manifest


def _write_stages(
    model: Page4D, plan: ExportPlan, folder: pathlib.Path, calibration: Calibration, progress: Progress = SILENT
) -> tuple[StageEntry, ...]:
    """Write a plan's stages to a folder; their entries, with the model's eps and the layers left in floating point."""
    folder.mkdir(exist_ok=True)
    exporter = OnnxExporter(folder, model.config.head_dim, plan.attention, calibration.traces)
    entries = []
    for stage in stages_of(model, plan).values():
        progress.step(f"exporting {stage.name}")
        path = exporter.write(stage, calibration.change(stage.name))
        cpu, signed = write_cpu_graphs(path)
        entries.append(
            msgspec.structs.replace(
                stage.entry,
                file=f"onnx/{path.name}",
                cpu=f"onnx/{cpu.name}",
                cpu_signed="" if signed is None else f"onnx/{signed.name}",
                eps=stage.eps,
                floating=calibration.floating(stage.name),
            )
        )
    return tuple(entries)


def _write_constants(model: Page4D, plan: ExportPlan, folder: pathlib.Path) -> None:
    dtype = getattr(torch, plan.precision.tokens)
    constants = {}
    if plan.config.has_special_tokens:
        constants["special"] = model.special(plan.layout)
    if plan.config.has_memory:
        shape = plan.layout.memory_shape(plan.config.streams, *model.memory_tokens.shape)
        constants["memory"] = model.memory_tokens.expand(shape)
    if not constants:
        return
    # rounded to the engines' precision, kept as float32: every runtime can read that
    rounded = {name: np.ascontiguousarray(tensor.to(dtype).float().numpy()) for name, tensor in constants.items()}
    save_tensors(folder / CONSTANTS, rounded)


def write_golden(
    folder: pathlib.Path, manifest: Manifest, gate: Gate, clip_at: Callable[[Layout], SampleClip]
) -> Golden:
    """Write the clip and the reference's outputs for it; no outputs where a smaller layout was verified."""
    (folder / "golden").mkdir()
    inputs, outputs = "golden/inputs.safetensors", "golden/expected.safetensors"
    is_whole = gate.plan.layout == manifest.layout
    clip = gate.clip if is_whole else clip_at(manifest.layout)
    read = {name: np.ascontiguousarray(value) for name, value in clip.values.items() if manifest.reads(name)}
    save_tensors(folder / inputs, read)
    if not is_whole:
        return Golden(inputs, None, {})
    expected: dict[str, NDArray[np.float32]] = {}
    # another machine rounds in another order: its error is of the size of this machine's, not equal to it, and
    # landmarks that are swapped there are seen in all that follows
    allowed: dict[str, float] = {}
    ties = 0.0
    for name, stage in gate.stages.items():
        ties += stage.ties
        expected |= {f"{name}/{output}": sample for output, sample in stage.expected.items()}
        for output, accuracy in stage.chained.items():
            allowed[f"{name}/{output}"] = max(gate.tolerance, _GOLDEN_MARGIN * max(accuracy.relative_l2, ties))
    save_tensors(folder / outputs, expected)
    return Golden(inputs, outputs, allowed)


def _described(model: Page4D, plan: ExportPlan, stages: tuple[StageEntry, ...]) -> Manifest:
    """The plan's manifest with the stages that were written, and where their weights are from."""
    return msgspec.structs.replace(
        plan.manifest(model.weights), stages=stages, loaded=model.report, licence=model.licence
    )


def _verified(manifest: Manifest, gate: Gate) -> Manifest:
    """The manifest with the figures of the gate, and when and with what it was made."""
    stages = tuple(
        msgspec.structs.replace(entry, accuracy=gate.stages[entry.name].alone, ties=gate.stages[entry.name].ties)
        for entry in manifest.stages
    )
    results = _results(manifest, {name: stage.chained for name, stage in gate.stages.items()})
    return msgspec.structs.replace(
        manifest,
        stages=stages,
        verification=Verification(gate.plan.layout, gate.clip.described, gate.tolerance, results),
        made={
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}",
            **versions(),
        },
    )


def _priced(manifest: Manifest, plan: ExportPlan, gate: Gate, tolerance: float) -> Manifest:
    """The manifest with the price of sparse attention."""
    assert manifest.verification is not None
    results = _results(manifest, {name: stage.exact for name, stage in gate.stages.items()})
    verification = msgspec.structs.replace(manifest.verification, sparse=price_of(plan, results, tolerance))
    return msgspec.structs.replace(manifest, verification=verification)


def _results(manifest: Manifest, outputs: dict[str, dict[str, Accuracy]]) -> dict[str, Accuracy]:
    """Figures of the chain's results, from those of every stage's outputs."""
    results = {"mask": outputs["mask_head"]["mask"]} if manifest.makes("mask") else {}
    for kept in manifest.keep:
        for stage in kept.stages:
            result = f"layers.{kept.layer}" if len(kept.stages) == 1 else f"layers.{kept.layer}/{stage}"
            results[result] = outputs[stage]["tokens"]
    for entry in manifest.stages:
        for name in ("memory", *PREDICTIONS):
            if name in outputs[entry.name]:
                results[name] = outputs[entry.name][name]
    return results


def versions() -> dict[str, str]:
    """Versions of the packages that an export's bytes and figures depend on."""
    packages = {package: version(package) for package in ("torch", "onnx", "onnxscript")}
    return packages | {"onnxruntime": onnxruntime.__version__}  # which the package onnxruntime-gpu brings, too


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
