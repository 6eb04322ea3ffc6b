"""Rotary position embedding over two image dimensions and, optionally, time: the tables and the rotation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from page4d.layout import Layout

BASE = 100.0


class Rope(NamedTuple):
    """Cosine and sine of every token's angles, `[r,1,D]` or `[Z,r,1,D]`.

    A sequence of n tokens repeats the r rows n/r times. The sign of the rotation is in `sin`, so that
    `x * cos + swapped(x) * sin` turns a pair.
    """

    cos: Tensor
    sin: Tensor

    def rows(self, index: Tensor) -> Rope:
        """The tables of tokens chosen by index; `index` int64 `[Z,m]` gives `[Z,m,1,D]`."""
        cos, sin = (table.index_select(0, index.flatten()).unflatten(0, index.shape) for table in self)
        return Rope(cos, sin)


def positions(layout: Layout, device: torch.device | None = None) -> Tensor:
    """(y, x) of a view's tokens, `[N,2]` float32: patches start at (1, 1), special tokens stand at (0, 0)."""
    rows, columns = (torch.arange(1, count + 1, device=device) for count in (layout.h, layout.w))
    grid = torch.cartesian_prod(rows, columns).reshape(-1, 2)
    return torch.cat((torch.zeros(layout.special, 2, dtype=grid.dtype, device=device), grid)).float()


def spatial(layout: Layout, head_dim: int, x: Tensor) -> Rope:
    """Tables of a view's N tokens, for x: the first half of a head turns with y, the second with x."""
    return _tables(_angles(positions(layout, x.device), head_dim), x)


def apart_from_special(layout: Layout, head_dim: int, x: Tensor) -> Rope:
    """Tables of a view's N tokens, for x: all patches stand at (1, 1), special tokens at (0, 0)."""
    places = positions(layout, x.device).clamp(max=1)
    return _tables(_angles(places, head_dim), x)


def spatial_and_time(layout: Layout, head_dim: int, x: Tensor) -> Rope:
    """Tables of T*N tokens, t slow, for x: the angle of the timestep is added to those of both halves."""
    timesteps = torch.arange(layout.T, device=x.device).float()[:, None].expand(layout.T, 2)
    angles = _angles(timesteps, head_dim)[:, None] + _angles(positions(layout, x.device), head_dim)  # [T,N,2,D/4]
    return _tables(angles.flatten(0, 1), x)


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
    cosines, sines = torch.stack((cos, cos), -2), torch.stack((-sin, sin), -2)  # [r,2,2,D/4]
    return Rope(cosines.flatten(-3).unsqueeze(-2), sines.flatten(-3).unsqueeze(-2))
