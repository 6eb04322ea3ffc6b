"""The buffer plan: which tensor lies where while the chain runs, made from the manifest alone.

A stage's output lies where the next stage reads it, so nothing is copied between stages. A tensor that a stage both
reads and writes (tokens, memory) has two places in turn, every other one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
class ReferenceChoice:
    """After call number `call`, the encoder's last, one view of each clip is told apart from the others.

    Its token 0 becomes that which view 0 begins with, and that of view 0 the others'.
    """

    call: int
    clips: int
    select: TensorSlot
    """The cls tokens that decide, float32 `[B*V,C]`."""
    special: TensorSlot
    """The special tokens `[B*V,1+registers,C]`, of a clip whose first view is the reference."""
    tokens: TensorSlot
    """The encoder's `[B*V,N,C]`."""


@dataclass(frozen=True)
class BufferPlan:
    """All buffers of a chain, in bytes, and every call over them."""

    sizes: dict[str, int]
    calls: tuple[StageCall, ...]
    keeps: tuple[LayerCopy, ...]
    outputs: dict[str, TensorSlot]
    """The results' places: `layers.<i>`, and where the model has them `mask`, `memory` and the `PREDICTIONS`."""
    starts: dict[str, TensorSlot]
    """Where a value from outside lies before the first call: images, special, mask_ext, keypoints, fundamental,
    cameras, memory."""
    encoded: TensorSlot | None = None
    """The encoded tokens of all images, where they stay for the next window; else None."""
    reference: ReferenceChoice | None = None
    """The choice of a reference view after the encoder; None where the first view is it."""

    @property
    def total(self) -> int:
        """Bytes of all buffers."""
        return sum(self.sizes.values())

    def whole(self, call: StageCall) -> tuple[dict[str, TensorSlot], dict[str, TensorSlot]]:
        """A stage's inputs and outputs over all of its calls, by the variables' names."""
        return _whole(call, call.stage.inputs, call.inputs), _whole(call, call.stage.outputs, call.outputs)

    @classmethod
    def make(cls, manifest: Manifest, widen: bool = False, sliding: bool = False) -> BufferPlan:
        """Plan a manifest's chain.

        Args:
            manifest: the engines'.
            widen: keep 16-bit tensors as float32, for backends that compute so.
            sliding: windows overlap: the encoded tokens of the frames they share are kept, in a buffer of their own.

        Raises:
            EngineError: a tensor lies outside of its buffer: `check_manifest` would refuse the manifest.
        """
        plan = _Planner(manifest, widen, sliding).plan()
        slots = [slot for call in plan.calls for slot in (*call.inputs.values(), *call.outputs.values())]
        for slot in (*slots, *plan.outputs.values(), *plan.starts.values()):
            size, room = math.prod(slot.shape) * DTYPE_BYTES[slot.dtype], plan.sizes.get(slot.buffer, 0)
            if size < 1 or not 0 <= slot.offset <= room - size:
                raise EngineError(
                    f"a tensor lies outside of its buffer {slot.buffer}",
                    got=f"{size} bytes at {slot.offset}",
                    allowed=f"{room} bytes",
                )
        return plan


