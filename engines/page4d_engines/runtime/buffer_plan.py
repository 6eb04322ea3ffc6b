"""The buffer plan: which tensor lies where while the chain runs, made from the manifest alone.

A stage's output lies where the next stage reads it, so nothing is copied between stages. A tensor that a stage both
reads and writes (tokens, memory) has two places in turn, every other one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from page4d.errors import EngineError
from page4d.manifest import PREDICTIONS, Manifest, StageEntry, TensorSpec
from page4d.precision import DTYPE_BYTES


@dataclass(frozen=True)
class TensorSlot:
    """A tensor inside a buffer."""

    buffer: str
    offset: int
    """In bytes."""
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class StageCall:
    """One call of a stage: a view for every input and output, by the engine's names."""

    stage: StageEntry
    inputs: dict[str, TensorSlot]
    outputs: dict[str, TensorSlot]


@dataclass(frozen=True)
class LayerCopy:
    """After call number `call`, its tokens are kept as part `part` of `parts` of a layer."""

    call: int
    layer: int
    part: int
    parts: int
    source: TensorSlot


@dataclass(frozen=True)
class BufferPlan:
    """All buffers of a chain, in bytes, and every call over them."""

    sizes: dict[str, int]
    calls: tuple[StageCall, ...]
    keeps: tuple[LayerCopy, ...]
    outputs: dict[str, TensorSlot]
    """`layers.<i>`, and where the model has them `mask`, `memory`, `points`, `confidence`, `camera`: the results'
    places."""
    starts: dict[str, TensorSlot]
    """Where a value given from outside goes before the first call: images, special, mask_ext, keypoints, fundamental,
    memory."""
    encoded: TensorSlot | None = None
    """What the encoder made of all images, where it stays for the next window; else None."""

    @property
    def total(self) -> int:
        """Bytes of all buffers."""
        return sum(self.sizes.values())

    def whole(self, call: StageCall) -> tuple[dict[str, TensorSlot], dict[str, TensorSlot]]:
        """A stage's inputs and outputs over all of its calls, by the variables' names."""
        found: list[dict[str, TensorSlot]] = []
        for specs, views in ((call.stage.inputs, call.inputs), (call.stage.outputs, call.outputs)):
            whole = {}
            for spec in specs:
                view = views[spec.binding]
                offset = (
                    view.offset if call.stage.calls == 1 else 0
                )  # the parts of a stage of several calls fill their buffers
                whole[spec.name] = TensorSlot(
                    view.buffer, offset, (call.stage.calls * view.shape[0], *view.shape[1:]), view.dtype
                )
            found.append(whole)
        return found[0], found[1]

    @classmethod
    def make(cls, manifest: Manifest, widen: bool = False, sliding: bool = False) -> BufferPlan:
        """Plan a manifest's chain.

        Args:
            manifest: the engines'.
            widen: keep 16-bit tensors as float32, for backends that compute so.
            sliding: windows overlap: what the encoder made of the frames they share is kept, in a buffer of its own.

        Raises:
            EngineError: something lies outside of its buffer: the manifest is none that `check_manifest` let pass.
        """
        plan = _Planner(manifest, widen, sliding).plan()
        views = [view for call in plan.calls for view in (*call.inputs.values(), *call.outputs.values())]
        for view in (*views, *plan.outputs.values(), *plan.starts.values()):
            size = math.prod(view.shape) * DTYPE_BYTES[view.dtype]
            if size < 1 or not 0 <= view.offset <= plan.sizes.get(view.buffer, 0) - size:
                got = f"{size} bytes at {view.offset}"
                raise EngineError(
                    f"a tensor lies outside of its buffer {view.buffer}",
                    got=got,
                    allowed=f"{plan.sizes.get(view.buffer, 0)} bytes",
                )
        return plan


