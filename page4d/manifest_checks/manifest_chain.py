"""Whether a manifest's stages make a chain: each reads tensors that an earlier stage writes, in the same shapes.

`engines/cpp/src/manifest_checks/manifest_chain.cpp` mirrors this.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from page4d.config import MOST_KEPT
from page4d.manifest import KeptLayer, Manifest, PointsFrame
from page4d.manifest_checks.manifest_error import inconsistent
from page4d.manifest_checks.manifest_kinds import StagesModel, check_kind, has_output
from page4d.manifest_checks.manifest_shapes import Shapes

_INPUTS = ("images", "special", "mask_ext", "keypoints", "fundamental", "memory")  # there before the first stage
_BLOCKS = ("view_sa", "time_sa", "global_sa")
_FRAMES = ", ".join(map(str, PointsFrame))


def check_chain(manifest: Manifest) -> None:
    """Refuse stages that are no chain, and kept layers that cannot be gathered from it.

    Raises:
        EngineError: naming the first part that does not go with the others.
    """
    model = StagesModel.of(manifest.model)
    for entry in manifest.stages:
        check_kind(entry)
    _check_calls(manifest, model)
    _check_blocks(manifest, model)
    _check_flow(manifest, model, _check_kept(manifest, model))
    _check_reference(manifest)
    _check_present(manifest, model)
    _check_frame(manifest)


def _check_calls(manifest: Manifest, model: StagesModel) -> None:
    images, n = manifest.layout.images, manifest.encoder_images
    first = 1 if manifest.stages[0].kind == "camera_encoder" else 0
    if len(manifest.stages) <= first:
        last = manifest.stages[-1].name
        raise inconsistent("the encoder is not its first stage", last, "one encoder, before all others")
    for number, entry in enumerate(manifest.stages):
        if number > 0 and entry.kind == "camera_encoder":
            what = "the camera encoder is not its first stage"
            raise inconsistent(what, entry.name, "one camera encoder, before all others")
        if number >= first and (entry.kind == "encoder") != (number == first):
            raise inconsistent("the encoder is not its first stage", entry.name, "one encoder, before all others")
        if number == first:
            fits, allowed = images % n == 0 and entry.calls == images // n, f"{images} images, {n} a call"
        elif model.takes_chunks(entry):
            fits, allowed = images % entry.calls == 0, f"a divisor of {images} images"
        else:
            fits, allowed = entry.calls == 1, "once"
        if not fits:
            raise inconsistent(f"{entry.name} is called another number of times", entry.calls, allowed)


def _check_blocks(manifest: Manifest, model: StagesModel) -> None:
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


def _check_kept(manifest: Manifest, model: StagesModel) -> dict[str, KeptLayer]:
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


def _check_flow(manifest: Manifest, model: StagesModel, kept_layers: Mapping[str, KeptLayer]) -> None:
    """Go through the stages in order: the tensors that a stage reads exist by then, in that shape."""
    order = {entry.name: number for number, entry in enumerate(manifest.stages)}
    available = set(_INPUTS) | ({"cameras"} if manifest.stages[0].kind == "camera_encoder" else set())
    available |= {"present"} if manifest.takes_present else set()
    shapes = Shapes(manifest, model, kept_layers)
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


def _check_mask(manifest: Manifest) -> None:
    """Check that the mask head is right before the first reader of its mask: elsewhere it would see other tokens."""
    for before, entry in itertools.pairwise(manifest.stages):
        if any(spec.name == "mask" for spec in entry.inputs):
            if before.kind != "mask_head":
                what = "the mask head does not stand before the first reader of its mask"
                raise inconsistent(what, before.name, "mask_head")
            return


def _check_reference(manifest: Manifest) -> None:
    """Check that a reference view is chosen among views of one time, and only where no cameras are known."""
    encoder, first = next(entry for entry in manifest.stages if entry.kind == "encoder"), manifest.stages[0]
    T = manifest.layout.T
    if T > 1 and (first.kind == "camera_encoder" or has_output(encoder, "select")):
        what = "known cameras, or the choice of a reference view, are for one timestep"
        raise inconsistent(what, f"T={T}", "T=1")
    if first.kind == "camera_encoder" and has_output(encoder, "select"):
        what = "it chooses a reference view although the cameras are known"
        raise inconsistent(what, "select", "camera_encoder or select, not both")


def _check_present(manifest: Manifest, model: StagesModel) -> None:
    """Check that every stage with attention over several images knows which of them are absent, or none does."""
    readers = [entry.name for entry in manifest.stages if any(spec.name == "present" for spec in entry.inputs)]
    if not readers:
        return
    expected = [entry.name for entry in manifest.stages if model.attends_over_images(entry, manifest.layout)]
    if readers != expected:
        what = "absent images are known to other stages than those with attention over several images"
        raise inconsistent(what, ", ".join(readers), ", ".join(expected) or "none")
    if manifest.layout.B > 1 and manifest.stages[0].kind == "camera_encoder":
        what = "absent images of known cameras are for one clip"
        raise inconsistent(what, f"B={manifest.layout.B}", "B=1")


def _check_frame(manifest: Manifest) -> None:
    """Check that there is a frame for the points, which Pi3's older manifests do not name, and no frame without any.

    So for the direction of poses, which is world to camera where it is not named; and that metres come from somewhere.
    """
    frame = manifest.points_frame
    if frame is not None and not manifest.makes("points"):
        raise inconsistent("it has a points_frame and no points", frame, "no points_frame")
    if frame is None and manifest.makes("points_confidence"):
        raise inconsistent("it does not say which frame its points are in", "no points_frame", _FRAMES)
    if manifest.pose_direction is not None and not manifest.makes("camera"):
        raise inconsistent("it has a pose_direction and no camera", manifest.pose_direction, "no pose_direction")
    if manifest.unit is not None and not (manifest.makes("metric") or manifest.makes("sky")):
        raise inconsistent("it has a unit and no metric or sky", manifest.unit, "no unit")
