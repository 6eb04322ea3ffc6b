"""Pi3X's metric head: one number for a clip, the metres of its unit.

Structure after yyfz/Pi3 @ fc6cf1f; parameters are called as in its checkpoint.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import HEAD_BLOCKS, ModelConfig
from page4d.layout import Layout
from page4d.network import rope as ropes
from page4d.network.block import LayerNorm, Mlp, island
from page4d.network.presence import on_absent
from page4d.network.rope import Rope, rotate

_EPS = 1e-6


class Metric(nn.Module):
    """A learned token that reads all tokens of a clip. Float32 or wider."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, 2 * config.width))
        self.decoder = MetricDecoder(config)
        self.head = nn.Linear(config.width // 2, 1)

    def forward(self, pair: Tensor, layout: Layout, present: Tensor | None = None) -> Tensor:
        """The last layer's pair `[B,T,V,N,2C]`, present `[B,T,V]` -> metres per unit `[B]`."""
        tokens = island(pair).flatten(1, 3)
        absent = None if present is None else on_absent(present, layout, tokens).flatten(1)  # [B,T*V*N]
        read = self.decoder(self.token.expand(pair.shape[0], -1, -1), tokens, layout, absent)
        return torch.exp(self.head(read)).flatten()


class MetricDecoder(nn.Module):
    """Linear, five blocks of cross-attention, linear; half the network's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.width // 2, max(config.heads // 2, 1)
        self.head_dim = width // heads
        self.projects_x = nn.Linear(2 * config.width, width)
        self.projects_y = nn.Linear(2 * config.width, width)
        self.blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(HEAD_BLOCKS))
        self.linear_out = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, layout: Layout, key_bias: Tensor | None = None) -> Tensor:
        """x `[B,1,2C]` reads y `[B,T*V*N,2C]`, with a bias `[B,T*V*N]` or None -> `[B,1,C/2]`."""
        x, y = self.projects_x(x), self.projects_y(y)
        rope = ropes.spatial(layout, self.head_dim, y)
        for block in self.blocks:
            x = block(x, y, rope, key_bias)
        out: Tensor = self.linear_out(x)
        return out


class CrossBlock(nn.Module):
    """Pre-norm block whose queries come from x and keys and values from y. No LayerScale, no norm of q and k."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm2 = LayerNorm(width, eps=_EPS)
        self.norm_y = LayerNorm(width, eps=_EPS)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(self, x: Tensor, y: Tensor, rope: Rope, key_bias: Tensor | None = None) -> Tensor:
        """x `[Z,1,C/2]`, y `[Z,m,C/2]`, its positions and a bias on it `[Z,m]` -> `[Z,1,C/2]`."""
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), rope, key_bias)
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


class CrossAttention(nn.Module):
    """Attention of queries at position (0, 0), which RoPE does not turn."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, rope: Rope, key_bias: Tensor | None = None) -> Tensor:
        """x `[Z,n,F]`, y `[Z,m,F]`, a bias on it `[Z,m]` -> `[Z,n,F]`."""
        products = (self.q_proj(x), self.k_proj(y), self.v_proj(y))
        q, k, v = (product.unflatten(-1, (self.heads, -1)) for product in products)  # [Z,.,A,D]
        k = rotate(k, rope)
        mask = None if key_bias is None else key_bias[:, None, None]
        attended = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out