class _Planner:
    """Goes through the chain once, from call to call.

    Attributes:
        sizes: bytes of each buffer so far.
        ping_pong: of a variable that a stage both reads and writes, which of its two buffers holds it, 0 or 1.
        written: variables that a stage wrote.
        starts: slots of variables that were read before any stage wrote them.
        encoded: the slot of encoded tokens that the next window uses again.
        holds_encoded: whether the variable `tokens` is that slot.
    """

    def __init__(self, manifest: Manifest, widen: bool, sliding: bool) -> None:
        self.manifest, self.widen, self.sliding = manifest, widen, sliding
        self.sizes: dict[str, int] = {}
        self.ping_pong = {name: 0 for entry in manifest.stages for name in _names(entry.outputs) & _names(entry.inputs)}
        self.written: set[str] = set()
        self.starts: dict[str, TensorSlot] = {}
        self.encoded: TensorSlot | None = None
        self.holds_encoded = False

    def plan(self) -> BufferPlan:
        """All calls, then all results."""
        calls: list[StageCall] = []
        last_call: dict[str, int] = {}  # by stage
        for entry in self.manifest.stages:
            calls += self._calls(entry)
            last_call[entry.name] = len(calls) - 1
        results: dict[str, TensorSlot] = {}
        copies: list[LayerCopy] = []
        if "mask" in self.written:
            results["mask"] = self.result_slot("mask", self.manifest.layout.mask_shape)
        for kept in self.manifest.keep:
            name = f"layers.{kept.layer}"
            shape = self.manifest.layout.layer_shape(kept.streams * len(kept.stages) * self.manifest.model["width"])
            results[name] = self.assign_slot(name, shape, self._dtype(self.manifest.precision.tokens))
            for number, stage in enumerate(kept.stages):
                call = calls[last_call[stage]]
                spec = next(spec for spec in call.stage.outputs if spec.name == "tokens")
                source = call.outputs[spec.binding]
                copies.append(LayerCopy(last_call[stage], kept.layer, number, len(kept.stages), source))
        for name in ("memory", *PREDICTIONS):
            if name in self.written:
                results[name] = self.result_slot(name, result_shape(self.manifest, name))
        return BufferPlan(
            sizes=self.sizes,
            calls=tuple(calls),
            keeps=tuple(copies),
            outputs=results,
            starts=self.starts,
            encoded=self.encoded,
            reference=self._reference(calls),
        )

    def _reference(self, calls: list[StageCall]) -> ReferenceChoice | None:
        layout = self.manifest.layout
        if not self.manifest.chooses_reference:
            return None
        last = max(number for number, call in enumerate(calls) if call.stage.kind == "encoder")
        inputs, outputs = (
            _whole(calls[last], specs, slots)
            for specs, slots in (
                (calls[last].stage.inputs, calls[last].inputs),
                (calls[last].stage.outputs, calls[last].outputs),
            )
        )
        return ReferenceChoice(
            call=last,
            clips=layout.B * layout.T,
            select=outputs["select"],
            special=inputs["special"],
            tokens=outputs["tokens"],
        )

    def _calls(self, entry: StageEntry) -> list[StageCall]:
        """The calls of a stage; afterwards its outputs are what the variables are."""
        inputs = {spec.binding: self.variable_slot(spec, entry.calls) for spec in entry.inputs}
        kept_layers = {f"layers.{kept.layer}" for kept in self.manifest.keep}
        for spec in entry.inputs:
            if spec.name not in self.written and spec.name not in kept_layers:
                self.starts.setdefault(spec.name, inputs[spec.binding])
        for name in _names(entry.outputs) & _names(entry.inputs):
            self.ping_pong[name] = 1 - self.ping_pong[name]
        if "tokens" in _names(entry.outputs):
            self.holds_encoded = self.sliding and entry.kind == "encoder"
        outputs = {spec.binding: self.variable_slot(spec, entry.calls) for spec in entry.outputs}
        if self.holds_encoded and "tokens" in _names(entry.outputs):
            self.encoded = next(outputs[spec.binding] for spec in entry.outputs if spec.name == "tokens")
        self.written |= _names(entry.outputs)
        return [
            StageCall(
                entry,
                {name: part(slot, number, entry.calls) for name, slot in inputs.items()},
                {name: part(slot, number, entry.calls) for name, slot in outputs.items()},
            )
            for number in range(entry.calls)
        ]

    def variable_slot(self, spec: TensorSpec, calls: int) -> TensorSlot:
        """The whole of a variable as it is here; a stage of several calls takes and makes it part by part."""
        buffer = "encoded" if spec.name == "tokens" and self.holds_encoded else self._buffer(spec.name)
        return self.assign_slot(buffer, (calls * spec.shape[0], *spec.shape[1:]), self._dtype(spec.dtype))

    def assign_slot(self, buffer: str, shape: tuple[int, ...], dtype: str) -> TensorSlot:
        """The start of a buffer, which becomes large enough."""
        self.sizes[buffer] = max(self.sizes.get(buffer, 0), math.prod(shape) * DTYPE_BYTES[dtype])
        return TensorSlot(buffer, 0, shape, dtype)

    def result_slot(self, name: str, shape: tuple[int, ...]) -> TensorSlot:
        """A variable that is a result, where the last stage that writes it left it."""
        return TensorSlot(self._buffer(name), 0, shape, self._dtype(self.manifest.spec(name).dtype))

    def _buffer(self, name: str) -> str:
        return f"{name}.{self.ping_pong[name]}" if name in self.ping_pong else name

    def _dtype(self, name: str) -> str:
        return "float32" if self.widen and name in ("float16", "bfloat16") else name


def result_shape(manifest: Manifest, name: str) -> tuple[int, ...]:
    """The shape of `memory` or a prediction as a result: a head that runs in chunks of images fills it part by part."""
    layout = manifest.layout
    if name == "points":
        return layout.images_shape
    if name in ("memory", "camera", "metric"):
        return manifest.spec(name).shape
    return layout.pixel_map_shape


def part(slot: TensorSlot, number: int, count: int) -> TensorSlot:
    """The number-th of `count` equal parts along the first axis."""
    shape = (slot.shape[0] // count, *slot.shape[1:])
    return TensorSlot(slot.buffer, slot.offset + number * math.prod(shape) * DTYPE_BYTES[slot.dtype], shape, slot.dtype)


def _names(specs: Iterable[TensorSpec]) -> set[str]:
    return {spec.name for spec in specs}


def _whole(call: StageCall, specs: Iterable[TensorSpec], slots: Mapping[str, TensorSlot]) -> dict[str, TensorSlot]:
    whole = {}
    for spec in specs:
        slot = slots[spec.binding]
        shape = (call.stage.calls * slot.shape[0], *slot.shape[1:])
        # the parts of a stage of several calls fill their buffers
        whole[spec.name] = TensorSlot(slot.buffer, slot.offset if call.stage.calls == 1 else 0, shape, slot.dtype)
    return whole
