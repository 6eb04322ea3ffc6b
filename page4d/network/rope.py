"""Rotary position embedding over two dimensions, and time on top: tables, and the rotation itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from page4d.layout import Layout

BASE = 100.0


class Rope(NamedTuple):
    """Cosine and sine of every token's angles, `[r,1,D]` or `[Z,r,1,D]`: a sequence of n tokens repeats the r rows n/r
    times.

    The sign of the rotation is in `sin`, so that `x * cos + swapped(x) * sin` turns a pair.
    """

    cos: Tensor
    sin: Tensor

    def rows(self, index: Tensor) -> Rope:
        """The tables of tokens chosen by number; `index` int64 `[Z,m]` gives `[Z,m,1,D]`."""
        pick = lambda table: table.index_select(0, index.flatten()).unflatten(0, index.shape)
        return Rope(pick(self.cos), pick(self.sin))


def positions(layout: Layout, device: torch.device | None = None) -> Tensor:
    """(y, x) of a view's tokens, `[N,2]` float32: patches start at (1, 1), special tokens stand at (0, 0)."""
    grid = torch.cartesian_prod(
        torch.arange(1, layout.h + 1, device=device), torch.arange(1, layout.w + 1, device=device)
    ).reshape(-1, 2)
    return torch.cat((torch.zeros(layout.special, 2, dtype=grid.dtype, device=device), grid)).float()


def spatial(layout: Layout, head_dim: int, x: Tensor) -> Rope:
    """Tables of a view's N tokens, for x: the first half of a head turns with y, the second with x."""
    return _tables(_angles(positions(layout, x.device), head_dim), x)


def spatial_and_time(layout: Layout, head_dim: int, x: Tensor) -> Rope:
    """Tables of T*N tokens, t slow, for x: to both halves' angles comes that of the time."""
    times = torch.arange(layout.T, device=x.device).float()[:, None].expand(layout.T, 2)
    return _tables(
        (_angles(times, head_dim)[:, None] + _angles(positions(layout, x.device), head_dim)).flatten(0, 1), x
    )


def zeros(tokens: int, head_dim: int, x: Tensor) -> Rope:
    """Tables of tokens at position 0, which do not turn, for x."""
    return _tables(_angles(torch.zeros(tokens, 2, device=x.device), head_dim), x)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the pairs of every head: x `[Z,n,A,D]`, in the dtype of x."""
    cos, sin = rope.cos.to(x.dtype), rope.sin.to(x.dtype)
    quarter = x.shape[-1] // 4
    # channels of a head: y first half, y second half, x first half, x second half; a pair is (i, i + quarter) of y or
    # of x
    swap = torch.tensor([1, 0, 3, 2], device=x.device)
    swapped = x.unflatten(-1, (4, quarter)).index_select(-2, swap).flatten(-2)
    if cos.dim() == 4:  # tables by sequence
        return x * cos + swapped * sin
    tall = (x.shape[1] // cos.shape[0], cos.shape[0])
    return (x.unflatten(1, tall) * cos + swapped.unflatten(1, tall) * sin).flatten(1, 2)


def _angles(places: Tensor, head_dim: int) -> Tensor:
    """`[r,2,D/4]` from places (y, x) `[r,2]`. In float32 in every precision, as the published models have them."""
    half = head_dim // 2
    frequencies = 1.0 / (BASE ** (torch.arange(0, half, 2, device=places.device).float() / half))
    return places[..., None] * frequencies


def _tables(angles: Tensor, x: Tensor) -> Rope:
    """In float32, in float64 where x is."""
    wide = angles.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    cos, sin = wide.cos(), wide.sin()  # [r,2,D/4]
    return Rope(
        torch.stack((cos, cos), -2).flatten(-3).unsqueeze(-2), torch.stack((-sin, sin), -2).flatten(-3).unsqueeze(-2)
    )
