"""One stage after the other, in PyTorch or in ONNX Runtime: what verification and calibration have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from page4d.manifest import StageEntry
from page4d.model import Page4D, side_by_side
from page4d.network.presence import first_present
from page4d.network.reference_view import balanced_view
from page4d.precision import Precision
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip, Values
from page4d_export.stage import stages_of

Arrays = dict[str, NDArray[np.float32]]


class StageChain:
    """The tensors of one window by name, as its stages read and write them in turn."""

    def __init__(self, model: Page4D, plan: ExportPlan, clip: SampleClip) -> None:
        self._values = dict(clip.values)
        self._model, self._layout = model, plan.layout
        self._present = self._presence(clip) if plan.absent_views else None
        if plan.config.has_special_tokens:
            # where the reference view is chosen, it gets its tokens after the encoder
            is_chosen = plan.config.chooses_reference and plan.layout.V > 2
            first = None if self._present is None or is_chosen else first_present(self._present).numpy()
            self._values["special"] = model.special(plan.layout, first).numpy()
        if plan.config.has_memory:
            tokens = model.memory_tokens
            shape = plan.layout.memory_shape(plan.config.streams, *tokens.shape)
            self._values["memory"] = tokens.expand(shape).numpy()
        self._gathered = plan.gathered()
        self._kept: dict[str, NDArray[np.generic]] = {}  # tokens by stage, until their kept layer is whole

    def _presence(self, clip: SampleClip) -> Tensor:
        """Which images are there, bool `[B,T,V]`."""
        layout = self._layout
        return torch.from_numpy(clip.values["present"]).reshape(layout.B, layout.T, layout.V).bool()

    def inputs(self, entry: StageEntry) -> Values:
        """The tensors that a stage reads, of all its calls."""
        return {spec.name: self._values[spec.name] for spec in entry.inputs}

    def store(self, entry: StageEntry, outputs: Values) -> Values:
        """Take a stage's outputs, for later stages to read; returns them."""
        self._values |= outputs
        if "select" in outputs:
            self._values["tokens"] = self._with_reference(outputs)
        for layer in self._gathered:
            if entry.name not in layer.stages:
                continue
            self._kept[entry.name] = outputs["tokens"]
            if all(stage in self._kept for stage in layer.stages):
                parts = [torch.from_numpy(self._kept.pop(stage)) for stage in layer.stages]
                self._values[f"layers.{layer.layer}"] = side_by_side(parts, layer.streams).numpy()
        return outputs

    def _with_reference(self, encoded: Values) -> NDArray[np.generic]:
        """The encoder's tokens with the special tokens of each clip's reference view: what the runtime does between
        this stage and the next."""
        layout, tokens = self._layout, encoded["tokens"].copy()
        present = None if self._present is None else self._present.flatten(1).numpy()
        reference = balanced_view(encoded["select"].reshape(layout.B, layout.V, -1).astype(np.float64), present)
        tokens[:, : layout.special] = self._model.special(layout, reference).numpy()
        return tokens


class ReferenceChain(StageChain):
    """The model's stages in float32 PyTorch."""

    def __init__(self, model: Page4D, plan: ExportPlan, clip: SampleClip) -> None:
        super().__init__(model, plan, clip)
        self._stages = stages_of(model, plan.in_precision(Precision.FLOAT32))

    def run(self, entry: StageEntry) -> Values:
        """Run the next stage; its outputs."""
        return self.store(entry, self.outputs(entry, self.inputs(entry)))

    def outputs(self, entry: StageEntry, inputs: Values, **options: float) -> Values:
        """The reference's outputs for a stage's inputs, without storing them; `options` are the part's own."""
        module = self._stages[entry.name].module
        results: list[tuple[Tensor, ...]] = []
        with torch.inference_mode():
            for call in range(entry.calls):
                arrays = [_call_part(inputs[spec.name], spec.shape, call) for spec in entry.inputs]
                result = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays), **options)
                results.append(result if isinstance(result, tuple) else (result,))
        outputs = [torch.cat(parts).numpy() for parts in zip(*results, strict=True)]
        return {spec.name: output for spec, output in zip(entry.outputs, outputs, strict=True)}


def run_engine(
    engine: OrtEngine,
    entry: StageEntry,
    inputs: Values,
    more: Mapping[str, tuple[int, ...]] = {},
    take: Callable[[Arrays], None] = lambda call: None,
) -> Values:
    """All calls of a stage: its outputs, float32, by name.

    Args:
        engine: of the stage.
        entry: the stage's.
        inputs: by name, of all calls; what the entry types in 16 bits is rounded to them.
        more: shapes of what else the engine gives out.
        take: called with that after each call, in arrays that the next call fills.
    """
    outputs: Values = {
        spec.name: np.empty((entry.calls * spec.shape[0], *spec.shape[1:]), np.float32) for spec in entry.outputs
    }
    more_outputs = {name: np.empty(shape, np.float32) for name, shape in more.items()}
    for call in range(entry.calls):
        reads = {
            spec.binding: _rounded(_call_part(inputs[spec.name], spec.shape, call), spec.dtype) for spec in entry.inputs
        }
        writes = {spec.binding: _call_part(outputs[spec.name], spec.shape, call) for spec in entry.outputs}
        engine.bind(reads, writes | more_outputs)()
        take(more_outputs)
    return outputs


def _call_part(array: NDArray[np.generic], shape: tuple[int, ...], call: int) -> NDArray[np.generic]:
    """One call's part of a tensor of all calls, in the stage's shape."""
    size = math.prod(shape)
    return array.reshape(-1)[call * size : (call + 1) * size].reshape(shape)


def _rounded(array: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    if dtype in ("float16", "bfloat16"):
        return torch.from_numpy(np.ascontiguousarray(array)).to(getattr(torch, dtype)).float().numpy()
    return np.ascontiguousarray(array)
