"""Which model a file of weights is, by the names of its tensors."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from page4d.checkpoints.completeness import MASK_HEAD
from page4d.checkpoints.stored_heads import of_mv_page4d
from page4d.checkpoints.tensor_file import TensorFile
from page4d.config import Published
from page4d.errors import UsageError

_PI3X = ("depth_encoder.", "pose_inject_blk.")
_VGGT = ("aggregator.frame_blocks.", "aggregator.global_blocks.", "aggregator.patch_embed.")
# what torch puts around a module, at any depth
_WRAPPED = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def plain_name(key: str) -> str:
    """A tensor's name in the model: without the prefixes of torch.compile, data parallelism and Lightning."""
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
    if any(name == "register_token" or re.match(r"decoder\.\d+\.", name) for name in names):
        return Published.PI3
    if any(name.startswith(MASK_HEAD) for name in names):
        return Published.PAGE4D
    if any(name.startswith(_VGGT) for name in names):
        return Published.VGGT
    return None


def recognised(file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], files: tuple[TensorFile, ...]) -> Published:
    """The model that a checkpoint belongs to.

    Args:
        file: that was given, as errors name it.
        shapes: of all tensors, by their names in the model.
        files: that the tensors are in.

    Raises:
        UsageError: no model that is known, or one of the other networks that look alike: Pi3X, MV-PAGE4D.
    """
    if pi3x := [prefix for prefix in _PI3X if any(name.startswith(prefix) for name in shapes)]:
        raise UsageError(
            f"{file.name} is a Pi3X checkpoint, another network than Pi3",
            got=f"tensors {', '.join(f'{prefix}*' for prefix in pi3x)}",
            allowed="Pi3's own model.safetensors",
        )
    if reason := of_mv_page4d(shapes):
        raise UsageError(
            f"{file.name} is an MV-PAGE4D checkpoint, another network than PAGE-4D",
            got=reason,
            allowed="a camera head of 9 numbers without view_proj: translation, quaternion and two fields of view",
            hint="PAGE-4D's own checkpoint_150.pt or checkpoint_mask.pt, or VGGT's model.pt",
        )
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
        allowed="Pi3, VGGT or PAGE-4D, as their authors publish them",
        hint=hint,
    )
