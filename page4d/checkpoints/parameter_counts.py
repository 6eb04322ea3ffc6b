"""How many parameters each part of a checkpoint has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from page4d.checkpoints.stored.stored_heads import CAMERA_ENCODER, head_of
from page4d.checkpoints.stored.stored_model import MASK_HEAD, StoredModel, stored_model
from page4d.checkpoints.stored.unused_parts import unused_part_of, unused_parts
from page4d.config import Published
from page4d.published import TRAITS


def parameter_counts(published: Published, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Numbers in each part of a file: encoder, layers, special tokens, mask head, each head, other.

    Args:
        published: the model.
        shapes: of all tensors in the file.

    Returns:
        The parts that the file has; together all numbers in it.
    """
    model = stored_model(published, shapes)
    parts = ["encoder", "layers", "special tokens", "mask head", *(f"{head} head" for head in TRAITS[published].heads)]
    parts += ["camera encoder", *(part.name for part in unused_parts(published)), "other"]
    counts = dict.fromkeys(parts, 0)
    for name, shape in shapes.items():
        counts[_part_of(published, model, name)] += math.prod(shape)
    return {part: count for part, count in counts.items() if count}


def _part_of(published: Published, model: StoredModel, name: str) -> str:
    if name in model.special:
        return "special tokens"
    if model.layers is not None and model.layers.has(name):
        return "layers"
    if name.startswith(model.encoder):
        return "encoder"
    if name.startswith(MASK_HEAD):
        return "mask head"
    if unused := unused_part_of(published, name):
        return unused.name
    if published is Published.DA3 and name.startswith(CAMERA_ENCODER.prefixes):
        return "camera encoder"
    head = head_of(published, name)
    return "other" if head is None else f"{head} head"
