"""How many parameters each part of a checkpoint has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from page4d.checkpoints.completeness import MASK_HEAD, blocks_of
from page4d.checkpoints.stored_heads import TRACK_HEAD, stored_heads
from page4d.config import Published

_SPECIAL_TOKENS = ("register_token", "aggregator.camera_token", "aggregator.register_token")


def parameter_counts(published: Published, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Numbers in each part of a file: encoder, layers, special tokens, mask head, each head, other.

    Args:
        published: the model.
        shapes: of all tensors in the file.

    Returns:
        The parts that the file has; together all numbers in it.
    """
    encoder, layers = blocks_of(published)
    parts = {"encoder": (encoder.prefixes[0].removesuffix("blocks."),), "layers": layers.prefixes}
    parts |= {"special tokens": _SPECIAL_TOKENS, "mask head": (MASK_HEAD,)}
    parts |= {f"{head} head": stored.prefixes for head, stored in stored_heads(published).items()}
    parts["track head"] = (TRACK_HEAD,)
    counts = dict.fromkeys((*parts, "other"), 0)
    for name, shape in shapes.items():
        part = next((part for part, prefixes in parts.items() if name.startswith(prefixes)), "other")
        counts[part] += math.prod(shape)
    return {part: count for part, count in counts.items() if count}
