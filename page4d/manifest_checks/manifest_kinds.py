"""Which stages there are: what each kind reads and writes, and what of the model's options decides their chain.

`engines/cpp/src/manifest_checks/manifest_kinds.cpp` mirrors this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from page4d.layout import Layout
from page4d.manifest import StageEntry
from page4d.manifest_checks.manifest_error import inconsistent
from page4d.published import TRAITS, Published

_WIDEST = 65535
_MOST_STREAMS = 2
_OUT = "_out"


class _Kind(NamedTuple):
    """Names of the tensors of a kind of stage; those of `more_inputs` and `more_outputs` may be left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    more_inputs: tuple[str, ...] = ()
    more_outputs: tuple[str, ...] = ()
    most_layers: int = 1
    """Kept layers or features that it reads or writes, at least one, where `inputs` or `outputs` has them."""


LAYER, FEATURES = "layers.<i>", "features.<i>"
_KINDS = {
    "encoder": _Kind(("images", "special"), ("tokens",), (), ("select",)),
    "mask_head": _Kind(("tokens",), ("mask",), ("mask_ext",), ("row_bias",)),
    "view_sa": _Kind(("tokens",), ("tokens",), ("mask", "fundamental", "present")),
    "time_sa": _Kind(("tokens",), ("tokens",), ("mask", "row_bias", "present")),
    "global_sa": _Kind(("tokens",), ("tokens",), ("mask", "keypoints", "memory", "present"), ("memory",)),
    "points": _Kind((LAYER,), ("points",)),
    "confidence": _Kind((LAYER,), ("confidence",)),
    "camera": _Kind((LAYER,), ("camera",), ("present",)),
    "depth": _Kind((LAYER,), ("depth", "depth_confidence"), most_layers=4),
    "camera_encoder": _Kind(("cameras",), ("special",), ("present",)),
    "metric": _Kind((LAYER,), ("metric",), ("present",)),
}
_POINTS_OF_DPT = _Kind((LAYER,), ("points", "points_confidence"), most_layers=4)
_ENCODER_ALONE = _Kind(("images",), (FEATURES,), most_layers=4)
_DEPTH_AND_SKY = _Kind((FEATURES,), ("depth", "sky"), most_layers=4)


def check_kind(entry: StageEntry) -> None:
    """A stage's name, its kind, and the names of its tensors."""
    kind = _KINDS.get(entry.kind)
    if kind is None:
        raise inconsistent(f"{entry.name} is of an unknown kind", entry.kind, ", ".join(_KINDS))
    if entry.kind == "points" and has_output(entry, "points_confidence"):
        kind = _POINTS_OF_DPT
    elif entry.kind == "depth" and has_output(entry, "sky"):
        kind = _DEPTH_AND_SKY
    elif entry.kind == "encoder" and any(spec.name.startswith("features.") for spec in entry.outputs):
        kind = _ENCODER_ALONE
    own_name = entry.kind if entry.layer is None else f"{entry.kind}.{entry.layer}"
    if entry.name != own_name:
        raise inconsistent("a stage is not called by its kind and layer", entry.name, own_name)
    for specs, needed, more in (
        (entry.inputs, kind.inputs, kind.more_inputs),
        (entry.outputs, kind.outputs, kind.more_outputs),
    ):
        names = [pattern_of(spec.name) for spec in specs]
        most = {LAYER: kind.most_layers, FEATURES: kind.most_layers}
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


def pattern_of(name: str) -> str:
    """A tensor's name without the number of its layer or block."""
    for pattern in (LAYER, FEATURES):
        if name.startswith(pattern.removesuffix("<i>")):
            return pattern
    return name


def has_output(entry: StageEntry, *names: str) -> bool:
    """Whether a stage writes one of these."""
    return any(spec.name in names for spec in entry.outputs)


class StagesModel(NamedTuple):
    """What of the model's options the chain follows."""

    width: int
    streams: int
    depth: int
    order: tuple[str, ...]
    global_layers: frozenset[int]
    published: Published | None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> StagesModel:
        """Of a manifest's `model`.

        Raises:
            EngineError: an option is missing, of another type or out of range.
        """
        names = {str(name): name for name in Published}
        published = names.get(model["published"]) if isinstance(model.get("published"), str) else None
        sees_alone = published is not None and TRAITS[published].sees_alone
        numbers = {"width": (1, _WIDEST), "streams": (1, _MOST_STREAMS), "depth": (1, _WIDEST)}
        if sees_alone:
            numbers["depth"] = (0, 0)
        for name, (least, most) in numbers.items():
            if type(model.get(name)) is not int or not least <= model[name] <= most:
                allowed = f"{least} to {most}" if most else "0"
                raise inconsistent(f"its model has no {name}", _shown(model.get(name)), allowed)
        order, layers = model.get("order"), model.get("global_layers")
        if order not in (["view", "time"], ["time", "view"]):
            raise inconsistent("its model has no order", _shown(order), "view, time in either order")
        if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise inconsistent("its model has no global_layers", _shown(layers), "a list of layers")
        return cls(
            width=model["width"],
            streams=model["streams"],
            depth=model["depth"],
            order=tuple(order),
            global_layers=frozenset(layers),
            published=published,
        )

    def takes_chunks(self, entry: StageEntry) -> bool:
        """Whether a stage is a head that processes the images in chunks, `[n,...]` a call."""
        if self.published is Published.PI3X and entry.kind in ("points", "confidence"):
            return True
        return has_output(entry, "depth_confidence", "points_confidence", "sky")

    def attends_over_images(self, entry: StageEntry, layout: Layout) -> bool:
        """Whether a stage's attention goes over several images of a clip."""
        if entry.kind == "camera":
            return self.published in (Published.VGGT, Published.PAGE4D)
        several = {"view_sa": layout.V > 1, "time_sa": layout.T > 1}
        return several.get(entry.kind, entry.kind in ("global_sa", "metric", "camera_encoder"))


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
