"""Pi3's and Pi3X's heads on the last layer's pair: points in the camera's frame, confidence, camera."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import HEAD_BLOCKS, ModelConfig
from page4d.layout import Layout
from page4d.network import rope as ropes
from page4d.network.block import Block, island
from page4d.network.heads.conv_head import ConvHead
from page4d.published import Published

_EPS = 1e-6
_LARGEST = 15.0  # logarithm of a depth in Pi3X


class Decoder(nn.Module):
    """Linear, five blocks within each image (RoPE, no LayerScale, no norm of q and k), linear."""

    def __init__(self, config: ModelConfig, out: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.projects = nn.Linear(2 * config.width, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, _EPS, qk_eps=None, scaled=False) for _ in range(HEAD_BLOCKS)
        )
        self.linear_out = nn.Linear(config.width, out)

    def forward(self, pair: Tensor, layout: Layout) -> Tensor:
        """pair `[B,T,V,N,2C]` -> `[B*T*V,N,out]`."""
        x = self.projects(pair.flatten(0, 2))
        rope = ropes.spatial(layout, self.head_dim, x)
        for block in self.blocks:
            x = block(x, rope)
        out: Tensor = self.linear_out(x)
        return out


class PixelHead(nn.Module):
    """A linear layer from each patch's token to all of its pixels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, channels * Layout.PATCH**2)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """tokens `[n,N,C]` -> `[n,H,W,channels]` in the island's dtype."""
        x = island(self.proj(tokens[:, layout.special :]))  # [n,P,channels*14*14], channel by channel, row by row
        patches = x.unflatten(2, (-1, layout.PATCH, layout.PATCH))
        grid = patches.unflatten(1, (layout.h, layout.w))  # [n,h,w,channels,14,14]
        return grid.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)


class Points(nn.Module):
    """Every pixel's point in its camera's frame: x right, y down, z forward, up to one scale for the clip."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        is_pi3x = config.published is Published.PI3X
        self.decoder = Decoder(config, config.width)
        self.head = ConvHead(config, (2, 1)) if is_pi3x else PixelHead(config.width, 3)
        self.largest = _LARGEST if is_pi3x else None

    def forward(self, pair: Tensor, layout: Layout) -> Tensor:
        """pair `[B,T,V,N,2C]` -> points `[B,T,V,H,W,3]`."""
        xy, z = self.head(self.decoder(pair, layout), layout).split([2, 1], dim=-1)
        z = (z if self.largest is None else z.clamp(max=self.largest)).exp()
        return torch.cat((xy * z, z), dim=-1).unflatten(0, pair.shape[:3])


class Confidence(nn.Module):
    """Every pixel's confidence, a logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config, config.width)
        self.head = ConvHead(config, (1,)) if config.published is Published.PI3X else PixelHead(config.width, 1)

    def forward(self, pair: Tensor, layout: Layout) -> Tensor:
        """pair `[B,T,V,N,2C]` -> confidence `[B,T,V,H,W]`."""
        return self.head(self.decoder(pair, layout), layout).squeeze(-1).unflatten(0, pair.shape[:3])


class Residual(nn.Module):
    """Three linear layers with ReLU beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x `[...,width]`."""
        return x + F.relu(self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(x))))))


class CameraHead(nn.Module):
    """Patch tokens to 12 values: a translation, and three rows that `page4d.network.poses` turns into a rotation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList(Residual(width) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, patches: Tensor) -> Tensor:
        """patches `[n,P,C]` -> `[n,12]` in the island's dtype."""
        x = patches
        for block in self.res_conv:
            x = block(x)
        x = self.more_mlps(island(x).mean(1).to(x.dtype))
        return island(torch.cat((self.fc_t(x), self.fc_rot(x)), dim=-1))


class Camera(nn.Module):
    """Every image's pose, before its rotation is made one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config, config.width // 2)
        self.head = CameraHead(config.width // 2)

    def forward(self, pair: Tensor, layout: Layout) -> Tensor:
        """pair `[B,T,V,N,2C]` -> translation and rows `[B,T,V,12]`."""
        return self.head(self.decoder(pair, layout)[:, layout.special :]).unflatten(0, pair.shape[:3])
