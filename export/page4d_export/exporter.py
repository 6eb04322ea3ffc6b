"""The export, start to end: stages to ONNX, verified, and the manifest last."""

from __future__ import annotations

import datetime
import pathlib
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version

import msgspec
import numpy as np
import onnxruntime
import torch

from page4d.errors import UsageError
from page4d.files import refuse_foreign, save_tensors, sha256, staged
from page4d.layout import Layout
from page4d.manifest import CONSTANTS, PREDICTIONS, Golden, Manifest, StageEntry, Verification
from page4d.manifest_file import ENGINE_FOLDER, write_manifest
from page4d.model import Page4D
from page4d.system.progress import SILENT, Progress
from page4d_engines.tensorrt.plans import PlansBuild
from page4d_export.export_plan import Plan
from page4d_export.onnx_export import OnnxExporter
from page4d_export.quantize.calibrate import Calibration, calibrate
from page4d_export.stage import stages_of
from page4d_export.verify import Frames, Verified, stand_in, verify

_GOLDEN_MARGIN = 4
_QUICK = (60.0, 20.0)  # seconds of a calibration that is too long, and of the one that stands in
"""Told what starts, and the share of the work that is done."""


def export(
    model: Page4D,
    plan: Plan,
    folder: pathlib.Path,
    frames: Callable[[Layout], Frames] = Frames.rendered,
    tolerance: float | None = None,
    progress: Callable[[str, float], None] = SILENT,
    plans: PlansBuild | None = None,
) -> Manifest:
    """Write an engine folder: whole, or not at all.

    Args:
        model: the reference, float32.
        plan: made from the model's config.
        folder: to be written; an engine folder there is replaced.
        frames: to verify on, at the plan's layout or, where that is too large for this machine, a smaller one.
        tolerance: of the relative L2 of every stage's outputs; None takes the precision's own.
        progress: called as the work goes on.
        plans: builds TensorRT plans of the verified stages; None: ONNX alone.

    Raises:
        UsageError: `folder` holds something that is not an engine folder, or the model's weights were not loaded to the
            end.
        AccuracyError: a stage departs from the reference, or a plan is not what was asked.
        EngineError, OutOfMemoryError: TensorRT builds no plan.
    """
    refuse_foreign(folder, ENGINE_FOLDER)
    if not model.complete:
        raise UsageError(
            "the model's weights are not complete", got=model.weights, hint="page4d.load, or page4d.load_weights again"
        )
    tolerance = plan.precision.tolerance if tolerance is None else tolerance
    layout = stand_in(plan)
    same = layout == plan.layout
    checked = plan if same else plan.at(layout)
    count = len(list(plan.stages()))
    work = count * (2 + (not same) + (plans is not None) + (plan.precision.is_quantised))
    done = 0

    def step(what: str) -> None:
        nonlocal done
        progress(what, done / work)
        done += 1

    with staged(folder, ENGINE_FOLDER) as staging:
        onnx = staging / "onnx"
        onnx.mkdir()
        used = frames(layout)
        calibration = Calibration()
        if plan.precision.is_quantised:
            calibration = calibrate(
                model, checked, used, tolerance, lambda stage: step(f"calibrating {stage}"), staging
            )
        _write_stages(model, plan, onnx, step, calibration)
        with tempfile.TemporaryDirectory(dir=staging, prefix=".verify-") as temporary:
            target = onnx
            if not same:
                target = pathlib.Path(temporary)
                _write_stages(model, checked, target, step, calibration)
            verified: dict[str, Verified] = {}
            names = [entry.name for entry in checked.stages()]
            step(f"verifying {names[0]}")
            for found, following in zip(
                verify(model, checked, target, used, tolerance), [*names[1:], "the files"], strict=True
            ):
                verified[found.stage] = found
                step(f"verifying {following}")
        _write_constants(model, plan, staging)
        manifest = _manifest(model, plan, checked, used, tolerance, verified, calibration)
        clip = used if same else frames(plan.layout)
        golden = _write_golden(staging, manifest, clip, verified if same else None, tolerance)
        manifest = msgspec.structs.replace(manifest, golden=golden)
        if plans is not None:
            built = plans.build(staging, manifest, staging, Progress(progress).part((work - count) / work, 1.0))
            manifest = msgspec.structs.replace(manifest, plans=built)
        manifest = msgspec.structs.replace(manifest, files=_hashes(staging))
        write_manifest(staging, manifest)
    return manifest


