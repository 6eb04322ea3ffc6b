"""The two ways through the whole network that all chain benchmarks compare: the engines, and the model in PyTorch."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from page4d.config import Head
from page4d.manifest import PREDICTIONS
from page4d.model import Page4D
from page4d.network.aggregator import Layer
from page4d.precision import Precision
from page4d_engines.pipeline import Pipeline, Result
from page4d_export.stage import cast
from page4d_plugins.bench.timing import WHOLE, Sample

Arrays = dict[str, NDArray[Any]]
_PARTS = ("mask_head", *Head)


@dataclass(frozen=True)
class Engines:
    """An engine folder's chain on one clip: frames on the host in, results on the host out."""

    pipeline: Pipeline
    values: Arrays

    def run(self) -> Arrays:
        """The results by name."""
        return self._run().tensors()

    def _run(self) -> Result:
        reads = self.pipeline.manifest.reads
        mask_ext, keypoints, fundamental, cameras = (
            self.values[name] if reads(name) else None for name in ("mask_ext", "keypoints", "fundamental", "cameras")
        )
        calibration = fundamental if cameras is None else cameras
        return self.pipeline.run(self.values["images"], mask_ext=mask_ext, keypoints=keypoints, cameras=calibration)

    def sample(self) -> Sample:
        """Run once; seconds of the whole and by kind of stage."""
        seconds: dict[str, float] = defaultdict(float)
        started = time.perf_counter()
        timing = self._run().timing
        seconds[WHOLE] = time.perf_counter() - started
        for entry in self.pipeline.manifest.stages:
            seconds[entry.kind] += timing.seconds[entry.name]
        return seconds


class Eager:
    """The model in PyTorch on one clip, with its parts timed: on a GPU by events, elsewhere by the wall clock."""

    def __init__(self, model: Page4D, precision: Precision, device: str) -> None:
        """Prepare the model.

        Args:
            model: the reference, float32.
            precision: of weights and tokens; int8 is float32 here, fp8 is float16.
            device: as PyTorch names it.
        """
        if precision.has_16_bits or device != "cpu":
            model = copy.deepcopy(model)
            cast(model, precision).to(device)
        self._device, self._model = device, model
        self._events: list[tuple[str, Any, Any]] = []
        layers = [child for child in model.modules() if isinstance(child, Layer)]
        parts: list[tuple[str, Any]] = [(kind, getattr(model, kind)) for kind in _PARTS]
        parts += [(kind, getattr(layer, kind)) for layer in layers for kind in ("view_sa", "time_sa", "global_sa")]
        encoder = model.encoder
        self._compiled = [module for _, module in parts if module is not None] + list(encoder.blocks)
        # the model calls the encoder in several ways, and its parts always in the same order
        spans = [(kind, module, module) for kind, module in parts if module is not None]
        spans.append(("encoder", encoder.patch_embed, encoder.norm or encoder.blocks[-1]))
        self._hooks = []
        for kind, first, last in spans:
            self._hooks += [
                first.register_forward_pre_hook(lambda *_: self._begin()),
                last.register_forward_hook(lambda *_, kind=kind: self._end(kind)),
            ]

    def compile(self) -> None:
        """Compile every block; parts are no longer timed."""
        for hook in self._hooks:
            hook.remove()
        for module in self._compiled:
            module.compile()

    def run(self, values: Arrays) -> Arrays:
        """From frames on the host to results on the host: mask, kept layers and predictions, in float32."""
        self._events.clear()
        with torch.inference_mode():
            mask_ext = torch.from_numpy(values["mask_ext"]) if self._model.config.takes_mask else None
            out = self._model(torch.from_numpy(values["images"]).to(self._device), mask_ext)
            results = {f"layers.{number}": layer.cpu().float().numpy() for number, layer in out.layers.items()}
            maps = {name: getattr(out, name) for name in ("mask", *PREDICTIONS)}
            return results | {name: tensor.float().cpu().numpy() for name, tensor in maps.items() if tensor is not None}

    def sample(self, values: Arrays) -> Sample:
        """Run once; seconds of the whole and by kind of stage."""
        self._synchronize()
        seconds: dict[str, float] = defaultdict(float)
        started = time.perf_counter()
        self.run(values)
        seconds[WHOLE] = time.perf_counter() - started
        self._synchronize()
        for kind, begin, end in self._events:
            seconds[kind] += begin.elapsed_time(end) / 1e3 if self._device == "cuda" else end - begin
        return seconds

    def _synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _begin(self) -> None:
        self._started = self._now()

    def _end(self, kind: str) -> None:
        self._events.append((kind, self._started, self._now()))

    def _now(self) -> Any:
        if self._device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
