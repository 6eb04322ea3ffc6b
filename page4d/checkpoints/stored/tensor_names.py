"""Names of the tensors of layers and of transformer blocks, as all published models call them."""

from __future__ import annotations

_LINEARS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_PROJECTIONS = ("cross_attn.q_proj", "cross_attn.k_proj", "cross_attn.v_proj", "cross_attn.proj")


def pairs(*layers: str) -> tuple[str, ...]:
    """Weight and bias of each layer."""
    return tuple(f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias"))


PLAIN_BLOCK = pairs(*_LINEARS)
"""Tensors of a block without LayerScale."""
SCALED_BLOCK = (*PLAIN_BLOCK, "ls1.gamma", "ls2.gamma")
"""Tensors of a block with LayerScale: the encoder's, and those of VGGT's camera head."""
NORMED_BLOCK = (*SCALED_BLOCK, *pairs("attn.q_norm", "attn.k_norm"))
"""Tensors of an aggregator block, which has LayerNorms over q and k as well."""
CROSS_BLOCK = pairs("norm2", "norm_y", "norm3", *_PROJECTIONS, "mlp.fc1", "mlp.fc2")
"""Tensors of a block whose queries read other tokens: Pi3X's metric head."""


def numbered(prefix: str, count: int, leaves: tuple[str, ...]) -> tuple[str, ...]:
    """Tensors of blocks 0 to `count` - 1 under a prefix."""
    return tuple(f"{prefix}{number}.{leaf}" for number in range(count) for leaf in leaves)
