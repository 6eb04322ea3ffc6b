"""An aggregator layer: View-SA, Time-SA and, in some layers, Global-SA.

View-SA goes over the views of a timestep, Time-SA over the timesteps of a view, Global-SA over the whole clip. Tokens
are `[S,B,T,V,N,C]` throughout. The first block that computes two streams gets one, and both start equal.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from page4d.config import ModelConfig, TimeEncoding
from page4d.layout import Layout
from page4d.network import rope as ropes
from page4d.network.attention import EpipolarPrior, biased_attention, rows_attention, segment_attention
from page4d.network.block import Block
from page4d.network.mask import clamped, key_bias, on_keys
from page4d.network.presence import on_absent, with_absent
from page4d.network.sparse import GlobalSA
from page4d.ops import BiasedRows


class ViewSA(nn.Module):
    """Attention within one timestep over all views."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.streams = config, config.streams_in(layer)
        self.block = Block(config.width, config.heads, *config.eps)
        if config.biased(layer):
            self.lambda_pose = nn.Parameter(torch.empty(()))
            self.lambda_geo = nn.Parameter(torch.empty(()))

    def forward(
        self,
        tokens: Tensor,
        layout: Layout,
        mask: Tensor | None = None,
        fundamental: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """tokens `[S or 1,B,T,V,N,C]`, mask `[B,T,V,P,1]`, fundamental `[V,V,3,3]`, present `[B,T,V]` -> tokens
        `[S,B,T,V,N,C]`."""
        x = tokens.flatten(3, 4).flatten(0, 2)  # [(S or 1)*B*T,V*N,C]
        bias = None
        if hasattr(self, "lambda_pose") and mask is not None:
            bias = key_bias(mask, -clamped(self.lambda_pose), clamped(self.lambda_geo), layout)
            bias = bias.flatten(3).flatten(0, 2).to(x.dtype)  # [S*B*T,V*N]
        if present is not None and layout.V > 1:
            absent = on_absent(present, layout, x).flatten(2).flatten(0, 1)  # [B*T,V*N]
            bias = with_absent(bias, absent, self.streams * len(absent))
        prior = None
        if fundamental is not None:
            prior = EpipolarPrior(
                fundamental,
                centres(layout, x.device).to(fundamental.dtype),
                self.config.epipolar_band,
                self.config.epipolar_penalty,
            )
        traits = self.config.traits
        tables = ropes.spatial if traits is None or traits.places_in_views else ropes.apart_from_special
        rope = tables(layout, self.config.head_dim, x)
        attend = partial(biased_attention, key_bias=bias, epipolar=prior)
        x = self.block(x, rope, attend, copies=self.streams // tokens.shape[0])
        return x.unflatten(0, (self.streams, *tokens.shape[1:3])).unflatten(3, (layout.V, layout.N))


class TimeSA(nn.Module):
    """Attention within one view over all timesteps."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.streams = config, config.streams_in(layer)
        self.block = Block(config.width, config.heads, *config.eps)
        if config.biased(layer):
            self.lambda_pose_t = nn.Parameter(torch.empty(()))
            self.lambda_geo_t = nn.Parameter(torch.empty(()))

    def forward(
        self,
        tokens: Tensor,
        layout: Layout,
        mask: Tensor | None = None,
        row_bias: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """tokens `[S or 1,B,T,V,N,C]`, mask or PAGE-4D's row_bias `[B,T,V,P,1]`, present `[B,T,V]` -> tokens
        `[S,B,T,V,N,C]`."""
        tokens = tokens.transpose(2, 3)  # [S or 1,B,V,T,N,C]
        x = tokens.flatten(3, 4).flatten(0, 2)  # [(S or 1)*B*V,T*N,C]
        bias = rows = absent = None
        if present is not None and layout.T > 1:
            absent = on_absent(present, layout, x).transpose(1, 2).flatten(2).flatten(0, 1)  # [B*V,T*N]
        if hasattr(self, "lambda_pose_t") and mask is not None:
            bias = key_bias(mask, -clamped(self.lambda_pose_t), clamped(self.lambda_geo_t), layout)
            bias = bias.transpose(2, 3).flatten(3).flatten(0, 2).to(x.dtype)  # [S*B*V,T*N]
        if row_bias is not None and self.config.row_mask is not None:
            bias = on_keys(row_bias, layout).transpose(1, 2)  # [B,V,T,N], one stream
            bias = bias.flatten(2).flatten(0, 1).to(x.dtype)  # [B*V,T*N]
            rows = BiasedRows(layout.N, layout.special, self.config.row_mask.gain)
        elif absent is not None:
            bias = with_absent(bias, absent, self.streams * len(absent))
        encoding, head_dim = self.config.time_encoding, self.config.head_dim
        attend = partial(biased_attention, key_bias=bias, rows=rows)
        if rows is not None and absent is not None:
            assert bias is not None
            attend = partial(rows_attention, key_bias=bias, rows=rows, common=absent)
        tables = ropes.spatial_and_time if encoding is TimeEncoding.ROPE else ropes.spatial
        rope = tables(layout, head_dim, x)
        if encoding is TimeEncoding.ALIBI and layout.T > 1:
            seg_ptr, seg = (torch.from_numpy(array) for array in layout.time_segments())
            attend = partial(
                segment_attention,
                key_bias=bias,
                seg_ptr=seg_ptr,
                seg=seg,
                segment_bias=alibi(layout, self.config.heads).to(x),
            )
        x = self.block(x, rope, attend, copies=self.streams // tokens.shape[0])
        return x.unflatten(0, (self.streams, *tokens.shape[1:3])).unflatten(3, (layout.T, layout.N)).transpose(2, 3)


class Layer(nn.Module):
    """One aggregator layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.order = config.order
        self.view_sa = ViewSA(config, layer)
        self.time_sa = TimeSA(config, layer)
        self.global_sa = GlobalSA(config, layer) if layer in (config.global_layers or ()) else None


def centres(layout: Layout, device: torch.device | None = None) -> Tensor:
    """Homogeneous centres of a view's tokens in model pixels, `[N,3]` float32; (0, 0, 0) for special tokens."""
    y, x = (ropes.positions(layout, device)[layout.special :] - 0.5).mul(layout.PATCH).unbind(1)
    return torch.cat((torch.zeros(layout.special, 3, device=device), torch.stack((x, y, torch.ones_like(x)), 1)))


def alibi(layout: Layout, heads: int) -> Tensor:
    """Bias on the segments of `Layout.time_segments`, `[A,T*T]` float32: minus a head's slope times their distance."""
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    timesteps = torch.arange(layout.T)
    return -slopes[:, None] * (timesteps[:, None] - timesteps).abs().flatten()
