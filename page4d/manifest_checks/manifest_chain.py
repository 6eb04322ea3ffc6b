"""Whether a manifest's stages make a chain: each reads tensors that an earlier stage writes, in the same shapes.

`engines/cpp/src/manifest/manifest_chain.cpp` mirrors this.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from page4d.config import MOST_KEPT, QUATERNION_NUMBERS, ROW_NUMBERS
from page4d.manifest import KeptLayer, Manifest, PointsFrame, StageEntry, TensorSpec
from page4d.manifest_checks.manifest_error import inconsistent

_WIDEST = 65535
_MOST_STREAMS = 2


class _Kind(NamedTuple):
    """Names of the tensors of a kind of stage; those of `more_inputs` and `more_outputs` may be left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    more_inputs: tuple[str, ...] = ()
    more_outputs: tuple[str, ...] = ()
    most_layers: int = 1
    """Kept layers that it reads, at least one, where `inputs` has them."""


_LAYER = "layers.<i>"
_KINDS = {
    "encoder": _Kind(("images", "special"), ("tokens",)),
    "mask_head": _Kind(("tokens",), ("mask",), ("mask_ext",), ("row_bias",)),
    "view_sa": _Kind(("tokens",), ("tokens",), ("mask", "fundamental")),
    "time_sa": _Kind(("tokens",), ("tokens",), ("mask", "row_bias")),
    "global_sa": _Kind(("tokens",), ("tokens",), ("mask", "keypoints", "memory"), ("memory",)),
    "points": _Kind((_LAYER,), ("points",)),
    "confidence": _Kind((_LAYER,), ("confidence",)),
    "camera": _Kind((_LAYER,), ("camera",)),
    "depth": _Kind((_LAYER,), ("depth", "depth_confidence"), most_layers=4),
}
_POINTS_OF_CHUNKS = _Kind((_LAYER,), ("points", "points_confidence"), most_layers=4)
_INPUTS = ("images", "special", "mask_ext", "keypoints", "fundamental", "memory")  # there before the first stage
_BLOCKS = ("view_sa", "time_sa", "global_sa")
_OUT = "_out"
_FRAMES = ", ".join(map(str, PointsFrame))


def check_chain(manifest: Manifest) -> None:
    """Refuse stages that are no chain, and kept layers that cannot be gathered from it.

    Raises:
        EngineError: naming the first part that does not go with the others.
    """
    model = _Model.of(manifest.model)
    for entry in manifest.stages:
        _check_kind(entry)
    _check_calls(manifest)
    _check_blocks(manifest, model)
    _check_flow(manifest, model, _check_kept(manifest, model))
    _check_frame(manifest)


class _Model(NamedTuple):
    """What of the model's options the chain follows."""

    width: int
    streams: int
    depth: int
    order: tuple[str, ...]
    global_layers: frozenset[int]

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> _Model:
        numbers = {"width": _WIDEST, "streams": _MOST_STREAMS, "depth": _WIDEST}
        for name, most in numbers.items():
            if type(model.get(name)) is not int or not 1 <= model[name] <= most:
                raise inconsistent(f"its model has no {name}", _shown(model.get(name)), f"1 to {most}")
        order, layers = model.get("order"), model.get("global_layers")
        if order not in (["view", "time"], ["time", "view"]):
            raise inconsistent("its model has no order", _shown(order), "view, time in either order")
        if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise inconsistent("its model has no global_layers", _shown(layers), "a list of layers")
        return cls(model["width"], model["streams"], model["depth"], tuple(order), frozenset(layers))


