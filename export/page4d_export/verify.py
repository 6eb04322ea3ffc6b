"""Every exported stage is run in ONNX Runtime and held against the reference model, on frames."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from page4d.accuracy import compare, sampled
from page4d.cameras import fundamental
from page4d.config import GlobalStrategy
from page4d.errors import AccuracyError
from page4d.layout import Layout
from page4d.manifest import Accuracy, KeptLayer, StageEntry
from page4d.model import Page4D, side_by_side
from page4d.precision import Precision
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.export_plan import Plan
from page4d_export.sample_scene.clip import render
from page4d_export.stage import Stage, stages_of

# the reference runs once, an engine twice: on the reference's inputs, and on what the engines before it made
RUNS = 3
TOO_LONG = 600.0  # seconds of verification above which a smaller layout stands in
STAND_IN = 200.0  # seconds that the smaller layout may take

# A token's norm is off by a tenth or less of what its stage's outputs may be off by: measured are 2e-7, 4e-4, 3e-3 in
# float32, float16, bfloat16
DOUBT = 0.1

Values = dict[str, NDArray[np.generic]]
Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Frames:
    """Inputs of a clip for verification: what a pipeline is given, by name."""

    values: Values
    described: str

    @classmethod
    def rendered(cls, layout: Layout) -> Frames:
        """The rendered clip: frames, true masks, cameras; the frames' brightness stands in for keypoints."""
        side = max(layout.H, layout.W)
        scale = max(1, round(side / 256))  # rendered smaller and fitted like any other clip
        size = (max(layout.W // scale, 1), max(layout.H // scale, 1))
        fit = Fit.choose(size, layout, FitMode.STRETCH)
        clips = [render(layout.T, layout.V, *size, seed=seed) for seed in range(layout.B)]
        pairs = [
            (frame, mask)
            for clip in clips
            for frame, mask in zip(
                clip.frames.reshape(-1, *clip.frames.shape[2:]),
                clip.masks.reshape(-1, *clip.masks.shape[2:]),
                strict=True,
            )
        ]
        images = np.stack([fit.image(Image.fromarray(frame)) for frame, _ in pairs]).reshape(layout.images_shape)
        maps = [
            np.stack(means).reshape(layout.patch_map_shape)
            for means in zip(
                *((fit.patch_mean(mask), fit.patch_mean(frame.mean(-1).astype(np.uint8))) for frame, mask in pairs),
                strict=True,
            )
        ]
        rig = [fit.camera(camera) for camera in clips[0].cameras.values()]
        values: Values = {
            "images": images,
            "mask_ext": maps[0],
            "keypoints": maps[1],
            "fundamental": fundamental(rig).astype(np.float32),
        }
        return cls(values, "a rendered clip")

    @classmethod
    def read(cls, folder: FrameFolder, layout: Layout) -> Frames:
        """A clip's first times and views, as many as the layout has, with its masks, keypoints and cameras where it has
        them."""
        whole = dataclasses.replace(layout, V=len(folder.camera_names))
        reader = WindowReader(
            folder, whole, FitMode.STRETCH, folder.keypoint_files is not None, folder.cameras is not None
        )
        with contextlib.closing(reader.read(windows(folder.count, layout.T, layout.T)[:1])) as read:
            _, inputs = next(read)
        images = inputs.images[:, : layout.V]
        brightness = (
            images.reshape(layout.images, layout.h, layout.PATCH, layout.w, layout.PATCH, 3).mean((2, 4, 5)) / 255
        )
        keypoints = (
            brightness.reshape(layout.patch_map_shape).astype(np.float32)
            if inputs.keypoints is None
            else inputs.keypoints[:, : layout.V]
        )
        values: Values = {"images": images, "mask_ext": inputs.mask_ext[:, : layout.V], "keypoints": keypoints}
        if inputs.fundamental is not None:
            values["fundamental"] = inputs.fundamental[: layout.V, : layout.V]
        return cls(values, folder.path.name)


@dataclass(frozen=True)
class Verified:
    """Accuracy of one stage: alone, and at the end of the engines' own chain."""

    stage: str
    alone: dict[str, Accuracy]
    chained: dict[str, Accuracy]
    expected: dict[str, NDArray[np.float32]]
    """A sample of the reference's outputs."""
    ties: float
    """As in the manifest's entry."""


def verify(model: Page4D, plan: Plan, folder: pathlib.Path, frames: Frames, tolerance: float) -> Iterator[Verified]:
    """Run the plan's exported stages, `<folder>/<stage>.onnx`, beside the reference, one after the other.

    16-bit engines are run with every result rounded as their graph types it. Yields a stage's figures before the next
    one starts.

    Where landmarks are chosen by their tokens' norms, two that differ by less than rounding may change places, and no
    engine is wrong for it: a stage may be off by what that costs, too.

    Raises:
        AccuracyError: an output's relative L2 error is above what is allowed, or holds NaN or infinity.
    """
    reference, chained = (start(model, plan, frames) for _ in range(2))
    exact = stages_of(
        model, Plan.make(plan.config, plan.layout, Precision.FLOAT32, plan.keypoints, plan.encoder_images)
    )
    for entry in plan.stages():
        engine = OrtEngine(folder / f"{entry.name}.onnx", rounding=plan.precision.has_16_bits)
        inputs = {spec.name: reference[spec.name] for spec in entry.inputs}
        alone = run_engine(engine, entry, inputs)
        chained |= run_engine(engine, entry, {spec.name: chained[spec.name] for spec in entry.inputs})
        reference |= _run_reference(exact[entry.name], inputs)
        entry = msgspec.structs.replace(entry, ties=_ties(exact[entry.name], plan, inputs, reference))
        allowed = entry.allowed(tolerance)
        for kept in plan.gathered():
            if entry.name in kept.stages:
                gather(kept, entry.name, reference)
                gather(kept, entry.name, chained)
        found = {spec.name: compare(alone[spec.name], reference[spec.name]) for spec in entry.outputs}
        for output, accuracy in found.items():
            if not accuracy.relative_l2 <= allowed or accuracy.nans:
                raise AccuracyError(
                    f"stage {entry.name} departs from the reference in its output {output!r}",
                    got=(
                        f"relative L2 {accuracy.relative_l2:.2e}, cosine {accuracy.cosine:.6f}, largest difference"
                        f" {accuracy.max_abs:.2e}, {accuracy.nans} NaN"
                    ),
                    allowed=f"relative L2 up to {allowed:.0e} in {plan.precision}, no NaN",
                    hint="another precision (--bf16, or float32 without a flag), or --tolerance if you know why",
                )
        in_chain = {spec.name: compare(chained[spec.name], reference[spec.name]) for spec in entry.outputs}
        yield Verified(
            entry.name,
            found,
            in_chain,
            {spec.name: sampled(reference[spec.name]) for spec in entry.outputs},
            entry.ties,
        )


def stand_in(plan: Plan, too_long: float = TOO_LONG, budget: float = STAND_IN) -> Layout:
    """The layout to verify at: the plan's own, or where that would take over ten minutes here, the largest that takes a
    few.

    Args:
        plan: of the engines.
        too_long: seconds above which a smaller layout stands in.
        budget: seconds that the smaller one may take.
    """
    rate = matmul_rate() * 0.6  # attention, norms and copies run slower than the matrix product
    seconds = lambda layout: RUNS * sum(entry.flop * entry.calls for entry in plan.at(layout).stages()) / rate
    if seconds(plan.layout) <= too_long:
        return plan.layout
    fitting = []
    for share in (1.0, 0.75, 0.5, 0.375, 0.25, 0.125):
        sides = [
            max(Layout.PATCH, round(side * share / Layout.PATCH) * Layout.PATCH)
            for side in (plan.layout.H, plan.layout.W)
        ]
        for times in range(min(2, plan.layout.T), plan.layout.T + 1):
            for views in range(min(2, plan.layout.V), plan.layout.V + 1):
                layout = Layout(times, views, *sides)
                fitting.append((seconds(layout), layout))
        # the largest images that leave room for several times and views, and then as many of these as there is time for
        if any(taken <= budget for taken, _ in fitting):
            break
    return max(
        (pair for pair in fitting if pair[0] <= budget),
        key=lambda pair: pair[0],
        default=min(fitting, key=lambda pair: pair[0]),
    )[1]


def matmul_rate() -> float:
    """FLOP per second of a float32 matrix product here."""
    size = 1024
    a = torch.rand(size, size)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def start(model: Page4D, plan: Plan, frames: Frames) -> Values:
    """What a chain begins with: the frames, and the model's constants."""
    values = dict(frames.values)
    values["special"] = model.special(plan.layout).numpy()
    if plan.config.has_memory:
        tokens = model.memory_tokens
        shape = plan.layout.memory_shape(plan.config.streams, *tokens.shape)
        values["memory"] = tokens.expand(shape).numpy()
    return values


def gather(kept: KeptLayer, stage: str, values: Values) -> None:
    """Put a stage's tokens aside; the kept layer, once all of its stages have run."""
    values[f"{stage}/tokens"] = values["tokens"]
    if all(f"{name}/tokens" in values for name in kept.stages):
        parts = [torch.from_numpy(values.pop(f"{name}/tokens")) for name in kept.stages]
        values[f"layers.{kept.layer}"] = side_by_side(parts, kept.streams).numpy()


def _ties(stage: Stage, plan: Plan, inputs: Values, outputs: Values) -> float:
    """What it costs that landmarks of equal confidence, but for rounding, are chosen the other way round: relative
    L2."""
    if stage.entry.kind != "global_sa" or plan.config.global_strategy is not GlobalStrategy.LANDMARK or plan.keypoints:
        return 0.0  # keypoints are the same numbers everywhere
    other = _run_reference(
        stage, inputs, doubt=DOUBT * Precision(plan.precision.tokens).tolerance
    )  # however products were quantised
    return max(compare(other[spec.name], outputs[spec.name]).relative_l2 for spec in stage.outputs)


def _run_reference(stage: Stage, values: Values, **options: float) -> Values:
    entry, module = stage.entry, stage.module
    results: list[tuple[Tensor, ...]] = []
    with torch.inference_mode():
        for number in range(entry.calls):
            given = [
                torch.from_numpy(np.ascontiguousarray(_chunk(values[spec.name], spec.shape, number)))
                for spec in entry.inputs
            ]
            result = module(*given, **options)
            results.append(result if isinstance(result, tuple) else (result,))
    return {
        spec.name: torch.cat([result[index] for result in results]).numpy() for index, spec in enumerate(entry.outputs)
    }


def run_engine(
    engine: OrtEngine,
    entry: StageEntry,
    values: Values,
    more: Mapping[str, tuple[int, ...]] = {},
    take: Callable[[Arrays], None] = lambda call: None,
) -> Values:
    """All calls of a stage: its outputs, float32, by name.

    Args:
        engine: of the stage.
        entry: the stage's.
        values: its inputs by name, of all calls; what the entry types in 16 bits is rounded to them.
        more: shapes of what else the engine gives out.
        take: given that after each call, in arrays that the next call fills.
    """
    outputs = {
        spec.name: np.empty((entry.calls * spec.shape[0], *spec.shape[1:]), np.float32) for spec in entry.outputs
    }
    besides = {name: np.empty(shape, np.float32) for name, shape in more.items()}
    for number in range(entry.calls):
        given = {
            spec.binding: _rounded(_chunk(values[spec.name], spec.shape, number), spec.dtype) for spec in entry.inputs
        }
        engine.bind(
            given, {spec.binding: _chunk(outputs[spec.name], spec.shape, number) for spec in entry.outputs} | besides
        )()
        take(besides)
    return dict(outputs.items())


def _chunk(array: NDArray[np.generic], shape: tuple[int, ...], number: int) -> NDArray[np.generic]:
    """The number-th call's part of a tensor, in the stage's shape."""
    size = math.prod(shape)
    return array.reshape(-1)[number * size : (number + 1) * size].reshape(shape)


def _rounded(array: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    if dtype in ("float16", "bfloat16"):
        return torch.from_numpy(np.ascontiguousarray(array)).to(getattr(torch, dtype)).float().numpy()
    return np.ascontiguousarray(array)