def _write_golden(
    folder: pathlib.Path,
    manifest: Manifest,
    frames: Frames,
    verified: dict[str, Verified] | None,
    tolerance: float,
) -> Golden:
    """The clip that was verified on and what the reference made of it; without the latter where the layout was too
    large."""
    (folder / "golden").mkdir()
    inputs, outputs = "golden/inputs.safetensors", "golden/expected.safetensors"
    given = {name: np.ascontiguousarray(value) for name, value in frames.values.items() if manifest.reads(name)}
    save_tensors(folder / inputs, given)
    if verified is None:
        return Golden(inputs, None, {})
    save_tensors(
        folder / outputs,
        {f"{stage}/{name}": sample for stage, found in verified.items() for name, sample in found.expected.items()},
    )
    # another machine rounds in another order: its error is of the size of the one found here, not equal to it, and
    # landmarks that are swapped there are seen in all that follows
    allowed: dict[str, float] = {}
    ties = 0.0
    for stage, found in verified.items():
        ties += found.ties
        for name, accuracy in found.chained.items():
            allowed[f"{stage}/{name}"] = max(tolerance, _GOLDEN_MARGIN * max(accuracy.relative_l2, ties))
    return Golden(inputs, outputs, allowed)


def _write_stages(
    model: Page4D, plan: Plan, folder: pathlib.Path, step: Callable[[str], None], calibration: Calibration
) -> None:
    exporter = OnnxExporter(folder, model.config.head_dim, plan.attention, calibration.traces)
    for stage in stages_of(model, plan).values():
        step(f"exporting {stage.name}")
        exporter.write(stage, calibration.change(stage.name))


def _write_constants(model: Page4D, plan: Plan, folder: pathlib.Path) -> None:
    dtype = getattr(torch, plan.precision.tokens)
    constants = {"special": model.special(plan.layout)}
    if plan.config.has_memory:
        shape = plan.layout.memory_shape(plan.config.streams, *model.memory_tokens.shape)
        constants["memory"] = model.memory_tokens.expand(shape)
    # rounded to the engines' precision, kept as float32: every runtime can read that
    rounded = {name: np.ascontiguousarray(tensor.to(dtype).float().numpy()) for name, tensor in constants.items()}
    save_tensors(folder / CONSTANTS, rounded)


def write_unverified(model: Page4D, plan: Plan, folder: pathlib.Path) -> Manifest:
    """An engine folder without figures, into an existing folder: for benchmarks, which hold the chain against the
    reference anyway.

    Activations are measured at a layout that takes seconds: what they are serves other layouts.
    """
    (folder / "onnx").mkdir()
    calibration = Calibration()
    if plan.precision.is_quantised:
        layout = stand_in(plan, *_QUICK)
        calibration = calibrate(model, plan.at(layout), Frames.rendered(layout), plan.precision.tolerance)
    _write_stages(model, plan, folder / "onnx", lambda what: None, calibration)
    _write_constants(model, plan, folder)
    manifest = msgspec.structs.replace(_described(model, plan, calibration), files=_hashes(folder))
    write_manifest(folder, manifest)
    return manifest


def _described(model: Page4D, plan: Plan, calibration: Calibration) -> Manifest:
    """The plan's manifest with what the model knows of its weights."""
    eps = {name: stage.eps for name, stage in stages_of(model, plan).items()}
    stages = tuple(
        msgspec.structs.replace(
            entry, file=_file(entry), eps=eps[entry.name], floating=calibration.floating(entry.name)
        )
        for entry in plan.stages()
    )
    return msgspec.structs.replace(plan.manifest(model.weights), stages=stages, loaded=model.report)


def versions() -> dict[str, str]:
    """Of the packages that an export's bytes and figures depend on."""
    found = {package: version(package) for package in ("torch", "onnx", "onnxscript")}
    return found | {"onnxruntime": onnxruntime.__version__}  # which the package onnxruntime-gpu brings, too


def _file(entry: StageEntry) -> str:
    return f"onnx/{entry.name}.onnx"


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _manifest(
    model: Page4D,
    plan: Plan,
    checked: Plan,
    frames: Frames,
    tolerance: float,
    verified: dict[str, Verified],
    calibration: Calibration,
) -> Manifest:
    manifest = _described(model, plan, calibration)
    stages = tuple(
        msgspec.structs.replace(entry, accuracy=verified[entry.name].alone, ties=verified[entry.name].ties)
        for entry in manifest.stages
    )
    chained = {stage: found.chained for stage, found in verified.items()}
    results = {"mask": chained["mask_head"]["mask"]} if manifest.makes("mask") else {}
    for kept in manifest.keep:
        for stage in kept.stages:
            results[f"layers.{kept.layer}" if len(kept.stages) == 1 else f"layers.{kept.layer}/{stage}"] = chained[
                stage
            ]["tokens"]
    for entry in stages:
        for name in ("memory", *PREDICTIONS):
            if name in chained[entry.name]:
                results[name] = chained[entry.name][name]
    return msgspec.structs.replace(
        manifest,
        stages=stages,
        verification=Verification(checked.layout, frames.described, tolerance, results),
        made={
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}",
            **versions(),
        },
    )
