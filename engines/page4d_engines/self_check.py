"""An engine folder checks itself on this machine: its golden clip runs, and outputs are compared with expected ones."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.accuracy import SAMPLES, compare, sampled
from page4d.errors import AccuracyError, EngineError
from page4d.manifest import Accuracy, Golden, Manifest, StageEntry
from page4d.published import QUATERNION_NUMBERS
from page4d.system.progress import SILENT, Progress
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.pipeline import Pipeline
from page4d_engines.runtime.chain import Arrays
from page4d_engines.runtime.constants import read_tensors
from page4d_engines.timing import Stopwatch


class Row(msgspec.Struct, frozen=True):
    """One output of one stage."""

    stage: str
    output: str
    accuracy: Accuracy
    allowed: float
    """Relative L2."""

    @property
    def passed(self) -> bool:
        """Whether the output is as it should be."""
        return self.accuracy.nans == 0 and self.accuracy.relative_l2 <= self.allowed


class SelfCheck(msgspec.Struct, frozen=True):
    """The results of a check."""

    backend: str
    described: str
    """The library and device that computed."""
    seconds: float
    chain: list[Row]
    """Compared with the reference, after the chain up to there; empty where the folder has no reference values."""
    alone: list[Row]
    """Compared with ONNX Runtime in float32 on the same inputs; empty without a bisection."""

    def first(self) -> Row | None:
        """The first stage that departs: by itself where that was looked at, else in the chain."""
        return next((row for row in (*self.alone, *self.chain) if not row.passed), None)

    def require(self) -> None:
        """Raise unless everything passed.

        Raises:
            AccuracyError: naming the first stage that departs.
        """
        row = self.first()
        if row is None:
            return
        what = "by itself" if row in self.alone else "in the chain"
        error = row.accuracy
        raise AccuracyError(
            f"{row.stage} departs {what} in its output {row.output!r}, on {self.described}",
            got=f"relative L2 {error.relative_l2:.2e}, cosine {error.cosine:.6f}, {error.nans} not finite",
            allowed=f"{row.allowed:.0e}",
            hint=None if self.alone else "--bisect, to compare every stage by itself with ONNX Runtime",
        )


def self_check(
    folder: EngineFolder, pipeline: Pipeline, bisect: bool = False, progress: Progress = SILENT
) -> SelfCheck:
    """Run the golden clip.

    Args:
        folder: that the pipeline was loaded from.
        pipeline: on the backend to be checked.
        bisect: also compare every stage by itself with ONNX Runtime, on the inputs that it had.
        progress: steps before each stage's call.

    Raises:
        EngineError: the folder has no golden clip, or, without `bisect`, no reference values; or they are not of these
            engines.
    """
    manifest, golden = folder.manifest, folder.manifest.golden
    if golden is None:
        raise EngineError("the engine folder has no golden clip", got=folder.path, hint="page4d-export again")
    if golden.expected is None and not bisect:
        why = "its layout was too large for the reference on the machine that exported it"
        raise EngineError(
            f"the engine folder has no reference values: {why}",
            got=folder.path,
            hint="--bisect, against ONNX Runtime here",
        )
    expected = {} if golden.expected is None else read_tensors(folder, golden.expected, _samples(manifest))
    chain: list[Row] = []
    alone: list[Row] = []
    calls = sum(entry.calls for entry in manifest.stages)
    stages = progress.part(0.0, 1.0, calls, f"{pipeline.backend}: ")

    def observe(entry: StageEntry, inputs: Arrays, outputs: Arrays) -> None:
        chain.extend(_in_chain(golden, entry, outputs, expected))
        if bisect:
            alone.extend(_alone(folder, entry, inputs, outputs))

    clip = read_tensors(folder, golden.inputs, _values(manifest))
    clock = Stopwatch()
    pipeline.run(
        clip["images"],
        mask_ext=clip.get("mask_ext"),
        keypoints=clip.get("keypoints"),
        cameras=clip.get("cameras", clip.get("fundamental")),
        present=clip.get("present"),
        progress=stages.step,
        observe=observe,
    )
    return SelfCheck(str(pipeline.backend), pipeline.described, clock.seconds, chain, alone)


def _samples(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every output's sample."""
    sizes = {
        f"{entry.name}/{spec.name}": entry.calls * math.prod(spec.shape)
        for entry in manifest.stages
        for spec in entry.outputs
    }
    return {name: ((min(size, SAMPLES),), "float32") for name, size in sizes.items()}


def _values(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of what the golden clip gives the engines."""
    layout = manifest.layout
    values = {
        "images": (layout.images_shape, "uint8"),
        "mask_ext": (layout.patch_map_shape, "float32"),
        "keypoints": (layout.patch_map_shape, "float32"),
        "fundamental": (layout.fundamental_shape, "float32"),
        "cameras": ((layout.V, QUATERNION_NUMBERS), "float32"),
        "present": (layout.image_map_shape, "uint8"),
    }
    return {name: value for name, value in values.items() if manifest.reads(name)}


def _in_chain(golden: Golden, entry: StageEntry, outputs: Arrays, expected: dict[str, NDArray[Any]]) -> list[Row]:
    """The stage's outputs compared with the reference's, where the folder has these."""
    rows = []
    for spec in entry.outputs:
        key = f"{entry.name}/{spec.name}"
        if key in expected:
            accuracy = compare(sampled(outputs[spec.name]), expected[key], spec.name)
            rows.append(Row(entry.name, spec.name, accuracy, golden.tolerance[key]))
    return rows


def _alone(folder: EngineFolder, entry: StageEntry, inputs: Arrays, outputs: Arrays) -> list[Row]:
    """The stage's outputs compared with those of ONNX Runtime on the CPU, in float32, on the same inputs."""
    engine = OrtEngine.of_stage(folder, entry)
    computed = {spec.name: np.empty(outputs[spec.name].shape, np.float32) for spec in entry.outputs}
    wide = {
        name: array if array.dtype == np.uint8 else np.ascontiguousarray(array.astype(np.float32))
        for name, array in inputs.items()
    }
    for number in range(entry.calls):
        call = engine.bind(
            {spec.binding: _part(wide[spec.name], number, entry.calls) for spec in entry.inputs},
            {spec.binding: _part(computed[spec.name], number, entry.calls) for spec in entry.outputs},
        )
        call()
    allowed = entry.allowed(folder.manifest.precision.tolerance)
    return [
        Row(
            entry.name,
            spec.name,
            compare(outputs[spec.name].astype(np.float32), computed[spec.name], spec.name),
            allowed,
        )
        for spec in entry.outputs
    ]


def _part(array: NDArray[Any], number: int, count: int) -> NDArray[Any]:
    """The number-th of `count` equal parts along the first axis."""
    return array[number * len(array) // count : (number + 1) * len(array) // count]
