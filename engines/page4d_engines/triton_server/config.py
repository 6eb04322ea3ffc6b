"""`Config`: a model's config.pbtxt, as far as it is used here."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DATA_TYPES = {
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
}
"""Triton's names of the manifest's types."""


class Platform(str, enum.Enum):
    """What Triton runs a model with."""

    PLAN = "tensorrt_plan"
    ONNX = "onnxruntime_onnx"
    ENSEMBLE = "ensemble"

    def __str__(self) -> str:
        return self.value


class Place(str, enum.Enum):
    """Where the one instance of a model runs."""

    GPU = "KIND_GPU"
    """The first: without a number there would be an instance on each, and tokens would go from one to the other."""
    CPU = "KIND_CPU"
    AUTO = "KIND_AUTO"
    """Every GPU that there is, else the CPU: Triton refuses a number here where there is none."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: as the model calls it.
        dtype: as the manifest calls it.
        dims: the shape outside of the model.
        shape: the model's own.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        assert math.prod(self.dims) == math.prod(self.shape), self


@dataclass(frozen=True)
class Step:
    """A model's call in an ensemble: which of the ensemble's tensors its inputs and outputs are."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Config:
    """A model's configuration, without batching: every shape is whole."""

    name: str
    platform: Platform
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    place: Place | None = None
    steps: tuple[Step, ...] = field(default=())

    def text(self) -> str:
        """As protobuf text; equal configurations give equal text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f'name: "{self.name}"'
        yield f'platform: "{self.platform}"'
        yield "max_batch_size: 0"
        for field_name, ports in (("input", self.inputs), ("output", self.outputs)):
            for port in ports:
                yield f"{field_name} {{"
                yield f'  name: "{port.name}"'
                yield f"  data_type: {DATA_TYPES[port.dtype]}"
                yield f"  dims: {list(port.dims)}"
                if port.shape != port.dims:
                    yield f"  reshape {{ shape: {list(port.shape)} }}"
                yield "}"
        if self.place is not None:
            gpus = " gpus: [0]" if self.place is Place.GPU else ""
            yield f"instance_group {{ count: 1 kind: {self.place.value}{gpus} }}"
        if self.steps:
            yield "ensemble_scheduling {"
            for step in self.steps:
                yield "  step {"
                yield f'    model_name: "{step.model}"'
                yield "    model_version: -1"
                for field_name, names in (("input_map", step.inputs), ("output_map", step.outputs)):
                    yield from (f'    {field_name} {{ key: "{key}" value: "{value}" }}' for key, value in names.items())
                yield "  }"
            yield "}"
