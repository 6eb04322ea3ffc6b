"""Prediction heads as checkpoints hold them: the names of their tensors, and which heads a file has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from page4d.checkpoints.tensor_names import PLAIN_BLOCK, SCALED_BLOCK, numbered, pairs
from page4d.config import CAMERA_BLOCKS, HEAD_BLOCKS, HEADS, Head, Published

TRACK_HEAD = "track_head."
"""In front of the tensors of VGGT's track head, which no model of this project has."""
TRACK_NOTE = "track head: left unused; this project does not export it"
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


def _dpt_head(prefix: str) -> StoredHead:
    units = [f"refinenet{level}.resConfUnit2" for level in (1, 2, 3, 4)]
    units += [f"refinenet{level}.resConfUnit1" for level in (1, 2, 3)]  # the deepest has nothing to add
    scratch = ["output_conv1", "output_conv2.0", "output_conv2.2"]
    scratch += [f"refinenet{level}.out_conv" for level in (1, 2, 3, 4)]
    scratch += [f"{unit}.conv{number}" for unit in units for number in (1, 2)]
    layers = [
        "norm",
        *(f"projects.{number}" for number in range(4)),
        *(f"resize_layers.{number}" for number in (0, 1, 3)),
    ]
    leaves = (
        *pairs(*layers, *(f"scratch.{layer}" for layer in scratch)),
        *(f"scratch.layer{level}_rn.weight" for level in (1, 2, 3, 4)),  # these convolutions have no bias
    )
    names = tuple(f"{prefix}{leaf}" for leaf in leaves)
    return StoredHead(f"{prefix}scratch.output_conv2.2.weight", (prefix,), names)


def _pi3_head(name: str, *layers: str) -> StoredHead:
    decoder = (*pairs("projects", "linear_out"), *numbered("blocks.", HEAD_BLOCKS, PLAIN_BLOCK))
    names = (*(f"{name}_decoder.{leaf}" for leaf in decoder), *(f"{name}_head.{leaf}" for leaf in pairs(*layers)))
    return StoredHead(f"{name}_head.{layers[0]}.weight", (f"{name}_decoder.", f"{name}_head."), names)


_CONVOLUTIONS = [f"res_conv.{i}.res_conv{j}" for i in (0, 1) for j in (1, 2, 3)]
_PI3_HEADS = {
    Head.POINTS: _pi3_head("point", "proj"),
    Head.CONFIDENCE: _pi3_head("conf", "proj"),
    Head.CAMERA: _pi3_head("camera", "fc_t", "fc_rot", "more_mlps.0", "more_mlps.2", *_CONVOLUTIONS),
}
_VGGT_HEADS = {
    Head.CAMERA: _camera_head(),
    Head.DEPTH: _dpt_head("depth_head."),
    Head.POINTS: _dpt_head("point_head."),
}
PI3_PREFIXES = tuple(prefix for head in _PI3_HEADS.values() for prefix in head.prefixes)
"""In front of the tensors of Pi3's heads."""


def stored_heads(published: Published) -> dict[Head, StoredHead]:
    """The heads of a published model, in the order of `HEADS`."""
    return _PI3_HEADS if published is Published.PI3 else _VGGT_HEADS


def heads_in(published: Published, names: Collection[str]) -> tuple[Head, ...]:
    """The heads whose own key is among the names of a file's tensors, in the order of `HEADS`."""
    heads = stored_heads(published)
    return tuple(head for head in HEADS[published] if heads[head].key in names)


def head_of(published: Published, key: str) -> str | None:
    """The name of the head that a key of a file belongs to, `track` among them; None: it is of no head."""
    if published is not Published.PI3 and key.startswith(TRACK_HEAD):
        return "track"
    heads = stored_heads(published)
    return next((str(head) for head, stored in heads.items() if key.startswith(stored.prefixes)), None)


def required_of_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """All tensors of every head of which a file has any; of Pi3's heads all, where it has any of one."""
    heads = stored_heads(published).values()
    begun = [head for head in heads if head.starts(names)]
    for head in heads if begun and published is Published.PI3 else begun:
        yield from head.names


def foreign_to_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """Tensors under a head's prefix that the head does not have."""
    for head in stored_heads(published).values():
        known = frozenset(head.names)
        yield from (name for name in names if name.startswith(head.prefixes) and name not in known)


def missing_heads(published: Published, names: Collection[str]) -> Iterator[str]:
    """What a file lacks of the published model's heads, as notes."""
    present = heads_in(published, names)
    missing = [head for head in HEADS[published] if head not in present]
    if published is Published.PI3:
        if missing:
            yield "none of Pi3's heads, which the published file has: the model gives no points, confidence or cameras"
    elif not present:
        yield "none of VGGT's heads, which the published file has: the model gives no cameras, depth or points"
    elif missing:
        words = ", ".join(missing)
        yield f"no head for {words}, which the published file has: the model gives no {words}"


def of_mv_page4d(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What tells that a file is of MV-PAGE4D, whose heads are other networks under VGGT's names; None: it is not."""
    shape = shapes.get(_POSE)
    if shape is not None and shape[:1] == (_MV_NUMBERS,):
        return f"{_POSE} of shape {list(shape)}: cameras as {_MV_NUMBERS} numbers, a rotation matrix and a translation"
    if any(name.startswith(_VIEW_PROJECTION) for name in shapes):
        return f"tensors {_VIEW_PROJECTION}*: a camera per view"
    return None