def _shown(value: object) -> str:
    """A value of any type: whole numbers as they are, others by their kind, which all readers call alike."""
    if type(value) is int:
        return str(value)
    kinds = {
        type(None): "nothing",
        bool: "true or false",
        float: "a fraction",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return kinds[type(value)]


def _check_kind(entry: StageEntry) -> None:
    """A stage's name, its kind, and the names of its tensors."""
    kind = _POINTS_OF_CHUNKS if entry.kind == "points" and _takes_chunks(entry) else _KINDS.get(entry.kind)
    if kind is None:
        raise inconsistent(f"{entry.name} is of an unknown kind", entry.kind, ", ".join(_KINDS))
    own_name = entry.kind if entry.layer is None else f"{entry.kind}.{entry.layer}"
    if entry.name != own_name:
        raise inconsistent("a stage is not called by its kind and layer", entry.name, own_name)
    for specs, needed, more in (
        (entry.inputs, kind.inputs, kind.more_inputs),
        (entry.outputs, kind.outputs, kind.more_outputs),
    ):
        names = [_LAYER if spec.name.startswith("layers.") else spec.name for spec in specs]
        most = {_LAYER: kind.most_layers}
        too_many = any(names.count(name) > most.get(name, 1) for name in names)
        if not set(needed) <= set(names) <= {*needed, *more} or too_many:
            several = [f"1 to {most[name]} {name}" if most.get(name, 1) > 1 else name for name in needed]
            allowed = ", ".join(several) + "".join(f" [{name}]" for name in more)
            raise inconsistent(
                f"{entry.name} has other tensors than a stage of kind {entry.kind}",
                ", ".join(spec.name for spec in specs) or "none",
                allowed,
            )
    inputs, outputs = ({spec.name for spec in specs} for specs in (entry.inputs, entry.outputs))
    if entry.kind == "global_sa" and ("memory" in inputs) != ("memory" in outputs):
        raise inconsistent(
            f"{entry.name} has other tensors than a stage of kind global_sa",
            "memory on one side",
            "memory in and out, or neither",
        )
    suffixes = [(spec, "") for spec in entry.inputs]
    suffixes += [(spec, _OUT if spec.name in inputs else "") for spec in entry.outputs]
    for spec, suffix in suffixes:
        if spec.suffix != suffix:
            raise inconsistent(
                f"{spec.name} of {entry.name} has another suffix", spec.suffix or "none", suffix or "none"
            )


def _takes_chunks(entry: StageEntry) -> bool:
    """Whether it is a head of VGGT's that processes the images in chunks, `[n,...]` a call."""
    return any(spec.name in ("depth_confidence", "points_confidence") for spec in entry.outputs)


def _check_calls(manifest: Manifest) -> None:
    images, n = manifest.layout.images, manifest.encoder_images
    for number, entry in enumerate(manifest.stages):
        if (entry.kind == "encoder") != (number == 0):
            raise inconsistent("the encoder is not its first stage", entry.name, "one encoder, before all others")
        if number == 0:
            fits, allowed = images % n == 0 and entry.calls == images // n, f"{images} images, {n} a call"
        elif _takes_chunks(entry):
            fits, allowed = images % entry.calls == 0, f"a divisor of {images} images"
        else:
            fits, allowed = entry.calls == 1, "once"
        if not fits:
            raise inconsistent(f"{entry.name} is called another number of times", entry.calls, allowed)


def _check_blocks(manifest: Manifest, model: _Model) -> None:
    """Check that the blocks are those of the model, in its order."""
    blocks = [entry.name for entry in manifest.stages if entry.kind in _BLOCKS]
    expected: list[str] = []
    if model.depth <= len(blocks):
        for layer in range(model.depth):
            expected += [f"{block}_sa.{layer}" for block in model.order]
            expected += [f"global_sa.{layer}"] if layer in model.global_layers else []
    if blocks != expected or any(not 0 <= layer < model.depth for layer in model.global_layers):
        what = f"its blocks are not those of a model of {model.depth} layers"
        raise inconsistent(
            what, ", ".join(blocks) or "none", ", ".join(expected) or "view_sa and time_sa of every layer"
        )


def _check_kept(manifest: Manifest, model: _Model) -> dict[str, KeptLayer]:
    """Check that kept layers can be gathered from their stages' outputs; the layers by the tensors' names."""
    if len(manifest.keep) > MOST_KEPT:
        raise inconsistent("it keeps too many layers", len(manifest.keep), f"up to {MOST_KEPT}")
    order = {entry.name: number for number, entry in enumerate(manifest.stages)}
    kept_layers: dict[str, KeptLayer] = {}
    for kept in manifest.keep:
        if f"layers.{kept.layer}" in kept_layers:
            raise inconsistent("a layer is kept twice", kept.layer, "a number for each")
        kept_layers[f"layers.{kept.layer}"] = kept
        numbers = [order.get(name, -1) for name in kept.stages]
        is_own = all(number >= 0 and manifest.stages[number].layer == kept.layer for number in numbers)
        if not numbers or not is_own or numbers != sorted(set(numbers)):
            what = f"layer {kept.layer} is kept of other stages than its own"
            raise inconsistent(what, ", ".join(kept.stages) or "none", "stages of that layer, in their order")
        if kept.streams != model.streams:
            raise inconsistent(
                f"layer {kept.layer} is kept of other streams than the model has", kept.streams, str(model.streams)
            )
    return kept_layers


def _check_flow(manifest: Manifest, model: _Model, kept_layers: Mapping[str, KeptLayer]) -> None:
    """Go through the stages in order: the tensors that a stage reads exist by then, in that shape."""
    order = {entry.name: number for number, entry in enumerate(manifest.stages)}
    available = set(_INPUTS)
    shapes = _Shapes(manifest, model, kept_layers)
    for number, entry in enumerate(manifest.stages):
        for spec in entry.inputs:
            kept = kept_layers.get(spec.name)
            is_gathered = kept is not None and all(order[name] < number for name in kept.stages)
            if spec.name not in available and not is_gathered:
                what = f"{entry.name} reads what is not there by then"
                raise inconsistent(what, spec.name, ", ".join(sorted(available)))
            shapes.check(entry, spec, shapes.streams)
        for spec in entry.outputs:
            # a block that is given one stream may make two of it
            shapes.check(entry, spec, model.streams)
            available.add(spec.name)
        if entry.kind in _BLOCKS:
            shapes.streams = next(spec.shape[0] for spec in entry.outputs if spec.name == "tokens")
    _check_mask(manifest)


class _Shapes:
    """Which shape a tensor has, by its name."""

    def __init__(self, manifest: Manifest, model: _Model, kept_layers: Mapping[str, KeptLayer]) -> None:
        layout, n = manifest.layout, manifest.encoder_images
        self.streams = 1
        self._layout, self._width, self._tokens = layout, model.width, manifest.precision.tokens
        self._encoded = (n, layout.N, model.width)
        self._memory: tuple[int, ...] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {
            "images": (n, layout.H, layout.W, 3),
            "special": (n, layout.special, model.width),
            "fundamental": layout.fundamental_shape,
            "points": layout.images_shape,
            "confidence": layout.pixel_map_shape,
        }
        self._of_image: dict[str, tuple[int, ...]] = {
            "depth": (layout.H, layout.W),
            "depth_confidence": (layout.H, layout.W),
            "points": (layout.H, layout.W, 3),
            "points_confidence": (layout.H, layout.W),
        }
        for name, kept in kept_layers.items():
            channels = model.streams * len(kept.stages) * model.width
            self._shapes[name] = layout.layer_shape(channels)
            self._of_image[name] = (layout.N, channels)

    def check(self, entry: StageEntry, spec: TensorSpec, most_streams: int) -> None:
        """Raise unless a tensor has its type and shape, tokens of as many streams as there are up to `most_streams`."""
        name = spec.name
        if name == "tokens":
            streams = range(self.streams, most_streams + 1)
            allowed = [self._layout.tokens_shape(count, self._width) for count in streams]
            allowed = [self._encoded] if entry.kind == "encoder" else allowed
        elif name == "memory":
            tokens = spec.shape[-2] if len(spec.shape) > 1 else 1  # their number is the first stage's own
            self._memory = self._memory or self._layout.memory_shape(self.streams, tokens, self._width)
            allowed = [self._memory]
        elif name == "camera":
            allowed = [self._layout.pose_shape(numbers) for numbers in (ROW_NUMBERS, QUATERNION_NUMBERS)]
        elif _takes_chunks(entry):
            allowed = [(self._layout.images // entry.calls, *self._of_image[name])]
        else:
            allowed = [self._shapes.get(name, self._layout.patch_map_shape)]
        is_tokens = name in ("special", "tokens", "memory") or name.startswith("layers.")
        dtype = "uint8" if name == "images" else self._tokens if is_tokens else "float32"
        if spec.dtype != dtype or spec.shape not in allowed:
            got, shapes = f"{spec.dtype} {list(spec.shape)}", [f"{dtype} {list(shape)}" for shape in allowed]
            raise inconsistent(f"{name} of {entry.name} is not of its layout", got, " or ".join(shapes))


def _check_mask(manifest: Manifest) -> None:
    """Check that the mask head is right before the first reader of its mask: elsewhere it would see other tokens."""
    for before, entry in itertools.pairwise(manifest.stages):
        if any(spec.name == "mask" for spec in entry.inputs):
            if before.kind != "mask_head":
                what = "the mask head does not stand before the first reader of its mask"
                raise inconsistent(what, before.name, "mask_head")
            return


def _check_frame(manifest: Manifest) -> None:
    """Check that there is a frame for the points, which Pi3's older manifests do not name, and no frame without any."""
    frame = manifest.points_frame
    if frame is not None and not manifest.makes("points"):
        raise inconsistent("it has a points_frame and no points", frame, "no points_frame")
    if frame is None and manifest.makes("points_confidence"):
        raise inconsistent("it does not say which frame its points are in", "no points_frame", _FRAMES)
