"""`Ensemble`: every model of the repository, and how tensors go from one to the next."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from page4d.manifest import PREDICTIONS, KeptLayer, Manifest, TensorSpec
from page4d.precision import DTYPE_BYTES
from page4d_engines.runtime.buffer_plan import result_shape
from page4d_engines.triton_server.config import Config, Place, Platform, Port, Step
from page4d_engines.triton_server.glue import constants_model, layers_model

NAME = "page4d"
OUT = "_out"
"""The suffix of an output that would otherwise have the name of an input, as inside the engines."""
_CONSTANTS = "constants"


@dataclass(frozen=True)
class Ensemble:
    """The models of an engine folder.

    Attributes:
        config: of the ensemble itself, whose inputs and outputs are the user's.
        stages: the stages' configurations, by stage name.
        glue: the models between them, each with its configuration.
        bytes: of the tensors between models, where most of them are alive.
    """

    config: Config
    stages: Mapping[str, Config]
    glue: tuple[tuple[Config, onnx.ModelProto], ...]
    bytes: int

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        constants: Mapping[str, NDArray[np.float32]],
        platform: Platform,
        memory_input: bool = False,
    ) -> Ensemble:
        """Wire a manifest's stages; each is called once.

        Args:
            manifest: of the engine folder.
            constants: inputs of stages that are no inputs of the ensemble, by name; without `memory` where it is one.
            platform: of the stages.
            memory_input: whether the first memory comes from the user; the last then leaves as `memory_out`.
        """
        return _Wiring(manifest, constants, platform, memory_input).ensemble()


class _Wiring:
    """The tensors and calls so far, on the way from the first stage to the last."""

    def __init__(
        self, manifest: Manifest, constants: Mapping[str, NDArray[np.float32]], platform: Platform, memory_input: bool
    ) -> None:
        self.manifest, self.constants, self.platform = manifest, constants, platform
        self.inputs: dict[str, Port] = {}
        self.now: dict[str, Port] = {}  # by the manifest's name the ensemble's tensor that has its value
        self.written: dict[str, Port] = {}  # every tensor, by the ensemble's name
        self.outputs: dict[str, str] = {}  # result -> the ensemble's name of it
        self.steps: list[Step] = []
        self.last = {spec.name: entry.name for entry in manifest.stages for spec in entry.outputs}
        self.results = {
            name: name + OUT * (name == "memory" and memory_input)
            for name in ("mask", "memory", *PREDICTIONS)
            if name in self.last
        }

    def ensemble(self) -> Ensemble:
        manifest = self.manifest
        place = Place.GPU if self.platform is Platform.PLAN else Place.AUTO
        stages: dict[str, Config] = {}
        tokens: dict[str, Port] = {}
        glue = [self.constant()] if self.constants else []
        waiting = list(manifest.keep)
        for entry in manifest.stages:
            stages[entry.name] = self.model(entry.name, self.platform, entry.inputs, entry.outputs, place)
            if any(spec.name == "tokens" for spec in entry.outputs):
                tokens[entry.name] = self.now["tokens"]
            for kept in [kept for kept in waiting if all(stage in tokens for stage in kept.stages)]:
                glue.append(self.layer(kept, [tokens[stage] for stage in kept.stages], place))
                waiting.remove(kept)
        layers = [f"layers.{kept.layer}" for kept in manifest.keep]
        first = [name for name in self.results if name == "mask"]
        order = [*first, *layers, *(name for name in self.results if name != "mask")]
        ports = [self.written[self.results.get(name, name)] for name in order]
        config = Config(NAME, Platform.ENSEMBLE, tuple(self.inputs.values()), tuple(ports), steps=tuple(self.steps))
        return Ensemble(config, stages, tuple(glue), self.peak({port.name for port in ports}))

    def constant(self) -> tuple[Config, onnx.ModelProto]:
        """The model of the constants; on the CPU, where the images are that it is called with."""
        specs = {
            name: TensorSpec(name, array.shape, self.manifest.spec(name).dtype)
            for name, array in self.constants.items()
            if self.manifest.reads(name)
        }
        images = TensorSpec("images", self.manifest.layout.images_shape, "uint8")
        config = self.model(_CONSTANTS, Platform.ONNX, [images], list(specs.values()), Place.CPU)
        return config, constants_model(images, specs, self.constants)

    def layer(self, kept: KeptLayer, tokens: Sequence[Port], place: Place) -> tuple[Config, onnx.ModelProto]:
        """The model of a kept layer; its inputs are the tokens of the kept stages, `tokens.<part>`."""
        parts = [TensorSpec(f"tokens.{number}", port.dims, port.dtype) for number, port in enumerate(tokens)]
        channels = kept.streams * len(parts) * parts[0].shape[-1]
        layer = TensorSpec(f"layers.{kept.layer}", self.manifest.layout.layer_shape(channels), parts[0].dtype)
        self.now |= {part.name: port for part, port in zip(parts, tokens, strict=True)}
        config = self.model(layer.name, Platform.ONNX, parts, [layer], place)
        return config, layers_model(parts, layer, kept.streams)

    def model(
        self, name: str, platform: Platform, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], place: Place
    ) -> Config:
        """Add a model's call: it reads the present values of its inputs' names, and writes those of its outputs'."""
        read = {spec.binding: self.read(spec) for spec in inputs}
        ports = [Port(spec.binding, spec.dtype, read[spec.binding].dims, spec.shape) for spec in inputs]
        written = {spec.binding: self.write(spec, name) for spec in outputs}
        results = [Port(spec.binding, spec.dtype, written[spec.binding].dims, spec.shape) for spec in outputs]
        config = Config(model_name(name), platform, tuple(ports), tuple(results), place)
        self.steps.append(
            Step(config.name, *({binding: port.name for binding, port in ports.items()} for ports in (read, written)))
        )
        return config

    def read(self, spec: TensorSpec) -> Port:
        """The tensor that has a name's present value; if there is none, it becomes an input of the ensemble."""
        if spec.name not in self.now:
            dims = self.manifest.layout.images_shape if spec.name == "images" else spec.shape
            self.inputs[spec.name] = self.now[spec.name] = self.written[spec.name] = Port(
                spec.name, spec.dtype, dims, dims
            )
        return self.now[spec.name]

    def write(self, spec: TensorSpec, by: str) -> Port:
        """A new tensor, since an ensemble writes each once; a result's last one has the result's name."""
        name = f"{spec.name}@{by}"
        if spec.name in self.results and self.last[spec.name] == by:
            name = self.results[spec.name]
        elif spec.name == by:  # a kept layer
            name = by
        dims = spec.shape
        if spec.name in PREDICTIONS:
            dims = result_shape(self.manifest, spec.name)
        elif spec.name == "mask":
            dims = self.manifest.layout.mask_shape
        self.now[spec.name] = self.written[name] = Port(name, spec.dtype, dims, dims)
        return self.now[spec.name]

    def peak(self, results: set[str]) -> int:
        """The most bytes of tensors that are alive at once: each from the step that makes it to the last reader."""
        until = {
            name: number for number, step in enumerate(self.steps) for name in step.inputs.values()
        } | dict.fromkeys(results, len(self.steps))
        alive: set[str] = set(self.inputs)
        most = 0
        for number, step in enumerate(self.steps):
            alive |= set(step.outputs.values())
            ports = [self.written[name] for name in alive]
            most = max(most, sum(math.prod(port.dims) * DTYPE_BYTES[port.dtype] for port in ports))
            alive = {name for name in alive if until.get(name, -1) > number}
        return most


def model_name(stage: str) -> str:
    """The name of a stage or of glue in the repository: without dots, where Triton expects a backend's name."""
    return f"{NAME}_{re.sub(r'[^A-Za-z0-9_]', '_', stage)}"
