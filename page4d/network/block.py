"""The transformer block that the whole network is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.network.attention import biased_attention
from page4d.network.rope import Rope, rotate

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def island(x: Tensor) -> Tensor:
    """x in the dtype that statistics are computed in: float32 where x has 16 bits, its own otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis, computed and returned in the island's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """x `[...,C]`."""
        return F.layer_norm(island(x), self.normalized_shape, island(self.weight), island(self.bias), self.eps)


class LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """x `[...,C]`."""
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, before: int, hidden: int, after: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(before, hidden)
        self.fc2 = nn.Linear(hidden, after)

    def forward(self, x: Tensor) -> Tensor:
        """x `[...,before]` -> `[...,after]`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Attention(nn.Module):
    """Projections around an attention op, with LayerNorm over each head's q and k where `qk_eps` is given."""

    def __init__(self, width: int, heads: int, qk_eps: float | None) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = LayerNorm(self.head_dim, eps=qk_eps) if qk_eps is not None else None
        self.k_norm = LayerNorm(self.head_dim, eps=qk_eps) if qk_eps is not None else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None,
        rope: Rope | None,
        context_rope: Rope | None,
        attend: Attend,
        copies: int = 1,
    ) -> Tensor:
        """Queries from x `[Z,n,C]`, keys and values from context `[Z,m,C]` (None: from x); `[copies*Z,n,C]`."""
        keys = x if context is None else context
        # three products instead of one and a split, which would copy: q, k and v go separate ways
        products = zip((x, keys, keys), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (
            F.linear(source, weight, bias).unflatten(-1, (self.heads, self.head_dim))  # [Z,n,A,D], [Z,m,A,D]
            for source, weight, bias in products
        )
        q = self._place(q, self.q_norm, rope).to(v.dtype)
        k = self._place(k, self.k_norm, rope if context is None else context_rope).to(v.dtype)
        if copies > 1:
            q, k, v = (torch.cat([part] * copies) for part in (q, k, v))
        out = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [Z,A,n,D]
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected

    @staticmethod
    def _place(x: Tensor, norm: LayerNorm | None, rope: Rope | None) -> Tensor:
        x = norm(x) if norm is not None else x
        return rotate(x, rope) if rope is not None else x


class Block(nn.Module):
    """Pre-norm block: `x += ls1 * attention(norm1 x)`, `x += ls2 * mlp(norm2 x)`.

    The eps of its norms belong to its weights' source. Without `qk_eps` q and k have no norm, without `scaled` there
    are no ls1, ls2.
    """

    def __init__(self, width: int, heads: int, eps: float, qk_eps: float | None, scaled: bool = True) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_eps)
        self.ls1 = LayerScale(width) if scaled else nn.Identity()
        self.norm2 = LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, 4 * width, width)
        self.ls2 = LayerScale(width) if scaled else nn.Identity()

    def set_eps(self, eps: float, qk_eps: float) -> None:
        """Take over the eps of a checkpoint's source."""
        self.norm1.eps = self.norm2.eps = eps
        for norm in (self.attn.q_norm, self.attn.k_norm):
            if norm is not None:
                norm.eps = qk_eps

    def forward(
        self,
        x: Tensor,
        rope: Rope | None = None,
        attend: Attend = biased_attention,
        context: Tensor | None = None,
        context_rope: Rope | None = None,
        copies: int = 1,
    ) -> Tensor:
        """Update x `[Z,n,C]`; `[copies*Z,n,C]`.

        Args:
            x: the tokens that give the queries.
            rope: their positions.
            attend: the attention op over q, k, v `[Z,A,.,D]`.
            context: the tokens that give keys and values, `[Z,m,C]`, normed by the same norm; None for x itself.
            context_rope: their positions.
            copies: streams that start equal and differ from `attend` on, which gets as many copies of the sequences,
                one after the other; everything before it is computed once.
        """
        context = None if context is None else self.norm1(context).to(x.dtype)
        attended = self.ls1(self.attn(self.norm1(x).to(x.dtype), context, rope, context_rope, attend, copies))
        x = x + attended if copies == 1 else (x + attended.unflatten(0, (copies, -1))).flatten(0, 1)
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x).to(x.dtype)))
        return out
