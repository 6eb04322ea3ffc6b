"""Attention over several images that reads a sample of the other images' patches.

The published models' attention over all images has every token of a clip as a key. Here a query reads all keys of its
own image; of the other images it reads the special tokens and the patches on a grid. No key counts twice, and none
counts for another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from page4d.layout import Layout
from page4d.network.attention import rows_attention, segment_attention
from page4d.ops import BiasedRows


class Sampling(NamedTuple):
    """Which keys are read in a sequence of `images` images, of whose patches one in `one_in` is kept."""

    layout: Layout
    images: int
    one_in: int

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None = None,
        rows: BiasedRows | None = None,
        common: Tensor | None = None,
    ) -> Tensor:
        """As `biased_attention`, of the sampled keys.

        Args:
            q, k, v: `[Z,A,images*N,D]`.
            key_bias: `[Z,images*N]`, added to the logits of all heads and, without `rows`, of all queries; q's dtype.
            rows: the queries that `key_bias` is for, the first ones of every image.
            common: with `rows`, a bias of all queries on top, `[Z,images*N]`; or None.

        Returns:
            `[Z,A,images*N,D]`, q's dtype.
        """
        order = self._order(q.device)
        k, v = k.index_select(2, order), v.index_select(2, order)
        bias, common = (None if part is None else part.index_select(1, order) for part in (key_bias, common))
        if rows is None:
            return self._of_images(q, k, v, bias)
        assert bias is not None
        return rows_attention(q, k, v, bias, rows, common, self._of_images)

    def _of_images(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Attention of q `[Z,A,n,D]`, n/images queries of each image; k, v and bias in `_order`."""
        seg_ptr, seg = (torch.from_numpy(array) for array in self.layout.sampled_segments(self.images, self.one_in))
        return segment_attention(q, k, v, bias, seg_ptr, seg)

    def _order(self, device: torch.device) -> Tensor:
        """The keys' numbers in the order of `Layout.sampled_segments`, int64 `[images*N]`."""
        layout = self.layout
        is_sampled = np.ones(layout.N, bool)
        is_sampled[layout.special :] = False
        is_sampled[[layout.special + patch for patch in layout.sampled_patches(self.one_in)]] = True
        every = np.arange(self.images * layout.N).reshape(self.images, layout.N)
        return torch.from_numpy(np.concatenate((every[:, is_sampled].ravel(), every[:, ~is_sampled].ravel()))).to(
            device
        )
