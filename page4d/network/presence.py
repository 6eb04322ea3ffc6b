"""Images that are absent from a clip, of a camera that was lost: the bias that takes them out of attention."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from page4d.layout import Layout
from page4d.network.block import Attend, island

ABSENT = -1e4
"""Bias on the keys of an absent image.

exp of it is 0 in every precision, and 16 bits hold it. It is not minus infinity: a query of which all keys are absent
(Time-SA of a view that was never there) then attends to them as if they were there, and no backend can make NaN of it.
Such a query is an absent image's own; nobody reads what becomes of it.
"""


def on_absent(present: Tensor, layout: Layout, x: Tensor) -> Tensor:
    """present `[B,T,V]`, 1 or 0, -> the bias of every token as a key `[B,T,V,N]`, in x's dtype."""
    wide = present.to(island(x).dtype)
    return ((1 - wide) * ABSENT).to(x.dtype)[..., None].expand(*present.shape, layout.N)


def with_absent(bias: Tensor | None, absent: Tensor, sequences: int) -> Tensor:
    """Bias on keys `[Z,m]`: `bias`, and that of absent images `[Z/S,m]`, the same in every stream."""
    of_streams = absent.repeat(sequences // absent.shape[0], 1)
    return of_streams if bias is None else bias + of_streams


def attend_to(present: Tensor | None, x: Tensor) -> Attend:
    """Plain attention of a head in which every image has one token: present `[B,T,V]` or `[B,V]`, for x `[B,n,C]`."""
    if present is None:
        return F.scaled_dot_product_attention
    absent = (1 - present.to(x.dtype).flatten(1)) * ABSENT  # [B,n]
    return partial(F.scaled_dot_product_attention, attn_mask=absent[:, None, None])


def first_present(present: Tensor) -> Tensor:
    """The number of each clip's first image that is there, t slow, v fast: present `[B,T,V]` -> int64 `[B]`."""
    return present.flatten(1).to(torch.uint8).argmax(1)
