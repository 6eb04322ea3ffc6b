"""Prediction heads as checkpoints hold them: the names of their tensors, and which heads a file has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from page4d.checkpoints.stored.tensor_names import CROSS_BLOCK, PLAIN_BLOCK, SCALED_BLOCK, numbered, pairs
from page4d.checkpoints.stored.unused_parts import unused_part_of
from page4d.config import CAMERA_BLOCKS, HEAD_BLOCKS, Head, Published
from page4d.published import TRAITS

_POSE = "camera_head.pose_branch.fc2.weight"
_VIEW_PROJECTION = "camera_head.view_proj."
_MV_NUMBERS = 12


@dataclass(frozen=True)
class StoredHead:
    """A head in a file.

    Attributes:
        key: the tensor that tells that the head is there; no other model has it.
        prefixes: in front of the names of its tensors.
        names: of all of its tensors.
    """

    key: str
    prefixes: tuple[str, ...]
    names: tuple[str, ...]

    def starts(self, names: Collection[str]) -> bool:
        """Whether any of the names is of this head."""
        return any(name.startswith(self.prefixes) for name in names)


def _camera_head() -> StoredHead:
    layers = ("embed_pose", "poseLN_modulation.1", "token_norm", "trunk_norm", "pose_branch.fc1", "pose_branch.fc2")
    leaves = ("empty_pose_tokens", *pairs(*layers), *numbered("trunk.", CAMERA_BLOCKS, SCALED_BLOCK))
    return StoredHead(_POSE, ("camera_head.",), tuple(f"camera_head.{leaf}" for leaf in leaves))


def _camera_decoder() -> StoredHead:
    names = tuple(f"cam_dec.{leaf}" for leaf in pairs("backbone.0", "backbone.2", "fc_t", "fc_qvec", "fc_fov.0"))
    return StoredHead("cam_dec.fc_t.weight", ("cam_dec.",), names)


def _camera_encoder() -> StoredHead:
    leaves = pairs("pose_branch.fc1", "pose_branch.fc2", "token_norm", "trunk_norm")
    names = (*leaves, *numbered("trunk.", CAMERA_BLOCKS, SCALED_BLOCK))
    return StoredHead("cam_enc.pose_branch.fc1.weight", ("cam_enc.",), tuple(f"cam_enc.{leaf}" for leaf in names))


def _dpt_head(prefix: str, has_norm: bool = True, outputs: tuple[str, ...] = ("output_conv2",)) -> StoredHead:
    units = [f"refinenet{level}.resConfUnit2" for level in (1, 2, 3, 4)]
    units += [f"refinenet{level}.resConfUnit1" for level in (1, 2, 3)]  # the deepest has nothing to add
    scratch = ["output_conv1", *(f"{output}.{number}" for output in outputs for number in (0, 2))]
    scratch += [f"refinenet{level}.out_conv" for level in (1, 2, 3, 4)]
    scratch += [f"{unit}.conv{number}" for unit in units for number in (1, 2)]
    layers = [
        *(["norm"] if has_norm else []),
        *(f"projects.{number}" for number in range(4)),
        *(f"resize_layers.{number}" for number in (0, 1, 3)),
    ]
    leaves = (
        *pairs(*layers, *(f"scratch.{layer}" for layer in scratch)),
        *(f"scratch.layer{level}_rn.weight" for level in (1, 2, 3, 4)),  # these convolutions have no bias
    )
    names = tuple(f"{prefix}{leaf}" for leaf in leaves)
    return StoredHead(f"{prefix}scratch.{outputs[-1]}.2.weight", (prefix,), names)


def _pi3_head(name: str, *layers: str) -> StoredHead:
    decoder = (*pairs("projects", "linear_out"), *numbered("blocks.", HEAD_BLOCKS, PLAIN_BLOCK))
    names = (*(f"{name}_decoder.{leaf}" for leaf in decoder), *(f"{name}_head.{leaf}" for leaf in pairs(*layers)))
    return StoredHead(f"{name}_head.{layers[0]}.weight", (f"{name}_decoder.", f"{name}_head."), names)


def _conv_layers(outputs: int) -> Iterator[str]:
    """The layers of a convolutional head of Pi3X."""
    for block in (0, 1, 2):
        yield from (f"upsample_blocks.{block}.0.0", f"upsample_blocks.{block}.0.1")
        for unit in (1, 2):
            yield from (f"upsample_blocks.{block}.{unit}.layers.{layer}" for layer in (0, 2, 3, 5))
    for output in range(outputs):
        yield from (f"output_block.{output}.0", f"output_block.{output}.2")


def _metric_head() -> StoredHead:
    decoder = (*pairs("projects_x", "projects_y", "linear_out"), *numbered("blocks.", HEAD_BLOCKS, CROSS_BLOCK))
    names = ("metric_token", *(f"metric_decoder.{leaf}" for leaf in decoder), *pairs("metric_head"))
    return StoredHead("metric_token", ("metric_token", "metric_decoder.", "metric_head."), names)


_CONVOLUTIONS = [f"res_conv.{i}.res_conv{j}" for i in (0, 1) for j in (1, 2, 3)]
_PI3_CAMERA = _pi3_head("camera", "fc_t", "fc_rot", "more_mlps.0", "more_mlps.2", *_CONVOLUTIONS)
_PI3_HEADS = {
    Head.POINTS: _pi3_head("point", "proj"),
    Head.CONFIDENCE: _pi3_head("conf", "proj"),
    Head.CAMERA: _PI3_CAMERA,
}
_PI3X_HEADS = {
    Head.POINTS: _pi3_head("point", *_conv_layers(outputs=2)),
    Head.CONFIDENCE: _pi3_head("conf", *_conv_layers(outputs=1)),
    Head.CAMERA: _PI3_CAMERA,
    Head.METRIC: _metric_head(),
}
_VGGT_HEADS = {
    Head.CAMERA: _camera_head(),
    Head.DEPTH: _dpt_head("depth_head."),
    Head.POINTS: _dpt_head("point_head."),
}
_MONO_HEADS = {Head.DEPTH: _dpt_head("head.", has_norm=False, outputs=("output_conv2", "sky_output_conv2"))}
_HEADS = {
    Published.PI3: _PI3_HEADS,
    Published.PI3X: _PI3X_HEADS,
    Published.VGGT: _VGGT_HEADS,
    Published.PAGE4D: _VGGT_HEADS,
    Published.DA3: {Head.CAMERA: _camera_decoder(), Head.DEPTH: _dpt_head("head.")},
    Published.DA3_MONO: _MONO_HEADS,
    Published.DA3_METRIC: _MONO_HEADS,
}
CAMERA_ENCODER = _camera_encoder()
"""Of Depth Anything 3: no head, as it comes first, but whole or not at all as heads are."""
PI3_PREFIXES = tuple(prefix for head in _PI3_HEADS.values() for prefix in head.prefixes)
"""In front of the tensors of Pi3's heads."""


