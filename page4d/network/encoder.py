"""The image encoder: a DINOv2 vision transformer with registers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from page4d.config import ModelConfig
from page4d.layout import Layout
from page4d.network.block import Block, LayerNorm

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_TRAINED_GRID = 37  # patches a side that the positional embedding was trained at


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, Layout.PATCH, stride=Layout.PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """x `[n,3,H,W]` -> `[n,P,C]`."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class Encoder(nn.Module):
    """uint8 images in, patch tokens out. No RoPE, no qk-norm, LayerNorm eps 1e-6."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, traits = config.width, config.traits
        self.registers = config.registers
        self.antialiased = traits is None or traits.antialiased
        self.selects = config.chooses_reference
        self.taps = config.dpt_layers if traits is not None and traits.sees_alone else ()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + _TRAINED_GRID**2, width))
        if self.registers:
            self.register_tokens = nn.Parameter(torch.empty(1, self.registers, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, eps=1e-6, qk_eps=None) for _ in range(config.encoder_depth)
        )
        self.norm = LayerNorm(width, eps=1e-6) if traits is None or traits.encoder_norm else None

    def forward(self, images: Tensor, position: Tensor | None = None) -> Tensor:
        """uint8 RGB `[n,H,W,3]` -> patch tokens `[n,P,C]`."""
        return self.encode(images, position)[0]

    def encode(self, images: Tensor, position: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """uint8 RGB `[n,H,W,3]` -> patch tokens `[n,P,C]`, and the cls tokens `[n,C]` that the reference view is chosen
        by, where it is: those that enter the last block."""
        x = self.prepared(self._normalised(images), position)
        selecting = None
        for number, block in enumerate(self.blocks):
            if self.selects and number == len(self.blocks) - 1:
                selecting = x[:, 0]
            x = block(x)
        return self._patches(x), selecting

    def tapped(self, images: Tensor, position: Tensor | None = None) -> list[Tensor]:
        """uint8 RGB `[n,H,W,3]` -> patch tokens `[n,P,C]` after each of the blocks that heads read."""
        x = self.prepared(self._normalised(images), position)
        tokens = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:  # once, however many maps a head makes of it
                tokens.append(x[:, 1 + self.registers :])
        return tokens

    def _normalised(self, images: Tensor) -> Tensor:
        """uint8 RGB `[n,H,W,3]` -> `[n,3,H,W]` in the weights' dtype, by ImageNet's mean and standard deviation."""
        dtype = self.cls_token.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        # mean and std are rounded to float32 in every precision, as the published models have them
        mean, std = (torch.tensor(values, dtype=torch.float32, device=images.device).to(wide) for values in (MEAN, STD))
        return (images.to(wide) * (1 / (255 * std)) - mean / std).permute(0, 3, 1, 2).to(dtype)

    def features(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Normalised images to patch tokens.

        Args:
            x: ImageNet-normalised `[n,3,H,W]`, in the weights' dtype.
            position: `position(h, w)`, where the caller keeps it.

        Returns:
            `[n,P,C]`: DINOv2's `x_norm_patchtokens`, or not normed.
        """
        x = self.prepared(x, position)
        for block in self.blocks:
            x = block(x)
        return self._patches(x)

    def _patches(self, x: Tensor) -> Tensor:
        patches = x[:, 1 + self.registers :]
        return patches if self.norm is None else self.norm(patches).to(x.dtype)

    def prepared(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Input of the first block, `[n,1+registers+P,C]`: cls, registers (which have no position), patches."""
        if position is None:
            position = self.position(x.shape[2] // Layout.PATCH, x.shape[3] // Layout.PATCH)
        cls = (self.cls_token + position[:, :1]).expand(x.shape[0], -1, -1)
        registers = (self.register_tokens.expand(x.shape[0], -1, -1),) if self.registers else ()
        return torch.cat((cls, *registers, self.patch_embed(x) + position[:, 1:]), dim=1)

    def position(self, h: int, w: int) -> Tensor:
        """The positional embedding of a grid of h x w patches, cls first, `[1,1+h*w,C]`: trained, or interpolated."""
        cls, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = math.isqrt(grid.shape[1])
        if (h, w) == (side, side):
            return self.pos_embed
        square = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # bicubic, in float32 in every precision
        if self.antialiased:  # a = -0.5
            fitted = F.interpolate(square.float(), size=(h, w), mode="bicubic", antialias=True, align_corners=False)
        else:  # a = -0.75; DINOv2's scale, which is a tenth of a patch off
            scale = ((h + 0.1) / side, (w + 0.1) / side)
            fitted = F.interpolate(square.float(), scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat((cls, fitted.permute(0, 2, 3, 1).flatten(1, 2).to(cls.dtype)), dim=1)