class _Planner:
    def __init__(self, manifest: Manifest, widen: bool, sliding: bool) -> None:
        self.manifest, self.widen, self.sliding = manifest, widen, sliding
        self.encoded: TensorSlot | None = None
        self.is_encoded = False  # whether tokens are the encoder's now, and kept
        self.sizes: dict[str, int] = {}
        self.double = {
            spec.name
            for entry in manifest.stages
            for spec in entry.outputs
            if spec.name in {given.name for given in entry.inputs}
        }
        self.turn = dict.fromkeys(self.double, 0)
        self.written: set[str] = set()
        self.starts: dict[str, TensorSlot] = {}

    def plan(self) -> BufferPlan:
        calls: list[StageCall] = []
        last: dict[str, int] = {}  # stage -> its last call
        kept_layers = {f"layers.{kept.layer}" for kept in self.manifest.keep}
        for entry in self.manifest.stages:
            inputs = {spec.binding: self.view(spec, entry.calls) for spec in entry.inputs}
            for spec in entry.inputs:
                if spec.name not in self.written and spec.name not in kept_layers:
                    self.starts.setdefault(spec.name, inputs[spec.binding])
            for name in self.double & {spec.name for spec in entry.outputs} & {spec.name for spec in entry.inputs}:
                self.turn[name] ^= 1
            makes_tokens = any(spec.name == "tokens" for spec in entry.outputs)
            self.is_encoded = self.sliding and entry.kind == "encoder" if makes_tokens else self.is_encoded
            outputs = {spec.binding: self.view(spec, entry.calls) for spec in entry.outputs}
            if self.is_encoded and makes_tokens:
                self.encoded = next(outputs[spec.binding] for spec in entry.outputs if spec.name == "tokens")
            self.written |= {spec.name for spec in entry.outputs}
            for number in range(entry.calls):
                calls.append(
                    StageCall(
                        entry,
                        {name: part(view, number, entry.calls) for name, view in inputs.items()},
                        {name: part(view, number, entry.calls) for name, view in outputs.items()},
                    )
                )
            last[entry.name] = len(calls) - 1
        keeps = []
        results = {"mask": self.result("mask", self.manifest.layout.mask_shape)} if "mask" in self.written else {}
        for kept in self.manifest.keep:
            width = self.manifest.model["width"]
            shape = self.manifest.layout.layer_shape(kept.streams * len(kept.stages) * width)
            results[f"layers.{kept.layer}"] = self.own(
                f"layers.{kept.layer}", shape, self.dtype(self.manifest.precision.tokens)
            )
            for number, stage in enumerate(kept.stages):
                call = calls[last[stage]]
                spec = next(spec for spec in call.stage.outputs if spec.name == "tokens")
                keeps.append(LayerCopy(last[stage], kept.layer, number, len(kept.stages), call.outputs[spec.binding]))
        for name in ("memory", *PREDICTIONS):
            if name in self.written:
                results[name] = self.result(name, self.manifest.spec(name).shape)
        return BufferPlan(self.sizes, tuple(calls), tuple(keeps), results, self.starts, self.encoded)

    def dtype(self, name: str) -> str:
        return "float32" if self.widen and name in ("float16", "bfloat16") else name

    def view(self, spec: TensorSpec, calls: int) -> TensorSlot:
        """The whole tensor of a variable now; a stage of several calls takes and makes it part by part."""
        buffer = f"{spec.name}.{self.turn[spec.name]}" if spec.name in self.double else spec.name
        buffer = "encoded" if spec.name == "tokens" and self.is_encoded else buffer
        return self.own(buffer, (calls * spec.shape[0], *spec.shape[1:]), self.dtype(spec.dtype))

    def own(self, buffer: str, shape: tuple[int, ...], dtype: str) -> TensorSlot:
        self.sizes[buffer] = max(self.sizes.get(buffer, 0), math.prod(shape) * DTYPE_BYTES[dtype])
        return TensorSlot(buffer, 0, shape, dtype)

    def result(self, name: str, shape: tuple[int, ...]) -> TensorSlot:
        spec = self.manifest.spec(name)
        buffer = f"{name}.{self.turn[name]}" if name in self.double else name
        return TensorSlot(buffer, 0, shape, self.dtype(spec.dtype))


def part(view: TensorSlot, number: int, of: int) -> TensorSlot:
    """The number-th of `of` equal parts along the first axis."""
    shape = (view.shape[0] // of, *view.shape[1:])
    return TensorSlot(view.buffer, view.offset + number * math.prod(shape) * DTYPE_BYTES[view.dtype], shape, view.dtype)
