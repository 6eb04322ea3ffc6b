"""What TensorRT built: the layers of a plan, read from the builder's log or its inspector, and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from page4d.errors import AccuracyError, EngineError

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>Inputs: .*)$", re.M)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[\d,]*)\].*?Datatype: (?P<dtype>\w+)")
_SOURCE = re.compile(r"\[ONNX Layer: (.*?)\]")
_PRODUCTS = ("gemm", "runtime_fusion", "correlation", "deconv")  # kinds of layer that multiply: matrices, convolutions
_WIDE = ("Float", "FP32")  # as fused layers and as plain ones have it
_EIGHT = "FP8"


class Tensor(NamedTuple):
    """What a layer reads or writes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """TensorRT's name: Half, BFloat16, Float, ..."""


class Layer(NamedTuple):
    """One kernel of a plan."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sources: tuple[str, ...]
    """Nodes of the graph that it computes."""

    @property
    def is_plugin(self) -> bool:
        """Whether it is a plugin."""
        return self.kind == "custom_layer" or "plugin" in self.kind.lower()

    @property
    def is_fused_attention(self) -> bool:
        """Whether it is TensorRT's own attention kernel."""
        return "mha" in self.name.lower()


class AttentionNode(NamedTuple):
    """One attention of a graph; its n x n tensor must not be in a plan."""

    name: str
    queries: int
    keys: int
    channels: int
    """Of a head."""
    prior: bool
    """Whether it has the epipolar prior, a bias by query and key."""
    parts: int
    """Fused kernels that stand for it: two where a key bias is for some rows alone."""


def read(log: str) -> list[Layer]:
    """The layers that a detailed, verbose build log lists."""
    layers = []
    for match in _LAYER.finditer(log):
        inputs, _, rest = match["rest"].partition(", Constants: ")
        _, _, outputs = rest.partition(", Outputs: ")
        outputs, _, notes = outputs.partition(", TacticName: ")
        layers.append(
            Layer(match["name"], match["kind"], _tensors(inputs), _tensors(outputs), tuple(_SOURCE.findall(notes)))
        )
    return layers


def read_inspector(stage: str, text: str) -> list[Layer]:
    """The layers that TensorRT's engine inspector lists as JSON.

    Raises:
        EngineError: it lists names only, or nothing: the plan cannot be checked.
    """
    try:
        layers = msgspec.json.decode(text, type=dict[str, Any]).get("Layers", [])
    except msgspec.DecodeError as error:
        raise EngineError(f"the layers of {stage} cannot be read back: {error}", got=text[:80]) from None
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise EngineError(f"the layers of {stage} cannot be read back: TensorRT gave no details", got=str(layers)[:80])
    return [_inspected(layer) for layer in layers]


def _inspected(layer: dict[str, Any]) -> Layer:
    def tensors(key: str) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(tensor["Name"], tuple(tensor.get("Dimensions", ())), _dtype(tensor)) for tensor in layer.get(key, ())
        )

    return Layer(
        name=layer["Name"],
        kind=layer.get("LayerType", ""),
        inputs=tensors("Inputs"),
        outputs=tensors("Outputs"),
        sources=tuple(_SOURCE.findall(layer.get("Metadata", ""))),
    )


def _dtype(tensor: dict[str, Any]) -> str:
    """`Half`, or the type in the description of a format: FP16 of `Row major linear FP16 format`."""
    text = str(tensor.get("Format/Datatype") or tensor.get("Datatype") or "")
    dtype = re.search(r"\b(FP\d+|BF16|INT\d+|Int\d+)\b", text)
    return dtype[1] if dtype else text


def check(
    stage: str,
    layers: Sequence[Layer],
    nodes: Sequence[AttentionNode],
    precision: str,
    native: bool,
    fp8: Collection[str] = (),
) -> None:
    """Compare a plan with its graph.

    Args:
        stage: its name.
        layers: of the plan.
        nodes: the graph's attentions.
        precision: of the graph: `float32`, `float16`, `bfloat16` or `fp8`.
        native: whether attention was left to TensorRT's fusion; else each node is to be a plugin.
        fp8: names of the products that are to be computed in fp8.

    Raises:
        AccuracyError: a layer holds an n x n tensor, an attention is neither fused nor a plugin, or products are wider
            than asked.
    """
    for layer in layers:
        for tensor in layer.outputs:
            if _holds_logits(tensor, nodes):
                got = f"{tensor.name} {list(tensor.shape)} of layer {layer.name}"
                raise AccuracyError(
                    f"the plan of {stage} holds an n x n tensor", got=got, hint="--attention plugin, in 16 bits"
                )
    if precision == "float32":  # TensorRT fuses no float32 attention; sizes that get here are small
        return
    expected = sum(node.parts for node in nodes) if native else len(nodes)
    count = sum(layer.is_fused_attention if native else layer.is_plugin for layer in layers)
    if count != expected:
        raise AccuracyError(
            f"not all attentions of {stage} became {'fused' if native else 'plugins'}",
            got=f"{count} of {expected}: {', '.join(node.name for node in nodes)}",
            hint="--attention plugin" if native else None,
        )
    fp8_set = frozenset(fp8)
    for layer in layers:
        if layer.kind not in _PRODUCTS:
            continue
        large = [tensor for tensor in layer.inputs if len(tensor.shape) > 1]
        if large and all(tensor.dtype in _WIDE for tensor in large):
            raise AccuracyError(
                f"a product of {stage} is computed in float32", got=f"layer {layer.name}", allowed=precision
            )
        if not fp8_set.isdisjoint(layer.sources) and all(tensor.dtype != _EIGHT for tensor in large):
            raise AccuracyError(
                f"a product of {stage} is not computed in fp8",
                got=f"layer {layer.name}, of {large[0].dtype}",
                allowed=_EIGHT,
            )


def _holds_logits(tensor: Tensor, nodes: Sequence[AttentionNode]) -> bool:
    for node in nodes:
        square = (node.queries, node.keys)
        # with no more keys than channels logits are no larger than q, and could be mistaken for it
        if len(tensor.shape) > 2 and node.keys > node.channels and tensor.shape[-2:] in (square, square[::-1]):
            return True
        if node.prior and math.prod(tensor.shape) == math.prod(square):
            return True
    return False


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(match["name"], tuple(int(size) for size in match["shape"].split(",") if size), match["dtype"])
        for match in _TENSOR.finditer(text)
    )
