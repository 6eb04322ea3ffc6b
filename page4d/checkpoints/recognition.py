"""Which model a file of weights is, by the names of its tensors."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from page4d.checkpoints.stored.stored_heads import of_mv_page4d, stored_heads
from page4d.checkpoints.stored.stored_model import DA3_BACKBONE, DA3_TOKEN, MASK_HEAD
from page4d.checkpoints.tensor_file import TensorFile
from page4d.config import Head, Published
from page4d.errors import UsageError

_PI3X = ("metric_token", "metric_decoder.", "point_head.upsample_blocks.", "depth_encoder.", "pose_inject_blk.")
_VGGT = ("aggregator.frame_blocks.", "aggregator.global_blocks.", "aggregator.patch_embed.")
_SKY = stored_heads(Published.DA3_MONO)[Head.DEPTH].key
# what torch puts around a module, at any depth
_WRAPPED = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_KNOWN = "Pi3, Pi3X, VGGT, PAGE-4D or Depth Anything 3"


def plain_name(key: str) -> str:
    """A tensor's name in the model: without the prefixes of torch.compile, data parallelism, Lightning, and of the
    class around Depth Anything 3."""
    parts = [part for part in key.split(".") if part not in _WRAPPED]
    first = next((i for i, part in enumerate(parts) if part != "model"), 0)
    return ".".join(parts[first:])


def _looks_known(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a known model's."""
    return _published({plain_name(name) for name in names}) is not None


def known_entries(files: Iterable[TensorFile]) -> Iterator[str]:
    """Other entries of `.pt` files that hold a known model, as Python expressions."""
    for file in files:
        yield from (expression for expression, names in file.elsewhere.items() if _looks_known(names))


def _published(names: Collection[str]) -> Published | None:
    if any(name.startswith(_PI3X) for name in names):
        return Published.PI3X
    if any(name == "register_token" or re.match(r"decoder\.\d+\.", name) for name in names):
        return Published.PI3
    if any(name.startswith(MASK_HEAD) for name in names):
        return Published.PAGE4D
    if any(name.startswith(_VGGT) for name in names):
        return Published.VGGT
    in_layers = re.compile(rf"{re.escape(DA3_BACKBONE)}blocks\.\d+\.attn\.q_norm\.")
    if any(name == DA3_TOKEN or in_layers.match(name) for name in names):
        return Published.DA3
    return Published.DA3_MONO if _SKY in names else None


def recognised(file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], files: tuple[TensorFile, ...]) -> Published:
    """The model that a checkpoint belongs to; Depth Anything 3 MONO where it is that or METRIC, which are alike.

    Args:
        file: that was given, as errors name it.
        shapes: of all tensors, by their names in the model.
        files: that the tensors are in.

    Raises:
        UsageError: no model that is known, or one of the other networks that look alike.
    """
    _refuse_others(file, shapes)
    published = _published(shapes)
    if published is not None:
        return published
    first = [name[:60] for name in sorted({name.split(".")[0] for name in shapes})[:8]]
    entry = next(known_entries(files), None)
    hint = None
    if entry is not None:
        hint = (
            f"the file has weights under {entry}:"
            f" torch.save(torch.load({file.name!r}){entry}, 'weights.pt'), and give that"
        )
    elif len(first) == 1 and _looks_known(name.partition(".")[2] for name in shapes):
        hint = f"save the tensors without {first[0] + '.'!r} in front of their names"
    raise UsageError(
        f"{file.name} is no checkpoint of a known model",
        got=f"tensors under {', '.join(first) or 'no tensors'}",
        allowed=f"{_KNOWN}, as their authors publish them",
        hint=hint,
    )


def _refuse_others(file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise for networks that have parts of the known ones, or their names: MV-PAGE4D, and of Depth Anything 3 GIANT,
    NESTED and files from its training."""
    if reason := of_mv_page4d(shapes):
        raise UsageError(
            f"{file.name} is an MV-PAGE4D checkpoint, another network than PAGE-4D",
            got=reason,
            allowed="a camera head of 9 numbers without view_proj: translation, quaternion and two fields of view",
            hint="PAGE-4D's own checkpoint_150.pt or checkpoint_mask.pt, or VGGT's model.pt",
        )
    if nested := _first(shapes, "da3.", "da3_metric."):
        raise UsageError(
            f"{file.name} is a Depth Anything 3 NESTED checkpoint: two models in one, which is not supported",
            got=f"tensors {nested}",
            allowed="one model of Depth Anything 3: SMALL, BASE, LARGE, MONO-LARGE or METRIC-LARGE",
            hint="depth-anything/DA3-LARGE for cameras and depth, depth-anything/DA3METRIC-LARGE for metres",
        )
    if (swiglu := f"{DA3_BACKBONE}blocks.0.mlp.w12.weight") in shapes:
        raise UsageError(
            f"{file.name} is a Depth Anything 3 GIANT checkpoint, whose blocks are of another kind (SwiGLU)",
            got=f"a tensor {swiglu}",
            allowed="Depth Anything 3 SMALL, BASE, LARGE, MONO-LARGE or METRIC-LARGE",
            hint="depth-anything/DA3-LARGE, the largest of those",
        )
    training = [name for name in shapes if "camera_token_extra" in name or ".all_heads." in f".{name}"]
    if training:
        raise UsageError(
            f"{file.name} is a file from the training of Depth Anything 3",
            got=f"tensors {training[0][:100]}",
            allowed="the model as published: config.json and model.safetensors",
            hint="the authors' converter, or a published file: depth-anything/DA3-SMALL, ..",
        )


def _first(shapes: Mapping[str, tuple[int, ...]], *prefixes: str) -> str:
    """The prefixes that tensors have, to be shown."""
    return ", ".join(f"{prefix}*" for prefix in prefixes if any(name.startswith(prefix) for name in shapes))