def stored_heads(published: Published) -> dict[Head, StoredHead]:
    """The heads of a published model."""
    return _HEADS[published]


def heads_in(published: Published, names: Collection[str]) -> tuple[Head, ...]:
    """The heads whose own key is among the names of a file's tensors, in the order of their stages."""
    heads = stored_heads(published)
    return tuple(head for head in TRAITS[published].heads if heads[head].key in names)


def head_of(published: Published, name: str) -> Head | None:
    """The head that a tensor of a file belongs to; None: it is of no head that the model has."""
    if unused_part_of(published, name) is not None:
        return None
    return next((head for head, stored in stored_heads(published).items() if name.startswith(stored.prefixes)), None)


def required_of_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """All tensors of every head of which a file has any; of models with all heads or none all, where it has any."""
    begun = [stored for stored in _optional(published) if stored.starts(names)]
    for stored in _optional(published) if begun and TRAITS[published].all_or_none else begun:
        yield from stored.names


def foreign_to_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """Tensors under a head's prefix that the head does not have."""
    for stored in _optional(published):
        known = frozenset(stored.names)
        beyond = (name for name in names if name.startswith(stored.prefixes) and name not in known)
        yield from (name for name in beyond if unused_part_of(published, name) is None)


def missing_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """What a file lacks of the published model's heads, as notes."""
    present, title = heads_in(published, names), TRAITS[published].title
    missing = [head for head in TRAITS[published].heads if head not in present]
    if not present:
        results = _RESULTS.get(published, "cameras, depth or points")
        owner = "VGGT" if published is Published.PAGE4D else title
        yield f"none of {owner}'s heads, which the published file has: the model gives no {results}"
    elif missing:
        words = ", ".join(missing)
        yield f"no head for {words}, which the published file has: the model gives no {words}"


_RESULTS = {
    Published.PI3: "points, confidence or cameras",
    Published.PI3X: "points, confidence or cameras",
    Published.DA3: "cameras or depth",
    Published.DA3_MONO: "depth",
    Published.DA3_METRIC: "depth",
}


def of_mv_page4d(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What tells that a file is of MV-PAGE4D, whose heads are other networks under VGGT's names; None: it is not."""
    shape = shapes.get(_POSE)
    if shape is not None and shape[:1] == (_MV_NUMBERS,):
        return f"{_POSE} of shape {list(shape)}: cameras as {_MV_NUMBERS} numbers, a rotation matrix and a translation"
    if any(name.startswith(_VIEW_PROJECTION) for name in shapes):
        return f"tensors {_VIEW_PROJECTION}*: a camera per view"
    return None


def _optional(published: Published) -> tuple[StoredHead, ...]:
    """What a file has as a whole or not at all."""
    heads = tuple(stored_heads(published).values())
    return (*heads, CAMERA_ENCODER) if published is Published.DA3 else heads
